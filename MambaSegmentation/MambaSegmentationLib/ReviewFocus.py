"""One structure in focus, its neighbours faded; everything as it was before afterwards."""

import slicer

_FADED = 0.15  # of the opacity that a neighbour had
_KINDS = ("Opacity2DFill", "Opacity2DOutline", "Opacity3D")


class ReviewFocus:
    def __init__(self):
        self._node = None
        self._before: dict[str, list[float]] = {}

    def show(self, segmentationNode, segmentId: str) -> None:
        """Fade all segments but this one."""
        self.restore()
        display = segmentationNode.GetDisplayNode()
        if display is None:
            return
        self._node = segmentationNode
        ids = segmentationNode.GetSegmentation().GetSegmentIDs()
        self._before = {i: [getattr(display, f"GetSegment{kind}")(i) for kind in _KINDS] for i in ids}
        self._set(display, {i: [v * (1 if i == segmentId else _FADED) for v in self._before[i]] for i in ids})

    def restore(self) -> None:
        node, before = self._node, self._before
        self._node, self._before = None, {}
        if node and slicer.mrmlScene.IsNodePresent(node) and node.GetDisplayNode():
            there = node.GetSegmentation().GetSegmentIDs()
            self._set(node.GetDisplayNode(), {i: values for i, values in before.items() if i in there})

    @staticmethod
    def _set(display, opacities: dict[str, list[float]]) -> None:
        wasModifying = display.StartModify()
        for segmentId, values in opacities.items():
            for kind, value in zip(_KINDS, values, strict=True):
                getattr(display, f"SetSegment{kind}")(segmentId, value)
        display.EndModify(wasModifying)
