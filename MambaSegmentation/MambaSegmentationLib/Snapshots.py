"""Earlier states of a segmentation, packed into hidden text nodes: small, saved with the scene, in nobody's way.

The first one is what the model found: what differs from it is the user's work.
"""

import base64
import json
import time
import zlib

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from . import SegmentVoxels

_OF = "MambaSegmentation.snapshotOf"
_TITLE, _TIME, _KIND = "MambaSegmentation.snapshotTitle", "MambaSegmentation.snapshotTime", "MambaSegmentation.snapshot"
_MOST = 10  # besides the first


def take(segmentationNode, title: str, isFirst: bool = False, keep=None):
    """Keep how the segmentation is now; returns the new node. The oldest of many is forgotten, but for `keep`."""
    segmentation = segmentationNode.GetSegmentation()
    content = {"layers": [_packed(image, value) for image, value in SegmentVoxels.layers(segmentationNode)]}
    content["segments"] = [
        {"id": i, "name": s.GetName(), "color": s.GetColor(), "terminology": s.GetTerminology()}
        for i, s in ((i, segmentation.GetSegment(i)) for i in SegmentVoxels.segmentIds(segmentationNode))
    ]
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLTextNode")
    node.UnRegister(None)
    node.SetName(f"{segmentationNode.GetName()} ({title})")
    node.SetHideFromEditors(True)
    for name, value in ((_KIND, "first" if isFirst else "later"), (_TITLE, title), (_TIME, repr(time.time()))):
        node.SetAttribute(name, value)
    node.SetText(json.dumps(content))
    slicer.mrmlScene.AddNode(node)
    node.SetNodeReferenceID(_OF, segmentationNode.GetID())
    for old in later(segmentationNode)[_MOST:]:
        if old is not keep:
            slicer.mrmlScene.RemoveNode(old)
    return node


def first(segmentationNode):
    """How the model left it; None when that was never kept."""
    return next((node for node in _all(segmentationNode) if node.GetAttribute(_KIND) == "first"), None)


def later(segmentationNode) -> list:
    """The others, newest first."""
    found = [node for node in _all(segmentationNode) if node.GetAttribute(_KIND) == "later"]
    return sorted(found, key=lambda node: -float(node.GetAttribute(_TIME)))


def title(node) -> str:
    """'14:05  before the correction'; with the date when it is not of today."""
    made = time.localtime(float(node.GetAttribute(_TIME)))
    isToday = made[:3] == time.localtime()[:3]
    return time.strftime("%H:%M" if isToday else "%Y-%m-%d %H:%M", made) + "   " + node.GetAttribute(_TITLE)


def layers(snapshotNode) -> list[tuple[object, dict[str, int]]]:
    """As SegmentVoxels.layers."""
    return [_unpacked(layer) for layer in json.loads(snapshotNode.GetText())["layers"]]


def restore(segmentationNode, snapshotNode) -> None:
    """Make the segmentation as it was. Segments that were there keep their visibility."""
    now, wanted = segmentationNode.GetSegmentation(), json.loads(snapshotNode.GetText())["segments"]
    for segmentId in set(SegmentVoxels.segmentIds(segmentationNode)) - {segment["id"] for segment in wanted}:
        now.RemoveSegment(segmentId)
    for index, data in enumerate(wanted):
        if now.GetSegment(data["id"]) is None:
            now.AddEmptySegment(data["id"], data["name"], data["color"])
        segment = now.GetSegment(data["id"])
        segment.SetName(data["name"])
        segment.SetColor(*data["color"])
        segment.SetTerminology(data["terminology"])
        now.SetSegmentIndex(data["id"], index)
    masks = [(i, image, value) for image, valueIn in layers(snapshotNode) for i, value in valueIn.items()]
    for segmentId, _image, _value in masks:  # first all go, as a voxel shall not belong to two on the way
        SegmentVoxels.clear(segmentationNode, segmentId)
    for segmentId, image, value in masks:
        SegmentVoxels.setImage(segmentationNode, segmentId, image, value)
    now.CollapseBinaryLabelmaps(False)


def forget(segmentationNode) -> None:
    """Remove all snapshots of a segmentation that goes."""
    for node in _all(segmentationNode):
        slicer.mrmlScene.RemoveNode(node)


def _all(segmentationNode) -> list:
    nodes = slicer.util.getNodesByClass("vtkMRMLTextNode")
    return [n for n in nodes if n.GetAttribute(_KIND) and n.GetNodeReferenceID(_OF) == segmentationNode.GetID()]


def _packed(image, valueIn: dict[str, int]) -> dict:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    scalars = image.GetPointData().GetScalars()
    voxels = numpy_support.vtk_to_numpy(scalars) if scalars else np.zeros(0, np.uint8)
    return {
        "values": valueIn,
        "extent": list(image.GetExtent()),
        "matrix": slicer.util.arrayFromVTKMatrix(matrix).tolist(),
        "type": voxels.dtype.name,
        "voxels": base64.b64encode(zlib.compress(voxels.tobytes(), 1)).decode("ascii"),
    }


def _unpacked(layer: dict) -> tuple[object, dict[str, int]]:
    image = slicer.vtkOrientedImageData()
    image.SetExtent(layer["extent"])
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(np.array(layer["matrix"])))
    voxels = np.frombuffer(zlib.decompress(base64.b64decode(layer["voxels"])), layer["type"])
    if voxels.size:
        image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels, deep=True))
    return image, layer["values"]
