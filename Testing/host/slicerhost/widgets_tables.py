"""Doubles of Slicer's table view, plot view and checkable node list."""

from __future__ import annotations

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from .ui_loader import double
from .widgets_ctk import setter_slots, stored
from .widgets_mrml import Observations, qMRMLNodeComboBox, qMRMLWidget


@double
@setter_slots("transposed", "firstRowLocked", "firstColumnLocked")
class qMRMLTableView(QtWidgets.QTableWidget):
    """Shows a vtkMRMLTableNode and follows it; the real one is a QTableView."""

    mrmlSceneChanged = Signal(object)
    CPP_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012
    transposed = stored(bool, "transposed", False)
    firstRowLocked = stored(bool, "firstRowLocked", False)
    firstColumnLocked = stored(bool, "firstColumnLocked", False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = self._table_node = self._view_node = None
        self._observations = Observations(self)

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlTableViewNode(self):
        return self._view_node

    def setMRMLTableViewNode(self, node) -> None:
        self._view_node = node

    def mrmlTableNode(self):
        return self._table_node

    def setMRMLTableNode(self, node) -> None:
        self._observations.remove_all()
        self._table_node = node
        if node is not None:
            self._observations.add(node, "ModifiedEvent", "_fill")
        self._fill()

    def _fill(self) -> None:
        table = self._table_node.GetTable() if self._table_node else None
        columns = table.GetNumberOfColumns() if table else 0
        self.setColumnCount(columns)
        self.setRowCount(table.GetNumberOfRows() if table else 0)
        self.setHorizontalHeaderLabels([table.GetColumnName(c) for c in range(columns)])
        for row in range(self.rowCount):
            for column in range(columns):
                self.setItem(row, column, QtWidgets.QTableWidgetItem(table.GetValue(row, column).ToString()))


@double
class qMRMLPlotView(QtWidgets.QWidget):
    """Remembers the plot view node; draws nothing."""

    mrmlSceneChanged = Signal(object)
    CPP_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = self._view_node = None
        self.setMinimumHeight(60)

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def setMRMLPlotViewNode(self, node) -> None:
        self._view_node = node

    def fitToContent(self) -> None:
        """Nothing is drawn."""


@double
class qMRMLPlotWidget(qMRMLWidget):
    """A plot view with its bar."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._view = qMRMLPlotView(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._view.setMRMLScene(scene)

    def plotView(self) -> qMRMLPlotView:
        return self._view

    def mrmlPlotViewNode(self):
        return self._view._view_node

    def setMRMLPlotViewNode(self, node) -> None:
        self._view.setMRMLPlotViewNode(node)


@double
class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Nodes to tick; nothing is ticked by itself; a node that goes, or is listed anew, loses its tick."""

    checkedNodesChanged = Signal()
    CPP_SIGNALS = {**qMRMLNodeComboBox.CPP_SIGNALS, "checkedNodesChanged()": "checkedNodesChanged"}  # noqa: RUF012
    addEnabled = stored(bool, "addEnabled", False)
    removeEnabled = stored(bool, "removeEnabled", False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._checked: set[str] = set()

    def checkedNodes(self) -> tuple:
        return tuple(node for node in self._nodes if node.GetID() in self._checked)

    def uncheckedNodes(self) -> tuple:
        return tuple(node for node in self._nodes if node.GetID() not in self._checked)

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node):
        return QtCore.Qt.Checked if node in self.checkedNodes() else QtCore.Qt.Unchecked

    def setCheckState(self, node, state) -> None:
        before = set(self._checked)
        if int(state) == int(QtCore.Qt.Checked):
            self._checked.add(node.GetID())
        else:
            self._checked.discard(node.GetID())
        if before != self._checked:
            self.checkedNodesChanged.emit()

    def check(self, node) -> None:
        self.setCheckState(node, QtCore.Qt.Checked)

    def uncheck(self, node) -> None:
        self.setCheckState(node, QtCore.Qt.Unchecked)

    def _before_removal(self, node) -> None:
        self._checked.discard(node.GetID())
        super()._before_removal(node)

    def _list_anew(self) -> None:
        was_ticked = bool(self._checked)
        self._checked.clear()
        super()._list_anew()
        if was_ticked:
            self.checkedNodesChanged.emit()
