"""``mambaseg worker``: the far half of the job "remote", started through ssh by another computer's worker.

It is the ordinary worker with three jobs of its own: "check" (which files are here), "receive" (a piece of a file) and
"run" (a job of `remote_protocol.EXCHANGED` on them, whose output files go back as events "piece"). All files lie in one
private folder. A small process keeps that folder and removes it when the worker has ended, however it ended; the
worker ends with its input, as every worker does, and when the other side has been silent or idle for long.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import UserError
from .job import Report, resolve
from .remote_protocol import EXCHANGED, IDLE_S, PIECE_BYTES, SILENCE_S
from .worker import EventWriter, Worker, leave, serve, take_streams

_KEPT_BYTES = 8 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FarJobs:
    """The jobs of the far half; their files lie in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._units: dict[str, dict[str, str]] = {}  # unit -> {file: SHA-256} of those complete; last used last
        self._file = None  # being received
        self._digest = hashlib.sha256()

    def find(self, name: str) -> Callable[..., dict]:
        jobs = {"check": self.check, "receive": self.receive, "run": self.run}
        if name not in jobs:
            raise UserError(f"Unknown request {name!r}.", "Install the same version on both computers.")
        return jobs[name]

    def check(self, request: dict, report: Report, warm: dict) -> dict:
        """request: "units": {unit: {file: SHA-256}}. Returns {missing: [unit], folder}; makes room for the missing."""
        wanted = request["units"]
        for unit in wanted:
            if unit in self._units:
                self._units[unit] = self._units.pop(unit)
        for unit in [unit for unit in self._units if unit not in wanted]:
            if self._bytes() <= _KEPT_BYTES:
                break
            shutil.rmtree(self._folder / unit, ignore_errors=True)
            del self._units[unit]
        missing = [unit for unit, files in wanted.items() if self._units.get(unit) != files]
        return {"missing": missing, "folder": str(self._folder) + os.sep}

    def receive(self, request: dict, report: Report, warm: dict) -> dict:
        """request: "unit", "name" of the file, "offset" of the piece in it, "data" in base64, "sha256" of the whole
        file with its last piece, else "". Raises UserError when it arrived damaged."""
        unit, name = _safe(request["unit"]), _safe(request["name"])
        path = self._folder / unit / name
        if request["offset"] == 0:
            self._close()
            path.parent.mkdir(exist_ok=True)
            self._file, self._digest = open(path, "wb"), hashlib.sha256()  # noqa: SIM115  (until the last piece)
        if self._file is None or Path(self._file.name) != path or self._file.tell() != request["offset"]:
            raise UserError("A file arrived in the wrong order.", "Start again.")
        data = base64.b64decode(request["data"], validate=True)
        self._file.write(data)
        self._digest.update(data)
        if request["sha256"]:
            self._close()
            if self._digest.hexdigest() != request["sha256"]:
                raise UserError(f"The file {name} arrived damaged.", "Start again.")
            self._units.setdefault(unit, {})[name] = request["sha256"]
        return {}

    def run(self, request: dict, report: Report, warm: dict) -> dict:
        """request: "job" and its "params", with {unit, main} for a file or model, and only the ending of an output."""
        job, params = request["job"], dict(request["params"])
        if job not in EXCHANGED:
            raise UserError(f"The job {job!r} does not run on another computer.", "Run it on this one.")
        sent, brought = EXCHANGED[job]
        for name in (*sent, "model"):
            if params.get(name):
                given = params[name]
                params[name] = [self._path(g) for g in given] if isinstance(given, list) else self._path(given)
        outputs = Path(tempfile.mkdtemp(prefix="out-", dir=self._folder))
        try:
            for name in brought:
                if params.get(name):
                    params[name] = str(outputs / _safe(name + params[name]))
            result = resolve(job)(params, report, warm)
            for name in brought:
                if params.get(name):
                    _send(name, Path(params[name]), report)
            return result
        finally:
            shutil.rmtree(outputs, ignore_errors=True)

    def _path(self, reference: dict) -> str:
        unit = _safe(reference["unit"])
        if unit not in self._units:
            raise UserError("A file of the job is not here.", "Start again.")
        main = reference["main"]
        return str(self._folder / unit / _safe(main)) if main else str(self._folder / unit)

    def _bytes(self) -> int:
        return sum(path.stat().st_size for unit in self._units for path in (self._folder / unit).iterdir())

    def _close(self) -> None:
        if self._file:
            self._file.close()
        self._file = None


def _safe(name: str) -> str:
    """A name without a way out of its folder."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"A plain file name was expected, but {name!r} came.", "Install the same version on both.")
    return name


def _send(name: str, path: Path, report: Report) -> None:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        data = file.read(PIECE_BYTES)
        while data:
            digest.update(data)
            following = file.read(PIECE_BYTES)
            text = base64.b64encode(data).decode("ascii")
            report.piece(name, text, "" if following else digest.hexdigest())
            data = following


class Heard:
    """The lines of a stream, when the last one came (`line_s`), and the last one that says something (`request_s`)."""

    def __init__(self, lines: Iterable[bytes]):
        self._lines = lines
        self.line_s = self.request_s = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.line_s = time.monotonic()
            if line.strip():
                self.request_s = self.line_s
            yield line


def _watch(heard: Heard, worker: Worker) -> None:
    """Stop the worker when the other side has gone, or has needed nothing for long."""
    while (now := time.monotonic()) - heard.line_s < SILENCE_S:
        if worker.is_busy:
            heard.request_s = now
        elif now - heard.request_s > IDLE_S:
            break
        time.sleep(min(5.0, SILENCE_S / 4))
    worker.stop()


def _work(folder: Path) -> None:
    requests, events = take_streams()
    heard = Heard(requests)
    worker = Worker(heard, EventWriter(events), FarJobs(folder).find)
    threading.Thread(target=_watch, args=(heard, worker), daemon=True, name="watch").start()
    serve(worker)
    shutil.rmtree(folder, ignore_errors=True)  # usually done by the other process: if that was killed, by this one
    leave()


def main() -> int:
    """Keep a folder for a worker that has this process's input and output; returns the worker's exit code."""
    with tempfile.TemporaryDirectory(prefix="mambaseg-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-u", "-m", "MambaSegLib.remote_worker", folder]
        worker = subprocess.Popen(command)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: worker.terminate())
        code = worker.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _work(Path(sys.argv[1]))
    sys.exit(main())
