"""What the user decided in a segmentation, apart from what accepted corrections changed in it.

A correction that took its own changes for the user's would learn from itself, and spread a little further each time.
Each accepted correction leaves a record in a hidden text node, saved with the scene. One that was undone since, or put
back by a snapshot, does not count.
"""

import base64
import json
import zlib

import numpy as np
import slicer

_OF = "MambaSegmentation.correctionOf"
_NUMBER = "MambaSegmentation.correction"


def record(segmentationNode, before: np.ndarray, after: np.ndarray, decided: np.ndarray) -> None:
    """Remember an accepted correction.

    Args:
        before, after: label values (Z, Y, X), uint8.
        decided: as `marks` gave it when the correction began, with the clicks it was made from.
    """
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLTextNode")
    node.UnRegister(None)
    node.SetName(f"{segmentationNode.GetName()} (decisions)")
    node.SetHideFromEditors(True)
    node.SetAttribute(
        _NUMBER, str(max((int(n.GetAttribute(_NUMBER)) for n in _records(segmentationNode)), default=0) + 1)
    )
    box = _around((before > 0) | (after > 0) | (decided > 0))
    arrays = {"before": before[box], "after": after[box], "decided": decided[box]}
    place = {"shape": before.shape, "box": [(part.start, part.stop) for part in box]}
    node.SetText(json.dumps({**place, **{name: _packed(array) for name, array in arrays.items()}}))
    slicer.mrmlScene.AddNode(node)
    node.SetNodeReferenceID(_OF, segmentationNode.GetID())


def marks(segmentationNode, initial: np.ndarray, now: np.ndarray) -> np.ndarray:
    """uint8 (Z, Y, X): 0 where the user decided nothing, `CLICKED` where a click did, 1 where he drew.

    Args:
        initial: label values as the model left them.
        now: label values as they are.
    """
    for node in reversed(_records(segmentationNode)):
        content = json.loads(node.GetText())
        if tuple(content["shape"]) != now.shape:
            continue
        before, after, decided = (_unpacked(content, name) for name in ("before", "after", "decided"))
        changed = before != after
        if 2 * np.count_nonzero(now[changed] == after[changed]) >= np.count_nonzero(changed):
            return np.where(now == after, decided, 1).astype(np.uint8)
    return (now != initial).astype(np.uint8)


def forget(segmentationNode) -> None:
    """Remove the records of a segmentation that goes."""
    for node in _records(segmentationNode):
        slicer.mrmlScene.RemoveNode(node)


def _records(segmentationNode) -> list:
    """The oldest first."""
    nodes = slicer.util.getNodesByClass("vtkMRMLTextNode")
    own = [n for n in nodes if n.GetAttribute(_NUMBER) and n.GetNodeReferenceID(_OF) == segmentationNode.GetID()]
    return sorted(own, key=lambda node: int(node.GetAttribute(_NUMBER)))


def _around(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the True voxels; one voxel without any."""
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 1))
    return tuple(box)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, np.uint8).tobytes(), 1)).decode("ascii")


def _unpacked(content: dict, name: str) -> np.ndarray:
    result, box = np.zeros(content["shape"], np.uint8), tuple(slice(*part) for part in content["box"])
    packed = np.frombuffer(zlib.decompress(base64.b64decode(content[name])), np.uint8)
    result[box] = packed.reshape(result[box].shape)
    return result
