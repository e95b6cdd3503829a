"""The page Correct: the Segment Editor and clicks on the result, what the model doubts, and learning from both."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from . import Clicks, CorrectLogic, Decisions, Inputs, Regions, SegmentVoxels, Snapshots
from .ClickView import ClickView
from .CorrectionRun import CorrectionRun
from .CorrectionView import CorrectionView
from .DoneView import DoneView
from .DoubtView import DoubtView
from .EditorView import EditorView
from .MayChangeView import MayChangeView
from .Page import Page
from .SnapshotView import SnapshotView


class CorrectPage(Page):
    title = _("Correct")
    toolTip = _("Edit the result, and let the model learn from your edits on this image.")

    def __init__(self, ui, state, services):
        Page.__init__(self, ui, state, services)
        self._isReading = self._isShown = False
        self.editor = EditorView(ui.editorArea)
        self.preview = CorrectionView(ui)
        self.run = CorrectionRun(state, services, self._begin, self.preview, self.editor.saveStateForUndo, self._update)
        self.clicks = ClickView(ui, state, services, self.editor, self._onClicks)
        self.doubt = DoubtView(ui, state, self.editor.widget.setCurrentSegmentID)
        self.done = DoneView(ui, state, services)
        self.mayChange = MayChangeView(ui.mayChangeList, state)
        self.snapshots = SnapshotView(ui, state, services, self.editor.saveStateForUndo, self.discard)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self.refresh)
        self._connect()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, lambda caller, event: self._leaveScene())

    def _connect(self) -> None:
        ui = self.ui
        ui.correctSegmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onSegmentation)
        ui.correctionRoiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onRoi)
        ui.correctButton.connect("clicked()", self.run.start)
        ui.acceptCorrectionButton.connect("clicked()", self._onAccept)
        ui.discardCorrectionButton.connect("clicked()", self.discard)

    # The page and the scene

    def enter(self) -> None:
        self._isShown = True
        self.done.enter()
        self.refresh()
        self.editor.enter()
        self.clicks.enter()

    def exit(self) -> None:
        self._isShown = False
        self.clicks.exit()
        self.editor.exit()

    def cleanup(self) -> None:
        self._soon.stop()
        self.clicks.cleanup()
        self._leaveScene()
        Page.cleanup(self)

    def bind(self) -> None:
        self.doubt.restart()
        self.run.drop()
        self.refresh()

    def refresh(self) -> None:
        segmentation = self.state.resultSegmentation
        self._isReading = True
        self.ui.correctSegmentationSelector.setCurrentNode(segmentation)
        self.ui.correctionRoiSelector.setCurrentNode(self.state.correctionRoi)
        self._isReading = False
        if self.run.waiting and self.run.waiting.segmentation is not segmentation:
            self.discard()
        self.clicks.show(segmentation)
        isUsable = not CorrectLogic.problem(segmentation)
        if isUsable:
            CorrectLogic.keepFirst(segmentation)
        if self._isShown:  # the editor in the panel is nobody's business while another page is used
            self.editor.show(segmentation, SegmentVoxels.volumeOf(segmentation) if isUsable else None)
        self._observe(segmentation)
        for part in (self.doubt, self.mayChange, self.snapshots):
            part.show()
        self._update()

    def setRunning(self, isRunning: bool) -> None:
        self._update()

    def nodeAboutToBeRemoved(self, node) -> None:
        if self.run.waiting and node in (self.run.waiting.segmentation, self.run.waiting.volume):
            self.discard()
        if node is self.ui.correctionRoiSelector.currentNode():
            self.ui.correctionRoiSelector.setCurrentNode(None)
        if node is self.editor.widget.segmentationNode():
            self.editor.show(None, None)
        if node.IsA("vtkMRMLSegmentationNode"):
            Snapshots.forget(node)
            Decisions.forget(node)

    def _leaveScene(self) -> None:
        Clicks.stopPlacing()
        self.run.drop()
        self.editor.leaveScene()

    def _observe(self, segmentation) -> None:
        """Segments may be added, renamed, hidden, and the segmentation changed elsewhere."""
        self.removeObservers(self._onModified)
        if segmentation:
            for event in (vtk.vtkCommand.ModifiedEvent, segmentation.DisplayModifiedEvent):
                self.addObserver(segmentation, event, self._onModified)
            inner = segmentation.GetSegmentation()
            for event in (inner.SegmentAdded, inner.SegmentRemoved, inner.SegmentModified):
                self.addObserver(inner, event, self._onModified)

    def _onModified(self, caller, event) -> None:
        self._soon.start(0)

    def _onSegmentation(self, node=None) -> None:
        if self._isReading or self.services.isClosing():
            return
        self.doubt.restart()
        self.state.resultSegmentation = self.ui.correctSegmentationSelector.currentNode()
        self.services.refresh()

    def _update(self) -> None:
        ui, segmentation = self.ui, self.state.resultSegmentation
        problem, isRunning = CorrectLogic.problem(segmentation), self.services.jobs.isRunning
        ui.correctHintLabel.text = problem
        ui.correctHintLabel.visible = bool(problem)
        for section in (ui.doubtSection, ui.editSection, ui.clickSection, ui.learnSection, ui.snapshotSection):
            section.visible = not problem
        isPending = self.run.waiting is not None
        mayStart = not isPending or self.run.isStale()
        ui.correctButton.enabled = mayStart and not (problem or isRunning)
        ui.correctButton.visible = mayStart
        running = _("A job is running.") if isRunning else ""
        tip = _("Continue your edits and clicks through the rest of the image; you see the result before it is used.")
        ui.correctButton.toolTip = problem or running or tip
        ui.previewArea.visible = isPending
        ui.acceptCorrectionButton.enabled = not isRunning
        for widget in (ui.mayChangeList, ui.correctionRoiSelector):
            widget.enabled = not isPending and not isRunning
        self.done.update(not problem)
        self.clicks.update(not problem, self.run.isQuick)
        self.snapshots.update()

    # Correct from my edits and clicks

    def _begin(self) -> tuple[CorrectLogic.Correction, dict]:
        """A correction of how everything is now, and the params of its job. Raises UserError."""
        state, services, segmentation = self.state, self.services, self.state.resultSegmentation
        bundle = CorrectLogic.modelOf(segmentation, services.models, state.modelId)
        output, locked = services.files.newFile("corrected.nrrd"), tuple(state.lockedSegments)
        rules = (self.editor.node, locked, bundle, output, Clicks.points(), state.correctionRoi)
        begun = CorrectLogic.begin(segmentation, *rules)
        more = Inputs.further(segmentation, bundle, state.moreInputs)
        inputs = [str(services.files.volumeFile(node)) for node in (begun.volume, *more)]
        return begun, CorrectLogic.request(begun, bundle, inputs, state.device, services.files)

    def _onClicks(self) -> None:
        """Clicks were placed, dragged or deleted."""
        if not Clicks.points():
            if self.run.isStale():
                self.run.drop()
        elif self.state.correctAtClick:
            self.run.startSoon()
        self._update()

    def _onRoi(self, node=None) -> None:
        if self._isReading or self.services.isClosing():
            return
        roi, segmentation = self.ui.correctionRoiSelector.currentNode(), self.state.resultSegmentation
        if roi and segmentation and not Regions.hasSize(roi):
            Regions.fit(roi, SegmentVoxels.volumeOf(segmentation))  # a new region that one can see and drag
        self.state.correctionRoi = roi

    def _onAccept(self) -> None:
        self.run.accept()
        self.services.refresh()

    def discard(self) -> None:
        """Drop the correction that waits for Accept, if there is one."""
        self.run.drop()
        self._update()
