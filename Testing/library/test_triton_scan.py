"""The Triton scan, in Triton's interpreter: the one way to run it without a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interpreted_triton import CASES

from MambaSegLib.errors import UserError
from MambaSegLib.ops import triton_scan
from MambaSegLib.ops.selective_scan import LADDER, selective_scan_last

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def reports() -> dict:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed; it comes with torch for CUDA on Linux")
    places = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    command = [sys.executable, str(HERE / "interpreted_triton.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return {report["case"]: report for report in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference_and_its_gradients(case, reports):
    assert max(reports[case]["differences"]) < 1e-5, reports[case]


def test_the_cases_reach_every_way_of_cutting(reports):
    assert reports["segments"]["segments"] > 1
    assert reports["several launches"]["launches"] == 3
    assert reports["segments and launches"]["segments"] > 1 and reports["segments and launches"]["launches"] > 1


def test_is_between_the_package_and_pure_torch():
    names = [backend.name for backend in LADDER.backends]
    assert names.index("mamba_ssm") < names.index("triton") < names.index("torch")


def test_is_not_chosen_for_the_cpu_and_says_why():
    u = torch.randn(1, 3, 2)
    rows = torch.randn(1, 3, 1, 2)
    with pytest.raises(UserError, match="runs on cuda, not on cpu"):
        selective_scan_last(u, u, -torch.ones(2, 2), rows, rows, backend="triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_says_what_is_missing():
    assert triton_scan.why_not().startswith(("triton is not installed", "torch sees no CUDA device"))


def test_too_many_states_are_refused():
    with pytest.raises(ValueError, match="256"):
        triton_scan.scan(
            *[torch.zeros(1, 1, 1)] * 2, torch.zeros(1, 257), *[torch.zeros(1, 1, 1, 257)] * 2, *[None] * 4
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("states", [1, 16, 40])
def test_on_a_gpu_equals_the_reference(states):
    kind = {"device_type": "cuda", "dtype": "float32", "channels": 24, "states": states, "gate": True, "softplus": True}
    backend = next(b for b in LADDER.backends if b.name == "triton")
    assert backend.why_not() is None
    assert LADDER.verdict(backend, kind | {"gradients": True}) is None
