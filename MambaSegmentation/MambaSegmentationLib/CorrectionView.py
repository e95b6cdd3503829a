"""The preview of a correction: an outline in the views and a table of what would change."""

import slicer
from slicer.i18n import tr as _

from . import SegmentVoxels
from .CorrectLogic import Correction
from .TableView import fitHeight, numberItem, stretchFirst, textItem


class CorrectionView:
    """Fills previewLabel, previewTable and showPreviewCheckBox."""

    def __init__(self, ui):
        self._ui, self._node = ui, None
        stretchFirst(ui.previewTable)
        ui.showPreviewCheckBox.connect("toggled(bool)", self._onShow)

    @property
    def node(self):
        """The segmentation with the outline; None without one."""
        return self._node

    def show(self, correction: Correction) -> None:
        ui, rows = self._ui, correction.changes()
        table, ml = ui.previewTable, _voxelMl(correction.volume)
        ui.previewLabel.text = _("This would change. Accept it, or discard it and go on editing.")
        table.setRowCount(len(rows))
        for row, (segmentId, added, removed) in enumerate(rows):
            name = SegmentVoxels.nameOf(correction.segmentation, segmentId)
            items = (textItem(name), *(numberItem(_volumeText(count * ml)) for count in (added, removed)))
            for column, item in enumerate(items):
                table.setItem(row, column, item)
        fitHeight(table)
        self._node = _outline(correction)
        ui.showPreviewCheckBox.checked = True

    def hide(self) -> None:
        """Remove the outline."""
        if self._node and slicer.mrmlScene.IsNodePresent(self._node):
            slicer.mrmlScene.RemoveNode(self._node.GetDisplayNode())
            slicer.mrmlScene.RemoveNode(self._node)
        self._node = None

    def _onShow(self, isShown: bool) -> None:
        if self._node:
            self._node.GetDisplayNode().SetVisibility(isShown)


def _voxelMl(volumeNode) -> float:
    x, y, z = volumeNode.GetSpacing()
    return x * y * z / 1000


def _volumeText(volume_ml: float) -> str:
    if volume_ml == 0:
        return "0"
    return f"{volume_ml:.2f}" if volume_ml >= 0.01 else "< 0.01"


def _outline(correction: Correction):
    """A segmentation of the changing structures, outlined over the present one; never saved. Returns its node."""
    name = _("{name} (correction)").format(name=correction.segmentation.GetName())
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentationNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetSaveWithScene(False)
    node.SetAndObserveTransformNodeID(correction.segmentation.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(correction.volume)
    for segmentId, _added, _removed in correction.changes():
        source = correction.segmentation.GetSegmentation().GetSegment(segmentId)
        node.GetSegmentation().AddEmptySegment(segmentId, source.GetName(), source.GetColor())
        mask = correction.after == correction.valueOf[segmentId]
        SegmentVoxels.setMask(node, segmentId, correction.volume, mask)
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(3)
    return node
