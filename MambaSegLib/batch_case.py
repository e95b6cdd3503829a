"""One case of a batch, and cases one after the other in this very process. Torch-free until a case begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from . import scores_file
from .batch_receipt import receipt
from .errors import Cancelled, MissingPackage, UserError
from .job import Report, resolve
from .remote_computer import NoConnection


class CaseReport(Report):
    """What a case tells, as a part of what the batch tells.

    Args:
        outer: of the batch. number, of: the case's place among all cases, from 1 on. name: the case's.
    """

    def __init__(self, outer: Report, number: int, of: int, name: str):
        super().__init__(self._pass_on)
        self._outer, self._number, self._of, self._name = outer, number, of, name
        self._share = 0.0

    @property
    def is_cancelled(self) -> bool:
        return self._outer.is_cancelled

    def check_cancelled(self) -> None:
        self._outer.check_cancelled()

    def _pass_on(self, event: dict) -> None:
        """Windows move the bar; steps show that something goes on. Warnings stand in the summary."""
        if event["event"] == "progress" and event["of"]:
            self._share = max(self._share, event["done"] / event["of"])
        label = f"Case {self._number} of {self._of}: {self._name}"
        self._outer.progress(self._number - 1 + self._share, self._of, label)


def process(task: dict, report: Report, warm: dict) -> dict:
    """One case: returns its receipt, or {"error": text}. Computes nothing when the case is done.

    Raises:
        Cancelled: by the report. MissingPackage, NoConnection: no case could be done without it.
    """
    done = receipt(task)
    if done:
        return done
    try:
        _keep_aside(Path(task["output"]), task["case"])
        result = _segment(task, report, warm)
        scores_file.write(task["output"], result, case=task["case"], fingerprint=task["fingerprint"])
        return receipt(task)
    except (Cancelled, MissingPackage, NoConnection):
        raise
    except Exception as error:  # whatever it is: the other cases go on, and the summary says it
        return {"error": str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"}


def _keep_aside(file: Path, case: str) -> None:
    """A result without a receipt may hold somebody's corrections: it gets another name, and is never overwritten."""
    free = (file.with_name(f"{case}.earlier-{number}.seg.nrrd") for number in itertools.count(1))
    if file.exists():
        file.rename(next(path for path in free if not path.exists()))


def _segment(task: dict, report: Report, warm: dict) -> dict:
    if task["computer"]:
        request = {"computer": task["computer"], "job": "segment", "params": task["request"]}
        return resolve("remote")(request, report, warm)
    return resolve("segment")(task["request"], report, warm)


def one_by_one(waiting: dict[str, dict], total: int, report: Report, warm: dict) -> Iterator[tuple[str, dict]]:
    """(name, outcome) of every waiting task, computed in this process with its warm models.

    A case that ended the whole process the last time, by its need of memory for example, comes after all others.
    """
    marks = {name: Path(task["output"]).with_name(f".begun-{name}") for name, task in waiting.items()}
    before = total - len(waiting)
    for number, name in enumerate(sorted(waiting, key=lambda name: marks[name].exists()), start=before + 1):
        marks[name].touch()
        try:
            outcome = process(waiting[name], CaseReport(report, number, total, name), warm)
        finally:
            marks[name].unlink(missing_ok=True)
        yield name, outcome
