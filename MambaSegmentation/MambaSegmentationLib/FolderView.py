"""The section "A folder of images": all images of a folder into files, with the model and options of the page.

Nothing of it enters the scene. The worker looks into the folders, which may lie on a slow network.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import qt
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import FarComputer, ReviewSources, Settings, TableView
from .JobQueue import Task
from .Jobs import Job, Listener, Problem
from .Page import Services
from .PanelState import PanelState
from .SegmentLogic import jobParams

_QUIET_MS = 300
_MOST_HEIGHT = 260  # of the table of failures, in points


class FolderView:
    """Widgets <-> state, how the folders stand, and the run.

    Args:
        choices: gives (ModelBundle, Options, why nothing can be segmented with them or "").
    """

    def __init__(self, ui, state: PanelState, services: Services, choices: Callable[[], tuple]):
        self._ui, self._state, self._services, self._choices = ui, state, services, choices
        self._isReading = False
        self._proposed = ""  # the folder for the results that was filled in for the user
        self._asked: dict | None = None  # the request that `_found` answers, or will
        self._isWaiting = False
        self._found: dict | None = None  # of the job "batch_look"
        self._problem = ""  # or why there is none
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(_QUIET_MS)
        self._soon.connect("timeout()", self._look)
        ui.folderFailedTable.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)  # the reason: most room
        self._connect()
        self._showFailed([])

    def _connect(self) -> None:
        ui = self._ui
        for edit in (ui.folderInputEdit, ui.folderOutputEdit):
            edit.filters = Settings.ONLY_FOLDERS
            edit.connect("currentPathChanged(QString)", self._onPath)
            edit.connect("validInputChanged(bool)", self._onPath)  # all that "" tells
        ui.folderSection.connect("contentsCollapsed(bool)", self.update)
        ui.segmentFolderButton.connect("clicked()", self._onSegment)
        ui.reviewFolderButton.connect("clicked()", self._onReview)

    def bind(self) -> None:
        """Show what the state says."""
        self._isReading = True
        self._ui.folderInputEdit.currentPath = self._state.folderInput
        self._ui.folderOutputEdit.currentPath = self._state.folderOutput
        self._isReading = False
        self._showFailed([])
        self.lookAgain()

    def lookAgain(self) -> None:
        """The folders may have changed on the disk."""
        self._forget()
        self.update()

    def update(self) -> None:
        """Model, options or jobs may have changed, or the section was opened."""
        self._propose()
        request = self._request()
        if request != self._asked:
            self._forget()
            if request and not self._services.jobs.isRunning:
                self._soon.start()
        self._show(self._hint(request))

    def _forget(self) -> None:
        self._asked = self._found = None
        self._problem = ""

    def stop(self) -> None:
        self._soon.stop()

    # What the user chooses

    def _onPath(self) -> None:
        if self._isReading or self._services.isClosing():
            return
        self._state.folderInput = self._ui.folderInputEdit.currentPath.strip()
        self._state.folderOutput = self._ui.folderOutputEdit.currentPath.strip()
        self._showFailed([])
        self.update()

    def _propose(self) -> None:
        """A folder beside that of the images, named after the model, until the user chooses one."""
        bundle, source, current = self._choices()[0], self._state.folderInput, self._state.folderOutput
        if not bundle or not source or current not in ("", self._proposed):
            return
        folder = Path(source)
        self._proposed = str(folder.with_name(f"{folder.name} {bundle.id}")) if folder.name else ""
        self._state.folderOutput = self._proposed
        self._isReading = True
        self._ui.folderOutputEdit.currentPath = self._proposed
        self._isReading = False

    def _request(self) -> dict | None:
        """Of the job "batch"; None while something is missing."""
        bundle, options, problem = self._choices()
        state = self._state
        if problem or not state.folderInput or not state.folderOutput:
            return None
        params = {name: value for name, value in jobParams(bundle, options, None).items() if name != "roi"}
        return {**params, "inputs": [state.folderInput], "output": state.folderOutput, "workers": 0}

    # How the folders stand

    def _look(self) -> None:
        request = self._request()
        if request is None or self._isWaiting or self._services.jobs.isRunning or request == self._asked:
            return
        self._asked, self._isWaiting = request, True
        listener = Listener(onFinished=self._onLooked, onFailed=self._onNotLooked, onCancelled=self._onNotLooked)
        try:
            Job(self._services.worker, "batch_look", request, listener)
        except UserError as error:
            self._onNotLooked(Problem(error.message, error.hint))

    def _onLooked(self, result: dict) -> None:
        self._onAnswer(result, "")

    def _onNotLooked(self, reason: Problem | str) -> None:
        self._onAnswer(None, f"{reason.message} {reason.hint}" if isinstance(reason, Problem) else "")

    def _onAnswer(self, found: dict | None, problem: str) -> None:
        self._isWaiting = False
        if self._request() == self._asked and (found or problem):
            self._found, self._problem = found, problem
        else:
            self._forget()
        self.update()

    def _hint(self, request: dict | None) -> str:
        if request is None:
            return self._choices()[2] if self._state.folderInput else ""
        if self._found is None:
            return self._problem or ("" if self._services.jobs.isRunning else _("Looking into the folders..."))
        return _foundText(self._found)

    def _show(self, hint: str) -> None:
        ui, isRunning, found = self._ui, self._services.jobs.isRunning, self._found
        ui.folderFoundLabel.text = hint
        ui.folderFoundLabel.visible = bool(hint)
        ui.segmentFolderButton.enabled = bool(found and not isRunning)
        tip = _(
            "Segment every image of the folder with the model and the options above, into files; no region is used."
        )
        ui.segmentFolderButton.toolTip = _("A job is running.") if isRunning else tip
        ui.reviewFolderButton.visible = bool(found and found["summary"])
        ui.folderFailedTable.visible = ui.folderFailedTable.rowCount > 0
        for edit in (ui.folderInputEdit, ui.folderOutputEdit):
            edit.enabled = not isRunning

    # The run

    def _onSegment(self) -> None:
        if not FarComputer.mayGo() or self._found is None:  # while the question is open, the folders may change
            return
        request = {**self._request(), "resume": bool(self._found["summary"])}
        self._showFailed([])

        def begin(listener: Listener) -> Callable[[], None]:
            # A case that fails is no warning that stays: all of them are told at the end.
            quiet = replace(listener, onMessage=lambda text, level: listener.onMessage(text, "info"))
            return Job(self._services.worker, "batch", request, quiet).cancel

        title = f"{Path(self._state.folderInput).name}: {self._choices()[0].title}"
        listener = Listener(onFinished=self._onFinished, onFailed=lambda problem: self.lookAgain())
        self._services.jobs.add(Task(title, begin, replace(listener, onCancelled=self._onCancelled)))

    def _onFinished(self, result: dict) -> None:
        failed = result["failed"]
        parts = [_("{n} segmented").format(n=result["done"])]
        parts += [_("{n} done before").format(n=result["skipped"])] if result["skipped"] else []
        parts += [_("{n} failed").format(n=len(failed))] if failed else []
        cases = counted(result["cases"], _("image"), _("images"))
        hint = _("Results and summary.csv are in '{folder}'.").format(folder=result["output"])
        if failed:
            hint += " " + _("The reasons are listed in 'A folder of images'.")
        self._services.view.message("warning" if failed else "info", f"{cases}: {', '.join(parts)}.", hint)
        self._ui.folderSection.collapsed = False
        self._showFailed(failed)
        self.lookAgain()

    def _onCancelled(self, reason: str) -> None:
        text = _("Stopped. The images that are done stay in the results' folder.")
        self._services.view.message("info", text, _("'Segment whole folder' goes on with the others."))
        self.lookAgain()

    def _showFailed(self, failed: list[dict]) -> None:
        table = self._ui.folderFailedTable
        table.setRowCount(len(failed))
        for row, case in enumerate(failed):
            table.setItem(row, 0, TableView.textItem(case["case"]))
            table.setItem(row, 1, TableView.textItem(case["error"]))
        table.visible = bool(failed)
        table.resizeRowsToContents()  # the reasons are sentences
        TableView.fitHeight(table)
        table.setFixedHeight(min(table.minimumHeight, _MOST_HEIGHT))

    def _onReview(self) -> None:
        self._state.reviewSource, self._state.reviewPlace = ReviewSources.TABLE, self._found["summary"]
        self._services.showPage("ReviewPage")


def _foundText(found: dict) -> str:
    """How the folders stand, for the user; `found` is of the job "batch_look"."""
    cases, done = found["cases"], found["done"]
    images = counted(cases, _("image"), _("images"))
    if not found["summary"]:
        return _("{images} found.").format(images=images)
    if done == cases:
        return _("{images} found, all of them done.").format(images=images)
    text = _("{images} found, {n} of them done already: the run goes on with the others.")
    return text.format(images=images, n=done)
