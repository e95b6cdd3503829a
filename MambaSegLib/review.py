"""A review that one can leave and come back to: the worklist and all decisions in one file. Torch-free.

Every change is on disk before it is acted on, is written whole or not at all, and is made to the newest state of the
file, so that two people may work through one list. Decisions also go to the audit log beside it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from . import audit
from .errors import UserError
from .folder_lock import locked
from .safe_file import write_text
from .worklist import COMPLETED, FLAGGED, IN_PROGRESS, NOT_STARTED, STATUSES, Entry, Filter, ordered

__all__ = ["COMPLETED", "FLAGGED", "IN_PROGRESS", "NOT_STARTED", "STATUSES", "Entry", "Filter", "Session"]

SCHEMA_VERSION = 1
ENDING = ".review-session.json"


class Session:
    """The review in `path`. Make one with `create` or `open`.

    Attributes:
        path: the session file; the audit log is ``<path>.audit.jsonl``.
        entries: id -> Entry, as they were last read.
        current: id of the entry that was last looked at, or None.
        blinded: the seed that orders candidates in a blinded review; None when it is not blinded.
    """

    def __init__(self, path: Path, data: dict):
        self.path = path
        self._take(data)

    @classmethod
    def create(cls, path: str | Path, entries: Iterable[Entry], blinded: int | None = None) -> Session:
        """Begin a review. UserError when the file is there already: resume it with `open`."""
        path = Path(path).expanduser()
        data = {"schema_version": SCHEMA_VERSION, "current": None, "blinded": blinded}
        with locked(path.parent):
            if path.exists():
                raise UserError(f"A review is in '{path}' already.", "Resume it, or choose another name.")
            write_text(path, _text(data | {"entries": [entry.to_json() for entry in entries]}))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Session:
        """Go on where one left off. UserError when the file is missing, damaged or of a newer version."""
        path = Path(path).expanduser()
        return cls(path, _read(path))

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + ".audit.jsonl")

    def counts(self) -> dict[str, int]:
        """status -> number of entries."""
        return {status: sum(entry.status == status for entry in self.entries.values()) for status in STATUSES}

    def add(self, entries: Iterable[Entry]) -> int:
        """Take in what was found since, and newer scores of known entries; returns how many were new."""
        found = {entry.id: entry for entry in entries}

        def change(known: dict[str, Entry]) -> None:
            for entry_id, new in found.items():
                old = known.get(entry_id)
                scored = old and replace(old, scores=new.scores or old.scores, places=new.places or old.places)
                known[entry_id] = scored or new

        before = set(self.entries)
        self._change(change)
        return len(set(found) - before)

    def start(self, entry_id: str, reviewer: str) -> Entry:
        """Look at an entry: it becomes the current one, and "in progress" if nobody has begun it."""
        entry = self._known(entry_id)
        begun = entry.started or _now()
        status = IN_PROGRESS if entry.status == NOT_STARTED else entry.status
        return self._replace(entry_id, current=True, started=begun, status=status, reviewer=entry.reviewer or reviewer)

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
        spent = entry.seconds + seconds
        return self._replace(entry_id, status=status, reviewer=reviewer, comment=said, seconds=spent)

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
        return self._replace(entry_id, preference=preference, seconds=entry.seconds + seconds)

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

    def _replace(self, entry_id: str, current: bool = False, **changes) -> Entry:
        def change(known: dict[str, Entry]) -> None:
            known[entry_id] = replace(known[entry_id], changed=_now(), **changes)

        self._change(change, entry_id if current else None)
        return self.entries[entry_id]

    def _change(self, change, current: str | None = None) -> None:
        """Apply `change` to the entries as they are in the file now, and write them."""
        with locked(self.path.parent):
            data = _read(self.path)
            entries = _entries(data)
            change(entries)
            data |= {"entries": [entry.to_json() for entry in entries.values()], "current": current or data["current"]}
            write_text(self.path, _text(data))
        self._take(data)

    def _take(self, data: dict) -> None:
        self.entries = _entries(data)
        self.current: str | None = data["current"]
        self.blinded: int | None = data["blinded"]


def _entries(data: dict) -> dict[str, Entry]:
    return {entry.id: entry for entry in map(Entry.from_json, data["entries"])}


def _read(path: Path) -> dict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version, _ = data["schema_version"], _entries(data)
        data["current"], data["blinded"]
    except OSError as error:
        raise UserError(f"A review was expected in '{path}': {error.strerror}.", "Check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is no review, or damaged.", "Choose a review's file.") from error
    if version != SCHEMA_VERSION:
        raise UserError(f"'{path}' was written by another version of the program.", "Update the program.")
    return data


def _text(data: dict) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
