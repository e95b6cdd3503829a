"""The slices of a segmentation that the user has looked at and calls done; they stay with the segmentation node."""

import json

import numpy as np
import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import Regions, SceneIO

_ATTRIBUTE = "MambaSegmentation.doneSlices"
_ALIGNED = np.cos(np.radians(10))


def marked(segmentationNode) -> dict[int, list[int]]:
    """{axis 0, 1, 2 of (Z, Y, X): sorted indices on the volume's grid}; axes without any are left out."""
    text = segmentationNode.GetAttribute(_ATTRIBUTE) if segmentationNode else None
    return {int(axis): indices for axis, indices in json.loads(text or "{}").items()}


def mark(segmentationNode, axis: int, indices) -> None:
    """Add slices."""
    found = marked(segmentationNode)
    found[axis] = sorted({*found.get(axis, []), *map(int, indices)})
    segmentationNode.SetAttribute(_ATTRIBUTE, json.dumps(found))


def clear(segmentationNode) -> None:
    segmentationNode.RemoveAttribute(_ATTRIBUTE)


def mask(segmentationNode, shape) -> np.ndarray:
    """bool, (Z, Y, X): the voxels of the marked slices."""
    result = np.zeros(shape, bool)
    for axis, indices in marked(segmentationNode).items():
        np.moveaxis(result, axis, 0)[[index for index in indices if index < shape[axis]]] = True
    return result


def sliceShown(viewName: str, volumeNode) -> tuple[int, int]:
    """(axis, index) of the volume's slice that the view shows.

    Raises:
        UserError: the view is turned against the volume, or shows a place outside of it.
    """
    toWorld = slicer.util.arrayFromVTKMatrix(
        slicer.app.layoutManager().sliceWidget(viewName).mrmlSliceNode().GetSliceToRAS()
    )
    here, above = (Regions.voxelOf(toWorld[:3, 3] + step * toWorld[:3, 2], volumeNode) for step in (0, 1))
    normal = (above - here) * volumeNode.GetSpacing()  # mm along i, j, k; they are at right angles
    share = np.abs(normal) / np.linalg.norm(normal)
    column = int(share.argmax())
    if share[column] < _ALIGNED:
        raise UserError(
            _("The view {view} does not show whole slices of '{volume}'.").format(
                view=viewName, volume=volumeNode.GetName()
            ),
            _("Press 'Rotate to volume plane' in the bar of that view, then try again."),
        )
    index = round(float(here[column]))
    if not 0 <= index < volumeNode.GetImageData().GetDimensions()[column]:
        raise UserError(
            _("The view {view} shows a place outside '{volume}'.").format(view=viewName, volume=volumeNode.GetName()),
            _("Scroll to a slice of the image."),
        )
    return 2 - column, index


def planeName(axis: int, volumeNode) -> str:
    """'axial', 'coronal' or 'sagittal': across which direction of the body the slices of this axis are stacked."""
    direction = SceneIO.ijkToRas(volumeNode)[:3, 2 - axis]
    names = (_("sagittal"), _("coronal"), _("axial"))
    return names[int(np.abs(direction).argmax())]


def describe(segmentationNode, volumeNode) -> str:
    """'axial: 5, 7-9; coronal: 12', counted from 0 as in Slicer's Data Probe; "" without any."""
    parts = marked(segmentationNode).items()
    return "; ".join(f"{planeName(axis, volumeNode)}: {_ranges(indices)}" for axis, indices in sorted(parts))


def _ranges(indices: list[int]) -> str:
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
