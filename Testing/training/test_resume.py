"""A run that is killed, stopped or finds the disk full goes on with the losses it would have had."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.job import Report
from MambaSegTraining import checkpoint
from MambaSegTraining import train as train_module
from MambaSegTraining.losses import deep_supervision
from MambaSegTraining.run_folder import read_run
from MambaSegTraining.train import run

TRAINING = Path(__file__).resolve().parents[2] / "Training"
STEPS = 14

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


class Diary(Report):
    """Writes every loss to a file at once; calls ``at[step]()`` after that step."""

    def __init__(self, path, at=None):
        super().__init__(self.keep)
        self.path, self.at = Path(path), at or {}

    def keep(self, event):
        if event["event"] == "metric" and event["name"] == "loss":
            with open(self.path, "a") as file:
                file.write(f"{event['step']} {event['value']!r}\n")
            self.at.get(event["step"], lambda: None)()


def losses(path) -> dict:
    """{step: loss}; a step that was made twice must have had the same loss both times."""
    found = {}
    for line in Path(path).read_text().splitlines():
        step, value = line.split()
        assert found.setdefault(int(step), float(value)) == pytest.approx(float(value), rel=1e-6)
    return found


def train(config, folder, diary, resume=False, half_written=0):
    """In a process of its own. ``half_written``: dies in the middle of writing that checkpoint."""
    torch.set_num_threads(1)
    if half_written:
        count, save = [0], torch.save

        def dying(content, file):
            count[0] += 1
            if count[0] == half_written:
                file.write(b"PK" + bytes(5000))
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            save(content, file)

        torch.save = dying
    run({"config": config, "output": folder, "resume": resume}, Diary(diary))


@pytest.fixture(scope="module")
def server():
    """Processes that have their imports already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["MambaSegTraining.train"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TRAINING), before]))
    yield context
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture
def setting(config_file):
    return str(config_file(steps=STEPS, validate_every=7, checkpoint_every=2))


@pytest.fixture
def whole(setting, tmp_path):
    """The losses of a run that nothing happened to."""
    run({"config": setting, "output": str(tmp_path / "whole")}, Diary(tmp_path / "whole.txt"))
    return losses(tmp_path / "whole.txt")


def test_killed_at_random_moments(server, setting, whole, tmp_path):
    diary, folder, chance, kills = tmp_path / "parts.txt", tmp_path / "parts", random.Random(5), 0
    diary.touch()
    for resume in (False, True, True, True):
        made = len(diary.read_text().splitlines())
        process = server.Process(target=train, args=(setting, str(folder), str(diary), resume))
        process.start()
        while process.is_alive() and len(diary.read_text().splitlines()) < made + 3:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        kills += process.is_alive()
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            assert read_run(folder)["state"] == "stopped"
    assert kills >= 2
    if not (folder / "balls").exists():
        run({"config": setting, "output": str(folder), "resume": True}, Diary(diary))
    assert losses(diary) == pytest.approx(whole, rel=1e-5)
    assert read_run(folder)["state"] == "finished"


def test_killed_while_writing_a_checkpoint(server, setting, whole, tmp_path):
    diary, folder = tmp_path / "parts.txt", tmp_path / "parts"
    process = server.Process(target=train, args=(setting, str(folder), str(diary), False, 4))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (folder / "checkpoint.writing").stat().st_size >= 5000
    assert checkpoint.read(folder / "checkpoint.pt")["step"] == 4
    run({"config": setting, "output": str(folder), "resume": True}, Diary(diary))
    assert losses(diary) == pytest.approx(whole, rel=1e-5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_keeps_the_old_checkpoint(setting, whole, tmp_path):
    folder, diary = tmp_path / "parts", tmp_path / "parts.txt"

    def fill():
        (folder / "checkpoint.writing").symlink_to("/dev/full")

    with pytest.raises(UserError, match=r"step 8 cannot be written.*No space left.*before it is whole.*Make room"):
        run({"config": setting, "output": str(folder)}, Diary(diary, {8: fill}))
    assert checkpoint.read(folder / "checkpoint.pt")["step"] == 6
    assert read_run(folder)["state"] == "failed" and "No space left" in read_run(folder)["message"]
    run({"config": setting, "output": str(folder), "resume": True}, Diary(diary))
    assert losses(diary) == pytest.approx(whole, rel=1e-5)


def test_random_numbers_in_a_step_are_those_it_would_have_had(config_file, tmp_path, monkeypatch):
    """Dropout, stochastic depth: here a loss that throws dice."""
    setting = str(config_file(steps=6, checkpoint_every=3))
    monkeypatch.setattr(train_module, "loss_function", lambda config: lambda levels, labels: dicey(levels, labels))

    def dicey(levels, labels):
        return deep_supervision(levels, labels, (1, 1, 1)) * (1 + torch.rand(()))

    run({"config": setting, "output": str(tmp_path / "whole")}, Diary(tmp_path / "whole.txt"))
    report = Diary(tmp_path / "parts.txt")
    report.at = {4: report.cancel}
    with pytest.raises(Cancelled):
        run({"config": setting, "output": str(tmp_path / "parts")}, report)
    run({"config": setting, "output": str(tmp_path / "parts"), "resume": True}, Diary(tmp_path / "parts.txt"))
    assert losses(tmp_path / "parts.txt") == pytest.approx(losses(tmp_path / "whole.txt"), rel=1e-5)


def test_a_stopped_run_says_so_and_can_be_asked_again(setting, tmp_path):
    report = Diary(tmp_path / "losses.txt")
    report.at = {5: report.cancel}
    request = {"config": setting, "output": str(tmp_path / "run"), "resume": False}
    with pytest.raises(Cancelled):
        run(request, report)
    found = read_run(tmp_path / "run")
    assert (found["state"], found["step"], found["steps"], found["kind"]) == ("stopped", 4, STEPS, "train")
    result = run(found["request"] | {"resume": True}, Diary(tmp_path / "losses.txt"))
    assert read_run(tmp_path / "run")["result"] == {"bundle": result["bundle"]}


def test_two_processes_do_not_train_in_one_folder(server, setting, tmp_path):
    diary, folder = tmp_path / "losses.txt", tmp_path / "run"
    process = server.Process(target=train, args=(setting, str(folder), str(diary)))
    process.start()
    while not diary.exists() and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match=f"Process {process.pid} on .* is training in"):
            run({"config": setting, "output": str(folder), "resume": True}, Report())
    finally:
        process.kill()
        process.join()


def test_no_checkpoint_or_a_broken_one(setting, tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        run({"config": setting, "output": str(tmp_path / "run"), "resume": True}, Report())
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK" + bytes(100))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        run({"config": setting, "output": str(tmp_path / "run"), "resume": True}, Report())
