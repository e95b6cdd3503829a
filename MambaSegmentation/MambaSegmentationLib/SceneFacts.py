"""What the scene tells about a volume: its modality, how much it shows, and whether it is a frame of a sequence."""

import numpy as np
import slicer

from . import SceneIO
from .Suggestion import ImageFacts, guessedModality


def imageFacts(volumeNode) -> ImageFacts | None:
    """Modality from DICOM (subject hierarchy or the node's attribute), else from the smallest value; extent in mm."""
    if volumeNode is None or SceneIO.volumeProblem(volumeNode):
        return None
    image = volumeNode.GetImageData()
    lengths = np.linalg.norm(SceneIO.ijkToRas(volumeNode)[:3, :3], axis=0)
    extent = tuple(float(v) for v in lengths * image.GetDimensions())
    isPicture, isSlice = SceneIO.isPicture(volumeNode), SceneIO.isSlice(volumeNode)
    modality = dicomModality(volumeNode)
    if modality or isPicture:
        return ImageFacts(modality, "DICOM", extent, isPicture, isSlice)
    return ImageFacts(guessedModality(image.GetScalarRange()[0]), "values", extent, isPicture, isSlice)


def dicomModality(volumeNode) -> str:
    """As the subject hierarchy or the node tells it; "" if neither does."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy else 0
    told = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    return told or volumeNode.GetAttribute("DICOM.Modality") or ""


def dicomPatient(volumeNode) -> str:
    """The DICOM PatientID that the image came with, "" without one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy and volumeNode else 0
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMPatientIDAttributeName()
    return hierarchy.GetAttributeFromItemAncestor(item, name) if item else ""


def browserOf(volumeNode):
    """The sequence browser that shows its current frame in this node; None if the volume is no frame of a sequence."""
    module = getattr(slicer.modules, "sequences", None)
    return module.logic().GetFirstBrowserNodeForProxyNode(volumeNode) if module and volumeNode else None


def frameCount(volumeNode) -> int:
    """Number of frames of the sequence that the volume belongs to; 1 without one."""
    browser = browserOf(volumeNode)
    return browser.GetSequenceNode(volumeNode).GetNumberOfDataNodes() if browser else 1
