"""Size and mean intensity of every segment as it is now: counted in pieces between other events, so nothing waits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import qt
import slicer

from . import SceneIO, SegmentVoxels

_VOXELS_AT_ONCE = 1 << 21  # a few milliseconds


def stateOf(segmentationNode) -> tuple:
    """Differs when a segment, or the image it was made on, is another one than before."""
    segmentation, volume = segmentationNode.GetSegmentation(), SegmentVoxels.volumeOf(segmentationNode)
    segments = []
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        image = segment.GetRepresentation(SegmentVoxels.REPRESENTATION)
        drawn = (image.GetMTime(), segment.GetLabelValue()) if image else ()
        segments.append((segmentId, segment.GetName(), segment.GetColor(), drawn))
    return segmentationNode.GetID(), tuple(segments), SceneIO.fingerprint(volume) if volume else ()


@dataclass
class _Layer:
    """voxels: (Z, Y, X), values of several segments; intensities: of the image in the same places, None if unknown."""

    voxels: np.ndarray
    intensities: np.ndarray | None
    valueOf: dict[str, int]
    voxel_mm3: float
    counts: np.ndarray
    sums: np.ndarray

    def add(self, start: int, stop: int) -> None:
        """Count these slices."""
        part = self.voxels[start:stop]
        drawn = part > 0
        values = part[drawn]
        self.counts += np.bincount(values, minlength=len(self.counts))
        if self.intensities is not None and len(values):
            weights = self.intensities[start:stop][drawn]
            self.sums += np.bincount(values, weights, minlength=len(self.sums))


class SegmentNumbers:
    """`count(segmentationNode, onDone)` calls onDone([{name, color, voxels, volume_ml, mean_intensity}]) soon after; a
    new call, or `stop`, forgets the one before.
    """

    def __init__(self):
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._step)
        self.state: tuple = ()  # of what was counted last, as `stateOf` gives it
        self._node = self._onDone = None
        self._layers: list[_Layer] = []
        self._todo: list[tuple[_Layer, int, int]] = []

    def count(self, segmentationNode, onDone: Callable[[list[dict]], None]) -> None:
        self._layers = list(_layers(segmentationNode))
        self._todo = [(layer, *piece) for layer in self._layers for piece in _pieces(layer.voxels)]
        self._node, self._onDone, self.state = segmentationNode, onDone, stateOf(segmentationNode)
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()
        self._node, self._layers, self._todo = None, [], []

    def _step(self) -> None:
        if stateOf(self._node) != self.state:  # its voxels may lie elsewhere now
            self.count(self._node, self._onDone)
        elif self._todo:
            layer, start, stop = self._todo.pop()
            layer.add(start, stop)
        else:
            rows, onDone = self._rows(), self._onDone
            self.stop()
            onDone(rows)

    def _rows(self) -> list[dict]:
        segmentation = self._node.GetSegmentation()
        found = {i: (layer, value) for layer in self._layers for i, value in layer.valueOf.items()}
        return [_row(segmentation.GetSegment(i), *found.get(i, (None, 0))) for i in segmentation.GetSegmentIDs()]


def _row(segment, layer: _Layer | None, value: int) -> dict:
    voxels = int(layer.counts[value]) if layer else 0
    hasMean = bool(voxels) and layer.intensities is not None
    return {
        "name": segment.GetName(),
        "color": [round(255 * channel) for channel in segment.GetColor()],
        "voxels": voxels,
        "volume_ml": voxels * layer.voxel_mm3 / 1000 if layer else 0.0,
        "mean_intensity": float(layer.sums[value]) / voxels if hasMean else None,
    }


def _pieces(voxels: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of parts of the slices."""
    step = max(1, _VOXELS_AT_ONCE // max(1, voxels[0].size)) if len(voxels) else 1
    return [(start, min(start + step, len(voxels))) for start in range(0, len(voxels), step)]


def _layers(segmentationNode):
    volume = SegmentVoxels.volumeOf(segmentationNode)
    grid = SegmentVoxels.geometryOf(segmentationNode, volume) if volume else None
    for image, valueOf in SegmentVoxels.layers(segmentationNode):
        voxels = SegmentVoxels.arrayOf(image)
        size = 1 + max([int(voxels.max(initial=0)), *valueOf.values()])
        voxel_mm3 = float(np.prod(image.GetSpacing()))
        intensities = _intensities(image, volume, grid) if volume else None
        yield _Layer(voxels, intensities, valueOf, voxel_mm3, np.zeros(size, np.int64), np.zeros(size))


def _intensities(image, volume, grid) -> np.ndarray | None:
    """The volume's values in the places of a layer's voxels; None where it has not one for each."""
    array, place = slicer.util.arrayFromVolume(volume), SegmentVoxels.placeIn(image, grid)
    return array[place] if place and array.ndim == 3 else None
