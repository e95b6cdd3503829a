"""Doubles of Slicer's widgets for segments."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from .ui_loader import double
from .widgets_ctk import setter_slots, stored
from .widgets_mrml import qMRMLNodeComboBox, qMRMLWidget


def observe_segments(observations, node, method: str) -> None:
    """Call the widget's method() when a segment of this node (or None) comes, goes or changes; ends earlier ones."""
    observations.remove_all()
    if node is not None:
        segmentation = node.GetSegmentation()
        for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
            observations.add(segmentation, event, method)


def segments(node) -> dict:
    """{segment id: vtkSegment} of a segmentation node, in order; empty for None."""
    segmentation = node.GetSegmentation() if node else None
    return {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()} if segmentation else {}


@double
class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """A segmentation and one of its segments; the segment is announced before the node."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    CPP_SIGNALS = {  # noqa: RUF012
        **qMRMLWidget.CPP_SIGNALS,
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentSegmentChanged(QString)": "currentSegmentChanged",
    }
    noneEnabled = Property(bool, lambda s: s._nodes.noneEnabled, lambda s, v: setattr(s._nodes, "noneEnabled", v))
    editEnabled = stored(bool, "editEnabled", False)
    horizontalLayout = stored(bool, "horizontalLayout", False)
    multiSelection = stored(bool, "multiSelection", False)
    segmentationNodeSelectorVisible = stored(bool, "segmentationNodeSelectorVisible", True)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._nodes, self._box, self._segment_id = qMRMLNodeComboBox(self), QtWidgets.QComboBox(self), ""
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._nodes)
        layout.addWidget(self._box)
        self._nodes.currentNodeChanged.connect(self._node_changed)
        self._box.currentIndexChanged.connect(self._segment_changed)

    def _segmentationNodeSelectorVisible_changed(self, visible: bool) -> None:
        self._nodes.setVisible(visible)

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    def _node_changed(self, node) -> None:
        observe_segments(self._observations, node, "_fill")
        self._fill()
        self.currentNodeChanged.emit(node)

    def _fill(self) -> None:
        ids = list(segments(self.currentNode()))
        self._box.blockSignals(True)
        self._box.clear()
        for segment_id, segment in segments(self.currentNode()).items():
            self._box.addItem(segment.GetName(), segment_id)
        self._box.setCurrentIndex(ids.index(self._segment_id) if self._segment_id in ids else -1)
        self._box.blockSignals(False)
        if ids and self._segment_id not in ids:
            self._box.setCurrentIndex(0)

    def _segment_changed(self, row: int) -> None:
        self._segment_id = self._box.itemData(row) or ""
        self.currentSegmentChanged.emit(self._segment_id)

    def currentNode(self):
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        return self._nodes.currentNodeID

    def setCurrentNode(self, node) -> None:
        self._nodes.setCurrentNode(node)

    def setCurrentNodeID(self, node_id: str) -> None:
        self._nodes.setCurrentNodeID(node_id)

    def currentSegmentID(self) -> str:
        return self._segment_id

    def setCurrentSegmentID(self, segment_id: str) -> None:
        row = self._box.findData(segment_id)
        if row >= 0:
            self._box.setCurrentIndex(row)


@double
@setter_slots(
    *("selectionMode", "headerVisible", "visibilityColumnVisible", "colorColumnVisible", "opacityColumnVisible"),
    *("statusColumnVisible", "layerColumnVisible", "readOnly", "filterBarVisible", "jumpToSelectedSegmentEnabled"),
)
class qMRMLSegmentsTableView(qMRMLWidget):
    """The segments of one segmentation: colour and name."""

    selectionChanged = Signal(object, object)
    CPP_SIGNALS = {  # noqa: RUF012
        **qMRMLWidget.CPP_SIGNALS,
        "selectionChanged(QItemSelection,QItemSelection)": "selectionChanged",
    }
    selectionMode = stored(int, "selectionMode", 3)
    headerVisible = stored(bool, "headerVisible", True)
    visibilityColumnVisible = stored(bool, "visibilityColumnVisible", True)
    colorColumnVisible = stored(bool, "colorColumnVisible", True)
    opacityColumnVisible = stored(bool, "opacityColumnVisible", True)
    statusColumnVisible = stored(bool, "statusColumnVisible", False)
    layerColumnVisible = stored(bool, "layerColumnVisible", False)
    readOnly = stored(bool, "readOnly", False)
    filterBarVisible = stored(bool, "filterBarVisible", False)
    jumpToSelectedSegmentEnabled = stored(bool, "jumpToSelectedSegmentEnabled", False)
    segmentCount = Property(int, lambda self: self._table.rowCount)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._segmentation_node, self._table = None, QtWidgets.QTableWidget(0, 1, self)
        self._table.setHorizontalHeaderLabels(["Name"])
        self._table.horizontalHeader().setStretchLastSection(True)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.selectionModel().selectionChanged.connect(lambda on, off: self.selectionChanged.emit(on, off))

    def segmentationNode(self):
        return self._segmentation_node

    def setSegmentationNode(self, node) -> None:
        self._segmentation_node = node
        observe_segments(self._observations, node, "_fill")
        self._fill()

    def _fill(self) -> None:
        shown = segments(self._segmentation_node)
        self._table.setRowCount(len(shown))
        for row, (segment_id, segment) in enumerate(shown.items()):
            item = QtWidgets.QTableWidgetItem(segment.GetName())
            item.setData(QtCore.Qt.UserRole, segment_id)
            pixmap = QtGui.QPixmap(14, 14)
            pixmap.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
            item.setIcon(QtGui.QIcon(pixmap))
            self._table.setItem(row, 0, item)

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(item.data(QtCore.Qt.UserRole) for item in self._table.selectedItems())

    def setSelectedSegmentIDs(self, segment_ids) -> None:
        """All at once: in between, more or fewer rows than wanted would be announced as chosen."""
        model, chosen = self._table.model(), QtCore.QItemSelection()
        for row in range(self._table.rowCount):
            if self._table.item(row, 0).data(QtCore.Qt.UserRole) in segment_ids:
                chosen.select(model.index(row, 0), model.index(row, 0))
        self._table.selectionModel().select(chosen, QtCore.QItemSelectionModel.ClearAndSelect)

    def tableWidget(self):
        return self._table
