"""Effects of the Segment Editor on the double of its widget: Scissors, Islands, Threshold.

What the effects compute with Qt in Slicer is made here by the same VTK filters; the segment changes by the real
vtkSlicerSegmentEditorLogic, so that masking and overwrite mode are obeyed. One undo step each.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy


def scissors(editor, segment_id: str, polygon_ij, erase: bool) -> None:
    """A lasso in an axial view, through all slices: fill or erase inside; `polygon_ij` in the volume's voxels."""
    labelmap = _modifier(editor, segment_id)
    low, high = labelmap.GetExtent()[4:]
    points, polygon = vtk.vtkPoints(), vtk.vtkPolygon()
    for i, j in polygon_ij:
        polygon.GetPointIds().InsertNextId(points.InsertNextPoint(i, j, low - 1))
    outline, cells = vtk.vtkPolyData(), vtk.vtkCellArray()
    cells.InsertNextCell(polygon)
    outline.SetPoints(points)
    outline.SetPolys(cells)
    extrude = vtk.vtkLinearExtrusionFilter()
    extrude.SetInputData(outline)
    extrude.SetExtrusionTypeToVectorExtrusion()
    extrude.SetVector(0, 0, high - low + 2)
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputConnection(extrude.GetOutputPort())
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(triangles.GetOutputPort())
    stencil = vtk.vtkPolyDataToImageStencil()
    stencil.SetInputConnection(normals.GetOutputPort())
    stencil.SetOutputSpacing(1, 1, 1)
    stencil.SetOutputWholeExtent(labelmap.GetExtent())
    image = vtk.vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.Update()
    logic = editor._logic
    mode = logic.ModificationModeRemove if erase else logic.ModificationModeAdd
    _apply(editor, segment_id, _array(image.GetOutput()) > 0, mode)


def keep_largest_island(editor, segment_id: str) -> None:
    _modifier(editor, segment_id)
    islands = slicer.vtkITKIslandMath()
    selected = vtk.vtkImageCast()
    selected.SetInputData(_selected(editor, segment_id))
    selected.SetOutputScalarTypeToInt()
    islands.SetInputConnection(selected.GetOutputPort())
    islands.SetFullyConnected(False)
    islands.Update()  # numbered from the largest on
    _apply(editor, segment_id, _array(islands.GetOutput()) == 1, editor._logic.ModificationModeSet)


def threshold(editor, segment_id: str, low: float, high: float) -> None:
    """Make the segment what has these intensities, as far as the masking settings allow."""
    _modifier(editor, segment_id)
    voxels = slicer.util.arrayFromVolume(editor.sourceVolumeNode())
    _apply(editor, segment_id, (voxels >= low) & (voxels <= high), editor._logic.ModificationModeSet)


def _modifier(editor, segment_id: str):
    """The empty modifier label map, on the source volume's grid."""
    editor.mrmlSegmentEditorNode().SetSelectedSegmentID(segment_id)
    editor._logic.UpdateReferenceGeometryImage()
    editor._logic.ResetModifierLabelmapToDefault()
    return editor._logic.GetModifierLabelmap()


def _selected(editor, segment_id: str):
    """The segment as an image of 0 and 1 on the grid of the modifier label map."""
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(editor.segmentationNode(), segment_id, editor.sourceVolumeNode())
    image = slicer.vtkOrientedImageData()
    image.DeepCopy(editor._logic.GetModifierLabelmap())
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(mask > 0, np.uint8).ravel(), deep=True))
    return image


def _apply(editor, segment_id: str, mask: np.ndarray, mode: int) -> None:
    logic = editor._logic
    labelmap = logic.GetModifierLabelmap()
    _array(labelmap)[:] = mask
    labelmap.GetPointData().GetScalars().Modified()
    labelmap.Modified()
    logic.SaveStateForUndo()
    logic.UpdateMaskLabelmap()
    logic.ModifySegmentByLabelmap(editor.segmentationNode(), segment_id, labelmap, mode, False, False)


def _array(image) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
