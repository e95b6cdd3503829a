"""The worker as its clients meet it: a real process, real pipes, the real job "segment", and jobs that misbehave."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib.image import read_labels
from MambaSegLib.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="signals and process trees of POSIX")

MISBEHAVING_JOBS = """
import ctypes, os, subprocess, sys, time
from MambaSegLib.errors import UserError

def noisy(request, report, warm):
    print("printed by Python")
    os.write(1, b"written to descriptor 1\\n")
    subprocess.run([sys.executable, "-c", "print('printed by a child'); import sys; sys.stdin.read()"], check=True)
    if os.name != "nt":
        libc = ctypes.CDLL(None)
        libc.puts(b"put by C")
        libc.fflush(None)
    report.message("heard")
    return {"text": "\\u00e4\\u982d"}

def deaf(request, report, warm):
    report.message("asleep")
    time.sleep(60)

def flood(request, report, warm):
    for done in range(20001):
        report.progress(done, 20000, "many")
    return {}

def silent_after_progress(request, report, warm):
    report.progress(1, 3, "first")
    report.progress(2, 3, "second")
    time.sleep(1)
    return {}

def patient(request, report, warm):
    while True:
        report.message("working")
        time.sleep(0.02)

def count(request, report, warm):
    warm["n"] = warm.get("n", 0) + 1
    return {"n": warm["n"]}

def fail(request, report, warm):
    warm["n"] = 100
    errors = {
        "user": UserError("A was expected, B came.", "Give A."),
        "bug": ZeroDivisionError("by zero"),
        "exit": SystemExit(3),
        "memory": MemoryError(),
        "torch_memory": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 TB"),
    }
    if request["kind"] == "unserialisable":
        return {"value": object()}
    raise errors[request["kind"]]
"""
START_WITH_THEM = """
from MambaSegLib import job, worker
names = "noisy deaf flood silent_after_progress patient count fail".split()
job.JOBS.update({name: "misbehaving_jobs:" + name for name in names})
worker.main()
"""


class Client:
    """A worker process and a thread that reads its events."""

    def __init__(self, arguments, folder):
        paths = [str(ROOT), str(ROOT / "Training"), str(folder)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.log = open(folder / "log.txt", "w+b")  # noqa: SIM115  (closed by the fixture)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put((time.monotonic(), line))
        self.lines.put((time.monotonic(), b""))

    def send(self, text):
        self.process.stdin.write((text if isinstance(text, str) else json.dumps(text)).encode() + b"\n")
        self.process.stdin.flush()

    def event(self, timeout=60):
        """The next event; every line must be one."""
        return json.loads(self.lines.get(timeout=timeout)[1])

    def until(self, *kinds, timeout=60):
        """All events up to the first of one of `kinds`."""
        events = []
        while not events or events[-1]["event"] not in kinds:
            events.append(self.event(timeout))
        return events

    def run(self, identifier, job, **params):
        self.send({"id": identifier, "job": job, "params": params})
        return self.until("finished", "failed", "cancelled")

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.log.close()


@pytest.fixture
def start(tmp_path):
    clients = []
    (tmp_path / "misbehaving_jobs.py").write_text(MISBEHAVING_JOBS, encoding="utf-8")

    def starting(*arguments):
        client = Client(arguments or ("-c", START_WITH_THEM), tmp_path)
        clients.append(client)
        assert client.event()["event"] == "ready"
        return client

    yield starting
    for client in clients:
        client.close()


def volume_file(path, size):
    """An image of noise with `size` voxels along each axis."""
    array = np.random.default_rng(0).normal(size=(size,) * 3).astype(np.float32)
    sitk.WriteImage(Volume(array).to_sitk(), str(path))
    return path


def test_it_says_that_it_is_ready_before_torch_is_loaded(tmp_path):
    client = Client(("-m", "MambaSegLib.worker"), tmp_path)
    ready = client.event(timeout=10)
    client.close()
    assert (ready["id"], ready["event"], ready["pid"]) == (None, "ready", client.process.pid)
    code = "import sys, MambaSegLib.worker; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_two_segmentations_in_a_row_share_the_warm_model(start, tmp_path, tiny_bundle):
    client = start("-m", "MambaSegLib.worker")
    params = {"input": str(volume_file(tmp_path / "a.nrrd", 40)), "model": str(tiny_bundle), "device": "cpu"}
    events = client.run("1", "segment", **params, output=str(tmp_path / "a.seg.nrrd"))
    assert [events[0]["event"], events[-1]["event"]] == ["started", "finished"], events[-1]
    assert {event["id"] for event in events} == {"1"}
    progress = [event for event in events if event["event"] == "progress"]
    assert progress and all(0 <= event["done"] <= event["of"] for event in progress)
    first = events[-1]["result"]
    second = client.run("2", "segment", **params, output=str(tmp_path / "b.seg.nrrd"))[-1]["result"]
    assert second["seconds"]["load"] < first["seconds"]["load"] / 3
    assert second["segments"] == first["segments"]
    assert np.array_equal(read_labels(tmp_path / "a.seg.nrrd").array, read_labels(tmp_path / "b.seg.nrrd").array)


def test_cancel_stops_a_segmentation_and_leaves_nothing(start, tmp_path, tiny_bundle):
    client = start("-m", "MambaSegLib.worker")
    large, small = volume_file(tmp_path / "large.nrrd", 200), volume_file(tmp_path / "small.nrrd", 33)
    output = tmp_path / "out" / "result.seg.nrrd"
    output.parent.mkdir()
    params = {"model": str(tiny_bundle), "device": "cpu", "output": str(output)}
    client.send({"id": "1", "job": "segment", "params": params | {"input": str(large)}})
    client.until("progress")
    asked = time.monotonic()
    client.send({"cancel": "1"})
    assert client.until("cancelled", "finished", "failed")[-1] == {"id": "1", "event": "cancelled"}
    assert time.monotonic() - asked < 2
    assert list(output.parent.iterdir()) == []
    assert client.run("2", "segment", **params, input=str(small))[-1]["event"] == "finished"
    assert [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("job", ["segment", "deaf"])
def test_the_end_of_stdin_ends_it_in_the_middle_of_a_job(start, tmp_path, tiny_bundle, job):
    client = start()
    params = {}
    if job == "segment":
        output = tmp_path / "x.seg.nrrd"
        params = {"input": str(volume_file(tmp_path / "a.nrrd", 200)), "model": str(tiny_bundle), "output": str(output)}
    client.send({"id": "1", "job": job, "params": params})
    client.until("progress" if job == "segment" else "message")
    client.process.stdin.close()
    closed = time.monotonic()
    client.process.wait(timeout=10)
    assert time.monotonic() - closed < 2.5
    assert not (tmp_path / "x.seg.nrrd").exists()


def test_the_end_of_stdin_ends_an_idle_worker_at_once(start):
    client = start()
    client.process.stdin.close()
    assert client.process.wait(timeout=1) == 0


@posix
def test_it_ends_with_its_parent_even_when_stdin_stays_open(tmp_path):
    read_end, write_end = os.pipe()
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'MambaSegLib.worker'])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=read_end, stdout=subprocess.PIPE, cwd=ROOT)
    assert json.loads(parent.stdout.readline())["event"] == "ready"
    parent.kill()
    killed = time.monotonic()
    assert parent.stdout.read() == b""  # returns when the last process that holds this pipe is gone
    assert time.monotonic() - killed < 2.5
    parent.wait()
    os.close(read_end)
    os.close(write_end)


def test_prints_of_any_kind_go_to_the_log_and_not_into_the_protocol(start):
    client = start()
    events = client.run("1", "noisy")
    assert [event["event"] for event in events] == ["started", "message", "finished"]
    assert events[-1]["result"] == {"text": "\u00e4\u982d"}
    expected = ["printed by Python", "written to descriptor 1", "printed by a child"]
    assert all(text in client.log_text() for text in expected + ["put by C"] * (os.name != "nt"))


def test_progress_is_thinned_but_the_last_one_arrives(start):
    client = start()
    progress = [event for event in client.run("1", "flood") if event["event"] == "progress"]
    assert len(progress) < 2000  # of 20000 reports; about 20 a second
    assert progress[-1]["done"] == 20000
    assert [event["done"] for event in progress] == sorted(event["done"] for event in progress)


def test_progress_that_is_held_back_is_shown_while_the_job_goes_on(start):
    client = start()
    client.send({"id": "1", "job": "silent_after_progress"})
    arrivals = {}
    while "finished" not in arrivals:
        at, line = client.lines.get(timeout=10)
        event = json.loads(line)
        arrivals[event.get("label") or event["event"]] = at
    assert arrivals["finished"] - arrivals["second"] > 0.5


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("user", "UserError", ["A was expected, B came.", "Give A."]),
        ("bug", "ZeroDivisionError", ["ZeroDivisionError: by zero", "log"]),
        ("exit", "SystemExit", ["SystemExit: 3", "log"]),
        ("memory", "OutOfMemory", ["memory", "region of interest"]),
        ("torch_memory", "OutOfMemory", ["9 TB", "region of interest"]),
        ("unserialisable", "TypeError", ["JSON", "log"]),
    ],
)
def test_a_failing_job_tells_what_and_what_to_do_and_the_worker_goes_on(start, kind, error, words):
    client = start()
    failed = client.run("1", "fail", kind=kind)[-1]
    assert (failed["id"], failed["event"], failed["error"]) == ("1", "failed", error)
    assert all(word in f"{failed['message']} {failed['hint']}" for word in words), failed
    assert ("Traceback" in failed["traceback"]) == (kind != "user")
    assert ("Traceback" in client.log_text()) == (kind != "user")
    count = client.run("2", "count")[-1]["result"]["n"]
    assert count == (1 if "memory" in kind else 101)  # what was warm is let go when memory ran out


@pytest.mark.parametrize("line", ["not json", "[1]", '{"id": 3, "job": "count"}', '{"id": "3"}', '{"cancel": 3}'])
def test_a_malformed_line_is_answered_and_survived(start, line):
    client = start()
    client.send(line)
    failed = client.event()
    assert (failed["id"], failed["event"], failed["error"]) == (None, "failed", "UserError")
    client.send("")
    assert client.run("1", "count")[-1]["result"] == {"n": 1}


def test_an_unknown_job_fails_with_the_known_ones(start):
    failed = start().run("1", "dance")[-1]
    assert failed["event"] == "failed" and "segment" in failed["hint"]


def test_requests_wait_their_turn_and_can_be_cancelled_while_they_wait(start):
    client = start()
    client.send({"id": "1", "job": "patient"})
    client.until("message")
    for identifier in ("2", "3"):
        client.send({"id": identifier, "job": "count"})
    for identifier in ("never sent", "2", "1"):
        client.send({"cancel": identifier})
    events = [event for event in client.until("finished") if event["event"] != "message"]
    assert [(event["id"], event["event"]) for event in events] == [
        ("1", "cancelled"), ("2", "cancelled"), ("3", "started"), ("3", "finished")]  # fmt: skip


def test_an_id_that_is_at_work_is_refused(start):
    client = start()
    client.send({"id": "1", "job": "patient"})
    client.until("message")
    client.send({"id": "1", "job": "count"})
    failed = client.until("failed")[-1]
    assert failed["id"] is None and "'1'" in failed["message"]
    client.send({"cancel": "1"})
    assert client.until("cancelled")[-1]["id"] == "1"


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_and_ends_the_worker(start, number):
    client = start()
    client.send({"id": "1", "job": "patient"})
    client.until("message")
    client.process.send_signal(number)
    assert client.until("cancelled", timeout=5)[-1]["id"] == "1"
    assert client.process.wait(timeout=3) == 0
