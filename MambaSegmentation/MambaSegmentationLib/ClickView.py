"""The two buttons for clicks: their keys, the points that come of them, and what is said about them."""

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from . import Clicks, CorrectLogic, ReviewKeys, SegmentVoxels


class ClickView(VTKObservationMixin):
    """Args:
    editor: EditorView; clicks are for the structure that is selected in it.
    onChanged: called after clicks were placed, dragged or deleted.
    """

    def __init__(self, ui, state, services, editor, onChanged: Callable[[], None]):
        VTKObservationMixin.__init__(self)
        self._ui, self._state, self._services, self._editor = ui, state, services, editor
        self._onChanged, self._seen, self._segmentationId = onChanged, [], ""
        self._buttons = {True: ui.belongsButton, False: ui.belongsNotButton}
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self._onSoon)
        for belongs, button in self._buttons.items():
            button.connect("clicked(bool)", lambda isOn, belongs=belongs: self._onButton(belongs, isOn))
        ui.removeClicksButton.connect("clicked()", Clicks.clear)
        ui.atClickCheckBox.connect("toggled(bool)", self._onAtClick)
        self.keys = ReviewKeys.ReviewKeys({"belongs": ui.belongsButton.click, "belongsNot": ui.belongsNotButton.click})
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        self.addObserver(interaction, interaction.InteractionModeChangedEvent, self._onMode)
        selection = slicer.app.applicationLogic().GetSelectionNode()
        self.addObserver(selection, selection.ActivePlaceNodeIDChangedEvent, self._onMode)

    def enter(self) -> None:
        self._observe()
        self.keys.install()
        for action, (belongs, text) in {
            "belongs": (True, _("Then click in the views where the structure selected above belongs.")),
            "belongsNot": (False, _("Then click in the views where the structure selected above does not belong.")),
        }.items():
            more = _("Drag a click to move it; Delete removes the one under the mouse.")
            key = ReviewKeys.keyOf(action)
            self._buttons[belongs].toolTip = f"{text} {more}" + (f" ({key})" if key else "")

    def exit(self) -> None:
        self.keys.remove()
        Clicks.stopPlacing()

    def cleanup(self) -> None:
        self._soon.stop()
        self.exit()
        self.removeObservers()

    def show(self, segmentation) -> None:
        """Clicks are for one segmentation, and go with their segments."""
        nodeId = segmentation.GetID() if segmentation else ""
        if nodeId != self._segmentationId:
            self._segmentationId, self._seen = nodeId, []
            Clicks.stopPlacing()
            Clicks.clear()
        ids = SegmentVoxels.segmentIds(segmentation) if segmentation else []
        Clicks.removeWhere(lambda place, segmentId: segmentId and segmentId not in ids)

    def update(self, canPlace: bool, isQuick: bool) -> None:
        """What is on, what may be pressed, what is said.

        Args:
            canPlace: whether there is something to click at.
            isQuick: whether corrections are quick enough for one at every click.
        """
        ui, segmentation, placing = self._ui, self._state.resultSegmentation, Clicks.placing()
        ids = SegmentVoxels.segmentIds(segmentation) if segmentation else []  # it may just be going
        found = [point for point in Clicks.points() if point.segmentId in ids]
        for belongs, button in self._buttons.items():
            button.enabled = canPlace
            button.checked = placing is belongs
        ui.removeClicksButton.enabled = bool(found)
        ui.atClickCheckBox.checked = self._state.correctAtClick
        text = Clicks.describe(found, lambda segmentId: SegmentVoxels.nameOf(segmentation, segmentId))
        if not text and placing is not None:
            text = _("Click in a view. The right mouse button ends it.")
        text = text or _("Press a button, then click in a view where the structure selected above belongs, or not.")
        if found and self._state.correctAtClick and not isQuick:
            text += " " + _("A correction takes a while here: press the button below when all clicks are set.")
        ui.clickLabel.text = text

    def _onButton(self, belongs: bool, isOn: bool) -> None:
        if not isOn:
            Clicks.stopPlacing()
            return
        self._editor.widget.setActiveEffect(None)  # or the brush would draw as well
        Clicks.startPlacing(belongs)
        self._observe()

    def _observe(self) -> None:
        """Both lists, as far as they are there."""
        self.removeObservers(self._onPoint)
        for node in filter(None, map(Clicks.listOf, (True, False))):
            for event in (node.PointPositionDefinedEvent, node.PointRemovedEvent, node.PointEndInteractionEvent):
                self.addObserver(node, event, self._onPoint)

    def _onAtClick(self, isOn: bool) -> None:
        self._state.correctAtClick = isOn

    def _onMode(self, caller, event) -> None:
        placing = Clicks.placing()
        for belongs, button in self._buttons.items():
            button.checked = placing is belongs

    def _onPoint(self, caller, event) -> None:
        self._soon.start(0)  # later: the view is still busy with the point

    def _onSoon(self) -> None:
        segmentation = self._state.resultSegmentation
        if self._services.isClosing() or CorrectLogic.problem(segmentation):
            return
        self._refuse(segmentation)
        Clicks.adopt(self._editor.widget.currentSegmentID())
        found = Clicks.points()
        if found != self._seen:
            self._seen = found
            self._onChanged()

    def _refuse(self, segmentation) -> None:
        """Remove points that say nothing, and tell why."""
        volume, ids = SegmentVoxels.volumeOf(segmentation), SegmentVoxels.segmentIds(segmentation)
        chosen = self._editor.widget.currentSegmentID()
        problem = ""

        def isWrong(place, segmentId: str) -> bool:
            nonlocal problem
            found = self._structureProblem(segmentation, ids, segmentId or chosen)
            found = found or CorrectLogic.placeProblem(place, volume)
            problem = problem or found
            return bool(found)

        if Clicks.removeWhere(isWrong):
            self._services.view.message("warning", problem, _("The click was removed again."))

    def _structureProblem(self, segmentation, ids: list[str], segmentId: str) -> str:
        if segmentId not in ids:
            return _("Select the structure in the list above before you click.")
        name = SegmentVoxels.nameOf(segmentation, segmentId)
        if not SegmentVoxels.isVisible(segmentation, segmentId):
            return _("'{name}' is hidden, so it stays as it is: show it before you click.").format(name=name)
        if segmentId in self._state.lockedSegments:
            return _("'{name}' is not ticked under the structures that may change.").format(name=name)
        return ""
