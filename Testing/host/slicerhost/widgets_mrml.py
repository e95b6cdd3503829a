"""Doubles of Slicer's MRML widgets, written against what the real ones were seen to do (PythonQt 4.1, Slicer 5.12).

Facts that surprise: qMRMLNodeComboBox selects nothing when a node is added later, but selects the first remaining node
when the current one is removed, even with noneEnabled; setting a scene announces None several times with noneEnabled.
It does not see nodes that come while a scene is imported, nor any that go while one is closed: at both ends it drops
its current node, announces None and lists the scene anew (qMRMLSceneModel::updateScene).
"""

from __future__ import annotations

import functools
import weakref

import shiboken6
import slicer
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from .ui_loader import double
from .widgets_ctk import ctkSliderWidget, setter_slots, stored

# "Rename current ...", "Create new ...": the real one is never narrower than these rows, 143 points without any node.
_LETTERS_OF_ITS_OWN_ROWS = 14
_SIGNALS_OF_EMPTY_SCENE = {False: 1, True: 5}  # noneEnabled -> how often the real widget says None


class Observations:
    """VTK observations by methods of a widget: they do not keep it alive, and end with it."""

    def __init__(self, widget):
        self._widget, self._tags = weakref.ref(widget), []
        widget.destroyed.connect(functools.partial(self._remove, self._tags))

    def add(self, vtk_object, event, method: str) -> None:
        """Call widget.method() at each event."""
        widget = self._widget

        def call(*_):
            if widget() is not None and shiboken6.isValid(widget()):
                getattr(widget(), method)()

        self._tags.append((vtk_object, vtk_object.AddObserver(event, call)))

    def add_with_node(self, scene, event, method: str, priority: float) -> None:
        """Call widget.method(node) at each event of the scene about a node; higher priorities come first."""
        widget = self._widget

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def call(_scene, _event, node):
            if widget() is not None and shiboken6.isValid(widget()):
                getattr(widget(), method)(node)

        self._tags.append((scene, scene.AddObserver(event, call, priority)))

    def remove_all(self) -> None:
        self._remove(self._tags)

    @staticmethod
    def _remove(tags: list, *_) -> None:
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
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """As in Slicer no qMRMLWidget: it does not announce its scene."""

    currentNodeChanged = Signal(object)
    currentNodeValid = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeAdded = Signal(object)
    CPP_SIGNALS = {  # noqa: RUF012
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
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "Singleton")
    currentNodeID = Property(
        str,
        lambda self: self._node.GetID() if self._node else "",
        lambda self, node_id: self.setCurrentNodeID(node_id),
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._observations = None, Observations(self)
        self._node, self._nodes, self._attributes, self._closing = None, [], [], False
        self._going: list = []
        self._box = QtWidgets.QComboBox(self)
        self._box.sizePolicy = QtWidgets.QSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._box.setMinimumContentsLength(_LETTERS_OF_ITS_OWN_ROWS)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(self._row_picked)

    def _row_picked(self, row: int) -> None:
        self._select(self._box.itemData(row))

    def _noneEnabled_changed(self, _value) -> None:
        self._show()

    def _noneDisplay_changed(self, _value) -> None:
        self._show()

    def _nodeTypes_changed(self, _value) -> None:
        self._show()

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        self._observations.remove_all()
        self._scene = scene
        if scene is not None:
            self._observe(scene)
        self._show()
        if self._nodes and not self.noneEnabled:
            self._select(self._nodes[0].GetID())
        else:
            for _ in range(_SIGNALS_OF_EMPTY_SCENE[self.noneEnabled]):
                self._announce()

    def _observe(self, scene) -> None:
        self._observations.add_with_node(scene, scene.NodeAddedEvent, "_after_addition", 10.0)
        self._observations.add_with_node(scene, scene.NodeAboutToBeRemovedEvent, "_before_removal", -10.0)
        self._observations.add_with_node(scene, scene.NodeRemovedEvent, "_after_removal", 10.0)
        self._observations.add(scene, scene.StartCloseEvent, "_before_close")
        self._observations.add(scene, scene.EndCloseEvent, "_after_close")
        self._observations.add(scene, scene.EndImportEvent, "_list_anew")

    def _after_addition(self, node) -> None:
        if not self._scene.IsImporting() and self._accepts(node):
            self._show()
            self.nodeAdded.emit(node)

    def _before_removal(self, node) -> None:
        """The other node is announced while the one that goes still is in the scene."""
        if self._closing or node not in self._nodes:
            return
        self._going.append(node)
        self._show()
        if self._node is not None and self._node not in self._nodes:
            self._select(self._nodes[0].GetID() if self._nodes else None)

    def _after_removal(self, node) -> None:
        self._going = [going for going in self._going if going is not node]

    def _before_close(self) -> None:
        self._closing = True

    def _after_close(self) -> None:
        self._closing = False
        self._list_anew()

    def _list_anew(self) -> None:
        self._select(None)
        self._show()

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
        self._nodes = [node for node in every if self._accepts(node) and node not in self._going]
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
        node, node_id = self._node, self.currentNodeID
        for name, value in (
            ("currentNodeChanged", node),
            ("currentNodeValid", node is not None),
            ("currentNodeIDChanged", node_id),
        ):
            if shiboken6.isValid(self):  # a receiver may have deleted us
                getattr(self, name).emit(value)

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
@setter_slots("quantity")
class qMRMLSliderWidget(ctkSliderWidget):
    quantity = stored(str, "quantity", "")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
