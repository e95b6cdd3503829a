"""The structures of the open case: doubt, status, one of them in focus."""

from collections.abc import Callable

import numpy as np
import slicer
import vtk

from . import ReviewWords
from .ReviewDisplay import ReviewDisplay
from .ReviewFocus import ReviewFocus
from .ReviewLogic import Review

_MOST_ROWS = 6


class ReviewStructures:
    """A click on a structure shows its most doubtful place, or its centre when no place is known.

    `onJump(position RAS)` is called after the slice views have moved.
    """

    def __init__(self, ui, review: Review, onJump: Callable):
        self._ui, self._review, self._onJump = ui, review, onJump
        self._focus, self._display = ReviewFocus(), ReviewDisplay()
        self._isFilling = False
        self.ids: list[str] = []  # of the segments, most doubtful first
        ReviewWords.stretch(ui.reviewStructureTable, 1)
        ui.reviewStructureTable.connect("itemSelectionChanged()", self._onRow)
        ui.reviewFocusCheckBox.connect("toggled(bool)", self.updateFocus)

    @property
    def chosen(self) -> str:
        """The segment in the selected row, "" if none is."""
        row = self._ui.reviewStructureTable.currentRow()
        return self.ids[row] if 0 <= row < len(self.ids) else ""

    @property
    def inFocus(self) -> str:
        """The only segment that a decision concerns, "" for all."""
        return self.chosen if self._ui.reviewFocusCheckBox.checked else ""

    def show(self) -> None:
        """The case as it is now; the selected structure stays selected."""
        case, chosen = self._review.case, self.chosen
        segments = case.segments() if case and case.isThere else {}
        scores = case.entry.scores if case else {}
        self.ids = sorted(segments, key=lambda i: -scores.get(segments[i].GetName(), -1.0))
        self._isFilling = True
        try:
            self._fill(segments, scores)
            if chosen in self.ids:
                self._ui.reviewStructureTable.selectRow(self.ids.index(chosen))
        finally:
            self._isFilling = False

    def choose(self, segmentId: str) -> None:
        """Go to that structure."""
        if segmentId in self.ids:
            self._ui.reviewStructureTable.clearSelection()
            self._ui.reviewStructureTable.selectRow(self.ids.index(segmentId))

    def updateFocus(self) -> None:
        """Fade the neighbours of the chosen structure, or bring them back."""
        if self._review.case and self._review.case.isThere and self.inFocus:
            self._focus.show(self._review.case.segmentation, self.inFocus)
        else:
            self._focus.restore()

    def showAlone(self) -> None:
        """Of all segmentations show only that of the case, with the chosen structure in focus."""
        if self._review.case and self._review.case.isThere:
            self._display.showOnly(self._review.case.segmentation)
        self.updateFocus()

    def restore(self) -> None:
        """Show all segmentations as they were before the case was opened."""
        self._focus.restore()
        self._display.restore()

    def _fill(self, segments: dict, scores: dict) -> None:
        table = self._ui.reviewStructureTable
        table.setRowCount(len(self.ids))
        for row, segmentId in enumerate(self.ids):
            segment, status = segments[segmentId], self._review.case.status(segmentId)
            table.setItem(row, 0, ReviewWords.swatch(segment.GetColor()))
            table.setItem(row, 1, ReviewWords.cell(segment.GetName()))
            table.setItem(row, 2, ReviewWords.number(ReviewWords.score(scores.get(segment.GetName()))))
            table.setItem(row, 3, ReviewWords.cell(ReviewWords.STATUS[status]))
        ReviewWords.fitHeight(table, _MOST_ROWS)

    def _onRow(self) -> None:
        if self._isFilling or not self.chosen or not self._review.case or not self._review.case.isThere:
            return
        self.updateFocus()
        position = self._place(self.chosen)
        if position is not None:
            slicer.modules.markups.logic().JumpSlicesToLocation(*position, True)
            self._onJump(position)

    def _place(self, segmentId: str):
        """World RAS of the most doubtful place of a structure, else of its centre; None for an empty one."""
        case = self._review.case
        places = case.entry.places.get(case.segments()[segmentId].GetName())
        if not places:
            return case.segmentation.GetSegmentCenterRAS(segmentId)
        x, y, z = places[0]["position_mm"]
        transform = case.volume.GetParentTransformNode()
        position = np.array([-x, -y, z])
        if transform is None:
            return position.tolist()
        return list(_toWorld(transform).TransformPoint(position))


def _toWorld(transformNode):
    transform = vtk.vtkGeneralTransform()
    transformNode.GetTransformToWorld(transform)
    return transform
