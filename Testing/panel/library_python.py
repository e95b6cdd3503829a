"""The Python that has torch, in which the panel's worker and the command line run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_with_torch() -> str:
    return os.environ.get("MAMBASEG_TEST_PYTHON") or sys.executable


def run_python(*arguments, **options) -> subprocess.CompletedProcess:
    """The library's Python, as a user at the command line has it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python_with_torch(), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, **options)
