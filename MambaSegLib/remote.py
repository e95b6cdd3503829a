"""The job "remote": another job, on another computer. Needs no torch here.

It sends the files that the job reads, each once, tells what the job reports, and brings its output files home. The
connection is `remote_link`; what travels stands in `remote_files`; the other half is `remote_worker`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from . import __version__, remote_computer
from . import request as fields
from .errors import Cancelled, UserError
from .job import Report
from .label_file import OUTPUT_EXTENSIONS
from .remote_files import Arrivals, Luggage, Unfit, Unit
from .remote_link import Link
from .remote_protocol import EXCHANGED

_ON_THE_WAY = 8  # pieces of a file that are not confirmed yet
_COURTESY_BYTES = 16 << 20


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "computer" (see `remote_computer.parse`), "job" (one of `remote_protocol.EXCHANGED`), its "params" with
            paths of this computer; "courtesy": True for what nobody waits for: it fails rather than connects or sends
            large files.
        report: progress, messages and cancellation; its texts begin with the computer's name.
        warm: keeps the connection between runs.

    Returns:
        The other job's result, with paths of this computer, and {computer, version, round_trip_s, sent_bytes}.

    Raises:
        UserError: anything the user can put right, there or here; no output is written then. Cancelled: by the report.
    """
    computer = remote_computer.parse(fields.needed(request, "computer"))
    job, params = fields.needed(request, "job"), request.get("params") or {}
    if job not in EXCHANGED:
        raise UserError(f"The job {job!r} does not run on another computer.", "Run it on this one.")
    kept = {} if warm is None else warm
    is_courtesy = bool(request.get("courtesy"))
    wanted = {name: path for name in EXCHANGED[job][1] if (path := fields.output(params, name))}
    if len(set(wanted.values())) < len(wanted):
        raise UserError(f"Different output files were expected, but all are '{params['output']}'.", "Rename one.")
    with tempfile.TemporaryDirectory(prefix="mambaseg-", ignore_cleanup_errors=True) as folder:
        luggage = Luggage(job, params, Path(folder), report)
        try:
            link = _link(kept, request["computer"], computer, report, is_courtesy)
            return _Visit(link, report, luggage, wanted, is_courtesy).run(job)
        except Cancelled:
            if "link" in kept:
                kept["link"][1].cancel()
            raise
        finally:
            if "link" in kept and (warm is None or not kept["link"][1].is_open):
                kept.pop("link")[1].close()


def _link(kept: dict, text: str, computer: remote_computer.Computer, report: Report, is_courtesy: bool) -> Link:
    """The connection that is there, or a new one; one at a time."""
    known, link = kept.get("link", (None, None))
    if known == text and link.is_open and link.responds(report):
        return link
    if is_courtesy:
        raise UserError(f"There is no connection to {computer.name} yet.", "Start a run.")
    if link:
        link.close()
    report.message(f"Connecting to {computer.name}")
    kept["link"] = text, Link(computer, report)
    return kept["link"][1]


class _Visit:
    """One job on the other computer."""

    def __init__(self, link: Link, report: Report, luggage: Luggage, wanted: dict[str, Path], is_courtesy: bool):
        self._link, self._report, self._luggage, self._is_courtesy = link, report, luggage, is_courtesy
        self._wanted, self._name, self._folder = wanted, link.computer.name, ""
        self._arrivals = Arrivals(wanted)

    def run(self, job: str) -> dict:
        try:
            return self._run(job)
        except Unfit as error:
            self._link.close()
            raise remote_computer.not_understood(self._link.computer, str(error)) from error
        finally:
            self._arrivals.discard()

    def _run(self, job: str) -> dict:
        before, start = self._link.sent_bytes, time.perf_counter()
        units = self._luggage.units
        there = self._ask("check", {"units": {key: unit.content for key, unit in units.items()}})
        round_trip_s = time.perf_counter() - start
        if not isinstance(there.get("missing"), list) or not isinstance(there.get("folder"), str):
            raise Unfit("it does not say which files it has")
        self._folder = there["folder"]
        self._send([unit for key, unit in units.items() if key in there["missing"]])
        params = self._luggage.params | {name: _ending(path) for name, path in self._wanted.items()}
        self._link.post("run", {"job": job, "params": params})
        result = self._at_home(self._result(self._link.answer(self._report, self._on_event)))
        self._report.check_cancelled()
        self._arrivals.keep()
        result |= {name: str(self._wanted[name]) if name in self._wanted else None for name in EXCHANGED[job][1]}
        result |= {"computer": self._name, "version": __version__, "round_trip_s": round_trip_s}
        return result | {"sent_bytes": self._link.sent_bytes - before}

    def _at_home(self, result: dict) -> dict:
        """What it says about "this machine" becomes true here, and what was odd here belongs to it."""
        if "warnings" in result:
            result["warnings"] = [*self._luggage.warnings, *(self._told(text) for text in result["warnings"])]
        if "device" in result:
            result["device"] = f"{result['device']} of {self._name}"
        if "how" in result:
            result["how"] = f"{self._name}: {result['how']}"
        return result

    def _send(self, units: list[Unit]) -> None:
        """All pieces of the files, a few of them on their way at a time."""
        whole = sum(unit.bytes for unit in units)
        if self._is_courtesy and whole > _COURTESY_BYTES:
            raise UserError(f"The files are not on {self._name} yet.", "Start a run.")
        sent, waiting = 0, []
        for unit in units:
            for piece in unit.pieces():
                if len(waiting) == _ON_THE_WAY:
                    self._result(self._link.answer(self._report))
                    sent += waiting.pop(0)
                    self._report.progress(sent, whole, f"{self._name}: sending {unit.place.name}")
                self._link.post("receive", piece)
                waiting.append(len(piece["data"]) * 3 // 4)
        for _ in waiting:
            self._result(self._link.answer(self._report))

    def _ask(self, job: str, params: dict) -> dict:
        return self._result(self._link.ask(job, params, self._report))

    def _on_event(self, event: dict) -> None:
        kind = event["event"]
        if kind == "progress":
            self._report.progress(event["done"], event["of"], f"{self._name}: {self._told(event['label'])}")
        elif kind == "message":
            level = event["level"] if event["level"] == "warning" else "info"
            self._report.message(f"{self._name}: {self._told(event['text'])}", level)
        elif kind == "piece":
            self._arrivals.add(event["name"], event["data"], event["sha256"])

    def _told(self, text: str) -> str:
        return self._luggage.at_home(text, self._folder) if self._folder else text

    def _result(self, ending: dict) -> dict:
        """What the job there gave; its failure is a failure here."""
        if ending["event"] == "finished":
            return ending["result"]
        if ending["event"] == "cancelled":
            self._link.close()
            raise UserError(f"{self._name} has stopped the job.", "Start again.")
        if ending["traceback"]:
            print(f"{self._name}:\n{ending['traceback']}", file=sys.stderr)
        hint = self._told(ending["hint"])
        if ending.get("package"):
            hint = f"Install it there: python -m pip install {ending['package']}"
        raise UserError(f"{self._name}: {self._told(ending['message'])}", hint)


def _ending(path: Path) -> str:
    """ ".nrrd" of "liver.seg.nrrd" and so on: all of the name that is sent."""
    return next(ending for ending in OUTPUT_EXTENSIONS if path.name.lower().endswith(ending))
