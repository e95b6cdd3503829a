"""What a segmentation will take, said before it starts: asked of the worker a moment after the last choice."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import FarComputer, Regions, SceneIO
from .Jobs import Listener, Problem
from .ModelCard import memoryText
from .SegmentLogic import Options, SegmentLogic

_QUIET_MS = 300


class EstimateView:
    """Shows seconds and memory in a label.

    Args:
        choices: gives (volumeNode, modelId, Options) as they are now, None while something is missing.
    """

    def __init__(self, label, segment: SegmentLogic, choices: Callable[[], tuple | None]):
        self._label, self._segment, self._choices = label, segment, choices
        self._asked: tuple | None = None  # what the shown or coming answer belongs to
        self._isWaiting = False
        self.memoryMb = 0.0  # of the last answer
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_QUIET_MS)
        self._timer.connect("timeout()", self._ask)
        label.hide()

    def update(self) -> None:
        """The choices may have changed."""
        choices = self._choices()
        if choices is None or _key(*choices) != self._asked:
            self._label.hide()
            self.memoryMb = 0.0
            if not self._isWaiting:
                self._asked = None
        self._timer.start()

    def stop(self) -> None:
        """Ask no more: the widgets go."""
        self._timer.stop()

    def _ask(self) -> None:
        choices = self._choices()
        key = _key(*choices) if choices else None
        if key is None or self._isWaiting or key == self._asked:
            return
        self._asked, self._isWaiting = key, True
        listener = Listener(onFinished=self._onAnswer, onFailed=self._onNoAnswer, onCancelled=self._onNoAnswer)
        try:
            self._segment.estimate(*choices, listener)
        except (UserError, OSError):  # pressing Segment will tell it
            self._onNoAnswer("")

    def _onAnswer(self, result: dict) -> None:
        self._isWaiting = False
        choices = self._choices()
        if choices is None or _key(*choices) != self._asked:
            self._timer.start()
            return
        self.memoryMb = result["memory_mb"]
        self._label.text = _("About {time}, {memory} of memory.").format(
            time=_timeText(result["seconds"]), memory=memoryText(result["memory_mb"])
        )
        self._label.toolTip = _("{windows}; {how}.").format(
            windows=counted(result["windows"], _("window"), _("windows")), how=result["how"]
        )
        self._label.show()

    def _onNoAnswer(self, reason: Problem | str) -> None:
        """The estimate is a courtesy: without one the run may start all the same."""
        self._isWaiting, self._asked = False, None


def _timeText(seconds: float) -> str:
    return _("{n} min").format(n=round(seconds / 60)) if seconds >= 90 else _("{n} s").format(n=max(1, round(seconds)))


def _key(volumeNode, modelId: str, options: Options) -> tuple:
    """Differs when the answer may differ."""
    region = None
    if options.roiNode:
        try:
            region = tuple(round(v, 3) for v in Regions.bounds(options.roiNode, volumeNode)[0])
        except UserError:
            region = ("outside",)
    size = volumeNode.GetImageData().GetDimensions()
    where = (FarComputer.chosen(), options.device)
    return volumeNode.GetID(), size, SceneIO.ijkToRas(volumeNode).tobytes(), modelId, region, where
