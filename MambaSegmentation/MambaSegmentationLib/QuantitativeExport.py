"""DICOM segmentations by the extension QuantitativeReporting (dcmqi) where Slicer has it: a file and Slicer's database.

Its plugin is called as Slicer's own DICOM export dialog calls it. It works in Slicer's process and cannot be cancelled.
"""

import os
import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib.dicom_codes import LONG_STRING, Algorithm
from MambaSegLib.errors import UserError

from . import ReviewSources

_PLUGIN = "DICOMSegmentationPlugin"
_OTHER = _("Choose the format 'DICOM segmentation', which takes the DICOM files from a folder as well.")


def isAvailable() -> bool:
    return _PLUGIN in getattr(slicer.modules, "dicomPlugins", {})


def export(segmentationNode, path: Path, creator: str, algorithm: Algorithm | None, isCorrected: bool) -> None:
    """Write the segmentation to a new .dcm file and add it to Slicer's DICOM database.

    Args:
        algorithm: the model that drew it, None for a person.
        isCorrected: a person changed what the model had drawn.

    Raises:
        UserError: the image did not come from Slicer's DICOM database, or the plugin refuses.
    """
    if ReviewSources.dicomDatabase() is None:
        raise UserError(_("Slicer's DICOM database is not open."), _OTHER)
    if algorithm:
        _tellAlgorithm(segmentationNode, algorithm, isCorrected)
    plugin = slicer.modules.dicomPlugins[_PLUGIN]()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    exportables = plugin.examineForExport(hierarchy.GetItemByDataNode(segmentationNode))
    if not exportables:
        raise UserError(_("The images that the segmentation refers to are not in Slicer's DICOM database."), _OTHER)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder, slicer.util.WaitCursor():
        for exportable in exportables:
            exportable.directory = folder
            exportable.setTag("ContentCreatorName", creator)
        problem = plugin.export(exportables)
        written = sorted(Path(folder).glob("*.dcm"))
        if problem or not written:
            reason = problem or _("no file was written")
            raise UserError(_("QuantitativeReporting did not export: {reason}").format(reason=reason), _OTHER)
        os.rename(written[0], path)


def _tellAlgorithm(segmentationNode, algorithm: Algorithm, isCorrected: bool) -> None:
    """As tags of the segments, where the plugin and Slicer's own exports look for it."""
    kind = "SEMIAUTOMATIC" if isCorrected else "AUTOMATIC"
    segmentation = segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        segment.SetTag("DICOM.SegmentAlgorithmType", kind)
        segment.SetTag("DICOM.SegmentAlgorithmName", f"{algorithm.title} {algorithm.version}"[:LONG_STRING])
