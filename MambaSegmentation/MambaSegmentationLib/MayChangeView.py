"""The list of structures that a correction may change; hidden ones never."""

import qt
from slicer.i18n import tr as _

from . import SegmentVoxels


class MayChangeView:
    """Fills a QListWidget; what is not ticked stands in `state.lockedSegments`."""

    def __init__(self, box, state):
        self._box, self._state, self._isReading = box, state, False
        box.connect("itemChanged(QListWidgetItem*)", self._onItem)

    def show(self) -> None:
        box, segmentation = self._box, self._state.resultSegmentation
        rows = [self._row(segmentation, i) for i in SegmentVoxels.segmentIds(segmentation)] if segmentation else []
        if rows == [self._shown(box.item(row)) for row in range(box.count)]:
            return
        self._isReading = True
        box.clear()
        for segmentId, text, isTicked, isHidden in rows:
            item = qt.QListWidgetItem(text)
            item.setData(qt.Qt.UserRole, segmentId)
            item.setToolTip(text)
            item.setCheckState(qt.Qt.Checked if isTicked else qt.Qt.Unchecked)
            if isHidden:
                item.setFlags(qt.Qt.NoItemFlags)
            box.addItem(item)
        self._isReading = False

    def _row(self, segmentation, segmentId: str) -> tuple:
        name = SegmentVoxels.nameOf(segmentation, segmentId)
        isHidden = not SegmentVoxels.isVisible(segmentation, segmentId)
        text = _("{name} (hidden, stays as it is)").format(name=name) if isHidden else name
        return segmentId, text, not isHidden and segmentId not in self._state.lockedSegments, isHidden

    @staticmethod
    def _shown(item) -> tuple:
        isTicked = item.checkState() == qt.Qt.Checked
        return item.data(qt.Qt.UserRole), item.text(), isTicked, not item.flags() & qt.Qt.ItemIsEnabled

    def _onItem(self, item) -> None:
        if not self._isReading:
            segmentId, isLocked = item.data(qt.Qt.UserRole), item.checkState() == qt.Qt.Unchecked
            others = [i for i in self._state.lockedSegments if i != segmentId]
            self._state.lockedSegments = [*others, segmentId] if isLocked else others
