"""One correction at a time: from the button or a click through the job to a preview, then Accept or Discard."""

import time
from collections.abc import Callable

from slicer.i18n import tr as _

from MambaSegLib.wording import counted

from . import Clicks, CorrectLogic, FarComputer, SegmentVoxels
from .CorrectionView import CorrectionView
from .CorrectLogic import Correction

_QUICK_S = 5.0  # a correction that takes longer is not started by each click


class CorrectionRun:
    """Args:
    makeParams: begins a correction and gives (Correction, params of the job); may raise UserError.
    preview: shows what would change.
    saveForUndo: the Segment Editor's saveStateForUndo.
    onChanged: called when `isRunning` or `waiting` changed.

    Attributes:
        waiting: the correction whose preview waits for Accept or Discard; None without one.
        running: the one that is being computed; None without one.
        seconds: how long the next one will take if nothing but clicks comes, from the last one; 0 while unknown.
    """

    def __init__(
        self, state, services, makeParams, preview: CorrectionView, saveForUndo, onChanged: Callable[[], None]
    ):
        self._state, self._services, self._makeParams = state, services, makeParams
        self._preview, self._saveForUndo, self._onChanged = preview, saveForUndo, onChanged
        self.waiting: Correction | None = None
        self.running: Correction | None = None
        self.seconds = self._preparation_s = 0.0
        self._isAsked = False  # a click came while a correction was running

    def start(self) -> None:
        """The user wants it. What waits stays in sight until the new one is there."""
        if not FarComputer.mayGo():
            return
        segmentation = self._state.resultSegmentation
        needs = [segmentation, SegmentVoxels.volumeOf(segmentation)]
        ends = {"onFinished": self._onFinished, "onFailed": self._onEnded, "onCancelled": self._onEnded}
        self._isAsked = False
        self._services.jobs.run(_("Correct from my edits"), "correct", self._params, needs, **ends)

    def startSoon(self) -> None:
        """A click wants it: at once, after the one that is running, or not at all when that takes long."""
        if self.running:
            self._isAsked = True
        elif self.isQuick and not self._services.jobs.isRunning:
            self.start()

    @property
    def isQuick(self) -> bool:
        return self.seconds <= _QUICK_S

    def isStale(self) -> bool:
        """Whether clicks have changed since what waits was begun."""
        return self.waiting is not None and self.waiting.points != Clicks.points()

    def accept(self) -> None:
        """Change the segmentation; the clicks are used up."""
        correction = self.waiting
        self._preview.hide()
        changed = CorrectLogic.accept(correction, self._saveForUndo)
        self.waiting = None
        Clicks.clear()
        voxels = counted(changed, _("voxel"), _("voxels"))
        self._services.view.log(_("Correction accepted: {voxels} changed.").format(voxels=voxels))

    def drop(self) -> None:
        """Forget what waits; nothing changes, and the clicks stay."""
        if self.waiting:
            self._preview.hide()
            self.waiting = None

    def _params(self) -> dict:
        start = time.monotonic()
        self.running, params = self._makeParams()
        self._preparation_s = time.monotonic() - start
        return params

    def _onFinished(self, result: dict) -> None:
        correction, self.running = self.running, None
        CorrectLogic.finish(correction)
        self._services.files.remove(correction.output)
        steps = result.get("seconds", {})
        kept = ("prepare", "features")  # by the worker, while the image is the same
        self.seconds = self._preparation_s + sum(seconds for step, seconds in steps.items() if step not in kept)
        self.drop()
        if correction.points and not Clicks.points():
            return self._onChanged()  # they were taken back meanwhile
        if correction.changes():
            self.waiting = correction
            self._preview.show(correction)
        elif not self._isAsked:
            text = _("Your edits tell nothing about the rest of the image: nothing would change.")
            self._services.view.message("info", text, _("Edit more slices, or look at the next doubtful place."))
        self._onChanged()
        if self._isAsked:
            self._isAsked = False
            self.startSoon()

    def _onEnded(self, problem=None) -> None:
        """Failed or cancelled: nothing has changed."""
        if self.running:
            self._services.files.remove(self.running.output)
        self.running, self._isAsked = None, False
        self._onChanged()
