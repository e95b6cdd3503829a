"""One case of a review in the scene: its nodes, what was changed in them, and how changes are kept."""

import re
from collections.abc import Iterable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib import label_table, worklist
from MambaSegLib.dicom_series import is_dicom
from MambaSegLib.errors import UserError

from . import ReviewSources, SceneIO
from .SegmentationFiles import writeSegmentation
from .SegmentChanges import Snapshot

_STATUS = {
    worklist.NOT_STARTED: slicer.vtkSlicerSegmentationsModuleLogic.NotStarted,
    worklist.IN_PROGRESS: slicer.vtkSlicerSegmentationsModuleLogic.InProgress,
    worklist.COMPLETED: slicer.vtkSlicerSegmentationsModuleLogic.Completed,
    worklist.FLAGGED: slicer.vtkSlicerSegmentationsModuleLogic.Flagged,
}


class ReviewCase:
    """An entry of the worklist, opened.

    Args:
        entry: what to open.
        kept: folder with the versions that reviewers changed; the newest one of this case is opened.

    Raises UserError; what was loaded until then is taken out of the scene again.

    Attributes:
        volume, segmentation: the nodes.
    """

    def __init__(self, entry: worklist.Entry, kept: Path):
        self.entry, self._kept = entry, kept
        self._loaded: list = []
        try:
            self.volume, *_channels = [self._image(name) for name in entry.images]
            self.segmentation = self._segmentation(entry.segmentation)
        except Exception:
            self.close()
            raise
        if self._loaded:
            SceneIO.placeBeside(self.segmentation, self.volume)
        self._remember()

    @property
    def isThere(self) -> bool:
        """Whether both nodes still are in the scene."""
        return all(slicer.mrmlScene.IsNodePresent(node) for node in (self.volume, self.segmentation))

    def segments(self) -> dict:
        """{segment id: vtkSegment}, in order."""
        segmentation = self.segmentation.GetSegmentation()
        return {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}

    def status(self, segmentId: str) -> str:
        value = slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(self.segments()[segmentId])
        return next((status for status, number in _STATUS.items() if number == value), worklist.NOT_STARTED)

    def setStatus(self, status: str, segmentIds: Iterable[str]) -> None:
        """As Slicer's Segment Editor shows it."""
        for segmentId in segmentIds:
            slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(self.segments()[segmentId], _STATUS[status])

    def changes(self) -> dict[str, dict[str, int]]:
        """structure -> {"added", "removed"} voxels since the case was opened or `keep` was called."""
        return self._before.changes()

    def keep(self) -> Path | None:
        """Write a changed segmentation as a new version, beside all earlier ones.

        None if it did not come from a file, or has not changed. Raises UserError.
        """
        statuses = [self.status(segmentId) for segmentId in self.segments()]
        if not self._loaded or not self.isThere or not (self.changes() or statuses != self._statuses):
            return None
        self._kept.mkdir(parents=True, exist_ok=True)
        title = re.sub(r"[^\w. -]+", "_", self.entry.title)[:60].strip() or "case"
        path = self._kept / f"{title} {self._mark}{len(self._versions()) + 1}.seg.nrrd"
        writeSegmentation(self.segmentation, path)
        self._remember()
        return path

    @property
    def isChanged(self) -> bool:
        """Whether a person changed what the model drew, now or earlier; a status alone is no change."""
        return self.entry.edited or bool(self.changes())

    def settle(self) -> None:
        """What was changed until now is no change of the reviewer's."""
        self._remember()

    def close(self) -> None:
        """Take out of the scene what was loaded for this case."""
        for node in self._loaded:
            if slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
        self._loaded.clear()

    @property
    def _mark(self) -> str:
        return f"{self.entry.id[:8]} v"

    def _versions(self) -> list[Path]:
        found = [path for path in self._kept.glob("*.seg.nrrd") if self._mark in path.name]
        return sorted(found, key=lambda path: int(path.name.rpartition(self._mark)[2].split(".")[0]))

    def _remember(self) -> None:
        self._before = Snapshot(self.segmentation)
        self._statuses = [self.status(segmentId) for segmentId in self.segments()]

    def _image(self, name: str):
        return self._known(name) or self._loadSeries(name, "vtkMRMLScalarVolumeNode") or self._loadImage(Path(name))

    def _segmentation(self, name: str):
        node = self._known(name) or self._loadSeries(name, "vtkMRMLSegmentationNode")
        if node:
            return node
        versions = self._versions()
        return self._loadLabels(versions[-1] if versions else Path(name))

    def _known(self, name: str):
        """A node of the scene."""
        if not name.startswith("vtkMRML"):
            return None
        node = slicer.mrmlScene.GetNodeByID(name)
        if node is None:
            raise UserError(
                _("'{title}' is no longer in the scene.").format(title=self.entry.title),
                _("Load its scene again, or go to another case."),
            )
        return node

    def _loadSeries(self, name: str, className: str):
        if not name.startswith(ReviewSources.DICOM_PREFIX):
            return None
        from DICOMLib import DICOMUtils

        ids = DICOMUtils.loadSeriesByUID([name.removeprefix(ReviewSources.DICOM_PREFIX)])
        nodes = [slicer.mrmlScene.GetNodeByID(nodeId) for nodeId in ids or ()]
        self._loaded += nodes
        node = next((n for n in nodes if n.IsA(className)), None)
        if node is None:
            raise UserError(
                _("The DICOM series of '{title}' could not be loaded.").format(title=self.entry.title),
                _("For segmentations install the extension QuantitativeReporting, which reads them."),
            )
        return node

    def _loadImage(self, path: Path):
        self._check(path)
        file = next(item for item in sorted(path.iterdir()) if is_dicom(item)) if path.is_dir() else path
        return self._load(slicer.util.loadVolume, file, {"show": False})

    def _loadLabels(self, path: Path):
        self._check(path)
        if path.name.lower().endswith(".seg.nrrd"):
            return self._load(slicer.util.loadSegmentation, path, {})
        labels = self._load(slicer.util.loadLabelVolume, path, {})
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", self.entry.title)
        self._loaded.append(node)
        node.CreateDefaultDisplayNodes()
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
        table = label_table.table_of(path, slicer.util.arrayFromVolume(labels))
        for segment, label in zip(self._segmentsOf(node), sorted(table, key=lambda row: row.value), strict=False):
            segment.SetName(label.name)
            segment.SetColor([channel / 255 for channel in label.color])
        slicer.mrmlScene.RemoveNode(self._loaded.pop(-2))
        return node

    @staticmethod
    def _segmentsOf(node) -> list:
        segmentation = node.GetSegmentation()
        return [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]

    def _check(self, path: Path) -> None:
        if not path.exists():
            raise UserError(
                _("A file of '{title}' was expected at '{path}', but there is none.").format(
                    title=self.entry.title, path=path
                ),
                _("Bring it back and click the case again, or go on with the next one."),
            )

    def _load(self, load, path: Path, options: dict):
        try:
            node = load(str(path), options)
        except RuntimeError as error:
            raise UserError(_("'{path}' cannot be loaded.").format(path=path), _("Is it damaged?")) from error
        self._loaded.append(node)
        return node
