"""The region of interest: a markups ROI in world RAS, and the box that it means to a job on a volume."""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import SceneIO

_ROUNDING_MM = 1e-3  # forgives a face that lies exactly on a voxel's centre
_NEVER = 1e-12  # mm per voxel, of an axis along which the place in the region does not change


def bounds(roiNode, volumeNode) -> tuple[list[float], str]:
    """The region of a markups ROI for a job on the volume.

    Returns:
        [xmin, xmax, ymin, ymax, zmin, zmax] in LPS mm, in the volume's own coordinates (all parent transforms undone),
        and a note for the user, "" if there is nothing to note.
    """
    if not hasSize(roiNode):
        raise UserError(
            _("The region '{name}' has no size yet.").format(name=roiNode.GetName()),
            _("Press 'Fit to volume' and drag its handles in the views, or choose no region."),
        )
    toNode = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    half = np.array(roiNode.GetSize()) / 2
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, -1).T
    corners = (np.c_[signs * half, np.ones(8)] @ toNode.T)[:, :3]
    toVolume = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        roiNode.GetParentTransformNode(), volumeNode.GetParentTransformNode(), toVolume
    )
    corners = np.array([toVolume.TransformPoint(corner) for corner in corners]) * SceneIO.RAS_TO_LPS
    low, high = corners.min(axis=0), corners.max(axis=0)
    _checkOverlap(roiNode, volumeNode, low, high)
    isTurned = not np.isclose(corners, np.where(corners < (low + high) / 2, low, high), atol=0.01).all()
    note = _("The region is turned against the volume's axes: the box around it is segmented.") if isTurned else ""
    return np.c_[low, high].ravel().tolist(), note


def _checkOverlap(roiNode, volumeNode, low, high) -> None:
    """Raises UserError when the box (LPS mm, the volume's own coordinates) does not meet the volume."""
    size = np.array(volumeNode.GetImageData().GetDimensions())
    first, last = SceneIO.lpsBounds(volumeNode, np.full(3, -0.5), size - 0.5)
    if (low >= last).any() or (high <= first).any():
        raise UserError(
            _("The region '{roi}' lies outside the volume '{volume}'.").format(
                roi=roiNode.GetName(), volume=volumeNode.GetName()
            ),
            _("Move it onto the image, or press 'Fit to volume'."),
        )


def inside(roiNode, volumeNode) -> np.ndarray:
    """bool, (Z, Y, X): the voxels of the volume whose centres lie in the region, however it is turned.

    Raises:
        UserError: it has no size, misses the volume, or one of them lies under a transform that bends.
    """
    bounds(roiNode, volumeNode)  # says what is wrong with it
    volumeToWorld, objectToWorld = vtk.vtkMatrix4x4(), roiNode.GetObjectToWorldMatrix()
    transforms = slicer.vtkMRMLTransformNode
    isLinear = all(
        transforms.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, volumeToWorld)
        for node in (roiNode, volumeNode)  # the volume last: its matrix stays
    )
    if not isLinear:
        raise UserError(
            _("The region '{name}' or the image lies under a transform that bends.").format(name=roiNode.GetName()),
            _("Harden the transform, or choose no region."),
        )
    toWorld = slicer.util.arrayFromVTKMatrix(volumeToWorld) @ SceneIO.ijkToRas(volumeNode)
    toObject = np.linalg.inv(slicer.util.arrayFromVTKMatrix(objectToWorld)) @ toWorld
    return _between(toObject, np.array(roiNode.GetSize()) / 2 + _ROUNDING_MM, volumeNode.GetImageData().GetDimensions())


def _between(toObject: np.ndarray, half_mm: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """bool, (Z, Y, X), of an image of size (X, Y, Z): which voxels are at most half_mm from 0 along each object axis.

    Those of a row stand together: its first and its last are found, as no voxel need be looked at for that.
    """
    k, j = np.ix_(*(np.arange(n, dtype=float) for n in size[:0:-1]))
    first, last = 0.0, size[0] - 1.0
    for (perI, perJ, perK, start), half in zip(toObject[:3], half_mm, strict=True):
        perI, middle = perI or _NEVER, perJ * j + perK * k + start
        ends = (-half - middle) / perI, (half - middle) / perI
        first, last = np.maximum(first, np.minimum(*ends)), np.minimum(last, np.maximum(*ends))
    first, last = (edge.clip(-1, size[0]).astype(np.int32)[..., None] for edge in (np.ceil(first), np.floor(last)))
    i = np.arange(size[0], dtype=np.int32)
    return (i >= first) & (i <= last)


def voxelOf(point, volumeNode) -> np.ndarray:
    """(i, j, k), with fractions, of a place in the world (RAS mm) in the volume's voxels."""
    toVolume = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volumeNode.GetParentTransformNode(), toVolume)
    return (np.linalg.inv(SceneIO.ijkToRas(volumeNode)) @ [*toVolume.TransformPoint(point), 1.0])[:3]


def hasSize(roiNode) -> bool:
    return roiNode.GetNumberOfControlPoints() > 0 and min(roiNode.GetSize()) > 0


def fit(roiNode, volumeNode) -> None:
    """Make the ROI the box around the whole volume, in world coordinates."""
    box = [0.0] * 6
    volumeNode.GetRASBounds(box)
    low, high = np.array(box[::2]), np.array(box[1::2])
    roiNode.SetAndObserveTransformNodeID(None)
    roiNode.SetXYZ(*((low + high) / 2).tolist())
    roiNode.SetRadiusXYZ(*((high - low) / 2).tolist())
