"""A review that one can leave and come back to: the worklist and all decisions. Torch-free.

Every change is on disk before it is acted on, is written whole or not at all, and is made to the newest state of the
file, so that two people may work through one list. Decisions also go to the audit log beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from . import audit
from .errors import UserError
from .review_file import ReviewFile
from .worklist import COMPLETED, FLAGGED, IN_PROGRESS, NOT_STARTED, STATUSES, Entry, Filter, ordered

__all__ = ["COMPLETED", "FLAGGED", "IN_PROGRESS", "NOT_STARTED", "STATUSES", "Entry", "Filter", "Session"]

ENDING = ".review-session.json"


class Session:
    """The review in `path`. Make one with `create` or `open`.

    Attributes:
        path: the session file; the audit log is ``<path>.audit.jsonl``, see `review_file` for the journal.
        revision: another number after every change.
    """

    def __init__(self, file: ReviewFile):
        self.path = file.path
        self.revision = 0
        self._file = file

    @classmethod
    def create(cls, path: str | Path, entries: Iterable[Entry], blinded: int | None = None) -> Session:
        """Begin a review. UserError when the file is there already: resume it with `open`."""
        return cls(ReviewFile.create(Path(path).expanduser(), entries, blinded))

    @classmethod
    def open(cls, path: str | Path) -> Session:
        """Go on where one left off. UserError when the file is missing, damaged or of a newer version."""
        return cls(ReviewFile(Path(path).expanduser()))

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + ".audit.jsonl")

    @property
    def entries(self) -> dict[str, Entry]:
        """id -> Entry, as they were last read."""
        return self._file.entries

    @property
    def current(self) -> str | None:
        """Id of the entry that was last looked at."""
        return self._file.current

    @property
    def blinded(self) -> int | None:
        """The seed that orders candidates in a blinded review; None when it is not blinded."""
        return self._file.blinded

    def counts(self) -> dict[str, int]:
        """status -> number of entries."""
        counts = dict.fromkeys(STATUSES, 0)
        for entry in self.entries.values():
            counts[entry.status] += 1
        return counts

    def add(self, entries: Iterable[Entry]) -> int:
        """Take in what was found since, and newer scores of known entries; returns how many were new."""
        found, new = list(entries), 0

        def change(known: dict[str, Entry]) -> None:
            nonlocal new
            for entry in found:
                old = known.get(self._file.known(entry) or "")
                if old is None:
                    entry = self._file.adopted(entry)
                    new += entry.id not in known
                    known[entry.id] = entry
                else:
                    known[old.id] = replace(old, scores=entry.scores or old.scores, places=entry.places or old.places)

        if any(self._is_news(entry) for entry in found):
            self._file.change_list(change)
            self.revision += 1
        return new

    def _is_news(self, entry: Entry) -> bool:
        old = self.entries.get(self._file.known(entry) or "")
        newer = old and ((entry.scores or old.scores) != old.scores or (entry.places or old.places) != old.places)
        return old is None or newer

    def start(self, entry_id: str, reviewer: str) -> Entry:
        """Look at an entry: it becomes the current one, and "in progress" if nobody has begun it."""

        def begun(entry: Entry) -> dict:
            status = IN_PROGRESS if entry.status == NOT_STARTED else entry.status
            return {"started": entry.started or _now(), "status": status, "reviewer": entry.reviewer or reviewer}

        return self._change(self._known(entry_id).id, begun, is_current=True)

    def decide(
        self,
        entry_id: str,
        status: str,
        reviewer: str,
        comment: str | None = None,
        seconds: float = 0.0,
        voxels: dict[str, dict[str, int]] | None = None,
    ) -> Entry:
        """Set an entry's status, in the audit log first.

        Args:
            entry_id: which one.
            status: one of `STATUSES`.
            reviewer: who decides.
            comment: replaces the old one; None keeps it.
            seconds: spent in this sitting; added to those before.
            voxels: structure -> {"added", "removed"}: what the reviewer changed.
        """
        entry = self._known(entry_id)
        if status not in STATUSES:
            raise UserError(f"A status of {', '.join(STATUSES)} was expected, but {status!r} came.", "Use one of them.")
        said = entry.comment if comment is None else comment
        audit.append(self.log, "review", reviewer, entry.title, entry.model, voxels, seconds, status, said)

        def decided(newest: Entry) -> dict:
            spent, edited = newest.seconds + seconds, newest.edited or bool(voxels)
            return {"status": status, "reviewer": reviewer, "comment": said, "seconds": spent, "edited": edited}

        return self._change(entry_id, decided)

    def note(self, entry_id: str, comment: str) -> Entry:
        """Keep a comment before there is a decision."""
        return self._change(self._known(entry_id).id, lambda _: {"comment": comment})

    def shown_order(self, entry_id: str, count: int) -> list[int]:
        """The order in which `count` candidates (model A, model B, ...) are shown; not blinded, their own."""
        order = list(range(count))
        if self.blinded is not None:
            random.Random(f"{self.blinded}:{entry_id}").shuffle(order)
        return order

    def choose(
        self, entry_id: str, candidates: Sequence[str], choice: int | None, reviewer: str, seconds: float = 0.0
    ) -> Entry:
        """Record which of the shown candidates is best; only then `preference` reveals them.

        Args:
            entry_id: which one.
            candidates: their names, in their own order.
            choice: the place in the shown order, from 0; None when none is better.
            reviewer, seconds: as for `decide`.

        The entry's `preference` becomes {"candidates", "shown" (names as they were shown), "chosen" (name or None)}.
        """
        entry = self._known(entry_id)
        shown = [candidates[index] for index in self.shown_order(entry_id, len(candidates))]
        chosen = None if choice is None else shown[choice]
        preference = {"candidates": list(candidates), "shown": shown, "chosen": chosen}
        decision = f"{chosen or 'none'} of {', '.join(shown)}"
        audit.append(self.log, "compare", reviewer, entry.title, None, None, seconds, decision)
        return self._change(entry_id, lambda newest: {"preference": preference, "seconds": newest.seconds + seconds})

    def neighbour(
        self, entry_id: str | None, step: int, shown: Filter | None = None, structure: str = ""
    ) -> Entry | None:
        """The entry `step` places behind (or, below 0, before) this one in the order of `ordered`; None at the ends.

        From an entry that the filter hides, or None, the walk begins at the first one (the last one when going back).
        """
        rank = ordered(self.entries.values(), structure)
        passing = [entry for entry in rank if shown is None or shown.passes(entry) or entry.id == entry_id]
        ids = [entry.id for entry in passing]
        if entry_id not in ids:
            return (passing[0] if step > 0 else passing[-1]) if passing else None
        place = ids.index(entry_id) + step
        return passing[place] if 0 <= place < len(passing) else None

    def _known(self, entry_id: str) -> Entry:
        if entry_id not in self.entries:
            raise UserError(f"The worklist has no entry '{entry_id}'.", "Add it to the review first.")
        return self.entries[entry_id]

    def _change(self, entry_id: str, change: Callable[[Entry], dict], is_current: bool = False) -> Entry:
        entry = self._file.change(entry_id, is_current, lambda newest: change(newest) | {"changed": _now()})
        self.revision += 1
        return entry


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
