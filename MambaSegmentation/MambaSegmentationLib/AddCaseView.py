"""The part of the page Fine-tune that adds a case to the training set: what of it is really done, and whose."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import CorrectLogic, DoneSlices, FineTuneLogic, Inputs, SceneFacts, SegmentVoxels, Settings


class AddCaseView:
    """Args:
    onAdded: called when a case has entered the training set.
    """

    def __init__(self, ui, state, services, onAdded: Callable[[], None]):
        self._ui, self._state, self._services, self._onAdded = ui, state, services, onAdded
        self._shown, self._isReading = None, False
        ui.caseStructureList.connect("itemChanged(QListWidgetItem*)", lambda item: self.update())
        for edit in (ui.casePatientEdit, ui.caseAnnotatorEdit):
            edit.connect("textChanged(QString)", lambda text: self.update())
        ui.caseAnnotatorEdit.connect("editingFinished()", self._onAnnotator)
        ui.addCaseButton.connect("clicked()", self._onAdd)

    def show(self) -> None:
        """Another segmentation, other segments, or other done slices."""
        ui, segmentation = self._ui, self._state.resultSegmentation
        problem = CorrectLogic.problem(segmentation)
        ui.addCaseHintLabel.text = problem
        ui.addCaseHintLabel.visible = bool(problem)
        ui.addCaseArea.visible = ui.addCaseButton.visible = not problem
        if not problem:
            ui.caseSegmentationName.text = ui.caseSegmentationName.toolTip = segmentation.GetName()
            self._isReading = True
            self._fillStructures(segmentation)
            self._fillSlices(segmentation)
            self._fillWho(segmentation)
            self._isReading = False
        self._shown = None if problem else segmentation
        self.update()

    def update(self) -> None:
        if self._isReading:
            return
        ui, missing, isRunning = self._ui, self._missing(), self._services.jobs.isRunning
        ui.addCaseButton.enabled = not missing and not isRunning
        tip = _("Keep image and labels as a case to learn from; only what is ticked counts.")
        ui.addCaseButton.toolTip = missing or (_("A job is running.") if isRunning else tip)

    def _missing(self) -> str:
        ui = self._ui
        if self._shown is None:
            return ui.addCaseHintLabel.text
        if not self._done():
            return _("Tick the structures that are done.")
        if not ui.casePatientEdit.text.strip():
            return _("Give the patient a number or pseudonym; only its hash is stored.")
        return "" if ui.caseAnnotatorEdit.text.strip() else _("Say who drew the labels.")

    def _done(self) -> list[str]:
        box = self._ui.caseStructureList
        items = (box.item(row) for row in range(box.count))
        return [item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked]

    def _fillStructures(self, segmentation) -> None:
        box, ticked = self._ui.caseStructureList, self._done()
        isSame = segmentation is self._shown
        ids = SegmentVoxels.segmentIds(segmentation)
        names = [SegmentVoxels.nameOf(segmentation, i) for i in ids]
        if isSame and [box.item(row).text() for row in range(box.count)] == names:
            return
        box.clear()
        for segmentId, name in zip(ids, names, strict=True):
            item = qt.QListWidgetItem(name)
            item.setData(qt.Qt.UserRole, segmentId)
            item.setToolTip(name)
            isTicked = isSame and segmentId in ticked
            item.setCheckState(qt.Qt.Checked if isTicked else qt.Qt.Unchecked)  # nothing is done unless one says so
            box.addItem(item)

    def _fillSlices(self, segmentation) -> None:
        box, volume = self._ui.caseSlicesSelector, SegmentVoxels.volumeOf(segmentation)
        choices = [(_("All slices"), -1)]
        for axis, indices in sorted(DoneSlices.marked(segmentation).items()):
            plane = DoneSlices.planeName(axis, volume)
            text = counted(len(indices), _("done {plane} slice"), _("done {plane} slices"))
            choices.append((text.format(plane=plane), axis))
        if [box.itemText(row) for row in range(box.count)] != [text for text, _axis in choices]:
            box.clear()
            for text, axis in choices:
                box.addItem(text, axis)
            box.setCurrentIndex(len(choices) - 1)  # who marked slices means them

    def _fillWho(self, segmentation) -> None:
        ui = self._ui
        if segmentation is not self._shown:
            ui.casePatientEdit.text = SceneFacts.dicomPatient(SegmentVoxels.volumeOf(segmentation))
        ui.caseAnnotatorEdit.text = ui.caseAnnotatorEdit.text.strip() or Settings.annotator()

    def _onAnnotator(self) -> None:
        Settings.store(Settings.ANNOTATOR_SETTING, self._ui.caseAnnotatorEdit.text.strip())

    def _slices(self) -> dict | None:
        axis = self._ui.caseSlicesSelector.currentData
        if axis is None or axis < 0:
            return None
        return {"axis": axis, "indices": DoneSlices.marked(self._shown)[axis]}

    def _onAdd(self) -> None:
        ui, segmentation, services = self._ui, self._shown, self._services
        who = {"patient": ui.casePatientEdit.text.strip(), "annotator": ui.caseAnnotatorEdit.text.strip()}
        try:
            bundle = CorrectLogic.modelOf(segmentation, services.models, self._state.modelId)
            more = Inputs.further(segmentation, bundle, self._state.moreInputs)
            request = FineTuneLogic.caseRequest(segmentation, bundle, self._done(), self._slices(), who)
        except UserError as error:
            services.view.message("error", error.message, error.hint)
            return

        def params() -> dict:
            return {**request, **FineTuneLogic.caseFiles(segmentation, bundle, services.files, more)}

        needs = [segmentation, SegmentVoxels.volumeOf(segmentation)]
        services.jobs.run(_("Add to training set"), "add_correction", params, needs, onFinished=self._onFinished)

    def _onFinished(self, result: dict) -> None:
        isHeldOut = result["part"] == "hold-out"
        text = _("The case was added and is held out: it judges new models and is never trained on.")
        text = text if isHeldOut else _("The case was added; the next fine-tuning learns from it.")
        if result["version"] > 1:
            text += " " + _("It replaces the earlier version of the same image.")
        self._services.view.message("info", text)
        self._onAdded()
