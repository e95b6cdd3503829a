"""The model's doubt as a volume over the image: 0 where it is sure, 100 where two structures are even."""

import numpy as np
import slicer
from slicer.i18n import tr as _

from . import SceneIO

_ROLE = "MambaSegmentation.doubt"
_COLORS = "vtkMRMLPETProceduralColorNodePET-Heat"  # dark to bright; comes with every Slicer
_LEAST = 5  # below it the image is seen
_OPACITY = 0.6


def place(array: np.ndarray, volumeNode, segmentationNode):
    """A new volume of the map, (Z, Y, X) on the grid of `volumeNode`, shown over it. Returns the node."""
    node = made(slicer.mrmlScene, array, volumeNode, nameFor(segmentationNode))
    show(node, volumeNode, segmentationNode)
    return node


def nameFor(segmentationNode) -> str:
    """A name that no node of the scene has."""
    return slicer.mrmlScene.GenerateUniqueName(_("{name} doubt").format(name=segmentationNode.GetName()))


def made(scene, array: np.ndarray, volumeNode, name: str):
    """A volume node of the map in that scene, where `volumeNode` lies."""
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetAttribute(SceneIO.DERIVED_ATTRIBUTE, "doubt")
    scene.AddNode(node)
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(SceneIO.ijkToRas(volumeNode)))
    return node


def show(node, volumeNode, segmentationNode) -> None:
    """Over the image, filed beside it, and known as the map of that segmentation.

    It has fixed limits: a map of small doubt looks dark, and no map is one flat colour.
    """
    node.SetAttribute(SceneIO.DERIVED_ATTRIBUTE, "doubt")
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_COLORS)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, 100)
    display.SetThreshold(_LEAST, 100)
    display.SetApplyThreshold(True)
    SceneIO.fileBeside(node, volumeNode)
    segmentationNode.SetNodeReferenceID(_ROLE, node.GetID())
    slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=_OPACITY)


def of(segmentationNode):
    """The map that was made with a segmentation, None without one."""
    return segmentationNode.GetNodeReference(_ROLE)
