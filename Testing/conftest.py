"""Fixtures for all tests: where the real images are, and a quiet, offline torch."""

import os
from pathlib import Path

import pytest

# Before torch loads: threads that wait sleep, so that tests stay quick on a machine that does other things too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real labelled images and the authors' outputs, beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("real images are absent: they stand in a folder 'shared' beside the checkout")
    return folder


@pytest.fixture(scope="session")
def hippocampus(shared) -> Path:
    """Medical Segmentation Decathlon, task 04, in its usual layout."""
    return shared / "data" / "hippocampus_msd"
