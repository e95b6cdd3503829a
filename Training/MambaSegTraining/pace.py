"""How long steps take on this machine, how many of them fit into a time budget, and how long the rest will last."""

import math

IGNORED = 2  # the first steps also fill caches and choose kernels
MEASURED = 3  # steps before a run's length is fitted for the first time
REFIT = 20  # steps between later corrections: other programs come and go
MEMORY = 0.9  # of the running mean of a step's time


class Pace:
    """Running means of measured times; a budget makes it say when to stop.

    Args:
        budget_s: for all of training with its validations, counted from the run's first step; None: no limit.
    """

    def __init__(self, budget_s: float | None = None):
        self.budget_s = budget_s
        self.seen, self.step_s, self.validation_s = 0, 0.0, 0.0

    def step_took(self, seconds: float) -> None:
        self.seen += 1
        known = self.seen - IGNORED
        if known > 0:
            weight = max(1 / known, 1 - MEMORY)
            self.step_s += weight * (seconds - self.step_s)

    def validation_took(self, seconds: float) -> None:
        self.validation_s = seconds

    @property
    def is_known(self) -> bool:
        return self.seen >= IGNORED + MEASURED

    @property
    def shall_fit(self) -> bool:
        """Whether now is the time to fit the run's length."""
        return self.budget_s is not None and self.is_known and (self.seen - IGNORED - MEASURED) % REFIT == 0

    def fitting_steps(self, step: int, spent_s: float, validations: int) -> int:
        """Steps in all that end within the budget; at least one more than were made.

        Args:
            step: made so far.
            spent_s: of the budget.
            validations: still to come.
        """
        left = self.budget_s - spent_s - validations * self.validation_s
        return step + max(1, math.floor(left / max(self.step_s, 1e-6)))

    def remaining_s(self, steps: int, validations: int) -> float:
        """For so many steps and validations to come."""
        return steps * self.step_s + validations * self.validation_s


def in_words(seconds: float) -> str:
    """'40 s', '3 min 20 s', '2 h 5 min': rounded as one speaks of time that remains."""
    if seconds < 60:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds / 10) * 10, 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, rest = divmod(round(seconds / 300) * 5, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
