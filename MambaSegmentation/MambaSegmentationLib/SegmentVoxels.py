"""The voxels of segments as arrays on a volume's grid and back, and as label files for the worker.

Arrays are (Z, Y, X). A label map has one value per segment; a model's structure keeps the model's value, whatever the
user calls the segment: the value stays with the segment as a tag.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from MambaSegLib.errors import UserError

from . import SceneIO

_VALUE_TAG = "MambaSegmentation.value"
REPRESENTATION = "Binary labelmap"
_LARGEST = 254  # 255 means "not known" in the training set


def volumeOf(segmentationNode):
    """The image that the segmentation was made on: its reference geometry; None without one."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    node = segmentationNode.GetNodeReference(role)
    return node if node and node.IsA("vtkMRMLScalarVolumeNode") and node.GetImageData() else None


def segmentIds(segmentationNode) -> list[str]:
    return list(segmentationNode.GetSegmentation().GetSegmentIDs())


def nameOf(segmentationNode, segmentId: str) -> str:
    return segmentationNode.GetSegmentation().GetSegment(segmentId).GetName()


def isVisible(segmentationNode, segmentId: str) -> bool:
    display = segmentationNode.GetDisplayNode()
    return display is None or display.GetSegmentVisibility(segmentId)


def values(segmentationNode, known: dict[str, int]) -> dict[str, int]:
    """{segment ID: label value}, the same as long as the segment lives.

    Args:
        known: structure -> value of the model; other segments get values that no structure has.

    Raises:
        UserError: too many segments.
    """
    segmentation, found = segmentationNode.GetSegmentation(), {}
    for segmentId in segmentIds(segmentationNode):
        value = _tag(segmentation.GetSegment(segmentId)) or known.get(nameOf(segmentationNode, segmentId), 0)
        found[segmentId] = 0 if value in found.values() else value
    free = (v for v in range(1, _LARGEST + 1) if v not in found.values() and v not in known.values())
    for segmentId in found:
        found[segmentId] = found[segmentId] or next(free, 0)
        if not found[segmentId]:
            raise UserError(_("A segmentation can have at most 254 segments here."), _("Remove some of them."))
        segmentation.GetSegment(segmentId).SetTag(_VALUE_TAG, str(found[segmentId]))
    return found


def _tag(segment) -> int:
    text = vtk.mutable("")
    return int(text.get()) if segment.GetTag(_VALUE_TAG, text) and text.get().isdigit() else 0


def layers(segmentationNode) -> list[tuple[object, dict[str, int]]]:
    """(vtkOrientedImageData, {segment ID: its value in it}) of every layer of voxels; not to be changed."""
    segmentationNode.CreateBinaryLabelmapRepresentation()
    segmentation = segmentationNode.GetSegmentation()
    found = []
    for layer in range(segmentation.GetNumberOfLayers(REPRESENTATION)):
        ids = segmentation.GetSegmentIDsForLayer(layer, REPRESENTATION)
        value = {segmentId: segmentation.GetSegment(segmentId).GetLabelValue() for segmentId in ids}
        found.append((segmentation.GetLayerDataObject(layer, REPRESENTATION), value))
    return found


def masks(segmentationNode, volumeNode, layersOf=None) -> Iterator[tuple[str, np.ndarray]]:
    """(segment ID, bool array on the volume's grid) of every segment.

    Args:
        layersOf: as `layers` gives them, of an earlier state; by default those of now.

    Raises:
        UserError: the segments do not lie on the voxels of the volume.
    """
    grid = gridOf(segmentationNode, volumeNode)
    for image, valueIn in layers(segmentationNode) if layersOf is None else layersOf:
        voxels = _onGrid(image, grid, segmentationNode, volumeNode)
        for segmentId, value in valueIn.items():
            yield segmentId, voxels == value


def labels(segmentationNode, volumeNode, valueOf: dict[str, int], layersOf=None) -> tuple[np.ndarray, np.ndarray]:
    """Label values (uint8) of the segments in `valueOf`, and where more than one of all segments lies (bool).

    Of overlapping segments the later one is in the label map. Raises UserError as `masks`.
    """
    found = dict(masks(segmentationNode, volumeNode, layersOf))
    shape = slicer.util.arrayFromVolume(volumeNode).shape[:3]  # a picture has its colours as a fourth axis
    result, count = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for mask in found.values():
        count += mask
    for segmentId in (i for i in valueOf if i in found):
        result[found[segmentId]] = valueOf[segmentId]
    return result, count > 1


def setMask(segmentationNode, segmentId: str, volumeNode, mask: np.ndarray) -> None:
    """Make the segment exactly this; other segments stay as they are, where they overlap as well."""
    image = gridOf(segmentationNode, volumeNode)
    _setVoxels(image, mask)
    _replace(segmentationNode, segmentId, image)


def setImage(segmentationNode, segmentId: str, image, value: int) -> None:
    """Make the segment what has this value in a layer of `layers`; otherwise as `setMask`."""
    if image.IsEmpty() or image.GetPointData().GetScalars() is None:
        return clear(segmentationNode, segmentId)
    copy = slicer.vtkOrientedImageData()
    copy.DeepCopy(image)
    _setVoxels(copy, numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()) == value)
    _replace(segmentationNode, segmentId, copy)


def clear(segmentationNode, segmentId: str) -> None:
    """Make the segment empty."""
    slicer.vtkSlicerSegmentationsModuleLogic.ClearSegment(segmentationNode, segmentId)


def _setVoxels(image, mask: np.ndarray) -> None:
    voxels = np.ascontiguousarray(mask, np.uint8).ravel()
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels, deep=True))


def _replace(segmentationNode, segmentId: str, image) -> None:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentId, logic.MODE_REPLACE)


def gridOf(segmentationNode, volumeNode):
    """The volume's grid in the segmentation's coordinates, as vtkOrientedImageData of its own."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    image = logic.CreateOrientedImageDataFromVolumeNode(volumeNode, segmentationNode.GetParentTransformNode())
    image.UnRegister(None)
    return image


def geometryOf(segmentationNode, volumeNode):
    """The volume's grid as `gridOf` gives it, as a rule without copying its voxels."""
    if segmentationNode.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        return gridOf(segmentationNode, volumeNode)
    grid, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    grid.SetExtent(volumeNode.GetImageData().GetExtent())
    grid.SetGeometryFromImageToWorldMatrix(matrix)
    return grid


def _onGrid(image, grid, segmentationNode, volumeNode) -> np.ndarray:
    shape = grid.GetDimensions()[::-1]
    if image is None or image.IsEmpty() or image.GetPointData().GetScalars() is None:
        return np.zeros(shape, np.uint8)
    if not _isSameLattice(image, grid):
        raise UserError(
            _("The voxels of '{segmentation}' are not those of the volume '{volume}'.").format(
                segmentation=segmentationNode.GetName(), volume=volumeNode.GetName()
            ),
            _("Segment the volume anew, or set the volume as the segmentation's source geometry."),
        )
    out = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, grid, out)
    return numpy_support.vtk_to_numpy(out.GetPointData().GetScalars()).reshape(shape)


def _isSameLattice(image, grid) -> bool:
    """Whether the voxels of one lie exactly on those of the other, but for the extent."""
    return _offset(image, grid) is not None


def _offset(image, grid) -> np.ndarray | None:
    """How many voxels of the grid, along I, J, K, the image's index 0 lies beside its own; None on another lattice."""
    index = np.linalg.inv(_toWorld(grid)) @ _toWorld(image)
    offset = index[:3, 3]
    isSame = np.abs(index[:3, :3] - np.eye(3)).max() < 1e-3 and np.abs(offset - offset.round()).max() < 0.05
    return offset.round().astype(int) if isSame else None


def arrayOf(image) -> np.ndarray:
    """A view of a layer's voxels, (Z, Y, X) of its own extent; to be used before the layer changes."""
    if image is None or image.IsEmpty() or image.GetPointData().GetScalars() is None:
        return np.zeros((0, 0, 0), np.uint8)
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def placeIn(image, grid) -> tuple[slice, slice, slice] | None:
    """Where in an array on the grid that view lies, along Z, Y, X; None when it does not lie in it."""
    offset = _offset(image, grid)
    if offset is None:
        return None
    low = (offset + image.GetExtent()[::2])[::-1]
    high = low + image.GetDimensions()[::-1]
    if (low < 0).any() or (high > grid.GetDimensions()[::-1]).any():
        return None
    return tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))


def _toWorld(image) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


# Files for the worker


def writeLabels(array: np.ndarray, volumeNode, path: Path) -> Path:
    """A label map (uint16, else bytes) on the volume's grid as a .nrrd file in LPS.

    Raises UserError when the disk refuses.
    """
    voxels = np.ascontiguousarray(array, array.dtype if array.dtype == np.uint16 else np.uint8)
    try:
        with open(path, "wb") as file:  # SimpleITK would copy it twice, which takes a second for a large CT
            file.write(SceneIO.nrrdHeader(volumeNode, voxels.dtype.name).encode("ascii"))
            file.write(voxels.data)
    except OSError as error:
        raise UserError(
            _("The labels could not be written to {path}.").format(path=path),
            _("Make room on the disk, or set another temporary folder in Slicer's settings."),
        ) from error
    return path


def readLabels(path: Path) -> np.ndarray:
    """Label values of a file that the worker wrote. Raises UserError."""
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise UserError(
            _("The result could not be read from {path}.").format(path=path),
            _("Try again; if it happens again, send the log to the developers."),
        ) from error
