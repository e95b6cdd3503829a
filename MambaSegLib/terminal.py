"""What a program in a terminal needs: jobs with a progress line and Ctrl-C, exit codes, tables of plain text."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TextIO

from .errors import Cancelled, UserError
from .job import Report, resolve, to_json_value

DISCLAIMER = "For research only, not a medical device."
_BAR_WIDTH = 24


def guarded(command: Callable[[], None], program: str, verbose: bool = False) -> int:
    """Run `command`; complaints go to stderr in one line, with a traceback when `verbose`.

    Returns:
        The exit code: 0 done, 1 an error in the program, 2 something the user can put right, 130 cancelled.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a name that the terminal cannot show must not end the program
    try:
        command()
        return 0
    except BrokenPipeError:  # the reader, such as 'head', has seen enough; nothing may be flushed to it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if verbose:
            traceback.print_exc()
        complaint, code = _verdict(error)
    if code == 1 and not verbose:
        complaint += " (run it again with --verbose and send what it prints)"
    print(f"{program}: {complaint}", file=sys.stderr)
    return code


def _verdict(error: BaseException) -> tuple[str, int]:
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return "cancelled", 130
    return f"an error in the program, {type(error).__name__}: {error}", 1


def print_json(value) -> None:
    """A result for programs, on stdout."""
    print(json.dumps(to_json_value(value), indent=2, ensure_ascii=False))


def run_job(name: str, request: dict, verbose: bool = False) -> dict:
    """Run a job in this process with a progress line on stderr.

    The first Ctrl-C cancels it at its next report, so that it leaves nothing half-done; the second one stops at once.
    """
    line = ProgressLine(sys.stderr, verbose)
    report = Report(line)
    at_once = signal.getsignal(signal.SIGINT)

    def cancel(*_):
        signal.signal(signal.SIGINT, at_once)
        report.cancel()

    signal.signal(signal.SIGINT, cancel)
    try:
        return resolve(name)(request, report)
    finally:
        signal.signal(signal.SIGINT, at_once)
        line.close()


class ProgressLine:
    """A sink for `job.Report`: events become lines on a stream.

    On a terminal progress is one line that is drawn over; elsewhere a line appears every ten percent.

    Args:
        stream: usually stderr.
        verbose: also show messages of level "info".
    """

    def __init__(self, stream: TextIO, verbose: bool = False):
        self._stream = stream
        self._verbose = verbose
        self._is_terminal = stream.isatty()
        self._drawn = 0  # characters of the line that is being drawn over
        self._start: tuple[float, float] | None = None  # (time, fraction) of the first progress
        self._tenth = -1

    def __call__(self, event: dict) -> None:
        kind = event["event"]
        if kind == "progress":
            self._progress(event["done"], event["of"], event["label"])
        elif kind == "message" and (self._verbose or event["level"] == "warning"):
            self._line(f"{event['level']}: {event['text']}")
        elif kind == "metric" and event["value"] is not None:
            self._line(f"step {event['step']}: {event['name']} = {event['value']:.4f}")

    def close(self) -> None:
        """Leave the drawn line behind and go on below it."""
        if self._drawn:
            self._stream.write("\n")
            self._drawn = 0
        self._stream.flush()

    def _progress(self, done: float, of: float, label: str) -> None:
        fraction = min(max(done / of, 0.0), 1.0) if of else 0.0
        now = time.monotonic()
        if self._start is None or fraction < self._start[1]:
            self._start = (now, fraction)
        left = "" if label.endswith(" left") else self._time_left(now, fraction)  # the job knows better
        text = f"{100 * fraction:3.0f} %  {label}{left}"
        if self._is_terminal:
            filled = round(fraction * _BAR_WIDTH)
            text = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {text}"
            self._stream.write("\r" + text.ljust(self._drawn))
            self._stream.flush()
            self._drawn = len(text)
        elif int(fraction * 10) != self._tenth:
            self._tenth = int(fraction * 10)
            self._line(text)

    def _time_left(self, now: float, fraction: float) -> str:
        start_s, start_fraction = self._start
        if fraction <= start_fraction or fraction >= 1:
            return ""
        left_s = (now - start_s) * (1 - fraction) / (fraction - start_fraction)
        return f", {duration(left_s)} left"

    def _line(self, text: str) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._drawn = 0
        self._stream.write(text + "\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds as a person says them: "8 s", "2 min 05 s", "1 h 02 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def table(header: list[str], rows: list[list]) -> str:
    """Columns side by side under their names; columns of numbers stand right."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    right = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]

    def line(values: list[str]) -> str:
        aligned = [
            value.rjust(width) if is_right else value.ljust(width)
            for value, width, is_right in zip(values, widths, right, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, cells)])


def _text(value) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
