"""The area below the pages, as far as jobs show in it: progress, end, cancel, and the offer to install."""

from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import Dependencies
from .JobQueue import JobQueue, Task
from .Jobs import Listener, Problem
from .RunView import RunView


class RunArea:
    """Between the job queue and the view.

    Args:
        ui: the widgets of MambaSegmentation.ui by name.
        requirementsFile: the packages that the install button offers.
    """

    def __init__(self, ui, jobs: JobQueue, view: RunView, requirementsFile: str):
        self._ui, self._jobs, self._view, self._requirementsFile = ui, jobs, view, requirementsFile
        self._warnings: list[str] = []
        jobs.onStarted = self._onStarted
        jobs.watcher = Listener(
            onProgress=view.progress,
            onMessage=self._onMessage,
            onFinished=self._onFinished,
            onFailed=self._onFailed,
            onCancelled=self._onCancelled,
        )
        jobs.worker.onLog = view.log
        ui.cancelButton.connect("clicked()", self._onCancel)
        ui.installButton.connect("clicked()", self._onInstall)

    def _onStarted(self, task: Task) -> None:
        self._warnings.clear()
        self._view.begin(_("Starting..."))
        self._view.log(task.title)
        self._ui.cancelButton.enabled = True

    def _onCancel(self) -> None:
        self._ui.cancelButton.enabled = False
        self._view.step(_("Stopping..."))
        self._jobs.cancel()

    def _onMessage(self, text: str, level: str) -> None:
        if level == "warning":
            self._warnings.append(text)
            self._view.message("warning", "\n".join(self._warnings))
        else:
            self._view.step(text)

    def _end(self) -> None:
        self._ui.cancelButton.enabled = False
        self._view.end()

    def _onFinished(self, *results) -> None:
        self._end()
        result = results[-1]
        if "time_s" in result:
            where = result.get("device") or _("this computer")
            self._view.log(_("Done in {s:.1f} s on {device}.").format(s=result["time_s"], device=where))

    def _onFailed(self, problem: Problem) -> None:
        self._end()
        package = Dependencies.missingPackage(problem.message)
        hint = _("Press the button to install it; you will be asked first.") if package else problem.hint
        self._view.message("error", problem.message, hint, problem.details, canInstall=bool(package))

    def _onCancelled(self, reason: str) -> None:
        self._end()
        self._view.message("info", reason or _("Stopped. Nothing in the scene was changed."))

    def _onInstall(self) -> None:
        try:
            isInstalled = Dependencies.install(self._requirementsFile)
        except UserError as error:
            self._view.message("error", error.message, error.hint, canInstall=True)
            return
        if isInstalled:
            self._jobs.worker.quit()  # a new worker sees the new packages
            self._view.message("info", _("The packages are installed. Start again."))
