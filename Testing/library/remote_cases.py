"""Another computer for the tests of the job "remote": a process of this one; its folder is the fixture `there`."""

import shlex
import sys
import time
from pathlib import Path

import numpy as np

from MambaSegLib import remote
from MambaSegLib.image import read_labels
from MambaSegLib.job import Report

FAR = shlex.join([sys.executable, "-m", "MambaSegLib.remote_worker"])


def files_of(there: Path) -> list[Path]:
    """The private folders that are there now; torch has a cache of its own beside them."""
    return list(there.glob("mambaseg-*"))


def until(condition, timeout_s=10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def far(params: dict, warm: dict | None, job="segment", sink=None, computer=FAR, **more) -> dict:
    return remote.run({"computer": computer, "job": job, "params": params, **more}, Report(sink), warm)


def voxels(path) -> np.ndarray:
    return read_labels(path).array


def request(noise, bundle, output) -> dict:
    return {"input": str(noise), "model": str(bundle), "output": str(output), "device": "cpu"}
