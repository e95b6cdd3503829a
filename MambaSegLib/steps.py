"""What the steps of one job share: its report, its timings, its warnings, and what stays warm until the next job."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from .job import Report


@dataclass
class Steps:
    """One run of a job.

    Args:
        report: progress, messages and cancellation.
        warm: outlives the run; kept by the worker.
        seconds: time by step, filled in.
        warnings: what the user should know, one sentence each.
    """

    report: Report
    warm: dict
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.report.message(text, "warning")

    @contextmanager
    def step(self, name: str, label: str):
        """Tells the user `label`, and adds the time of the block to ``seconds[name]``."""
        self.report.message(label)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def remembered(self, slot: str, key: str, make):
        """The value of `make()`, or what it gave the last time if the key is still the same. One value per slot."""
        if self.warm.get(slot, (None,))[0] != key:
            self.warm.pop(slot, None)  # first let go of the old one: two large images may not fit
            self.warm[slot] = (key, make())
        return self.warm[slot][1]
