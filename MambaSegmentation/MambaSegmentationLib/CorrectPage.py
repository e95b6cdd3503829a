"""The page Correct: the Segment Editor on the result, what the model doubts, and learning from the user's edits."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import CorrectLogic, DoneSlices, FarComputer, Inputs, SegmentVoxels, Snapshots
from .CorrectionView import CorrectionView
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
        self._correction: CorrectLogic.Correction | None = None
        self.editor = EditorView(ui.editorArea)
        self.preview = CorrectionView(ui)
        self.doubt = DoubtView(ui, state, self.editor.widget.setCurrentSegmentID)
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
        ui.doneSliceButton.connect("clicked()", self._onDone)
        ui.clearDoneButton.connect("clicked()", self._onClearDone)
        ui.correctButton.connect("clicked()", self._onCorrect)
        ui.acceptCorrectionButton.connect("clicked()", self._onAccept)
        ui.discardCorrectionButton.connect("clicked()", self.discard)

    # The page and the scene

    def enter(self) -> None:
        self._isShown = True
        self._fillViews()
        self.refresh()
        self.editor.enter()

    def exit(self) -> None:
        self._isShown = False
        self.editor.exit()

    def cleanup(self) -> None:
        self._soon.stop()
        self._leaveScene()
        Page.cleanup(self)

    def bind(self) -> None:
        self.doubt.restart()
        self._drop()
        self.refresh()

    def refresh(self) -> None:
        segmentation = self.state.resultSegmentation
        self._isReading = True
        self.ui.correctSegmentationSelector.setCurrentNode(segmentation)
        self._isReading = False
        if self._correction and self._correction.segmentation is not segmentation:
            self.discard()
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
        if self._correction and node in (self._correction.segmentation, self._correction.volume):
            self.discard()
        if node is self.editor.widget.segmentationNode():
            self.editor.show(None, None)
        if node.IsA("vtkMRMLSegmentationNode"):
            Snapshots.forget(node)

    def _leaveScene(self) -> None:
        self._drop()
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
        for section in (ui.doubtSection, ui.editSection, ui.learnSection, ui.snapshotSection):
            section.visible = not problem
        isPending = self._correction is not None and self._correction.after is not None
        ui.correctButton.enabled = not (problem or isRunning or isPending)
        ui.correctButton.visible = not isPending
        running = _("A job is running.") if isRunning else ""
        tip = _("Continue your edits through the rest of the image; you see the result before it is used.")
        ui.correctButton.toolTip = problem or running or tip
        ui.previewArea.visible = isPending
        ui.mayChangeList.enabled = not isPending and not isRunning
        done = "" if problem else DoneSlices.describe(segmentation, SegmentVoxels.volumeOf(segmentation))
        ui.doneLabel.text = _("Done slices: {slices}").format(slices=done or _("none yet"))
        ui.clearDoneButton.enabled = bool(done)
        self.snapshots.update()

    # Done slices

    def _fillViews(self) -> None:
        manager = slicer.app.layoutManager()  # None in a Slicer without a main window
        names = list(manager.sliceViewNames()) if manager else []
        box = self.ui.doneViewSelector
        if [box.itemText(row) for row in range(box.count)] != names:
            box.clear()
            for name in names:
                box.addItem(name)

    def _onDone(self) -> None:
        segmentation = self.state.resultSegmentation
        try:
            shown = DoneSlices.sliceShown(self.ui.doneViewSelector.currentText, SegmentVoxels.volumeOf(segmentation))
        except UserError as error:
            self.services.view.message("error", error.message, error.hint)
            return
        DoneSlices.mark(segmentation, shown[0], [shown[1]])
        self.services.refresh()

    def _onClearDone(self) -> None:
        DoneSlices.clear(self.state.resultSegmentation)
        self.services.refresh()

    # Correct from my edits

    def _onCorrect(self) -> None:
        if not FarComputer.mayGo():
            return
        needs = [self.state.resultSegmentation, SegmentVoxels.volumeOf(self.state.resultSegmentation)]
        ends = {"onFinished": self._onCorrected, "onFailed": self._onEnded, "onCancelled": self._onEnded}
        self.services.jobs.run(_("Correct from my edits"), "correct", self._params, needs, **ends)

    def _params(self) -> dict:
        segmentation, services = self.state.resultSegmentation, self.services
        bundle = CorrectLogic.modelOf(segmentation, services.models, self.state.modelId)
        output = services.files.newFile("corrected.nrrd")
        locked = tuple(self.state.lockedSegments)
        begun = CorrectLogic.begin(segmentation, self.editor.node, locked, bundle, output)
        more = Inputs.further(segmentation, bundle, self.state.moreInputs)
        inputs = [str(services.files.volumeFile(node)) for node in (begun.volume, *more)]
        self._correction = begun
        return CorrectLogic.request(begun, bundle, inputs, self.state.device, services.files)

    def _onCorrected(self, result: dict) -> None:
        correction = self._correction
        CorrectLogic.finish(correction)
        self.services.files.remove(correction.output)
        if correction.changes():
            self.preview.show(correction)
        else:
            self._correction = None
            text = _("Your edits tell nothing about the rest of the image: nothing would change.")
            self.services.view.message("info", text, _("Edit more slices, or look at the next doubtful place."))
        self._update()

    def _onEnded(self, problem=None) -> None:
        """Failed or cancelled: nothing has changed."""
        if self._correction:
            self.services.files.remove(self._correction.output)
        self._correction = None
        self._update()

    def _onAccept(self) -> None:
        correction = self._correction
        self.preview.hide()
        changed = CorrectLogic.accept(correction, self.editor.saveStateForUndo)
        self._correction = None
        voxels = counted(changed, _("voxel"), _("voxels"))
        self.services.view.log(_("Correction accepted: {voxels} changed.").format(voxels=voxels))
        self.services.refresh()

    def discard(self) -> None:
        """Drop the correction that waits for Accept, if there is one."""
        self._drop()
        self._update()

    def _drop(self) -> None:
        if self._correction and self._correction.after is not None:
            self.preview.hide()
            self._correction = None
