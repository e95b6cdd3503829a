"""The review itself: which list, which case is open, what was decided. Needs no panel."""

import getpass
import random
import time
from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from MambaSegLib import review, worklist
from MambaSegLib.errors import UserError
from MambaSegLib.review import Filter, Session

from . import ReviewSources, Settings
from .ReviewCase import ReviewCase

_KEPT = "reviewed"
_WAITING = (worklist.NOT_STARTED, worklist.IN_PROGRESS)


def reviewer() -> str:
    """Who reviews: the name given in the panel, else Slicer's user, else the computer's."""
    return Settings.annotator() or getpass.getuser()


class Review:
    """A worklist that is gone through.

    Attributes:
        session: the list and all decisions, on disk; None before `begin`.
        case: the case that is open, None if there is none.
        shown: which entries are shown, and by which structure they are ranked.
    """

    def __init__(self):
        self.session: Session | None = None
        self.case: ReviewCase | None = None
        self.shown = Filter()
        self._opened = 0.0
        self._tried = ""  # id of the entry that was to be opened last, also if its files are missing
        self._ranked: tuple = ()  # what `entries` answers, and to what

    def begin(self, source: str, place: str, file: str, isBlinded: bool, warn: Callable[[str], None]) -> int:
        """Begin the review of a source, or go on with it when there is one in `file` or in its usual place.

        Returns how many cases are new. Raises UserError.
        """
        found = ReviewSources.entries(source, place, warn)
        path = Path(file) if file else ReviewSources.sessionFile(source, place, warn)
        self.leave()
        self._tried = ""
        if path.exists():
            self.session = Session.open(path)
            return self.session.add(found)
        self.session = Session.create(path, found, random.SystemRandom().randrange(1 << 31) if isBlinded else None)
        return len(found)

    def resume(self, file: str) -> None:
        """Go on with the review in that file; opens no case yet. Raises UserError."""
        session = Session.open(file)
        self.leave()
        self.session, self._tried = session, ""

    def end(self) -> None:
        self.leave()
        self.session, self._tried = None, ""

    def entries(self) -> list[worklist.Entry]:
        """What is shown, worst first."""
        if self.session is None:
            return []
        asked = self.session, self.session.revision, self.shown
        if self._ranked[:1] != (asked,):  # the same is asked many times, and a list may be long
            shown = worklist.ordered(self.session.entries.values(), self.shown.structure, self.shown)
            self._ranked = asked, shown
        return self._ranked[1]

    def structures(self) -> list[str]:
        """All that have a score in this list."""
        entries = self.session.entries.values() if self.session else ()
        return sorted({name for entry in entries for name in entry.scores}, key=str.casefold)

    @property
    def entry(self) -> worklist.Entry | None:
        """The open case as the session knows it now."""
        return self.session.entries.get(self.case.entry.id) if self.session and self.case else None

    def open(self, entryId: str) -> ReviewCase:
        """Show a case; the one before is left first. Raises UserError; the case then counts as not begun."""
        self.leave()
        self._tried = entryId
        case = ReviewCase(self.session.entries[entryId], self.session.path.parent / _KEPT)
        try:
            case.entry = self.session.start(entryId, reviewer())
        except UserError:
            case.close()
            raise
        self.case = case
        fresh = [i for i in case.segments() if case.status(i) == worklist.NOT_STARTED]
        case.setStatus(worklist.IN_PROGRESS, fresh)
        case.settle()
        self._opened = time.monotonic()
        return case

    @property
    def here(self) -> str | None:
        """Id of the entry from which one goes on."""
        return self.case.entry.id if self.case else self._tried or (self.session and self.session.current)

    def neighbour(self, step: int) -> worklist.Entry | None:
        """The next (or, with -1, the previous) case of what is shown."""
        return self.session.neighbour(self.here, step, self.shown, self.shown.structure)

    def first(self) -> worklist.Entry | None:
        """Where to go on: the case that was open last, else the worst one without a decision."""
        known = self.session.entries.get(self.session.current or "")
        waiting = self._waiting(self.entries())
        return known if known in waiting and not self.isOthers(known) else next(iter(waiting), None)

    def next(self) -> worklist.Entry | None:
        """The worst case behind the open one that waits for a decision, else the worst one of all that wait."""
        entries = self.entries()
        ids = [entry.id for entry in entries]
        here = ids.index(self.here) if self.here in ids else -1
        return next(iter(self._waiting([*entries[here + 1 :], *entries[: here + 1]])), None)

    def _waiting(self, entries: list) -> list:
        """Those without a decision; what somebody else is just reviewing comes last."""
        waiting = [entry for entry in entries if entry.status in _WAITING]
        return sorted(waiting, key=self.isOthers)

    @staticmethod
    def isOthers(entry: worklist.Entry) -> bool:
        """Whether somebody else began it, or decided on it last."""
        return bool(entry.reviewer) and entry.reviewer.casefold() != reviewer().casefold()

    def decide(self, status: str, comment: str, segmentId: str = "") -> bool:
        """Accept or flag the case, or only one of its segments; True once the whole case is decided.

        A case is decided with its last segment: flagged if any of them is. Changed voxels are kept as a new version.
        """
        case = self._open()
        case.setStatus(status, [segmentId] if segmentId else case.segments())
        statuses = {case.status(i) for i in case.segments()}
        if segmentId and not statuses <= {review.COMPLETED, review.FLAGGED}:
            return False
        status = review.FLAGGED if review.FLAGGED in statuses else status
        voxels, seconds = case.changes(), self.seconds()
        case.keep()
        case.entry = self.session.decide(case.entry.id, status, reviewer(), comment, seconds, voxels)
        if voxels:
            case.settle()
        self._opened = time.monotonic()
        return True

    def note(self, comment: str) -> None:
        """Keep a comment on the open case, whatever is decided later. Raises UserError."""
        if self.case and comment != self.case.entry.comment:
            self.case.entry = self.session.note(self.case.entry.id, comment)

    def seconds(self) -> float:
        """Spent since the case was opened or the last decision about it."""
        return time.monotonic() - self._opened

    def leave(self) -> None:
        """Close the case; what was changed in it is kept. Raises UserError when that cannot be written."""
        if self.case:
            self.keep()
            self.case.close()
            self.case = None

    def keep(self) -> None:
        """Keep what was changed since the last decision, and log it: that decision, if any, was about something else.

        Raises UserError when that cannot be written.
        """
        case = self.case
        voxels = case.changes() if case.isThere else {}
        case.keep()
        if voxels:
            open_ = worklist.IN_PROGRESS
            case.entry = self.session.decide(case.entry.id, open_, reviewer(), None, self.seconds(), voxels)
            self._opened = time.monotonic()
            case.settle()

    def forget(self) -> None:
        """The scene or the nodes of the case have gone."""
        self.case = None

    def _open(self) -> ReviewCase:
        if self.case is None or not self.case.isThere:
            raise UserError(_("No case is open."), _("Choose one in the list."))
        return self.case
