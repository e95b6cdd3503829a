"""The user's clicks: points in the views, one list for what belongs to a structure and one for what does not.

They are placed, dragged and deleted by Slicer's own means (Markups), and never saved with the scene. A point keeps the
ID of its segment as its description and its place in the order of the clicks as its label.
"""

from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

_ATTRIBUTE = "MambaSegmentation.clicks"
_CLASS = "vtkMRMLMarkupsFiducialNode"
_GREEN, _RED = (0.1, 0.8, 0.2), (0.95, 0.15, 0.15)
_SIZE_PERCENT = 3.0  # of the view


@dataclass(frozen=True)
class Point:
    """One click: the ID of the segment that is meant, whether the place belongs to it, and the place, RAS mm."""

    segmentId: str
    belongs: bool
    place: tuple[float, float, float]


def listOf(belongs: bool):
    """The node of the points; None before the first one."""
    nodes = slicer.util.getNodesByClass(_CLASS)
    return next((node for node in nodes if node.GetAttribute(_ATTRIBUTE) == _sign(belongs)), None)


def startPlacing(belongs: bool) -> None:
    """From now on each click in a view places a point."""
    node = listOf(belongs) or _made(belongs)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetReferenceActivePlaceNodeClassName(_CLASS)
    selection.SetActivePlaceNodeID(node.GetID())
    slicer.modules.markups.logic().StartPlaceMode(True)


def stopPlacing() -> None:
    """Clicks mean what they always do in the views; does nothing while something else is placed."""
    if placing() is not None:
        _interaction().SwitchToViewTransformMode()


def placing() -> bool | None:
    """Whether points are placed that belong, or do not; None while none of ours are placed."""
    if _interaction().GetCurrentInteractionMode() != slicer.vtkMRMLInteractionNode.Place:
        return None
    active = slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID()
    return next((belongs for belongs in (True, False) if active and _idOf(belongs) == active), None)


def points() -> list[Point]:
    """All clicks that have a structure, in the order in which they were made."""
    found = []
    for belongs, node, index in _defined():
        if node.GetNthControlPointDescription(index):
            place = tuple(node.GetNthControlPointPositionWorld(index))
            point = Point(node.GetNthControlPointDescription(index), belongs, place)
            found.append((int(node.GetNthControlPointLabel(index)), point))
    return [point for _number, point in sorted(found, key=lambda pair: pair[0])]


def adopt(segmentId: str) -> None:
    """Give points just placed their structure."""
    numbers = [int(node.GetNthControlPointLabel(i)) for _b, node, i in _defined() if _isAdopted(node, i)]
    new = [(node, i) for _belongs, node, i in _defined() if not _isAdopted(node, i)]
    for number, (node, index) in enumerate(new, max(numbers, default=0) + 1):
        node.SetNthControlPointLabel(index, str(number))
        node.SetNthControlPointDescription(index, segmentId)


def removeWhere(isWrong) -> int:
    """Remove the points for which isWrong(place, segment ID, "" for one just placed) is true; returns how many."""
    wrong = [
        (node, index)
        for _belongs, node, index in _defined()
        if isWrong(tuple(node.GetNthControlPointPositionWorld(index)), node.GetNthControlPointDescription(index))
    ]
    for node, index in reversed(wrong):
        node.RemoveNthControlPoint(index)
    return len(wrong)


def clear() -> None:
    """Forget all clicks."""
    for belongs in (True, False):
        node = listOf(belongs)
        if node:
            node.RemoveAllControlPoints()


def describe(found: list[Point], nameOf) -> str:
    """'Liver: 2 belong, 1 does not'; nameOf gives the name of a segment's ID. "" without clicks."""
    parts = []
    for segmentId in dict.fromkeys(point.segmentId for point in found):
        yes, no = (sum(p.segmentId == segmentId and p.belongs is b for p in found) for b in (True, False))
        texts = [_("{n} belong") if yes > 1 else _("{n} belongs")] if yes else []
        texts += [_("{n} do not") if no > 1 else _("{n} does not")] if no else []
        counts = [text.format(n=n) for text, n in zip(texts, [n for n in (yes, no) if n], strict=True)]
        parts.append(f"{nameOf(segmentId)}: {', '.join(counts)}")
    return "; ".join(parts)


def _made(belongs: bool):
    node = slicer.mrmlScene.CreateNodeByClass(_CLASS)
    node.UnRegister(None)
    node.SetName(_("Clicks: belongs") if belongs else _("Clicks: does not belong"))
    node.SetAttribute(_ATTRIBUTE, _sign(belongs))
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetGlyphType(display.ThickCross2D if belongs else display.Dash2D)
    display.SetGlyphScale(_SIZE_PERCENT)
    for setColor in (display.SetColor, display.SetSelectedColor, display.SetActiveColor):
        setColor(*(_GREEN if belongs else _RED))
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    return node


def _defined() -> list[tuple[bool, object, int]]:
    """(belongs, list, index) of every point that was placed; the one under the moving mouse is none."""
    found = []
    for belongs in (True, False):
        node = listOf(belongs)
        if node:
            statuses = [node.GetNthControlPointPositionStatus(i) for i in range(node.GetNumberOfControlPoints())]
            found += [(belongs, node, i) for i, status in enumerate(statuses) if status == node.PositionDefined]
    return found


def _isAdopted(node, index: int) -> bool:
    return bool(node.GetNthControlPointDescription(index))


def _idOf(belongs: bool) -> str:
    node = listOf(belongs)
    return node.GetID() if node else ""


def _sign(belongs: bool) -> str:
    return "belongs" if belongs else "not"


def _interaction():
    return slicer.app.applicationLogic().GetInteractionNode()
