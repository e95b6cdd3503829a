"""WorkerClient against the real worker, and its line reader against every way a pipe can cut a line."""

import json
import os
import signal
import time

import pytest


@pytest.fixture
def client(module):
    from MambaSegmentationLib.WorkerClient import WorkerClient

    made = WorkerClient()
    yield made
    made.quit()


def test_lines_cut_anywhere(module):
    from MambaSegmentationLib.WorkerClient import _Lines

    text = '{"text": "Größe 日本 ✓"}\n{"a": 1}\n\nend'
    data = text.encode()
    for size in (1, 2, 3, 5, len(data)):
        found = []
        lines = _Lines(found.append)
        for start in range(0, len(data), size):
            lines.feed(data[start : start + size])
        lines.end()
        assert found == ['{"text": "Größe 日本 ✓"}', '{"a": 1}', "end"]


def run_to_end(client, wait_until, job, params) -> list[dict]:
    events = []
    client.run(job, params, events.append)
    wait_until(lambda: events and events[-1]["event"] in ("finished", "failed", "cancelled"), 120)
    return events


def test_failure_of_a_job_is_its_own(client, wait_until):
    events = run_to_end(client, wait_until, "segment", {"input": "/nowhere/ä.nrrd", "model": "quick", "output": None})
    assert events[-1]["event"] == "failed" and events[-1]["error"] == "UserError"
    events = run_to_end(client, wait_until, "no such job", {})
    assert "no such job" in events[-1]["message"]
    assert client.processId, "the worker lives on"


def test_waiting_requests_survive_the_kill_of_the_one_before(client, wait_until, crop_file, model_folder):
    """A cancelled job that does not listen costs the worker its life; who waits in line is served by the next one."""
    params = {"input": str(crop_file), "model": str(model_folder / "endless"), "output": None, "device": "cpu"}
    first, second = [], []
    request = client.run("segment", params, first.append)
    wait_until(lambda: any(e["event"] == "progress" for e in first), 120)
    client.run("segment", {**params, "model": str(model_folder / "quick")}, second.append)
    pid = client.processId
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    client.cancel(request)
    wait_until(lambda: first[-1]["event"] == "cancelled", 5)
    assert time.monotonic() - start < 2.0
    wait_until(lambda: second and second[-1]["event"] in ("finished", "failed"), 120)
    assert second[-1]["event"] == "finished", second[-1]
    assert client.processId not in (0, pid)


def test_a_python_that_cannot_run_the_worker(client, wait_until, tmp_path):
    import slicer

    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'broken on purpose' >&2\nexit 3\n")
    python.chmod(0o755)
    settings = slicer.app.userSettings()
    old = settings.value("MambaSegmentation/pythonExecutable")
    settings.setValue("MambaSegmentation/pythonExecutable", str(python))
    try:
        (event,) = run_to_end(client, wait_until, "segment", {})
    finally:
        settings.remove("MambaSegmentation/pythonExecutable")
        if old:
            settings.setValue("MambaSegmentation/pythonExecutable", old)
    assert event["event"] == "failed" and "exit code 3" in event["message"]
    assert "broken on purpose" in event["traceback"]


def test_closed_for_good(client, wait_until):
    from MambaSegLib.errors import UserError

    run_to_end(client, wait_until, "no such job", {})
    pid = client.processId
    client.close()
    assert client.processId == 0 and pid
    with pytest.raises(UserError, match="ended its background process"):
        client.run("devices", {}, print)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_noise_on_the_pipe_is_logged(module):
    from MambaSegmentationLib.WorkerClient import WorkerClient

    log = []
    noisy = WorkerClient(log.append)
    noisy._onLine("Warning: some library printed")
    noisy._onLine(json.dumps({"id": "99", "event": "cancelled"}))
    assert log == ["Warning: some library printed"]


def test_environment_holds_the_library_once(module, monkeypatch):
    from MambaSegmentationLib.WorkerClient import workerEnvironment

    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    folders = workerEnvironment()["PYTHONPATH"].split(os.pathsep)
    assert folders[-1] == "/of/the/user" and len(folders) == len(set(folders))
    assert any(os.path.isfile(os.path.join(f, "MambaSegLib", "worker.py")) for f in folders)
