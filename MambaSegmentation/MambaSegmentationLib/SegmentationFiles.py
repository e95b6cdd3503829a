"""Segmentation nodes into files: as they are, or as numbers on the voxels of an image. Nothing is overwritten."""

import os
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from MambaSegLib import label_file, label_table
from MambaSegLib.errors import UserError
from MambaSegLib.volume import Volume

from . import SceneIO, SegmentVoxels


def writeSegmentation(segmentationNode, path: Path) -> None:
    """As .seg.nrrd, under its name only when it is complete.

    Raises UserError when the name is taken or the disk refuses.
    """
    if path.exists():
        raise UserError(
            _("'{path}' is there already; nothing is overwritten.").format(path=path), _("Choose a new name.")
        )
    unfinished = path.with_name(f".unfinished-{path.name}")
    storage = slicer.vtkMRMLSegmentationStorageNode()  # outside the scene: the node keeps pointing at its own file
    storage.SetFileName(str(unfinished))
    if not storage.WriteData(segmentationNode):
        unfinished.unlink(missing_ok=True)
        raise UserError(
            _("The segmentation could not be written to '{path}'.").format(path=path),
            _("Make room on the disk, or choose another folder."),
        )
    os.rename(unfinished, path)


def writeLabels(segmentationNode, volumeNode, path: Path) -> list[str]:
    """The segments as numbers 1, 2, ... on the grid of the volume, with names and codes in a .seg.nrrd.

    Where segments overlap, the later one is written.

    Returns:
        The names of the segments that lack voxels in the file, as later ones cover them.
    """
    segmentation = segmentationNode.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs())
    merged, grid = slicer.vtkOrientedImageData(), SegmentVoxels.gridOf(segmentationNode, volumeNode)
    names, values = vtk.vtkStringArray(), vtk.vtkIntArray()
    for value, segmentId in enumerate(ids, start=1):
        names.InsertNextValue(segmentId)
        values.InsertNextValue(value)
    done = segmentationNode.GenerateMergedLabelmapForAllSegments(
        merged, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, grid, names, values
    )
    if not done:
        raise UserError(
            _("The segments of '{name}' could not be put on the image's voxels.").format(
                name=segmentationNode.GetName()
            ),
            _("Check that the segmentation has a binary labelmap."),
        )
    array = vtk_to_numpy(merged.GetPointData().GetScalars()).reshape(merged.GetDimensions()[::-1])
    rows = [_row(value, segmentation.GetSegment(i)) for value, i in enumerate(ids, start=1)]
    labels = _onGridOf(volumeNode, array.astype(np.uint16))
    label_file.write_labels(path, labels, label_table.from_json(rows))
    return _covered(segmentationNode, grid, np.bincount(array.ravel(), minlength=len(ids) + 1)[1:], ids)


def _covered(segmentationNode, grid, written: np.ndarray, ids: list[str]) -> list[str]:
    """Names of the segments with more voxels of their own than were written."""
    layers = SegmentVoxels.layers(segmentationNode)
    if len(layers) < 2:  # segments of one layer cannot overlap
        return []
    own = dict.fromkeys(ids, 0)
    for image, valueIn in layers:
        if not SegmentVoxels.isSameLattice(image, grid):  # regridded: the numbers say nothing
            return []
        own |= {i: np.count_nonzero(SegmentVoxels.arrayOf(image) == value) for i, value in valueIn.items()}
    return [SegmentVoxels.nameOf(segmentationNode, i) for i, n in zip(ids, written, strict=True) if own[i] > n]


def coveredWarning(names: list[str]) -> str:
    """What a user is told about segments that lack voxels in a file or a table."""
    return _("Overlapping voxels count for the later segment only, so there are too few in: {names}.").format(
        names=", ".join(dict.fromkeys(names))
    )


def _row(value: int, segment) -> dict:
    entry = vtk.mutable("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), entry)
    color = [round(255 * channel) for channel in segment.GetColor()]
    terminology = label_table.parse_terminology(str(entry))
    return {"value": value, "name": segment.GetName(), "color": color, "terminology": terminology}


def _onGridOf(volumeNode, array: np.ndarray) -> Volume:
    """The array, (K, J, I), where the volume lies: in LPS, without its parent transform."""
    spacing, origin, direction = SceneIO.lpsGeometry(volumeNode)
    return Volume(array, tuple(spacing), tuple(origin), direction, volumeNode.GetName())
