"""Double of QuantitativeReporting's plugin for DICOM segmentations, as Slicer's export dialog uses it.

Like the real one (QIICR/QuantitativeReporting, DICOMPlugins/DICOMSegmentationPlugin.py) it wants an image from Slicer's
DICOM database, asks about empty segments, refuses an automatic segment without the name of its algorithm, returns a
text when something is wrong, and inserts the file into the database. The file has only a header.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import slicer
import vtk

PLUGIN = "DICOMSegmentationPlugin"


class qSlicerDICOMExportable:
    def __init__(self):
        self.name = self.tooltip = self.pluginClass = self.directory = ""
        self.subjectHierarchyItemID, self.confidence = 0, 0.0
        self._tags: dict[str, str] = {}

    def setTag(self, name: str, value: str) -> None:
        self._tags[name] = value

    def tag(self, name: str) -> str:
        return self._tags.get(name, "")


def _tag(segment, name: str) -> str:
    text = vtk.mutable("")
    return str(text) if segment.GetTag(name, text) else ""


class DICOMSegmentationPluginClass:
    def examineForExport(self, subjectHierarchyItemID) -> list[qSlicerDICOMExportable]:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node = hierarchy.GetItemDataNode(subjectHierarchyItemID)
        uids = hierarchy.GetItemAttribute(subjectHierarchyItemID, "DICOM.ReferencedInstanceUIDs").split()
        if node is None or not node.IsA("vtkMRMLSegmentationNode"):
            return []
        if any(slicer.dicomDatabase.fileForInstance(uid) == "" for uid in uids):
            return []
        exportable = qSlicerDICOMExportable()
        exportable.confidence = 1.0
        exportable.setTag("Modality", "SEG")
        exportable.setTag("SeriesDescription", node.GetName())
        exportable.subjectHierarchyItemID = subjectHierarchyItemID
        return [exportable]

    def export(self, exportables) -> str:
        for exportable in exportables:
            try:
                path = _write(exportable)
            except ValueError as error:
                return str(error)
            slicer.dicomDatabase.insert(str(path))
        return ""


def _write(exportable: qSlicerDICOMExportable) -> Path:
    import pydicom

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    node = hierarchy.GetItemDataNode(exportable.subjectHierarchyItemID)
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = pydicom.uid.SegmentationStorage, pydicom.uid.generate_uid()
    header.Modality, header.SeriesDescription = "SEG", exportable.tag("SeriesDescription")
    header.ContentCreatorName = "^".join(exportable.tag("ContentCreatorName").split(" ")[::-1])
    header.SegmentSequence = [_item(pydicom.Dataset(), segment) for segment in _segments(node)]
    _check_image(node)
    path = Path(exportable.directory) / f"subject_hierarchy_export.SEG{datetime.now():%Y-%m-%d_%H%M%S}.dcm"
    header.save_as(path, enforce_file_format=True)
    return path


def _segments(node) -> list:
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    full = [s for s in segments if s.GetRepresentation("Binary labelmap") and not _is_empty(s)]
    if not full:
        raise ValueError("No non empty segments found.")
    if len(full) != len(segments) and not slicer.util.confirmYesNoDisplay("Do you want to skip empty segments?"):
        raise ValueError("Export canceled")
    return full


def _is_empty(segment) -> bool:
    scalars = segment.GetRepresentation("Binary labelmap").GetPointData().GetScalars()
    return scalars is None or scalars.GetRange() == (0, 0)


def _item(item, segment):
    kind, name = _tag(segment, "DICOM.SegmentAlgorithmType") or "MANUAL", _tag(segment, "DICOM.SegmentAlgorithmName")
    if kind != "MANUAL" and not name:
        raise ValueError(f"Segment {segment.GetName()} has missing SegmentAlgorithmName")
    item.SegmentLabel, item.SegmentAlgorithmType = segment.GetName(), kind
    if name:
        item.SegmentAlgorithmName = name
    return item


def _check_image(node) -> None:
    volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split() if volume else []
    if not uids:
        raise ValueError("VolumeNode has no attribute DICOM.instanceUIDs")
    if any(slicer.dicomDatabase.fileForInstance(uid) == "" for uid in uids):
        raise ValueError("Referenced volume files were not found in the DICOM database")
