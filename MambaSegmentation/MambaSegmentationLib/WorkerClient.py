"""The only code that knows processes: one warm worker, requests and events as lines of JSON."""

import contextlib
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError
from MambaSegLib.job import ENDINGS, Cancel, Request, decode_event, encode_request

from . import FarComputer, Settings

PYTHON_SETTING = "MambaSegmentation/pythonExecutable"
CANCEL_GRACE_MS = 1500
_QUIT_GRACE_MS = 300
_KEPT_LOG_LINES = 20


def workerPython() -> str:
    """The Python that runs the jobs: the user's setting, else Slicer's own. Raises UserError if there is none."""
    chosen = slicer.util.settingsValue(PYTHON_SETTING, "", converter=str)
    if chosen:
        if not Path(chosen).is_file():
            raise UserError(
                _("The Python of the settings does not exist: {path}.").format(path=chosen),
                _("Correct or remove '{key}' in Slicer's settings.").format(key=PYTHON_SETTING),
            )
        return chosen
    beside = Path(str(getattr(slicer.app, "slicerHome", ""))) / "bin" / "PythonSlicer"
    found = next((str(p) for p in (beside, beside.with_suffix(".exe")) if p.is_file()), shutil.which("PythonSlicer"))
    if not found and Path(sys.executable or "").stem.lower().startswith("python"):
        found = sys.executable  # a Slicer that runs inside a plain Python
    if not found:
        raise UserError(
            _("Slicer's Python (PythonSlicer) was not found beside the application."),
            _("Set '{key}' in Slicer's settings to a Python with torch.").format(key=PYTHON_SETTING),
        )
    return found


def workerEnvironment() -> dict[str, str]:
    """Slicer's startup environment, as its own library paths would break another Python, and our packages' folders."""
    environment = dict(slicer.util.startupEnvironment())
    specs = [find_spec(name) for name in ("MambaSegLib", "MambaSegTraining")]
    folders = [str(Path(next(iter(spec.submodule_search_locations))).parent) for spec in specs if spec]
    old = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*folders, *([old] if old else [])]))
    environment["PYTHONIOENCODING"] = "utf-8"
    environment.update(Settings.workerVariables())
    return environment


class _Lines:
    """Cuts a stream of bytes into lines of text; a piece may end anywhere, even inside a character."""

    def __init__(self, onLine: Callable[[str], None]):
        self._rest = b""
        self._onLine = onLine

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.strip():
                self._onLine(line.decode("utf-8", "replace"))

    def end(self) -> None:
        self.feed(b"\n")


def _bytes(data) -> bytes:
    """PythonQt before 4 gives the content of a QByteArray as text, or None when there is none."""
    return (data or "").encode("utf-8", "surrogateescape") if isinstance(data, str) or data is None else bytes(data)


class _Worker:
    """One process from start to end. Tells lines of stdout, lines of stderr, and its end (once, with the reason)."""

    def __init__(self, onLine, onLog, onEnded):
        self.lastLog: list[str] = []
        self.pid = 0  # of the Python itself, when it has said so: PythonSlicer is only its launcher
        self._onLog, self._onEnded = onLog, onEnded
        self._out, self._err = _Lines(onLine), _Lines(self._log)
        self._process = qt.QProcess()
        self._connections = [
            ("readyReadStandardOutput()", self._readOutput),
            ("readyReadStandardError()", self._readError),
            ("finished(int,QProcess::ExitStatus)", self._onProcessFinished),
            ("errorOccurred(QProcess::ProcessError)", self._onProcessError),
        ]
        for signature, slot in self._connections:
            self._process.connect(signature, slot)

    def start(self, python: str, environment: dict[str, str]) -> None:
        values = qt.QProcessEnvironment()
        for key, value in environment.items():
            values.insert(key, value)
        self._process.setProcessEnvironment(values)
        self._process.start(python, ["-u", "-m", "MambaSegLib.worker"])

    def send(self, line: str) -> None:
        self._process.write(line.encode("utf-8"))

    def kill(self) -> None:
        """End it now, launcher and Python; nothing more is told about it."""
        self._disconnect()
        self._process.closeWriteChannel()
        if self.pid and self._process.state() != qt.QProcess.NotRunning:
            with contextlib.suppress(OSError):  # it has just ended by itself
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._process.kill()

    def quit(self) -> None:
        """Let it end by itself (it does at the end of its input), and end it if it takes its time."""
        self._disconnect()
        self._process.closeWriteChannel()
        if not self._process.waitForFinished(_QUIT_GRACE_MS):
            self.kill()
            self._process.waitForFinished(_QUIT_GRACE_MS)

    def _disconnect(self) -> None:
        for signature, slot in self._connections:
            self._process.disconnect(signature, slot)
        self._connections = []

    def _log(self, line: str) -> None:
        self.lastLog = [*self.lastLog, line][-_KEPT_LOG_LINES:]
        self._onLog(line)

    def _readOutput(self) -> None:
        self._out.feed(_bytes(self._process.readAllStandardOutput().data()))

    def _readError(self) -> None:
        self._err.feed(_bytes(self._process.readAllStandardError().data()))

    def _onProcessFinished(self, exitCode: int) -> None:
        self._readOutput()
        self._readError()
        self._out.end()
        self._err.end()
        crashed = int(self._process.exitStatus()) == int(qt.QProcess.CrashExit)
        what = _("signal {code}") if crashed and sys.platform != "win32" else _("exit code {code}")
        self._disconnect()
        self._onEnded(self, _("stopped unexpectedly ({how})").format(how=what.format(code=exitCode)))

    def _onProcessError(self) -> None:
        if int(self._process.error()) == int(qt.QProcess.FailedToStart):
            reason = self._process.errorString()
            self._disconnect()
            self._onEnded(self, _("could not be started ({reason})").format(reason=reason))


@dataclass
class _Request:
    line: str
    onEvent: Callable[[dict], None]
    isStarted: bool = False
    isCancelled: bool = False


class WorkerClient:
    """Runs jobs in the worker, which starts with the first request and is kept warm; some on another computer.

    Every request tells its events (dicts as in MambaSegLib.job) to a plain callable in the GUI thread; the last one is
    always finished, failed or cancelled, also when the worker dies or does not listen.

    >>> client = WorkerClient()
    >>> request = client.run("segment", {"input": "head.nrrd", "model": "hippocampus", "output": "a.seg.nrrd"}, print)
    >>> client.cancel(request)
    """

    def __init__(self, onLog: Callable[[str], None] = lambda line: None):
        self.onLog = onLog
        self._worker: _Worker | None = None
        self._retired: _Worker | None = None  # a process must not be deleted in the middle of its own signal
        self._requests: dict[str, _Request] = {}
        self._ids = itertools.count(1)
        self._isClosed = False

    @property
    def processId(self) -> int:
        """Of the running worker; 0 before it has reported ready and after its end."""
        return self._worker.pid if self._worker else 0

    def run(self, job: str, params: dict, onEvent: Callable[[dict], None]) -> str:
        """Queue a job, return its id. Raises UserError: no Python, images may not go there, or after `close`."""
        self.ensureOpen()
        job, params = FarComputer.routed(job, params)
        if self._worker is None:
            self._start()
        requestId = str(next(self._ids))
        request = _Request(encode_request(Request(requestId, job, params)), onEvent)
        self._requests[requestId] = request
        self._worker.send(request.line)
        return requestId

    def cancel(self, requestId: str) -> None:
        """Ask the worker to stop this job; it is stopped for good if it has not ended soon after."""
        request = self._requests.get(requestId)
        if request is None or request.isCancelled:
            return
        request.isCancelled = True
        if self._worker:
            self._worker.send(encode_request(Cancel(requestId)))
        qt.QTimer.singleShot(CANCEL_GRACE_MS, lambda: self._insist(requestId))

    def quit(self) -> None:
        """End the worker and all requests, as cancelled; the next run starts a new one."""
        worker, self._worker = self._worker, None
        if worker:
            worker.quit()
        for key in list(self._requests):
            self._end(key, {"id": key, "event": "cancelled"})

    def close(self) -> None:
        """End the worker for good, as widgets may still speak when the module has gone; calls nobody back."""
        self._isClosed = True
        self._requests.clear()
        self.quit()

    def ensureOpen(self) -> None:
        """Raises UserError after `close`."""
        if self._isClosed:
            raise UserError(_("The module has ended its background process."), _("Reload the module or Slicer."))

    def _start(self) -> None:
        python, environment = workerPython(), workerEnvironment()
        self._worker = _Worker(self._onLine, lambda line: self.onLog(line), self._onEnded)
        self._worker.start(python, environment)

    def _insist(self, requestId: str) -> None:
        """The time to end politely is over: kill the worker; who still waits in line goes to a new one."""
        if requestId not in self._requests:
            return
        self._retire()
        waiting = {key: r for key, r in self._requests.items() if not r.isStarted and not r.isCancelled}
        for key in [key for key in self._requests if key not in waiting]:
            self._end(key, {"id": key, "event": "cancelled"})
        if waiting:
            self._start()
            for request in waiting.values():
                self._worker.send(request.line)

    def _retire(self) -> None:
        self._retired, self._worker = self._worker, None
        if self._retired:
            self._retired.kill()

    def _onLine(self, line: str) -> None:
        try:
            event = decode_event(line)
        except UserError:
            self.onLog(line)  # some library went round the protocol and wrote to the pipe
            return
        if event["event"] == "ready":
            self._worker.pid = event["pid"]
        request = self._requests.get(event.get("id"))
        if request is None:
            return
        if event["event"] in ENDINGS:
            self._end(event["id"], event)
        else:
            request.isStarted = True
            request.onEvent(event)

    def _onEnded(self, worker: _Worker, reason: str) -> None:
        if worker is not self._worker:
            return
        self._retired, self._worker = worker, None
        for key, request in list(self._requests.items()):
            self._end(key, {"id": key, "event": "cancelled"} if request.isCancelled else _died(key, worker, reason))

    def _end(self, requestId: str, event: dict) -> None:
        self._requests.pop(requestId).onEvent(event)


def _died(requestId: str, worker: _Worker, reason: str) -> dict:
    return {
        "id": requestId,
        "event": "failed",
        "error": "WorkerDied",
        "message": _("The background process {reason}.").format(reason=reason),
        "hint": _(
            "Often the memory of the computer was not enough: choose a region of interest or close other programs, "
            "then try again."
        ),
        "traceback": "\n".join(worker.lastLog),
    }
