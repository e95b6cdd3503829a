"""Only the segmentation of the open case is seen; afterwards everything is shown as it was before."""

import slicer

from . import ReviewSources


class ReviewDisplay:
    def __init__(self):
        self._changed: list[tuple] = []  # (display node, visible before, visible since)

    def showOnly(self, segmentationNode) -> None:
        self.restore()
        for node in ReviewSources.segmentations():
            display, isShown = node.GetDisplayNode(), node is segmentationNode
            if display and bool(display.GetVisibility()) != isShown:
                self._changed.append((display, not isShown, isShown))
                display.SetVisibility(isShown)

    def restore(self) -> None:
        """What the user has shown or hidden since stays so."""
        for display, before, since in self._changed:
            if slicer.mrmlScene.IsNodePresent(display) and bool(display.GetVisibility()) == since:
                display.SetVisibility(before)
        self._changed.clear()
