"""Segmentations of one image side by side, in slice views that move together, with what differs on top."""

import slicer
from slicer.i18n import tr as _

from . import SceneIO

MOST = 3
_LAYOUT = 7310  # ids above 500 are free for modules
_GROUP = 731  # these views are linked with each other, not with Slicer's own
_COLORS = ("#D55E00", "#0072B2", "#009E73")
_OUTLINE, _FILL = 1.0, 0.25


class CompareViews:
    """Shows up to `MOST` candidates; `end` brings back layout and display as they were."""

    def __init__(self):
        self._layoutBefore: int | None = None
        self._displays: list[tuple] = []  # display node, its views, visibility and opacities before
        self._overlay = None

    @property
    def isShown(self) -> bool:
        return self._layoutBefore is not None

    def show(self, volumeNode, candidates: list, labels: list[str]) -> None:
        """One view per candidate, in this order; `labels` stand in the views' corners."""
        self.end()
        manager = slicer.app.layoutManager()
        self._layoutBefore = manager.layout
        self._setLayout(manager, labels)
        views = [manager.sliceWidget(_viewName(index)) for index in range(len(candidates))]
        for view in views:
            composite = view.mrmlSliceCompositeNode()
            composite.SetBackgroundVolumeID(volumeNode.GetID())
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
            view.mrmlSliceNode().RotateToVolumePlane(volumeNode)
            view.sliceLogic().FitSliceToAll()
        ids = [view.mrmlSliceNode().GetID() for view in views]
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            self._showIn(node, [ids[candidates.index(node)]] if node in candidates else [], bool(node in candidates))

    def jump(self, positionRas) -> None:
        """All views at this place."""
        for index in range(MOST):
            node = slicer.mrmlScene.GetSingletonNode(_viewName(index), "vtkMRMLSliceNode")
            if node:
                node.JumpSliceByCentering(*positionRas)

    def showDifference(self, path, volumeNode) -> None:
        """Lay the overlay of the job "compare" over all views."""
        self.hideDifference()
        name = slicer.mrmlScene.GenerateUniqueName(_("Difference"))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        self._overlay = node
        node.SetAttribute(SceneIO.DERIVED_ATTRIBUTE, "difference")
        node.SetSaveWithScene(False)
        SceneIO.readSegments(node, path)
        node.CreateDefaultDisplayNodes()
        SceneIO.placeBeside(node, volumeNode)
        node.GetDisplayNode().SetOpacity2DFill(0.6)

    def setDifferenceShown(self, isShown: bool) -> None:
        if self._overlay and self._overlay.GetDisplayNode():
            self._overlay.GetDisplayNode().SetVisibility(isShown)

    def hideDifference(self) -> None:
        if self._overlay and slicer.mrmlScene.IsNodePresent(self._overlay):
            slicer.mrmlScene.RemoveNode(self._overlay)
        self._overlay = None

    def end(self) -> None:
        """Everything as it was before `show`."""
        self.hideDifference()
        for display, views, isVisible, outline, fill in self._displays:
            if slicer.mrmlScene.IsNodePresent(display):
                wasModifying = display.StartModify()
                _setViews(display, views)
                display.SetVisibility(isVisible)
                display.SetOpacity2DOutline(outline)
                display.SetOpacity2DFill(fill)
                display.EndModify(wasModifying)
        self._displays.clear()
        if self._layoutBefore is not None:
            slicer.app.layoutManager().setLayout(self._layoutBefore)
        self._layoutBefore = None

    def _showIn(self, node, viewIds: list[str], isVisible: bool) -> None:
        display = node.GetDisplayNode()
        if display is None:
            return
        before = display.GetVisibility(), display.GetOpacity2DOutline(), display.GetOpacity2DFill()
        self._displays.append((display, list(display.GetViewNodeIDs()), *before))
        wasModifying = display.StartModify()
        display.SetVisibility(isVisible)
        _setViews(display, viewIds)
        display.SetOpacity2DOutline(_OUTLINE)
        display.SetOpacity2DFill(_FILL)
        display.EndModify(wasModifying)

    @staticmethod
    def _setLayout(manager, labels: list[str]) -> None:
        node = manager.layoutLogic().GetLayoutNode()
        views = [_viewDescription(index, label) for index, label in enumerate(labels)]
        description = f'<layout type="horizontal">{"".join(views)}</layout>'
        identifier = _LAYOUT + len(labels)
        if node.IsLayoutDescription(identifier):
            node.SetLayoutDescription(identifier, description)
        else:
            node.AddLayoutDescription(identifier, description)
        manager.setLayout(identifier)
        for index, label in enumerate(labels):  # a view that is there already keeps its old label
            slicer.mrmlScene.GetSingletonNode(_viewName(index), "vtkMRMLSliceNode").SetLayoutLabel(label)


def _viewName(index: int) -> str:
    return f"MambaCompare{index + 1}"


def _viewDescription(index: int, label: str) -> str:
    properties = {"orientation": "Axial", "viewlabel": str(index + 1), "viewcolor": _COLORS[index], "viewgroup": _GROUP}
    lines = [f'<property name="{key}" action="default">{value}</property>' for key, value in properties.items()]
    view = f'<view class="vtkMRMLSliceNode" singletontag="{_viewName(index)}">{"".join(lines)}</view>'
    return f"<item>{view}</item>"


def _setViews(display, viewIds) -> None:
    display.RemoveAllViewNodeIDs()
    for viewId in viewIds:
        display.AddViewNodeID(viewId)
