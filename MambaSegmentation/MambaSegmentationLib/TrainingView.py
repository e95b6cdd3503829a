"""Fine-tuning itself: how long, start, pause, stop, curves; then what the comparison says, Keep or Discard."""

from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib import model_store
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError

from . import FarComputer, FineTuneLogic
from .Curves import Curves
from .TableView import fitHeight, numberItem, stretchFirst, textItem
from .TrainingPicture import TrainingPicture


class TrainingView:
    """Args:
    caseCount: gives the number of cases.
    onChanged: called when another version of the model may be in use.
    """

    def __init__(self, ui, state, services, caseCount: Callable[[], int], onChanged: Callable[[], None]):
        self._ui, self._state, self._services = ui, state, services
        self._caseCount, self._onChanged = caseCount, onChanged
        self.curves, self.picture = Curves(), TrainingPicture(ui.trainingPictureLabel, ui.trainingPictureCaption)
        self._task = self._result = self._bundle = None
        self._isStopped = False
        for budget_s in FineTuneLogic.BUDGETS_S:
            ui.budgetSelector.addItem(FineTuneLogic.budgetText(budget_s), budget_s)
        stretchFirst(ui.decisionTable)
        ui.startTrainingButton.connect("clicked()", self._onStart)
        ui.pauseTrainingButton.connect("clicked()", self._onPause)
        ui.stopTrainingButton.connect("clicked()", self._onStop)
        ui.showCurvesButton.connect("toggled(bool)", self.curves.show)
        ui.keepModelButton.connect("clicked()", self._onKeep)
        ui.discardModelButton.connect("clicked()", self._onDiscard)
        self._showDecision()

    def bundle(self) -> ModelBundle | None:
        """The model that would be taught: the one chosen on the page Segment."""
        try:
            return self._services.models.find(self._state.modelId) if self._state.modelId else None
        except UserError:
            return None

    def update(self) -> None:
        ui, bundle, jobs = self._ui, self.bundle(), self._services.jobs
        isTraining = self._task is not None and self._task in jobs.tasks and self._task.state in ("running", "waiting")
        isPaused = bool(bundle) and not isTraining and FineTuneLogic.isResumable(self._services.models, bundle)
        ui.tunedModelLabel.text = bundle.title if bundle else _("none")
        missing = self._missing(bundle)
        ui.trainingHintLabel.text = missing or (_("A fine-tuning of this model is paused.") if isPaused else "")
        ui.trainingHintLabel.visible = bool(ui.trainingHintLabel.text) and not isTraining
        ui.startTrainingButton.text = _("Con&tinue") if isPaused else _("S&tart")
        ui.startTrainingButton.enabled = not (missing or jobs.isRunning)
        running = _("A job is running.") if jobs.isRunning else ""
        tip = _("Teach the model with the cases above, on this computer; the new version is compared with the old one.")
        ui.startTrainingButton.toolTip = missing or running or tip
        ui.pauseTrainingButton.enabled = isTraining
        ui.stopTrainingButton.enabled = isTraining or (isPaused and not jobs.isRunning)
        ui.budgetSelector.enabled = not isTraining
        ui.showCurvesButton.enabled = self.curves.chart is not None

    def _missing(self, bundle) -> str:
        if bundle is None:
            return _("Choose a model on the page Segment.")
        return "" if self._caseCount() else _("Add at least one case: there is nothing to learn from yet.")

    # The run

    def _onStart(self) -> None:
        services, bundle = self._services, self.bundle()
        isResumed = FineTuneLogic.isResumable(services.models, bundle)
        self._bundle, self._result, self._isStopped = bundle, None, False
        if not isResumed:
            self.curves.begin(_("Fine-tuning of {model}").format(model=bundle.title))
            self.picture.hide()
        self._showDecision()
        budget_s = self._ui.budgetSelector.currentData
        device = "auto" if FarComputer.chosen() else self._state.device  # which is one of that computer's
        params = FineTuneLogic.tuningRequest(services.models, bundle, budget_s, device, isResumed)
        calls = {"onFinished": self._onFinished, "onFailed": self._onEnded, "onCancelled": self._onEnded}
        calls |= {"onMetric": self._onMetric, "onPicture": self.picture.show}
        title = _("Fine-tune {model}").format(model=bundle.title)
        self._task = services.jobs.run(title, "finetune", params, **calls)
        self.update()

    def _onMetric(self, step: int, name: str, value: float | None) -> None:
        self.curves.add(step, name, value)
        self._ui.showCurvesButton.enabled = self.curves.chart is not None

    def _onPause(self) -> None:
        self._services.jobs.cancel(self._task)

    def _onStop(self) -> None:
        text = _("Stop and throw away what was learned so far? The model in use stays.")
        if not slicer.util.confirmYesNoDisplay(text, _("Stop the fine-tuning")):
            return
        self._isStopped = True
        if self._services.jobs.isRunning:
            self._services.jobs.cancel(self._task)
        else:
            self._bundle = self.bundle()
            self._onEnded()

    def _onEnded(self, problem=None) -> None:
        if self._isStopped:
            FineTuneLogic.forgetPaused(self._services.models, self._bundle)
        self._task = None
        self.update()

    def _onFinished(self, result: dict) -> None:
        self._task, self._result = None, result
        self._showDecision()
        self._onChanged()

    # Keep or discard

    def _showDecision(self) -> None:
        ui = self._ui
        ui.decisionSection.visible = self._result is not None
        if self._result is None:
            return
        decision, rows = self._result["decision"], self._result["decision"]["rows"]
        isBetter = _("The new model passed and is in use now: keep it, or go back to the old one.")
        isWorse = _("The new model did not pass; the old one stays in use.")
        text = [isBetter if self._result["promoted"] else isWorse, *decision["reasons"]]
        ui.decisionLabel.text = "\n".join(text)
        table = ui.decisionTable
        table.visible = bool(rows)
        table.setRowCount(len(rows))
        for row, data in enumerate(rows):
            for column, item in enumerate(_items(data)):
                table.setItem(row, column, item)
        table.resizeRowsToContents()
        fitHeight(table)
        ui.keepModelButton.text = _("&Keep") if self._result["promoted"] else _("&Keep and use it")

    def _onKeep(self) -> None:
        if not self._result["promoted"]:
            text = _("The new model was not shown to be as good as the old one. Use it all the same?")
            if not slicer.util.confirmYesNoDisplay(text, _("Use a model that did not pass")):
                return
            self._try(lambda name, root: model_store.promote(name, root, despite_gate=True))
        self._result = None
        self._showDecision()
        self._onChanged()

    def _onDiscard(self) -> None:
        text = _("Delete the new model? The cases stay.")
        if not slicer.util.confirmYesNoDisplay(text, _("Discard the new model")):
            return
        if self._try(self._discard):
            self._result = None
        self._showDecision()
        self._onChanged()

    @staticmethod
    def _discard(name: str, root: Path) -> None:
        version = model_store.find_version(name, root)
        if version.is_active:
            model_store.rollback(version.lineage, root)
        model_store.remove(name, root)

    def _try(self, action: Callable[[str, Path], object]) -> bool:
        """Do something with the candidate; a problem is shown."""
        folder = Path(self._result["candidate"])
        try:
            action(folder.name, folder.parent)
        except UserError as error:
            self._services.view.message("error", error.message, error.hint)
            return False
        return True


def _items(row: dict) -> tuple:
    before, after = (numberItem(_number(row[name])) for name in ("dice_before", "dice_after"))
    cases = FineTuneLogic.extent(row["cases"], row["patients"])
    if row["difference"] is None:
        return textItem(row["structure"], cases), before, after, numberItem("", cases)
    tip = _("95 % interval {low} to {high}; {cases}").format(
        low=_number(row["low"], True), high=_number(row["high"], True), cases=cases
    )
    # Two lines, or the interval would leave no room for the structure's name.
    text = f"{_number(row['difference'], True)}\n[{_number(row['low'], True)}, {_number(row['high'], True)}]"
    return textItem(row["structure"], cases), before, after, numberItem(text, tip)


def _number(value: float | None, isSigned: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.3f}" if isSigned else f"{value:.3f}"
