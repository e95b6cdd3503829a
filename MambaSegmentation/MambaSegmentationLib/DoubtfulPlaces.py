"""The places where the model was least sure, worst first, and the way there in all slice views."""

from dataclasses import dataclass

import slicer
import vtk

from . import SceneIO


@dataclass(frozen=True)
class Place:
    """Attributes:
    structure: name.
    score: 0 sure ... 1.
    volume_ml: of the doubtful voxels there.
    position_mm: LPS, in the volume's own coordinates.
    """

    structure: str
    score: float
    volume_ml: float
    position_mm: tuple[float, float, float]


def ranked(segmentationNode) -> list[Place]:
    """All places of the run that made the segmentation; [] for a segmentation that no model made."""
    rows = (SceneIO.resultOf(segmentationNode) or {}).get("review") or []
    places = [
        Place(row["structure"], place["score"], place["volume_ml"], tuple(place["position_mm"]))
        for row in rows
        for place in row["places"]
    ]
    return sorted(places, key=lambda place: -place.score)


def show(place: Place, segmentationNode) -> None:
    """Centre all slice views there."""
    x, y, z = place.position_mm
    toWorld = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(segmentationNode.GetParentTransformNode(), None, toWorld)
    slicer.modules.markups.logic().JumpSlicesToLocation(*toWorld.TransformPoint((-x, -y, z)), True)
