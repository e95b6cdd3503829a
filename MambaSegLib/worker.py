"""The warm worker: ``python -m MambaSegLib.worker`` runs jobs for a process that must not wait, such as Slicer.

Requests arrive as JSON lines on stdin and run in order in the main thread; events leave as JSON lines on stdout (see
`job`). Whatever else a library prints goes to stderr. The end of stdin, or of the parent process, ends the worker
within two seconds even in the middle of a job, so that no orphan keeps a computer busy.
"""

import errno
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import BinaryIO

from . import __version__
from .errors import Cancelled, MissingPackage, UserError
from .job import Cancel, Report, Request, decode_request, encode_event, resolve

_PROGRESS_INTERVAL_S = 0.05
_GRACE_S = 1.5
_PARENT_POLL_S = 0.5
_OWN = ("MambaSegLib", "MambaSegTraining", "__main__", "")
_INSTALL_HINT = "Install it: the panel has a button for that; at the command line, pip install . in the project."
_OS_HINTS = {
    errno.ENOSPC: "The disk is full: make room on it, or choose another folder.",
    errno.EACCES: "There is no permission to write there: choose another folder, or ask who looks after the computer.",
    errno.EROFS: "That disk can only be read: choose another folder.",
}
_OUT_OF_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory")


class EventWriter:
    """Writes events, one flushed line each, from any thread.

    Progress is thinned to about 20 lines a second; the newest one is held back for that long, never lost.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._lock = threading.Lock()
        self._held: bytes | None = None
        self._last_progress_s = -_PROGRESS_INTERVAL_S

    def write(self, event: dict) -> None:
        """Raises TypeError when the event holds what JSON does not know."""
        line = encode_event(event).encode("utf-8", errors="replace")
        with self._lock:
            if event["event"] != "progress":
                self._release()
                self._send(line)
            elif time.monotonic() - self._last_progress_s < _PROGRESS_INTERVAL_S:
                if self._held is None:
                    timer = threading.Timer(_PROGRESS_INTERVAL_S, self.flush)
                    timer.daemon = True
                    timer.start()
                self._held = line
            else:
                self._held = None
                self._send(line)
                self._last_progress_s = time.monotonic()

    def flush(self) -> None:
        """Send the progress that is held back, if any."""
        with self._lock:
            self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._send(self._held)
            self._held = None
            self._last_progress_s = time.monotonic()

    def _send(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError:  # nobody reads any more, so there is nobody to work for
            os._exit(1)


class Worker:
    """Reads requests in a thread, runs them in the thread that calls `run`, and keeps `warm` between them.

    Args:
        requests: their lines.
        writer: of the events.
        find_job: gives the function of a job by its name, or raises UserError.
    """

    def __init__(self, requests: Iterable[bytes], writer: EventWriter, find_job: Callable[[str], Callable] = resolve):
        self._requests = requests
        self._writer = writer
        self._find_job = find_job
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._reports: dict[str, Report] = {}
        self._warm: dict = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        """Work until `stop`."""
        python = platform.python_version()
        self._writer.write({"id": None, "event": "ready", "pid": os.getpid(), "version": __version__, "python": python})
        threading.Thread(target=self._read, daemon=True, name="requests").start()
        while (request := self._queue.get()) is not None:
            self._perform(request, self._reports[request.id])
            del self._reports[request.id]

    @property
    def is_busy(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._reports)

    def stop(self) -> None:
        """Cancel the running job and the waiting ones; leave in time even if the job does not listen."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        timer = threading.Timer(_GRACE_S, os._exit, args=(1,))
        timer.daemon = True
        timer.start()
        for report in list(self._reports.values()):
            report.cancel()
        self._queue.put(None)

    def _read(self) -> None:
        for line in self._requests:
            if not line.strip():
                continue
            try:
                self._accept(decode_request(line))
            except UserError as error:
                self._writer.write(_failed(None, error))
        self.stop()

    def _accept(self, request: Request | Cancel) -> None:
        report = self._reports.get(request.id)
        if isinstance(request, Cancel):
            if report is not None:  # else the job ended while the request was on its way
                report.cancel()
        elif report is not None:
            raise UserError(f"A request with the id {request.id!r} is still at work.", "Give every request its own id.")
        else:
            self._reports[request.id] = Report(self._writer.write, request.id)
            self._queue.put(request)

    def _perform(self, request: Request, report: Report) -> None:
        """One job, from `started` to exactly one ending."""
        try:
            report.check_cancelled()
            self._writer.write({"id": request.id, "event": "started"})
            result = self._find_job(request.job)(request.params, report, self._warm)
            self._writer.write({"id": request.id, "event": "finished", "result": result})
        except Cancelled:
            self._writer.write({"id": request.id, "event": "cancelled"})
        except (Exception, SystemExit) as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            if _is_out_of_memory(error):
                self._warm.clear()
            self._writer.write(_failed(request.id, error))


def _failed(request_id: str | None, error: BaseException) -> dict:
    """The event that says what went wrong and what to do; with "package" when one is missing or damaged."""
    text = "" if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    error = _package_error(error) or error
    kind = type(error).__name__
    if isinstance(error, UserError):
        message, hint = error.message, error.hint
    elif _is_out_of_memory(error):
        kind = "OutOfMemory"
        message = (
            f"The job needs more memory than is free ({str(error).splitlines()[0] if str(error) else 'MemoryError'})."
        )
        hint = "Choose a smaller region of interest, close other programs, or choose the CPU if a GPU was used."
    elif isinstance(error, OSError) and error.errno in _OS_HINTS:
        kind = "DiskFull" if error.errno == errno.ENOSPC else "NotAllowed"
        message, hint = f"A file could not be written: {error}.", _OS_HINTS[error.errno]
    else:
        message = f"The job met an error in the program: {kind}: {error}"
        hint = "Send the log to the developers."
    event = {"id": request_id, "event": "failed", "error": kind, "message": message, "hint": hint, "traceback": text}
    return {**event, "package": error.package} if isinstance(error, MissingPackage) else event


def _package_error(error: BaseException) -> MissingPackage | None:
    """What is wrong with a package, told by where the error came from: not found, or an error while it was imported."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in _OWN:
        package = error.name.split(".")[0]
        return MissingPackage(package, f"The Python package {package!r} is not installed.", _INSTALL_HINT)
    if isinstance(error, ImportError | OSError | AttributeError | TypeError | SyntaxError):
        package = _imported_package(error)
        if package:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return MissingPackage(package, f"The Python package {package!r} is damaged ({reason}).", _INSTALL_HINT)
    return None


def _imported_package(error: BaseException) -> str:
    """The foreign package whose module-level code was running when the error came; "" if there was none."""
    for frame, _line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "").split(".")[0]
        if frame.f_code.co_name == "<module>" and name not in _OWN:
            return name
    return ""


def _is_out_of_memory(error: BaseException) -> bool:
    """Also for torch, whose CPU allocator raises a plain RuntimeError."""
    text = str(error).casefold()
    is_torch = isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY_TEXTS)
    return isinstance(error, MemoryError) or is_torch


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol: all others, C libraries and children too, get nothing and stderr."""
    requests = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stdout = sys.stderr
    return requests, events


def _watch_parent(worker: Worker) -> None:
    """Stop when the parent ends: a pipe alone does not tell when another child of the parent has inherited it."""
    parent = os.getppid()
    if sys.platform == "win32":
        import ctypes

        synchronize, infinite = 0x00100000, 0xFFFFFFFF
        handle = ctypes.windll.kernel32.OpenProcess(synchronize, False, parent)
        if not handle:
            return
        ctypes.windll.kernel32.WaitForSingleObject(handle, infinite)
    else:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
    worker.stop()


def serve(worker: Worker) -> None:
    """Work until the requests, the parent process or a signal end it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.stop())
    threading.Thread(target=_watch_parent, args=(worker,), daemon=True, name="parent").start()
    worker.run()


def leave() -> None:
    """End this process. Nothing is left to save, and the teardown of libraries with threads of their own can hang."""
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    requests, events = take_streams()
    serve(Worker(requests, EventWriter(events)))
    leave()


if __name__ == "__main__":
    main()
