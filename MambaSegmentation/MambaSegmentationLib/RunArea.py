"""The area below the pages, as far as jobs show in it: queue, progress, end, cancel, and the offer to install."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from .JobQueue import CANCELLED, DONE, FAILED, RUNNING, WAITING, JobQueue, Task
from .Jobs import Listener, Problem
from .RunView import RunView

_STATES = {
    WAITING: _("waiting"),
    RUNNING: _("running"),
    DONE: _("done"),
    FAILED: _("failed"),
    CANCELLED: _("stopped"),
}
_MAX_ROWS_SHOWN = 5


class QueueView:
    """The tasks with their states; shown when there is more than one."""

    def __init__(self, ui, jobs: JobQueue):
        self._area, self._table, self._cancelOne, self._cancelAll = (
            *(ui.queueArea, ui.queueTable),
            *(ui.cancelTaskButton, ui.cancelAllButton),
        )
        self._jobs = jobs
        self._table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self._table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        self._table.connect("itemSelectionChanged()", self._updateButtons)
        self._cancelOne.connect("clicked()", self._onCancelOne)
        self._cancelAll.connect("clicked()", jobs.cancelAll)
        self.show()

    def show(self) -> None:
        """Show the queue as it is."""
        tasks, table = self._jobs.tasks, self._table
        self._area.visible = len(tasks) > 1
        table.setRowCount(len(tasks))
        for row, task in enumerate(tasks):
            title, state = qt.QTableWidgetItem(task.title), qt.QTableWidgetItem(_STATES[task.state])
            title.setToolTip(task.title)
            state.setToolTip(task.problem)
            table.setItem(row, 0, title)
            table.setItem(row, 1, state)
        rows = min(len(tasks), _MAX_ROWS_SHOWN)
        table.setFixedHeight(sum(table.rowHeight(row) for row in range(rows)) + 2 * table.frameWidth + 2)
        self._updateButtons()

    def _chosen(self) -> Task | None:
        row = self._table.currentRow()
        isChosen = 0 <= row < len(self._jobs.tasks) and bool(self._table.selectedItems())
        return self._jobs.tasks[row] if isChosen else None

    def _updateButtons(self) -> None:
        chosen = self._chosen()
        self._cancelOne.enabled = bool(chosen and chosen.state in (WAITING, RUNNING))
        self._cancelAll.enabled = self._jobs.isRunning

    def _onCancelOne(self) -> None:
        self._jobs.cancel(self._chosen())


class RunArea:
    """Between the job queue and the view.

    Args:
        ui: the widgets of MambaSegmentation.ui by name.
        onInstall: called with the package that a job has missed by the button that offers to install it.
    """

    def __init__(self, ui, jobs: JobQueue, view: RunView, onInstall: Callable[[str], None]):
        self._ui, self._jobs, self._view = ui, jobs, view
        self._warnings: list[str] = []
        self._missed = ""
        self._queue = QueueView(ui, jobs)
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
        ui.installButton.connect("clicked()", lambda: onInstall(self._missed))

    def showQueue(self) -> None:
        """The states of the tasks have changed."""
        self._queue.show()

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
        self._missed = problem.package
        hint = _("Press the button to install it; you will be asked first.") if problem.package else problem.hint
        self._view.message("error", problem.message, hint, problem.details, canInstall=bool(problem.package))

    def _onCancelled(self, reason: str) -> None:
        self._end()
        self._view.message("info", reason or _("Stopped. Nothing in the scene was changed."))
