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
    array, covered = numbers(segmentationNode, volumeNode)
    labels = _onGridOf(volumeNode, array)
    label_file.write_labels(path, labels, label_table.from_json(structures(segmentationNode)))
    return covered


def writeForWorker(segmentationNode, volumeNode, path: Path) -> list[str]:
    """The same numbers as a .nrrd file, in a fraction of the time; the worker is told of `structures` apart from it."""
    array, covered = numbers(segmentationNode, volumeNode)
    SegmentVoxels.writeLabels(array, volumeNode, path)
    return covered


def structures(segmentationNode) -> list[dict]:
    """[{value, name, color, terminology}]: what the numbers mean."""
    segmentation = segmentationNode.GetSegmentation()
    ids = segmentation.GetSegmentIDs()
    return [_row(value, segmentation.GetSegment(i)) for value, i in enumerate(ids, start=1)]


def numbers(segmentationNode, volumeNode) -> tuple[np.ndarray, list[str]]:
    """The numbers of the segments, (K, J, I), and the names of those of which later ones cover voxels."""
    ids = list(segmentationNode.GetSegmentation().GetSegmentIDs())
    grid = SegmentVoxels.geometryOf(segmentationNode, volumeNode)
    layers = SegmentVoxels.layers(segmentationNode)
    places = [_placeOf(image, grid) for image, _values in layers]
    if None in places:  # regridded, or beyond the image
        return _merged(segmentationNode, grid, ids), []
    result = np.zeros(grid.GetDimensions()[::-1], np.uint8 if len(ids) < 256 else np.uint16)
    arrays = [SegmentVoxels.arrayOf(image) for image, _values in layers]
    if len(layers) == 1:
        table = _table(layers[0][1], ids, arrays[0], result.dtype)
        isSame = np.array_equal(table, np.arange(len(table)))  # as a rule: that spares a look-up per voxel
        result[places[0]] = arrays[0] if isSame else table[arrays[0]]
        return result, []  # segments of one layer cannot overlap
    where = {i: (layer, value) for layer, (_image, values) in enumerate(layers) for i, value in values.items()}
    own = []
    for number, segmentId in enumerate(ids, start=1):
        layer, value = where[segmentId]
        mask = arrays[layer] == value
        result[places[layer]][mask] = number
        own.append(np.count_nonzero(mask))
    written = np.bincount(result.ravel(), minlength=len(ids) + 1)[1:]
    short = [i for i, before, after in zip(ids, own, written, strict=True) if before > after]
    return result, [SegmentVoxels.nameOf(segmentationNode, i) for i in short]


def _placeOf(image, grid) -> tuple | None:
    if SegmentVoxels.arrayOf(image).size == 0:
        return (slice(0, 0),) * 3
    return SegmentVoxels.placeIn(image, grid)


def _table(values: dict[str, int], ids: list[str], array: np.ndarray, dtype) -> np.ndarray:
    """Value in the layer -> number of the segment."""
    table = np.zeros(max([0, *values.values(), int(array.max(initial=0))]) + 1, dtype)
    for number, segmentId in enumerate(ids, start=1):
        table[values[segmentId]] = number
    return table


def _merged(segmentationNode, grid, ids: list[str]) -> np.ndarray:
    """Resampled to the grid by Slicer."""
    merged, names, values = slicer.vtkOrientedImageData(), vtk.vtkStringArray(), vtk.vtkIntArray()
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
    return array.astype(np.uint16)


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
