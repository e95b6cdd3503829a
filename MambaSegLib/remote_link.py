"""The connection to the worker of another computer: a command whose input and output are the pipes to it. Torch-free.

Three threads move lines, so that whoever asks never waits for the network: it looks ten times a second whether the
user has cancelled.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from . import __version__, remote_computer
from .errors import UserError
from .job import ENDINGS, Cancel, Report, Request, decode_event, encode_request
from .remote_computer import Computer
from .remote_protocol import LINE_BYTES, SIGN_OF_LIFE_S

_POLL_S = 0.1
_START_S = 60.0  # a slow login, and Python from a cold disk
_RESPONSE_S = 5.0  # of a connection that stood before; a computer that slept has lost it without a word
_CANCEL_S = 0.7  # the panel insists after 1.5 s
_END_S = 3.0
_GREETING_LINES = 200  # what the login may print before the worker speaks
_WAITING_EVENTS = 64
# A program of Slicer is started with Slicer's own libraries, which break those of the system, such as ssh.
_NOT_HANDED_ON = ("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "PYTHONHOME")


class Link:
    """A worker on another computer, from its start to its end.

    Args:
        computer: where.
        report: cancels the wait for its first answer.

    Attributes:
        sent_bytes: of all lines so far.

    Raises:
        UserError: the connection or the worker there does not come up; the message says why, the hint what to do.
        Cancelled: by the report.
    """

    def __init__(self, computer: Computer, report: Report):
        self.computer = computer
        self.sent_bytes = 0
        self._ids = itertools.count(1)
        self._waiting: dict[str, None] = {}  # ids of requests without an ending yet, in order
        self._log: collections.deque[str] = collections.deque(maxlen=20)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._inbox: queue.Queue[dict | str | None] = queue.Queue(_WAITING_EVENTS)
        self._is_closed = threading.Event()
        self._process = _started(computer)
        works = (self._write, self._read, lambda: _listen(self._process, computer.name, self._log))
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        try:
            self._greet(report)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it may be used for another request: alive, and nothing of an earlier one on its way."""
        return not self._is_closed.is_set() and not self._waiting and self._process.poll() is None

    def post(self, job: str, params: dict) -> str:
        """Send a request; returns its id. The worker there answers in the same order."""
        request_id = str(next(self._ids))
        self._waiting[request_id] = None
        self._send(encode_request(Request(request_id, job, params)))
        return request_id

    def answer(self, report: Report, on_event: Callable[[dict], None] | None = None, end: float | None = None) -> dict:
        """The ending of the oldest request that waits: event "finished", "failed" or "cancelled".

        Args:
            report: is asked for cancellation all the time.
            on_event: gets the events before it.
            end: of the wait for an event, as `time.monotonic` counts.

        Raises:
            UserError: the connection is lost, or what comes is no answer, or nothing. Cancelled: by the report.
        """
        oldest = next(iter(self._waiting))
        while True:
            event = self._event(report, end)
            if event.get("id") != oldest:
                raise remote_computer.not_understood(self.computer, "it answers another question")
            if event["event"] in ENDINGS:
                del self._waiting[oldest]
                return event
            if on_event:
                on_event(event)

    def ask(self, job: str, params: dict, report: Report) -> dict:
        """`post` and `answer` of a request that nothing waits before."""
        self.post(job, params)
        return self.answer(report)

    def responds(self, report: Report) -> bool:
        """Whether the worker there answers within a few seconds; the link is closed if not."""
        self.post("check", {"units": {}})
        try:
            self.answer(report, end=time.monotonic() + _RESPONSE_S)
            return True
        except UserError:
            self.close()
            return False

    def cancel(self) -> None:
        """Stop what is at work there. The link stays open if that ends soon; if not, it is closed."""
        for request_id in self._waiting:
            self._send(encode_request(Cancel(request_id)))
        end = time.monotonic() + _CANCEL_S
        try:
            while self._waiting:
                event = self._event(Report(), end)
                if event["event"] in ENDINGS:
                    self._waiting.pop(event.get("id"), None)
        except UserError:
            self.close()

    def close(self) -> None:
        """End the worker there and the command here, at once."""
        self._is_closed.set()
        self._outbox.put(None)
        with contextlib.suppress(OSError):
            self._process.terminate()
        threading.Thread(target=_insist, args=(self._process,), daemon=True).start()

    def _greet(self, report: Report) -> None:
        end = time.monotonic() + _START_S
        for _ in range(_GREETING_LINES):
            event = self._event(report, end, is_greeting=True)
            if event["event"] == "ready":
                if event["version"] != __version__:
                    raise remote_computer.other_version(self.computer, __version__, _plain_text(event["version"]))
                return
        raise remote_computer.not_understood(self.computer, "no worker speaks there")

    def _event(self, report: Report, end: float | None = None, is_greeting: bool = False) -> dict:
        """The next event. A line that is none is an error, but for the greeting that a login may print."""
        while True:
            report.check_cancelled()
            try:
                item = self._inbox.get(timeout=_POLL_S)
            except queue.Empty:
                if end is not None and time.monotonic() > end:
                    raise remote_computer.silent(self.computer, _START_S) from None
                continue
            if item is None:
                report.check_cancelled()
                raise self._ended(is_greeting)
            if isinstance(item, dict):
                return plain(item)
            if not is_greeting:
                raise remote_computer.not_understood(self.computer, item)
            self._log.append(item)  # perhaps it says why no worker speaks
            return {"event": "greeting"}

    def _ended(self, is_greeting: bool) -> UserError:
        try:
            code = self._process.wait(2)
            self._threads[-1].join(1)
        except subprocess.TimeoutExpired:
            code = None
        if is_greeting:
            return remote_computer.ended_early(self.computer, code, _plain_text("\n".join(self._log)))
        return remote_computer.lost(self.computer, code)

    def _send(self, line: str) -> None:
        data = line.encode("utf-8")
        self.sent_bytes += len(data)
        self._outbox.put(data)

    # Each in a thread of its own

    def _write(self) -> None:
        pipe = self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # the reader tells that it has ended
            while not self._is_closed.is_set():
                try:
                    line = self._outbox.get(timeout=SIGN_OF_LIFE_S)
                except queue.Empty:
                    line = b"\n"
                if line is None:
                    break
                pipe.write(line)
                pipe.flush()
        with contextlib.suppress(OSError, ValueError):
            pipe.close()

    def _read(self) -> None:
        while line := self._process.stdout.readline(LINE_BYTES):
            if not line.strip():
                continue
            try:
                item = decode_event(line)
            except UserError:
                item = _plain_text(line[:200].decode("utf-8", "replace").strip())
            if not self._put(item):
                return
        self._put(None)

    def _put(self, item) -> bool:
        """Wait until somebody takes it; False when nobody will any more."""
        while not self._is_closed.is_set():
            try:
                self._inbox.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False


def _started(computer: Computer) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_HANDED_ON}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # Of its own session: Ctrl-C in a terminal is for the job, which then says so to the other side.
    apart = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {"start_new_session": True}
    try:
        return subprocess.Popen(computer.command, env=environment, **pipes, **apart)
    except OSError as error:
        raise remote_computer.not_started(computer, error) from error


def _listen(process: subprocess.Popen, name: str, log: collections.deque[str]) -> None:
    """What ssh and the worker there complain about goes into the log here."""
    while line := process.stderr.readline(LINE_BYTES):
        text = _plain_text(line.decode("utf-8", "replace").strip())
        if text:
            log.append(text)
            print(f"{name}: {text}", file=sys.stderr)


def _insist(process: subprocess.Popen) -> None:
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:  # it does not listen
        process.kill()


def plain(value):
    """What came from elsewhere, without characters that steer a terminal."""
    if isinstance(value, dict):
        return {_plain_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return _plain_text(value) if isinstance(value, str) else value


def _plain_text(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else " " for c in text)
