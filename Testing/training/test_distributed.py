"""Two processes on the CPU, started as a cluster starts them, learn what one process learns."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from MambaSegLib.bundle import open_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.job import Report
from MambaSegTraining.config import read_config
from MambaSegTraining.distributed import Ranks
from MambaSegTraining.run_folder import read_run
from MambaSegTraining.train import new_run, run

SETTING = {"steps": 4, "batch": 4, "validate_every": 4, "checkpoint_every": 2, "ema_decay": 0.0, "optimizer": "sgd"}


def torchrun(processes: int, *arguments) -> subprocess.CompletedProcess:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*launcher, "--master-port", str(port), "-m", "MambaSegLib.cli", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def weights(bundle):
    return torch.cat([t.float().flatten() for _, t in sorted(load_file(open_bundle(bundle).weights_path).items())])


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo rendezvous")
def test_two_processes_learn_what_one_does(config_file, tmp_path):
    path = config_file(**SETTING)
    single = run({"config": str(path), "output": str(tmp_path / "one")}, Report())
    done = torchrun(2, "train", str(path), "-o", str(tmp_path / "two"), "--distributed", "--json")
    assert done.returncode == 0, done.stderr
    double = json.loads(done.stdout)  # one result: the other process says nothing
    curves = [open_bundle(r["bundle"]).data["provenance"]["curve"] for r in (single, double)]
    assert curves[1][-1]["loss"] == pytest.approx(curves[0][-1]["loss"], rel=0.05)
    start = torch.cat(
        [
            t.flatten()
            for _, t in sorted(new_run(read_config(path), torch.device("cpu"), Report()).network.state_dict().items())
        ]
    )
    one, two = weights(single["bundle"]), weights(double["bundle"])
    # Dice over halves of the batch is not Dice over the batch, so the gradients differ a little.
    assert (one - two).norm() < 0.25 * (one - start).norm()
    found = read_run(tmp_path / "two")
    assert (found["state"], found["step"]) == ("finished", 4)
    assert not [p for p in (tmp_path / "two").glob("*.writing")]


def test_shares_together_are_the_batch():
    batch = torch.arange(6)
    shares = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist() and {len(s) for s in shares} == {2}


def test_without_a_launcher_the_command_is_told(config_file, tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="RANK.*is not set.*torchrun --nproc-per-node"):
        run({"config": str(config_file()), "output": str(tmp_path), "distributed": True}, Report())


def test_a_batch_that_cannot_be_shared_is_refused(config_file, tmp_path, monkeypatch):
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 3,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="batch of 2 cannot be shared by 3 processes"):
        run({"config": str(config_file()), "output": str(tmp_path), "distributed": True}, Report())
