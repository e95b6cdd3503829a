"""The job protocol: what a job is, how it reports, and the JSON lines between a worker and whoever asks.

A job is a function ``run(params: dict, report: Report, warm: dict | None = None) -> dict`` named in `JOBS`. It reports
through `Report`, stops at its next report after `Report.cancel`, and raises `errors.UserError` for what the user can
put right. One line of JSON is one request (to the worker) or one event (from it). No torch here.
"""

import importlib
import json
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import Cancelled, MissingPackage, UserError

# name -> "module:function", resolved on request only: the library never imports the training by itself.
JOBS = {
    "segment": "MambaSegLib.segment:run",
    "devices": "MambaSegLib.devices:run",
    "doctor": "MambaSegLib.doctor:run",
    "packages": "MambaSegLib.packages:run",
    "download_packages": "MambaSegLib.package_download:run",
    "estimate": "MambaSegLib.estimate:run",
    "correct": "MambaSegLib.correct:run",
    "add_correction": "MambaSegLib.corrections:run",
    "compare": "MambaSegLib.comparison:run",
    "export_seg": "MambaSegLib.dicom_seg:run",
    "batch": "MambaSegLib.batch:run",
    "batch_look": "MambaSegLib.batch:look",
    "import": "MambaSegLib.import_model:run",
    "remote": "MambaSegLib.remote:run",
    "export": "MambaSegLib.export:run",
    "add_model": "MambaSegLib.model_add:run",
    "inspect_weights": "MambaSegLib.import_preview:run",
    "plan": "MambaSegTraining.plan:run",
    "train": "MambaSegTraining.train:run",
    "finetune": "MambaSegTraining.finetune:run",
    "evaluate": "MambaSegTraining.evaluation:run",
    "gate": "MambaSegTraining.gate:run",
}
LEVELS = ("info", "warning")
ENDINGS = ("finished", "failed", "cancelled")

_NUMBER = (int, float)
_EVENT_FIELDS = {
    "ready": {"pid": int, "version": str, "python": str},
    "started": {},
    "progress": {"done": _NUMBER, "of": _NUMBER, "label": str},
    "message": {"level": str, "text": str},
    "metric": {"step": int, "name": str, "value": (int, float, type(None))},
    "picture": {"step": int, "path": str, "text": str},
    "piece": {"name": str, "data": str, "sha256": str},
    "finished": {"result": dict},
    "failed": {"error": str, "message": str, "hint": str, "traceback": str},
    "cancelled": {},
}


@dataclass(frozen=True)
class Request:
    """Run job `job` with `params`; every event of the run carries `id`."""

    id: str
    job: str
    params: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Cancel:
    """Stop the request `id`, running or still waiting."""

    id: str


class Report:
    """What a job tells while it works, and how it learns that it shall stop.

    Args:
        sink: called with every event (a dict as in the protocol) in the job's thread; None is silent.
        request_id: the id that every event carries.

    Every method raises `errors.Cancelled` once `cancel` was called. `cancel` may be called from any thread.
    """

    def __init__(self, sink: Callable[[dict], None] | None = None, request_id: str | None = None):
        self._sink = sink
        self._id = request_id
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled("cancelled by the user")

    def progress(self, done: float, of: float, label: str = "") -> None:
        """`done` of `of` steps are complete; `label` is what a user reads beside the bar."""
        self._emit("progress", done=done, of=of, label=label)

    def message(self, text: str, level: str = "info") -> None:
        """One line for the user's log; `level` is "info" or "warning"."""
        if level not in LEVELS:
            raise ValueError(f"level is one of {LEVELS}, not {level!r}")
        self._emit("message", level=level, text=text)

    def metric(self, step: int, name: str, value: float | None) -> None:
        """One point of the curve `name`; None and NaN say that it does not exist at this step."""
        self._emit("metric", step=step, name=name, value=value)

    def picture(self, step: int, path: str, text: str) -> None:
        """A PNG that shows how things stand at this step; `text` says what is seen. Gone when the job is done."""
        self._emit("picture", step=step, path=path, text=text)

    def piece(self, name: str, data: str, sha256: str) -> None:
        """The next bytes of the output file `name` for another computer, in base64; sha256 of all with the last."""
        self._emit("piece", name=name, data=data, sha256=sha256)

    def _emit(self, event: str, **fields) -> None:
        self.check_cancelled()
        if self._sink is not None:
            self._sink({"id": self._id, "event": event, **fields})


def resolve(name: str) -> Callable[..., dict]:
    """The function of the job `name`, imported now. UserError when unknown, MissingPackage without what it needs."""
    if name not in JOBS:
        raise UserError(f"Unknown job {name!r}.", f"Known jobs are {', '.join(sorted(JOBS))}.")
    module_name, function_name = JOBS[name].split(":")
    # Before torch loads its OpenMP: threads that wait for each other shall sleep, not spin. Spinning takes processors
    # from other programs, such as Slicer, and so from itself (1.6 times slower beside two busy processes, measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        missing = (error.name or module_name).split(".")[0]
        raise MissingPackage(
            missing,
            f"The job {name!r} needs the Python package {missing!r}, which is not installed.",
            "Install the project with its dependencies (pip install .) and try again.",
        ) from error


def encode_request(request: Request | Cancel) -> str:
    """One line, newline included."""
    if isinstance(request, Cancel):
        return _encode({"cancel": request.id})
    return _encode({"id": request.id, "job": request.job, "params": request.params})


def decode_request(line: str | bytes) -> Request | Cancel:
    """The request in one line; UserError when it is malformed."""
    data = _decode(line, "request")
    if "cancel" in data:
        return Cancel(_field(data, "cancel", str, "cancel request"))
    params = data.get("params", {})
    if not isinstance(params, dict):
        raise _malformed("request", "params", "an object", params)
    return Request(_field(data, "id", str, "request"), _field(data, "job", str, "request"), params)


def encode_event(event: dict) -> str:
    """One line, newline included; values go through `to_json_value`."""
    return _encode(event)


def decode_event(line: str | bytes) -> dict:
    """The event in one line, all its fields checked; UserError when it is malformed."""
    data = _decode(line, "event")
    kind = _field(data, "event", str, "event")
    if kind not in _EVENT_FIELDS:
        raise _malformed("event", "event", "one of " + ", ".join(_EVENT_FIELDS), kind)
    if not isinstance(data.get("id"), str | None):
        raise _malformed("event", "id", "text or null", data["id"])
    for name, kinds in _EVENT_FIELDS[kind].items():
        _field(data, name, kinds, f"event {kind!r}")
    return data


def _encode(data: dict) -> str:
    return json.dumps(to_json_value(data), allow_nan=False, separators=(", ", ": ")) + "\n"


def to_json_value(value):
    """`value` made of what JSON knows: NaN and infinities become null, numpy numbers and arrays plain, paths text."""
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays, without importing either
        return to_json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _decode(line: str | bytes, what: str) -> dict:
    try:
        data = json.loads(line.decode("utf-8") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"A {what} is one line of JSON, got {_short(line)} ({error}).", "Send one object per line."
        ) from error
    if not isinstance(data, dict):
        raise UserError(f"A {what} is a JSON object, got {_short(line)}.", "Send one object per line.")
    return data


def _field(data: dict, name: str, kinds, what: str):
    value = data.get(name, ...)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        expected = " or ".join(_KIND_NAMES[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise _malformed(what, name, expected, value)
    return value


_KIND_NAMES = {str: "text", int: "a whole number", float: "a number", dict: "an object", type(None): "null"}


def _malformed(what: str, name: str, expected: str, found) -> UserError:
    came = "nothing" if found is ... else _short(found)
    return UserError(f"The field {name!r} of a {what} must be {expected}, got {came}.", "See MambaSegLib/job.py.")


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
