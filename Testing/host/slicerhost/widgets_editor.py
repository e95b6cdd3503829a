"""Double of qMRMLSegmentEditorWidget over the real vtkSlicerSegmentEditorLogic, and a brush for tests.

As the real one: a parameter node must be set before a segmentation; a new segmentation brings its reference volume as
source volume and its first segment as the selected one; undo and redo go through the logic's history.
"""

from __future__ import annotations

import numpy as np
import slicer
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal
from vtk.util.numpy_support import vtk_to_numpy

from .ui_loader import double
from .widgets_ctk import setter_slots, stored
from .widgets_mrml import Observations, qMRMLNodeComboBox, qMRMLWidget
from .widgets_segments import qMRMLSegmentsTableView


def _shows(attribute: str) -> Property:
    """A property that shows or hides a part of the widget."""
    return Property(
        bool,
        lambda self: not getattr(self, attribute).isHidden(),
        lambda self, value: getattr(self, attribute).setVisible(value),
    )


class Effect:
    """What effectByName() gives, as far as a module can see it here."""

    def __init__(self, name: str):
        self.name = name
        self.perSegment = True


@double
@setter_slots(
    *("segmentationNodeSelectorVisible", "sourceVolumeNodeSelectorVisible", "maskingSectionVisible", "readOnly"),
    *("specifyGeometryButtonVisible", "show3DButtonVisible", "addRemoveSegmentButtonsVisible", "effectButtonStyle"),
    *("autoShowSourceVolumeNode", "switchToSegmentationsButtonVisible", "undoEnabled", "effectColumnCount"),
    *("jumpToSelectedSegmentEnabled", "maximumNumberOfUndoStates"),
)
class qMRMLSegmentEditorWidget(qMRMLWidget):
    currentSegmentIDChanged = Signal(str)
    sourceVolumeNodeChanged = Signal(object)
    segmentationNodeChanged = Signal(object)
    CPP_SIGNALS = {  # noqa: RUF012
        **qMRMLWidget.CPP_SIGNALS,
        "currentSegmentIDChanged(QString)": "currentSegmentIDChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged",
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged",
    }
    segmentationNodeSelectorVisible = _shows("_nodes")
    sourceVolumeNodeSelectorVisible = _shows("_volumes")
    maskingSectionVisible = _shows("_masking")
    specifyGeometryButtonVisible = stored(bool, "specifyGeometryButtonVisible", True)
    show3DButtonVisible = stored(bool, "show3DButtonVisible", True)
    addRemoveSegmentButtonsVisible = stored(bool, "addRemoveSegmentButtonsVisible", True)
    autoShowSourceVolumeNode = stored(bool, "autoShowSourceVolumeNode", True)
    switchToSegmentationsButtonVisible = stored(bool, "switchToSegmentationsButtonVisible", True)
    undoEnabled = stored(bool, "undoEnabled", True)
    readOnly = stored(bool, "readOnly", False)
    effectButtonStyle = stored(int, "effectButtonStyle", 0)
    effectColumnCount = stored(int, "effectColumnCount", 2)
    unorderedEffectsVisible = stored(bool, "unorderedEffectsVisible", True)
    defaultTerminologyEntrySettingsKey = stored(
        str, "defaultTerminologyEntrySettingsKey", "Segmentations/DefaultTerminologyEntry"
    )
    defaultTerminologyEntry = stored(str, "defaultTerminologyEntry", "")
    jumpToSelectedSegmentEnabled = stored(bool, "jumpToSelectedSegmentEnabled", False)
    maximumNumberOfUndoStates = Property(
        int,
        lambda self: self._logic.GetMaximumNumberOfUndoStates(),
        lambda self, value: self._logic.SetMaximumNumberOfUndoStates(value),
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._logic, self._node, self._segmentation, self._volume = (
            slicer.vtkSlicerSegmentEditorLogic(),
            None,
            None,
            None,
        )
        self._nodes, self._volumes, self._table = qMRMLNodeComboBox(self), qMRMLNodeComboBox(self), None
        self._nodes.nodeTypes, self._volumes.nodeTypes = ["vtkMRMLSegmentationNode"], ["vtkMRMLScalarVolumeNode"]
        self._table = qMRMLSegmentsTableView(self)
        self._effects_box, self._masking = QtWidgets.QGroupBox("Effects", self), QtWidgets.QGroupBox("Masking", self)
        self._effects = {name: Effect(name) for name in ("Paint", "Erase", "Draw", "Threshold", "Islands")}
        self._order, self._effect, self._watching, self._has_shortcuts = (), None, False, False
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self._nodes, self._volumes, self._table, self._effects_box, self._masking):
            layout.addWidget(part)
        self._node_observations = Observations(self)
        self._nodes.currentNodeChanged.connect(self.setSegmentationNode)
        self._volumes.currentNodeChanged.connect(self.setSourceVolumeNode)
        self._table.selectionChanged.connect(self._row_chosen)

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        for part in (self._nodes, self._volumes, self._table):
            part.setMRMLScene(scene)

    def mrmlSegmentEditorNode(self):
        return self._node

    def setMRMLSegmentEditorNode(self, node) -> None:
        if node is self._node:
            return
        self._node_observations.remove_all()
        self._node = node
        self._logic.SetSegmentEditorNode(node)
        if node is not None:
            self._node_observations.add(node, "ModifiedEvent", "updateWidgetFromMRML")
            self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:
        segmentation = self._node.GetSegmentationNode() if self._node else None
        if segmentation is not self._segmentation:
            self._segmentation = segmentation
            self._nodes.setCurrentNode(segmentation)
            self._table.setSegmentationNode(segmentation)
            if segmentation is not None:
                role = segmentation.GetReferenceImageGeometryReferenceRole()
                self.setSourceVolumeNode(segmentation.GetNodeReference(role))
                ids = segmentation.GetSegmentation().GetSegmentIDs()
                if ids:
                    self._node.SetSelectedSegmentID(ids[0])
            self.segmentationNodeChanged.emit(segmentation)
        volume = self._node.GetSourceVolumeNode() if self._node else None
        if volume is not self._volume:
            self._volume = volume
            self._volumes.setCurrentNode(volume)
            self.sourceVolumeNodeChanged.emit(volume)
        self._table.setSelectedSegmentIDs([self.currentSegmentID()])

    def _row_chosen(self, *_) -> None:
        chosen = self._table.selectedSegmentIDs()
        if self._node is not None and chosen and chosen[0] != self.currentSegmentID():
            self._node.SetSelectedSegmentID(chosen[0])
            self.currentSegmentIDChanged.emit(chosen[0])

    def segmentationNode(self):
        return self._nodes.currentNode()

    def segmentationNodeID(self) -> str:
        return self._nodes.currentNodeID

    def setSegmentationNode(self, node) -> None:
        if self._node is not None and self._node.GetSegmentationNode() is not node:
            self._logic.SetSegmentationNode(node)
            self.setActiveEffect(None)

    def setSegmentationNodeID(self, node_id: str) -> None:
        self.setSegmentationNode(self._scene.GetNodeByID(node_id))

    def sourceVolumeNode(self):
        return self._logic.GetSourceVolumeNode()

    def sourceVolumeNodeID(self) -> str:
        node = self.sourceVolumeNode()
        return node.GetID() if node else ""

    def setSourceVolumeNode(self, node) -> None:
        self._logic.SetSourceVolumeNode(node)

    def setSourceVolumeNodeID(self, node_id: str) -> None:
        self.setSourceVolumeNode(self._scene.GetNodeByID(node_id))

    def currentSegmentID(self) -> str:
        return self._logic.GetCurrentSegmentID()

    def setCurrentSegmentID(self, segment_id: str) -> None:
        if self._node is not None:
            self._node.SetSelectedSegmentID(segment_id)
            self.currentSegmentIDChanged.emit(segment_id)

    def activeEffect(self):
        return self._effect

    def setActiveEffect(self, effect) -> None:
        self._effect = effect
        if self._node is not None:
            self._node.SetActiveEffectName(effect.name if effect else "")

    def setActiveEffectByName(self, name: str) -> None:
        self.setActiveEffect(self.effectByName(name))

    def effectByName(self, name: str):
        return self._effects.get(name)

    def availableEffectNames(self) -> tuple[str, ...]:
        return tuple(self._effects)

    def effectNameOrder(self) -> tuple[str, ...]:
        return self._order

    def setEffectNameOrder(self, names) -> None:
        self._order = tuple(names)

    def effectCount(self) -> int:
        return len(self._effects)

    def effectByIndex(self, index: int):
        return list(self._effects.values())[index]

    def saveStateForUndo(self) -> None:
        self._logic.SaveStateForUndo()

    def undo(self) -> None:
        self._logic.Undo()

    def redo(self) -> None:
        self._logic.Redo()

    def setupViewObservations(self) -> None:
        self._watching = True

    def removeViewObservations(self) -> None:
        self._watching = False

    def installKeyboardShortcuts(self, parent=None) -> None:
        self._has_shortcuts = True

    def uninstallKeyboardShortcuts(self) -> None:
        self._has_shortcuts = False

    def updateEffectList(self) -> None:
        """The effects of this double never change."""

    def showSourceVolumeInSliceViewers(self, force_in_background: bool = False, fit: bool = False) -> None:
        for name in slicer.app.layoutManager().sliceViewNames():
            composite = slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()
            composite.SetBackgroundVolumeID(self.sourceVolumeNodeID() or None)


def paint(editor: qMRMLSegmentEditorWidget, segment_id: str, ijk, radius: float, erase: bool = False) -> None:
    """The user's ball brush: one stroke at the voxel `ijk` of the source volume, `radius` in voxels; one undo step.

    Masking and overwrite mode of the editor's parameter node are obeyed, as the logic does it.
    """
    logic, node = editor._logic, editor.mrmlSegmentEditorNode()
    node.SetSelectedSegmentID(segment_id)
    logic.UpdateReferenceGeometryImage()
    logic.ResetModifierLabelmapToDefault()
    labelmap = logic.GetModifierLabelmap()
    x0, x1, y0, y1, z0, z1 = labelmap.GetExtent()
    voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    z, y, x = np.mgrid[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1]
    voxels[(x - ijk[0]) ** 2 + (y - ijk[1]) ** 2 + (z - ijk[2]) ** 2 < radius**2] = 1
    labelmap.GetPointData().GetScalars().Modified()
    labelmap.Modified()
    logic.SaveStateForUndo()
    logic.UpdateMaskLabelmap()
    mode = logic.ModificationModeRemove if erase else logic.ModificationModeAdd
    logic.ModifySegmentByLabelmap(editor.segmentationNode(), segment_id, labelmap, mode, False, False)
