"""The images that a model wants, whether the chosen nodes are these, and which images a result was made from."""

from collections.abc import Callable, Sequence

import numpy as np
from slicer.i18n import tr as _

from MambaSegLib import picture
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import SceneIO

_ROLE = "MambaSegmentation.input"  # and the number of a further input
_GRID_TOLERANCE = 1e-3  # of a voxel, over the whole image


def wanted(bundle: ModelBundle) -> list[dict]:
    """{"name", "modality", "description"} of each image to give; the colours of a picture come as one."""
    if not bundle.is_for_pictures:
        return bundle.inputs
    text = _("A colour picture, such as PNG or JPEG.")
    return [{"name": _("Picture"), "modality": bundle.inputs[0]["modality"], "description": text}]


def problem(bundle: ModelBundle, nodes: Sequence, areFrames: bool = False) -> UserError | None:
    """Why these volume nodes, None for one that is missing, are no input of the model. Looks at no voxels of
    volumes.

    areFrames: of sequences, which know nothing of the transforms that their proxies are under.
    """
    names = [item["name"] for item in wanted(bundle)]
    missing = next((name for name, node in zip(names, nodes, strict=False) if node is None), None)
    if missing is None and len(nodes) < len(names):
        missing = names[len(nodes)]
    if missing is not None:
        return UserError(
            _("Choose the volume for the input '{name}'.").format(name=missing),
            _("The model '{title}' needs: {names}.").format(title=bundle.title, names=", ".join(names)),
        )
    if len(nodes) > len(names):
        text = _("The model '{title}' needs {images}, but {m} came.")
        text = text.format(title=bundle.title, images=counted(len(names), _("image"), _("images")), m=len(nodes))
        return UserError(text, _("Give one image for each of: {names}.").format(names=", ".join(names)))
    problems = (SceneIO.volumeProblem(node) or _kindProblem(bundle, node) for node in nodes)
    found = next((item for item in problems if item), None)
    return found or _togetherProblem(names, nodes, hasSameVoxels if areFrames else isOnGrid)


def _kindProblem(bundle: ModelBundle, node) -> UserError | None:
    """Colour or grey, a slice or a volume: what the model cannot look at. Grey may stand for colour, see `picture`."""
    isPicture, names = SceneIO.isPicture(node), {"title": bundle.title, "name": node.GetName()}
    if bundle.is_for_pictures and not isPicture:
        if SceneIO.isSlice(node):
            return _greyProblem(node)
        return UserError(
            _("The model '{title}' needs a colour picture, but '{name}' is a volume of grey values.").format(**names),
            _("Load a PNG or JPEG file, or choose another model."),
        )
    if isPicture and not bundle.takes_pictures:
        return UserError(
            _("The model '{title}' needs a volume of grey values, but '{name}' is a colour picture.").format(**names),
            _("Choose a model for pictures, or load a volume."),
        )
    return SceneIO.sliceProblem(node) if SceneIO.isSlice(node) and bundle.is_volumetric else None


def _greyProblem(node) -> UserError | None:
    try:
        picture.check_grey_range(*node.GetImageData().GetScalarRange(), node.GetName())
    except UserError as error:
        return error
    return None


def _togetherProblem(names: list[str], nodes: Sequence, isTogether: Callable) -> UserError | None:
    """What is wrong with the images as a set."""
    first = nodes[0]
    for index, node in enumerate(nodes):
        earlier = next((i for i in range(index) if nodes[i] is node), None)
        if earlier is not None:
            return UserError(
                _("'{name}' is chosen for both '{a}' and '{b}'.").format(
                    name=node.GetName(), a=names[earlier], b=names[index]
                ),
                _("Give each input an image of its own."),
            )
        if not isTogether(node, first):
            return UserError(
                _("'{name}' has not the same voxels in the same places as '{first}'.").format(
                    name=node.GetName(), first=first.GetName()
                ),
                _("Resample it onto '{first}', for example with Resample Scalar/Vector/DWI Volume.").format(
                    first=first.GetName()
                ),
            )
    return None


def isOnGrid(node, first) -> bool:
    """Whether both volumes have the same voxels in the same places, under the same transform."""
    return node.GetParentTransformNode() is first.GetParentTransformNode() and hasSameVoxels(node, first)


def hasSameVoxels(node, first) -> bool:
    """Whether both volumes have the same voxels in the same places, each without its transform."""
    image, other = node.GetImageData(), first.GetImageData()
    if image is None or other is None or image.GetDimensions() != other.GetDimensions():
        return False
    here, there = SceneIO.ijkToRas(node), SceneIO.ijkToRas(first)
    voxel_mm = np.linalg.norm(there[:3, :3], axis=0).min()
    ends = np.array([[0, 0, 0, 1], [*image.GetDimensions(), 1]]).T
    return bool(np.abs((here - there) @ ends).max() <= _GRID_TOLERANCE * voxel_mm * max(image.GetDimensions()))


def remember(segmentationNode, nodes: Sequence) -> None:
    """Note the further images that a result was made from; the first one is its reference geometry."""
    for index, node in enumerate(nodes, start=1):
        segmentationNode.SetNodeReferenceID(f"{_ROLE}{index}", node.GetID())


def further(segmentationNode, bundle: ModelBundle, chosen: Sequence) -> list:
    """The images beside the first one that the model needs to look at a segmentation's image again.

    Args:
        chosen: taken where nothing was noted, as for a segmentation that no model made.

    Raises:
        UserError: one of them is not in the scene.
    """
    names, nodes = [item["name"] for item in wanted(bundle)[1:]], []
    for index, name in enumerate(names, start=1):
        isNoted = segmentationNode.GetNodeReferenceID(f"{_ROLE}{index}")
        fallback = None if isNoted or index > len(chosen) else chosen[index - 1]
        node = segmentationNode.GetNodeReference(f"{_ROLE}{index}") or fallback
        if node is None:
            raise UserError(
                _("The image for the input '{name}' of this segmentation is not in the scene.").format(name=name),
                _("Load it and choose it on the page Segment."),
            )
        nodes.append(node)
    return nodes
