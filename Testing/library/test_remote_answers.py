"""The far half of the job "remote" by itself, and answers that must not be believed."""

import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")  # makes the model that is sent

from remote_cases import far, request

from MambaSegLib import remote_worker
from MambaSegLib.errors import UserError
from MambaSegLib.job import Report


def liar(name: str) -> str:
    return shlex.join([sys.executable, str(Path(__file__).with_name("remote_liars.py")), name])


def test_old_files_make_room_for_new_ones(tmp_path, monkeypatch):
    jobs = remote_worker.FarJobs(tmp_path)
    monkeypatch.setattr(remote_worker, "_KEPT_BYTES", 10)
    for unit, content in (("a", b"12345678"), ("b", b"87654321")):
        (tmp_path / unit).mkdir()
        (tmp_path / unit / "f").write_bytes(content)
        jobs._units[unit] = {"f": content.decode()}
    answer = jobs.check({"units": {"a": {"f": "12345678"}, "c": {"f": "x"}}}, Report(), {})
    assert answer["missing"] == ["c"] and not (tmp_path / "b").exists() and (tmp_path / "a" / "f").exists()


class Clock:
    """In place of the module `time`: hours pass at once."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("silence_s", "idle_s", "is_busy", "lasts_s"), [(90, 1800, False, 90), (1800, 90, False, 90), (900, 90, True, 900)]
)
def test_worker_ends_when_nobody_needs_it(monkeypatch, silence_s, idle_s, is_busy, lasts_s):
    class FakeWorker:
        stopped = 0

        def stop(self):
            self.stopped += 1

    clock, worker = Clock(), FakeWorker()
    worker.is_busy = is_busy
    monkeypatch.setattr(remote_worker, "time", clock)
    monkeypatch.setattr(remote_worker, "SILENCE_S", silence_s)
    monkeypatch.setattr(remote_worker, "IDLE_S", idle_s)
    heard = remote_worker.Heard([b"1\n", b"\n"])
    assert list(heard) == [b"1\n", b"\n"]
    remote_worker._watch(heard, worker)
    assert worker.stopped == 1 and lasts_s <= clock.now <= lasts_s + 5


def test_disk_full_there(there, noise, tiny_bundle, tmp_path):
    full = (
        "import errno, os, sys, pathlib; from MambaSegLib import remote_worker as w\n"
        "def receive(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "w.FarJobs.receive = receive; w._work(pathlib.Path(sys.argv[1]))"
    )
    computer = shlex.join([sys.executable, "-c", full, str(there / "x")])
    with pytest.raises(UserError, match="could not be written") as caught:
        far(request(noise, tiny_bundle, tmp_path / "a.seg.nrrd"), {}, computer=computer)
    assert "disk is full" in caught.value.hint


LIES = ("other file", "file twice", "damaged", "no base64", "unfinished", "no file", "line without end", "no event")


@pytest.mark.parametrize("lie", [*LIES, "other question"])
def test_wrong_answers_write_nothing(there, noise, tiny_bundle, tmp_path, lie):
    output = tmp_path / "kept.seg.nrrd"
    output.write_bytes(b"as it was")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot be used"):
        far(request(noise, tiny_bundle, output), {}, computer=liar(lie))
    assert output.read_bytes() == b"as it was" and sorted(tmp_path.rglob("*")) == before


def test_texts_from_there_are_plain(there, noise, tiny_bundle, tmp_path):
    events, output = [], tmp_path / "a.seg.nrrd"
    result = far(request(noise, tiny_bundle, output), {}, computer=liar("honest"), sink=events.append)
    assert result["output"] == str(output) and output.read_bytes() == b"labels"
    assert result["warnings"] == ["a is odd"], "folders there mean nothing here"
    assert "\x1b" not in str(events) + result["name"] and any("hello" in str(event) for event in events)


def test_another_version(there):
    with pytest.raises(UserError, match="9.9.9") as caught:
        far({}, {}, "devices", computer=liar("other version"))
    assert "Install" in caught.value.hint
