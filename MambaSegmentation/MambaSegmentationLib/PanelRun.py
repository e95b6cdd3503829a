"""A run as the panel sees it: starts and cancels it, shows progress and end, offers to install what is missing."""

from collections.abc import Callable

from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import Dependencies
from .PanelState import PanelState
from .RunView import RunView
from .SegmentLogic import Problem, SegmentLogic


class PanelRun:
    """Between the buttons and SegmentLogic.

    Args:
        ui: the widgets of MambaSegmentation.ui by name.
        onChanged: called when a run began or ended.
        onFinished: called with the new segmentation node.
    """

    def __init__(
        self,
        ui,
        logic: SegmentLogic,
        view: RunView,
        requirementsFile: str,
        onChanged: Callable[[], None],
        onFinished: Callable,
    ):
        self._ui, self._logic, self._view, self._requirementsFile = ui, logic, view, requirementsFile
        self._changed, self._finished = onChanged, onFinished
        self._warnings: list[str] = []
        logic.worker.onLog = view.log
        ui.cancelButton.connect("clicked()", self._onCancel)
        ui.installButton.connect("clicked()", self._onInstall)

    def start(self, state: PanelState) -> None:
        """Segment what the panel's state says."""
        self._warnings.clear()
        self._view.begin(_("Starting..."))
        self._view.log(_("{model} on {volume}").format(model=state.modelId, volume=state.inputVolume.GetName()))
        self._logic.start(
            state.inputVolume,
            state.modelId,
            state.roi,
            state.device,
            onProgress=self._view.progress,
            onMessage=self._onMessage,
            onFinished=self._onFinished,
            onFailed=self._onFailed,
            onCancelled=self._onCancelled,
        )
        self._changed()

    def _onCancel(self) -> None:
        self._ui.cancelButton.enabled = False
        self._view.step(_("Stopping..."))
        self._logic.cancel()

    def _onMessage(self, text: str, level: str) -> None:
        if level == "warning":
            self._warnings.append(text)
            self._view.message("warning", "\n".join(self._warnings))
        else:
            self._view.step(text)

    def _onFinished(self, segmentationNode, result: dict) -> None:
        self._view.end()
        self._view.log(_("Done in {s:.1f} s on {device}.").format(s=result["time_s"], device=result["device"]))
        self._finished(segmentationNode)
        self._changed()

    def _onFailed(self, problem: Problem) -> None:
        self._view.end()
        package = Dependencies.missingPackage(problem.message)
        hint = _("Press the button to install it; you will be asked first.") if package else problem.hint
        self._view.message("error", problem.message, hint, problem.details, canInstall=bool(package))
        self._changed()

    def _onCancelled(self, reason: str) -> None:
        self._view.end()
        self._view.message("info", reason or _("Stopped. Nothing in the scene was changed."))
        self._changed()

    def _onInstall(self) -> None:
        try:
            isInstalled = Dependencies.install(self._requirementsFile)
        except UserError as error:
            self._view.message("error", error.message, error.hint, canInstall=True)
            return
        if isInstalled:
            self._logic.worker.quit()  # a new worker sees the new packages
            self._view.message("info", _("The packages are installed. Press Segment."))
