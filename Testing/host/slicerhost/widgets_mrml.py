"""Doubles of Slicer's MRML widgets, written against what the real ones were seen to do (PythonQt 4.1, Slicer 5.12).

Facts that surprise: qMRMLNodeComboBox selects nothing when a node is added later, but selects the first remaining node
when the current one is removed, even with noneEnabled; setting a scene announces None several times with noneEnabled.
"""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from .ui_loader import double
from .widgets_ctk import ctkSliderWidget, stored, with_setters

_SIGNALS_OF_EMPTY_SCENE = {False: 1, True: 5}  # noneEnabled -> how often the real widget says None


class Observations:
    """VTK observations that end with the widget that owns them."""

    def __init__(self, widget):
        self._tags = tags = []
        widget.destroyed.connect(lambda: self.remove_all(tags))

    def add(self, vtk_object, event, function) -> None:
        self._tags.append((vtk_object, vtk_object.AddObserver(event, function)))

    def remove_all(self, tags=None) -> None:
        tags = self._tags if tags is None else tags
        for vtk_object, tag in tags:
            vtk_object.RemoveObserver(tag)
        tags.clear()


@double
class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)
    CPP_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._observations = Observations(self)

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@double
@with_setters
class qMRMLNodeComboBox(qMRMLWidget):
    currentNodeChanged = Signal(object)
    currentNodeValid = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeAdded = Signal(object)
    CPP_SIGNALS = {  # noqa: RUF012
        **qMRMLWidget.CPP_SIGNALS,
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeValid",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
    }
    nodeTypes = stored("QStringList", "nodeTypes", [])
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [])
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True)
    showHidden = stored(bool, "showHidden", False)
    noneEnabled = stored(bool, "noneEnabled", False)
    noneDisplay = stored(str, "noneDisplay", "None")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    renameEnabled = stored(bool, "renameEnabled", False)
    editEnabled = stored(bool, "editEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    currentNodeID = Property(
        str,
        lambda self: self._node.GetID() if self._node else "",
        lambda self, node_id: self.setCurrentNodeID(node_id),
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node, self._nodes, self._attributes, self._closing = None, [], [], False
        self._box = QtWidgets.QComboBox(self)
        self._box.sizePolicy = QtWidgets.QSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(lambda row: self._select(self._box.itemData(row)))

    def _noneEnabled_changed(self, _value) -> None:
        self._show()

    def _noneDisplay_changed(self, _value) -> None:
        self._show()

    def _nodeTypes_changed(self, _value) -> None:
        self._show()

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        self._observations.remove_all()
        super().setMRMLScene(scene)
        if scene is not None:
            self._observe(scene)
        self._show()
        if self._nodes and not self.noneEnabled:
            self._select(self._nodes[0].GetID())
        else:
            for _ in range(_SIGNALS_OF_EMPTY_SCENE[self.noneEnabled]):
                self._announce()

    def _observe(self, scene) -> None:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(_scene, _event, node):
            self._show()
            if node in self._nodes:
                self.nodeAdded.emit(node)

        self._observations.add(scene, scene.NodeAddedEvent, added)
        self._observations.add(scene, scene.NodeRemovedEvent, lambda *_: self._after_removal())
        self._observations.add(scene, scene.StartCloseEvent, lambda *_: setattr(self, "_closing", True))
        self._observations.add(scene, scene.EndCloseEvent, lambda *_: self._after_close())

    def _after_removal(self) -> None:
        if self._closing:
            return
        self._show()
        if self._node is not None and self._node not in self._nodes:
            self._select(self._nodes[0].GetID() if self._nodes else None)

    def _after_close(self) -> None:
        self._closing = False
        self._show()
        if self._node is not None and self._node not in self._nodes:
            self._select(None)

    def _accepts(self, node) -> bool:
        of_type = [t for t in self.nodeTypes if node.IsA(t)]
        hidden = node.GetHideFromEditors() and not self.showHidden
        if not of_type or hidden or any(node.IsA(t) for t in self.hideChildNodeTypes):
            return False
        if not self.showChildNodeTypes and node.GetClassName() not in self.nodeTypes:
            return False
        wanted = [(name, value) for kind, name, value in self._attributes if node.IsA(kind)]
        return all(
            node.GetAttribute(name) is not None if value is None else node.GetAttribute(name) == str(value)
            for name, value in wanted
        )

    def _show(self) -> None:
        scene = self._scene
        every = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene else []
        self._nodes = [node for node in every if self._accepts(node)]
        self._box.blockSignals(True)
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay, None)
        for node in self._nodes:
            self._box.addItem(node.GetName(), node.GetID())
        self._show_current()
        self._box.blockSignals(False)

    def _show_current(self) -> None:
        wanted = self._node.GetID() if self._node in self._nodes else None
        rows = [row for row in range(self._box.count) if self._box.itemData(row) == wanted]
        self._box.setCurrentIndex(rows[0] if rows else -1)

    def _select(self, node_id: str | None) -> None:
        node = next((n for n in self._nodes if n.GetID() == node_id), None)
        if node is not self._node:
            self._node = node
            self._show_current()
            self._announce()

    def _announce(self) -> None:
        self.currentNodeChanged.emit(self._node)
        self.currentNodeValid.emit(self._node is not None)
        self.currentNodeIDChanged.emit(self.currentNodeID)

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        self._select(node_id or None)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._nodes[index].GetID() if 0 <= index < len(self._nodes) else None)

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def addAttribute(self, node_type: str, name: str, value=None) -> None:
        self._attributes.append((node_type, name, value))
        self._show()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._attributes = [a for a in self._attributes if a[:2] != (node_type, name)]
        self._show()

    def addNode(self, node_type: str = ""):
        node_type = node_type or self.nodeTypes[0]
        name = self.baseName or slicer.mrmlScene.GetTagByClassName(node_type)
        node = self._scene.AddNewNodeByClass(node_type, self._scene.GenerateUniqueName(name))
        if self.selectNodeUponCreation:
            self._select(node.GetID())
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._node is not None:
            self._scene.RemoveNode(self._node)


@double
@with_setters
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
        self._observations.remove_all()
        if node is not None:
            segmentation = node.GetSegmentation()
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
                self._observations.add(segmentation, event, lambda *_: self._fill())
        self._fill()
        self.currentNodeChanged.emit(node)

    def _fill(self) -> None:
        node = self.currentNode()
        segmentation = node.GetSegmentation() if node else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation else []
        self._box.blockSignals(True)
        self._box.clear()
        for segment_id in ids:
            self._box.addItem(segmentation.GetSegment(segment_id).GetName(), segment_id)
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
@with_setters
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
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged)

    def segmentationNode(self):
        return self._segmentation_node

    def setSegmentationNode(self, node) -> None:
        self._observations.remove_all()
        self._segmentation_node = node
        if node is not None:
            segmentation = node.GetSegmentation()
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
                self._observations.add(segmentation, event, lambda *_: self._fill())
        self._fill()

    def _fill(self) -> None:
        segmentation = self._segmentation_node.GetSegmentation() if self._segmentation_node else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation else []
        self._table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            segment = segmentation.GetSegment(segment_id)
            item = QtWidgets.QTableWidgetItem(segment.GetName())
            item.setData(QtCore.Qt.UserRole, segment_id)
            pixmap = QtGui.QPixmap(14, 14)
            pixmap.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
            item.setIcon(QtGui.QIcon(pixmap))
            self._table.setItem(row, 0, item)

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(item.data(QtCore.Qt.UserRole) for item in self._table.selectedItems())

    def setSelectedSegmentIDs(self, segment_ids) -> None:
        for row in range(self._table.rowCount):
            item = self._table.item(row, 0)
            item.setSelected(item.data(QtCore.Qt.UserRole) in segment_ids)

    def tableWidget(self):
        return self._table


@double
@with_setters
class qMRMLSliderWidget(ctkSliderWidget):
    quantity = stored(str, "quantity", "")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
