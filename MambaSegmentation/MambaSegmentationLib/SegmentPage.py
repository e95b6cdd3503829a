"""The page Segment: which image, which model, how; the result with its volumes."""

import sys

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from . import SceneIO
from .JobQueue import Task
from .Jobs import Listener
from .ModelPicker import ModelPicker
from .Page import Page
from .ResultView import ResultView
from .SegmentLogic import modelFolders

LAST_MODEL_SETTING = "MambaSegmentation/lastModel"


def _devices() -> list[tuple[str, str]]:
    """(text, value of a job's "device"); which of them exist is known to the worker only."""
    gpu = (_("GPU (Apple Metal)"), "mps") if sys.platform == "darwin" else (_("GPU (CUDA)"), "cuda")
    return [(_("Automatic"), "auto"), gpu, (_("CPU"), "cpu")]


class SegmentPage(Page):
    title = _("Segment")
    toolTip = _("Find structures in a volume with a model.")

    def __init__(self, ui, state, services):
        Page.__init__(self, ui, state, services)
        self._isReading = False
        self.resultView = ResultView(ui.resultSection, ui.resultLabel, ui.resultTable, ui.showSurfaceCheckBox)
        self.models = ModelPicker(ui.modelSearch, ui.modelList, ui.modelCard, modelFolders, self._onChoice)
        for text, device in _devices():
            ui.deviceSelector.addItem(text, device)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._connect()

    def enter(self) -> None:
        """Look for new models, and take a volume if none is chosen."""
        self._readModels()
        self._takeOnlyVolume()
        self._onChoice()

    def cleanup(self) -> None:
        Page.cleanup(self)
        self._soon.stop()

    # From the widgets to the state

    def _connect(self) -> None:
        ui = self.ui
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChoice)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onRoi)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._onChoice)
        ui.showSurfaceCheckBox.connect("toggled(bool)", self._onShowSurface)
        ui.fitRoiButton.connect("clicked()", self._onFitRoi)
        ui.segmentButton.connect("clicked()", self._onSegment)
        self._soon.connect("timeout()", self.refresh)

    def _onChoice(self) -> None:
        """Some input was chosen: remember all of them."""
        if self._isReading or self.services.isClosing():
            return
        self.state.inputVolume = self.ui.volumeSelector.currentNode()
        self.state.roi = self.ui.roiSelector.currentNode()
        self.state.device = self.ui.deviceSelector.itemData(self.ui.deviceSelector.currentIndex)
        if self.models.chosen:
            self.state.modelId = self.models.chosen
            qt.QSettings().setValue(LAST_MODEL_SETTING, self.models.chosen)
        self._observeInputs()
        self._update()

    def _observeInputs(self) -> None:
        """What made the inputs unusable may be put right elsewhere: by the handles in a view, in another module."""
        self.removeObservers(self._onInputModified)
        volume, roi = self.state.inputVolume, self.state.roi
        if volume:
            self.addObserver(volume, volume.ImageDataModifiedEvent, self._onInputModified)
        for node in filter(None, (volume, roi)):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onInputModified)

    def _onInputModified(self, caller, event) -> None:
        self._soon.start(0)

    def _onRoi(self) -> None:
        roi, volume = self.ui.roiSelector.currentNode(), self.ui.volumeSelector.currentNode()
        if roi and volume and not self._isReading and not SceneIO.roiHasSize(roi):
            SceneIO.fitRoi(roi, volume)  # a new region that one can see and drag
        self._onChoice()

    def _onFitRoi(self) -> None:
        SceneIO.fitRoi(self.state.roi, self.state.inputVolume)
        self._update()

    def _onSegment(self) -> None:
        state, logic = self.state, self.services.segment
        volume, model, roi, device = state.inputVolume, state.modelId, state.roi, state.device
        title = _("{model} on {volume}").format(model=model, volume=volume.GetName())

        def begin(listener: Listener):
            logic.begin(listener, volume, model, roi, device)
            return logic.cancel

        self.services.jobs.add(Task(title, begin, Listener(onFinished=self._onFinished)))

    def _onShowSurface(self, isShown: bool) -> None:
        self.state.showSurface = isShown
        if self.state.resultSegmentation and not self._isReading:
            SceneIO.showSurface(self.state.resultSegmentation, isShown)

    # From the state to the widgets

    def bind(self) -> None:
        ui, state = self.ui, self.state
        self._isReading = True
        try:
            self._readModels()
            ui.volumeSelector.setCurrentNode(state.inputVolume)
            ui.roiSelector.setCurrentNode(state.roi)
            ui.deviceSelector.setCurrentIndex(max(0, ui.deviceSelector.findData(state.device)))
            ui.showSurfaceCheckBox.checked = state.showSurface
            self.resultView.show(state.resultSegmentation)
        finally:
            self._isReading = False
        self._takeOnlyVolume()
        self._onChoice()

    def refresh(self) -> None:
        self._takeOnlyVolume()
        self._update()

    def setRunning(self, isRunning: bool) -> None:
        self._update()

    def nodeAboutToBeRemoved(self, node) -> None:
        # The selector would silently take another region instead, and the wrong place would be segmented.
        if node is self.ui.roiSelector.currentNode():
            self.ui.roiSelector.setCurrentNode(None)
        if node is self.state.resultSegmentation:
            self.state.resultSegmentation = None
            self.resultView.show(None)

    def _readModels(self) -> None:
        self.models.refresh()
        self.models.choose(self.state.modelId or slicer.util.settingsValue(LAST_MODEL_SETTING, "", converter=str))

    def _takeOnlyVolume(self) -> None:
        """The selector takes no node by itself when one is loaded later; with a single volume there is no doubt."""
        volumes = SceneIO.volumes()
        if self.ui.volumeSelector.currentNode() is None and len(volumes) == 1:
            self.ui.volumeSelector.setCurrentNode(volumes[0])

    def _missing(self) -> str:
        """What the user still has to do before Segment can be pressed; "" if nothing."""
        volume, roi, model = self.state.inputVolume, self.state.roi, self.models.entry
        if volume is None:
            return _("Choose a volume to start.") if SceneIO.volumes() else _("Load a volume to start.")
        problem = SceneIO.volumeProblem(volume)
        if problem:
            return f"{problem.message} {problem.hint}"
        if roi and not SceneIO.roiHasSize(roi):
            return _("Place the region in the views, press 'Fit to volume', or choose no region.")
        if model is None:
            return _("There is no model on this computer: see above where to put one.")
        return "" if model.bundle else _("Choose another model: this one is damaged.")

    def _update(self) -> None:
        ui, isRunning, missing = self.ui, self.services.jobs.isRunning, self._missing()
        ui.segmentButton.enabled = not isRunning and not missing
        for widget in (ui.volumeSelector, ui.roiSelector, ui.modelSearch, ui.modelList, ui.deviceSelector):
            widget.enabled = not isRunning
        ui.fitRoiButton.enabled = bool(not isRunning and self.state.roi and self.state.inputVolume)
        ui.hintLabel.text = missing
        ui.hintLabel.visible = bool(missing) and not isRunning
        running = _("A job is running.") if isRunning else ""
        ui.segmentButton.toolTip = running or missing or _("Segment the volume; the result is a new segmentation.")

    def _onFinished(self, segmentationNode, result: dict) -> None:
        self.state.resultSegmentation = segmentationNode
        if self.state.showSurface:
            SceneIO.showSurface(segmentationNode, True)
        self.resultView.show(segmentationNode)
        self.services.refresh()
