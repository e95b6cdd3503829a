"""What was changed in a segmentation since a moment: voxels added and removed, structure by structure."""

import numpy as np
import slicer
from vtk.util.numpy_support import vtk_to_numpy

_BINARY = "Binary labelmap"


class Snapshot:
    """A segmentation node as it is now; segments that share a label map share its copy."""

    def __init__(self, segmentationNode):
        self._segmentation = segmentationNode.GetSegmentation()
        self._names = {i: self._segmentation.GetSegment(i).GetName() for i in self._segmentation.GetSegmentIDs()}
        self._layers, copies = {}, {}
        for segmentId in self._names:
            layer = _Layer.of(self._segmentation, segmentId)
            self._layers[segmentId] = layer and layer.kept(copies)

    def changes(self) -> dict[str, dict[str, int]]:
        """structure -> {"added", "removed"}: only those that differ. Untouched label maps are not looked at."""
        now = {i: _Layer.of(self._segmentation, i) for i in self._segmentation.GetSegmentIDs()}
        groups: dict[tuple, list] = {}
        for segmentId in {**self._layers, **now}:
            old, new = self._layers.get(segmentId), now.get(segmentId)
            if not (old and new and old.isSame(new)):
                groups.setdefault((old and id(old.image), new and id(new.image)), []).append((segmentId, old, new))
        counts = {}
        for group in groups.values():
            counts |= _differences(group)
        names = self._names | {i: self._segmentation.GetSegment(i).GetName() for i in now}
        return {names[i]: count for i, count in counts.items() if any(count.values())}


class _Layer:
    """The label map that holds a segment, and the segment's number in it.

    Attributes:
        image: vtkOrientedImageData; of a kept layer, a copy of `source`.
        value: the segment's number.
        time: when the label map had last been changed.
    """

    def __init__(self, image, value: int, source, time: int):
        self.image, self.value, self.source, self.time = image, value, source, time

    @classmethod
    def of(cls, segmentation, segmentId: str):
        """None for a segment without voxels of its own."""
        segment = segmentation.GetSegment(segmentId)
        image = segment.GetRepresentation(_BINARY)
        return cls(image, segment.GetLabelValue(), image, image.GetMTime()) if image else None

    def kept(self, copies: dict) -> "_Layer":
        """With a copy of the label map; `copies` holds those made for other segments."""
        if self.source not in copies:
            copies[self.source] = slicer.vtkOrientedImageData()
            copies[self.source].DeepCopy(self.source)
        return _Layer(copies[self.source], self.value, self.source, self.time)

    def isSame(self, now: "_Layer") -> bool:
        return self.source is now.image and self.time == now.time and self.value == now.value

    def array(self, extent: list[int]) -> np.ndarray:
        """(K, J, I) in this extent, 0 outside of its own."""
        own, result = self.image.GetExtent(), np.zeros(_shape(extent), np.int32)
        if own[0] <= own[1] and self.image.GetPointData().GetScalars():
            place = tuple(slice(own[2 * a] - extent[2 * a], own[2 * a + 1] - extent[2 * a] + 1) for a in (2, 1, 0))
            result[place] = vtk_to_numpy(self.image.GetPointData().GetScalars()).reshape(_shape(own))
        return result


def _shape(extent) -> list[int]:
    return [max(extent[2 * axis + 1] - extent[2 * axis] + 1, 0) for axis in (2, 1, 0)]


def _differences(group: list[tuple]) -> dict[str, dict[str, int]]:
    """segment id -> voxels added and removed, of segments that share their label maps, before and now."""
    old, new = group[0][1:]
    own = [layer.image.GetExtent() for layer in (old, new) if layer]
    filled = [extent for extent in own if extent[0] <= extent[1]] or own[:1]
    if not filled:
        return {}
    extent = [(max if side % 2 else min)(e[side] for e in filled) for side in range(6)]
    before, now = (layer.array(extent) if layer else np.zeros(_shape(extent), np.int32) for layer in (old, new))
    if all(a and b and a.value == b.value for _segmentId, a, b in group):
        differs = before != now  # mostly few
        before, now = before[differs], now[differs]
    found = {}
    for segmentId, a, b in group:
        was, isNow = (array == layer.value if layer else array < 0 for array, layer in ((before, a), (now, b)))
        found[segmentId] = {"added": int((isNow & ~was).sum()), "removed": int((was & ~isNow).sum())}
    return found
