"""The page Segment: which image, which model, how; the result with its volumes."""

import qt
from slicer.i18n import tr as _

from . import FarComputer, Inputs, Regions, Samples, SceneFacts, SceneIO
from .EstimateView import EstimateView
from .FolderView import FolderView
from .InputWatch import InputWatch
from .JobQueue import Task
from .Jobs import Listener
from .ModelFiles import ModelFiles
from .ModelPicker import ModelPicker
from .MoreInputs import MoreInputs
from .Page import Page
from .ResultView import ResultView
from .SegmentOptions import SegmentOptions
from .SequenceLogic import SequenceLogic


class SegmentPage(Page):
    title = _("Segment")
    toolTip = _("Find structures in a volume with a model.")

    def __init__(self, ui, state, services):
        Page.__init__(self, ui, state, services)
        self._isReading = False
        self.sequences = SequenceLogic(services.segment)
        self.resultView = ResultView(ui, state)
        self.models = ModelPicker(ui.modelSearch, ui.modelList, ui.modelCard, services.models, self._onChoice)
        self.modelFiles = ModelFiles(ui.modelFilesButton, self.models, services, self._onModelAdded)
        self.options = SegmentOptions(ui, state, services.worker, self._update)
        inputs = (ui.moreInputsArea, ui.volumeLabel, state, services.isClosing)
        self.moreInputs = MoreInputs(*inputs, self._onMoreInputs)
        self.estimate = EstimateView(ui.estimateLabel, services.segment, self._choices)
        self.folder = FolderView(ui, state, services, self._folderChoices)
        self.sample = Samples.SampleButton(ui.sampleButton, services.view, ui.volumeSelector.setCurrentNode)
        self._watch = InputWatch(self.refresh)
        self._connect()

    def enter(self) -> None:
        """Look for new models, and take a volume if none is chosen."""
        self._readModels()
        _takeOnlyVolume(self.ui.volumeSelector)
        self.options.devices.askAgain()
        self._onChoice()
        self.folder.lookAgain()
        self.resultView.follow()

    def cleanup(self) -> None:
        Page.cleanup(self)
        self._watch.stop()
        self.estimate.stop()
        self.folder.stop()
        self.resultView.stop()
        self.modelFiles.close()

    # From the widgets to the state

    def _connect(self) -> None:
        ui = self.ui
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChoice)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onRoi)
        ui.otherVolumesSelector.connect("checkedNodesChanged()", self._onChoice)
        ui.allFramesCheckBox.connect("toggled(bool)", self._onChoice)
        ui.fitRoiButton.connect("clicked()", self._onFitRoi)
        ui.segmentButton.connect("clicked()", self._onSegment)

    def _onChoice(self) -> None:
        """Some input was chosen: remember all of them."""
        if self._isReading or self.services.isClosing():
            return
        ui, state = self.ui, self.state
        state.inputVolume = ui.volumeSelector.currentNode()
        state.roi = ui.roiSelector.currentNode()
        state.otherVolumes = [node for node in ui.otherVolumesSelector.checkedNodes() if node is not state.inputVolume]
        state.allFrames = ui.allFramesCheckBox.checked
        if self.models.chosen:
            state.modelId = self.services.models.last = self.models.chosen
        self._showInputs()
        self._onMoreInputs()

    def _onMoreInputs(self) -> None:
        # What made the inputs unusable may be put right elsewhere.
        self._watch.watch((self.state.inputVolume, *self.state.moreInputs, self.state.roi))
        self._update()

    def _showInputs(self) -> None:
        """What the page offers depends on the image and on the model."""
        ui, volume = self.ui, self.state.inputVolume
        self.models.setImage(SceneFacts.imageFacts(volume))
        bundle = self.models.entry.bundle if self.models.entry else None
        self.options.setModel(bundle)
        self.moreInputs.setModel(bundle)
        self.moreInputs.propose(volume)
        frames = SceneFacts.frameCount(volume)
        ui.allFramesCheckBox.visible = frames > 1
        ui.allFramesCheckBox.text = _("All {n} frames of the se&quence").format(n=frames)
        ui.otherVolumesSelector.visible = ui.otherVolumesLabel.visible = not self.moreInputs.selectors
        self.sample.offer(bundle)

    def _onModelAdded(self, folder: str) -> None:
        """Choose it; a version that is not in use is not in the list, and the choice stays."""
        self.ui.modelSearch.text = ""
        self.models.refresh()
        if self.models.has(folder):
            self.models.choose(folder)
        self._onChoice()

    def _onRoi(self) -> None:
        roi, volume = self.ui.roiSelector.currentNode(), self.ui.volumeSelector.currentNode()
        if roi and volume and not self._isReading and not Regions.hasSize(roi):
            Regions.fit(roi, volume)  # a new region that one can see and drag
        self._onChoice()

    def _onFitRoi(self) -> None:
        Regions.fit(self.state.roi, self.state.inputVolume)
        self._update()

    def _onSegment(self) -> None:
        if not FarComputer.mayGo():
            return
        isSequence = self.ui.allFramesCheckBox.visible and self.state.allFrames
        others = [] if self.moreInputs.selectors else [n for n in self.state.otherVolumes if n]
        for volume in [self.state.inputVolume, *others]:
            self._add(volume, self.sequences if isSequence else self.services.segment)

    def _add(self, volume, logic) -> None:
        """A task for one volume, with the choices of this moment."""
        model, options = self.state.modelId, self.options.request()
        memoryMb = self.estimate.memoryMb if volume is self.state.inputVolume else 0
        title = f"{volume.GetName()}: {self.models.entry.title}"
        listener = Listener(onFinished=lambda node, result: self._onFinished(node, result, memoryMb))
        self.services.jobs.add(Task(title, lambda to: logic.begin(to, volume, model, options), listener))

    def _choices(self) -> tuple | None:
        """What an estimate needs, None while something is missing or a job is running."""
        if self.services.jobs.isRunning or self._missing():
            return None
        return self.state.inputVolume, self.state.modelId, self.options.request()

    def _folderChoices(self) -> tuple:
        """(bundle, Options, why nothing can be segmented with them): what a folder needs of the page."""
        bundle = self.models.entry.bundle if self.models.entry else None
        return bundle, self.options.request(), _missingModel(self.models.entry) or self.options.missing

    # From the state to the widgets

    def bind(self) -> None:
        ui, state = self.ui, self.state
        self._isReading = True
        try:
            self._readModels()
            ui.volumeSelector.setCurrentNode(state.inputVolume)
            ui.roiSelector.setCurrentNode(state.roi)
            for node in (n for n in state.otherVolumes if n):
                ui.otherVolumesSelector.setCheckState(node, qt.Qt.Checked)
            ui.allFramesCheckBox.checked = state.allFrames
            self.options.bind()
            self.moreInputs.bind()
            self.folder.bind()
            self.resultView.bind()
        finally:
            self._isReading = False
        _takeOnlyVolume(self.ui.volumeSelector)
        self._onChoice()

    def refresh(self) -> None:
        _takeOnlyVolume(self.ui.volumeSelector)
        self._showInputs()
        self._onMoreInputs()  # the further inputs may have been proposed just now

    def setRunning(self, isRunning: bool) -> None:
        self._update()

    def nodeAboutToBeRemoved(self, node) -> None:
        # The selectors would silently take another node instead, and the wrong place would be segmented.
        if node is self.ui.roiSelector.currentNode():
            self.ui.roiSelector.setCurrentNode(None)
        self.moreInputs.drop(node)
        self.resultView.drop(node)

    def _readModels(self) -> None:
        self.models.refresh()
        self.models.choose(self.state.modelId or self.services.models.last)

    def _missing(self) -> str:
        """What the user still has to do before Segment can be pressed; "" if nothing."""
        problem = _missingImage(self.state.inputVolume, self.state.roi) or _missingModel(self.models.entry)
        if problem:
            return problem
        unfit = Inputs.problem(self.models.entry.bundle, [self.state.inputVolume, *self.state.moreInputs])
        if unfit:
            return f"{unfit.message} {unfit.hint}"
        return self.options.missing

    def _update(self) -> None:
        ui, isRunning, missing = self.ui, self.services.jobs.isRunning, self._missing()
        ui.segmentButton.enabled = not isRunning and not missing
        selectors = (ui.volumeSelector, ui.roiSelector, ui.modelSearch, ui.modelList, ui.otherVolumesSelector)
        for widget in (*selectors, ui.allFramesCheckBox, ui.sampleButton, *self.moreInputs.selectors):
            widget.enabled = not isRunning
        self.options.setEnabled(not isRunning)
        ui.fitRoiButton.enabled = bool(not isRunning and self.state.roi and self.state.inputVolume)
        ui.hintLabel.text = missing
        ui.hintLabel.visible = bool(missing) and not isRunning
        running = _("A job is running.") if isRunning else ""
        tip = _("Segment the volume; the result is a new segmentation. It is computed on {computer}.")
        ui.segmentButton.toolTip = running or missing or tip.format(computer=FarComputer.chosenName())
        self.estimate.update()
        self.folder.update()
        self.modelFiles.update()
        if not isRunning and (not missing or self.state.folderInput):
            self.options.devices.ask()

    def _onFinished(self, segmentationNode, result: dict, memoryMb: float) -> None:
        self.services.models.noteRun(result, memoryMb)
        self.models.showCard()
        self.resultView.take(segmentationNode)
        self.services.refresh()


def _takeOnlyVolume(selector) -> None:
    """The selector takes no node by itself when one is loaded later; with a single volume there is no doubt."""
    volumes = SceneIO.volumes()
    if selector.currentNode() is None and len(volumes) == 1:
        selector.setCurrentNode(volumes[0])


def _missingImage(volumeNode, roiNode) -> str:
    if volumeNode is None:
        return _("Choose a volume to start.") if SceneIO.volumes() else _("Load a volume to start.")
    problem = SceneIO.volumeProblem(volumeNode)
    if problem:
        return f"{problem.message} {problem.hint}"
    if roiNode and not Regions.hasSize(roiNode):
        return _("Place the region in the views, press 'Fit to volume', or choose no region.")
    return ""


def _missingModel(entry) -> str:
    if entry is None:
        return _("There is no model on this computer: see above where to put one.")
    return "" if entry.bundle else _("Choose another model: this one is damaged.")
