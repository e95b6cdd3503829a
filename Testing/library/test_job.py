"""The job protocol: reports, cancellation from another thread, lines that survive anything, clear refusals."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from MambaSegLib import job
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.job import Cancel, Report, Request


def test_a_report_makes_the_protocols_events():
    events = []
    report = Report(events.append, "7")
    report.progress(3, 10, "Window 3 of 10")
    report.message("odd voxels", "warning")
    report.metric(10, "loss", 0.3)
    report.picture(10, "preview.png", "Case 1")
    assert events == [
        {"id": "7", "event": "progress", "done": 3, "of": 10, "label": "Window 3 of 10"},
        {"id": "7", "event": "message", "level": "warning", "text": "odd voxels"},
        {"id": "7", "event": "metric", "step": 10, "name": "loss", "value": 0.3},
        {"id": "7", "event": "picture", "step": 10, "path": "preview.png", "text": "Case 1"},
    ]
    assert [job.decode_event(job.encode_event(event)) for event in events] == events


def test_a_report_without_sink_is_silent():
    report = Report()
    report.progress(1, 2)
    report.message("hello")
    report.metric(1, "loss", 1.0)
    report.check_cancelled()


def test_an_unknown_level_is_a_mistake_of_the_programmer():
    with pytest.raises(ValueError, match="level"):
        Report().message("hello", "fatal")


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.progress(1, 2),
        lambda r: r.message("x"),
        lambda r: r.metric(1, "x", 1.0),
        lambda r: r.picture(1, "x.png", "x"),
        lambda r: r.check_cancelled(),
    ],
)
def test_every_call_raises_after_cancel_and_tells_nothing_more(call):
    events = []
    report = Report(events.append, "1")
    call(report)
    events.clear()
    thread = threading.Thread(target=report.cancel)
    thread.start()
    thread.join()
    assert report.is_cancelled
    with pytest.raises(Cancelled):
        call(report)
    assert events == []


@pytest.mark.parametrize("request_", [Request("7", "segment", {"input": "Schädel 頭.nii.gz"}), Cancel("7")])
def test_requests_survive_the_way(request_):
    line = job.encode_request(request_)
    assert line.endswith("\n") and line.count("\n") == 1
    assert job.decode_request(line) == request_
    assert job.decode_request(line.encode("utf-8")) == request_


def test_values_that_json_does_not_know_become_plain():
    result = {
        "dice": np.float32(0.5),
        "hd": float("nan"),
        "n": np.int64(3),
        "path": Path("a") / "b",
        "t": (1, np.bool_(1)),
    }
    event = {"id": "1", "event": "finished", "result": {**result, "array": np.arange(3), 4: "int key"}}
    line = job.encode_event(event)
    plain = json.loads(line, parse_constant=pytest.fail)["result"]
    expected = {"dice": 0.5, "hd": None, "n": 3, "path": str(Path("a") / "b"), "t": [1, True], "array": [0, 1, 2]}
    assert plain == {**expected, "4": "int key"}


def test_text_with_line_breaks_stays_on_one_line():
    line = job.encode_event({"id": "1", "event": "message", "level": "info", "text": "a\nb\r\nc\u2028d"})
    assert line.count("\n") == 1
    assert job.decode_event(line)["text"] == "a\nb\r\nc\u2028d"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ["one line of JSON"]),
        ("{", ["one line of JSON", "'{'"]),
        (b"\xff\xfe", ["one line of JSON"]),
        ("[1]", ["JSON object"]),
        ("[" * 100_000, ["one line of JSON"]),
        ('{"job": "segment"}', ["'id'", "text", "nothing"]),
        ('{"id": 7, "job": "segment"}', ["'id'", "text", "7"]),
        ('{"id": "7", "job": null}', ["'job'", "text", "None"]),
        ('{"id": "7", "job": "segment", "params": []}', ["'params'", "object", "[]"]),
        ('{"cancel": 7}', ["'cancel'", "text", "7"]),
    ],
)
def test_malformed_requests_are_refused_in_words(line, words):
    with pytest.raises(UserError) as caught:
        job.decode_request(line)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"id": "1"}, ["'event'", "nothing"]),
        ({"id": "1", "event": "surprise"}, ["'event'", "surprise"]),
        ({"id": 1, "event": "started"}, ["'id'", "text or null"]),
        ({"id": "1", "event": "progress", "done": "3", "of": 10, "label": ""}, ["'done'", "number", "'3'"]),
        ({"id": "1", "event": "progress", "done": True, "of": 10, "label": ""}, ["'done'", "number"]),
        ({"id": "1", "event": "finished", "result": None}, ["'result'", "object"]),
        ({"id": "1", "event": "failed", "error": "UserError", "message": "x", "hint": "y"}, ["'traceback'", "nothing"]),
    ],
)
def test_malformed_events_are_refused_in_words(event, words):
    with pytest.raises(UserError) as caught:
        job.decode_event(json.dumps(event))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_job_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'dance'.*segment"):
        job.resolve("dance")


@pytest.mark.parametrize("name", sorted(job.JOBS))
def test_every_job_in_the_table_is_there_and_takes_what_the_worker_gives(name):
    import inspect

    assert list(inspect.signature(job.resolve(name)).parameters)[:3] == ["request", "report", "warm"]
