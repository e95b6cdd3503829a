"""What leaves a review: the segmentation in a format of the user's choice, and the log of decisions."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib import audit
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import QuantitativeExport, ReviewSources, SegmentationFiles
from .Page import Services
from .ReviewCase import ReviewCase
from .ReviewLogic import Review, reviewer

_SEG, _NRRD, _NIFTI, _STL = ".dcm", ".seg.nrrd", ".nii.gz", ""
_DCMQI = "dcmqi"  # offered where the extension QuantitativeReporting is
_FORMATS = {
    _SEG: _("DICOM segmentation"),
    _NRRD: _("Slicer (.seg.nrrd)"),
    _NIFTI: _("Label map (.nii.gz)"),
    _STL: _("Surfaces (.stl)"),
    _DCMQI: _("DICOM segmentation (QuantitativeReporting)"),
}


class ReviewOutput:
    """The sections Export and Log; `attempt(function)` shows a UserError."""

    def __init__(self, ui, review: Review, services: Services, attempt: Callable):
        self._ui, self._review, self._services, self._attempt = ui, review, services, attempt
        self._logText = ""
        for kind in (_SEG, _NRRD, _NIFTI, _STL):
            ui.reviewFormatSelector.addItem(_FORMATS[kind], kind)
        ui.reviewFormatSelector.setCurrentIndex(1)
        ui.reviewExportButton.connect("clicked()", lambda: attempt(self._export))
        ui.reviewVerifyButton.connect("clicked()", lambda: attempt(self._verify))
        ui.reviewLogExportButton.connect("clicked()", lambda: attempt(self._exportLog))

    def update(self) -> None:
        ui, session = self._ui, self._review.session
        if QuantitativeExport.isAvailable() and ui.reviewFormatSelector.findData(_DCMQI) < 0:
            ui.reviewFormatSelector.addItem(_FORMATS[_DCMQI], _DCMQI)
        ui.reviewExportButton.enabled = bool(self._review.case) and not self._services.jobs.isRunning
        ui.reviewExportLabel.visible = bool(ui.reviewExportLabel.text)
        hasLog = session is not None and session.log.is_file()
        ui.reviewVerifyButton.enabled = ui.reviewLogExportButton.enabled = hasLog
        ui.reviewLogCode.visible = bool(ui.reviewLogCode.text)
        nothing = _("Every decision is logged here: who, when, what, which model, how many voxels were changed.")
        ui.reviewLogLabel.text = (self._logText or str(session.log)) if hasLog else nothing

    def forgetCheck(self) -> None:
        """The log has grown, or is another one."""
        self._logText = self._ui.reviewLogCode.text = ""
        self.update()

    # The log

    def _verify(self) -> None:
        found = audit.verify(self._review.session.log)
        if found["problems"]:
            self._logText = _("The log was tampered with. {problems}").format(problems=" ".join(found["problems"]))
        else:
            text = _("{records}, none changed, deleted or inserted. Note the code below to prove it later as well.")
            self._logText = text.format(records=_records(found["records"]))
        self._ui.reviewLogCode.text = "" if found["problems"] else found["head"]
        self._ui.reviewLogCode.cursorPosition = 0
        self.update()

    def _exportLog(self) -> None:
        path = self._ask(_("Export the log"), self._review.session.path.with_suffix(".csv"), "CSV (*.csv)")
        if path:
            count = audit.export_csv(self._review.session.log, path)
            self._logText = _("{records} written to '{path}'.").format(records=_records(count), path=path)
            self.update()

    # The segmentation

    def _export(self) -> None:
        case, formats = self._review.case, self._ui.reviewFormatSelector
        if case is None or not case.isThere:
            raise UserError(_("No case is open."), _("Choose one in the list."))
        kind = formats.itemData(formats.currentIndex)
        ending = _SEG if kind == _DCMQI else kind
        name = "".join(c if c.isalnum() or c in " ._-" else "_" for c in case.entry.title) or "segmentation"
        suggested = self._review.session.path.parent / f"{name}{ending}"
        path = self._ask(_("Export the segmentation"), suggested, f"{_FORMATS[kind]} (*{ending})" if ending else "")
        if not path:
            return
        if ending and not path.name.lower().endswith(ending):
            path = path.with_name(path.name + ending)
        if path.exists():
            raise UserError(_("'{path}' is there already.").format(path=path), _("Choose a new name."))
        if kind == _SEG:
            self._exportDicom(case, path)
        elif kind == _DCMQI:
            QuantitativeExport.export(case.segmentation, path, reviewer(), self._model(case), case.isChanged)
            self._tell(path)
        elif ending == _STL:
            exportSurfaces(case.segmentation, path)
            self._tell(path)
        else:
            self._exportFile(case, path, ending)

    def _exportFile(self, case: ReviewCase, path: Path, ending: str) -> None:
        if ending == _NRRD:
            SegmentationFiles.writeSegmentation(case.segmentation, path)
        else:
            SegmentationFiles.writeLabels(case.segmentation, case.volume, path)
        self._tell(path)

    def _exportDicom(self, case: ReviewCase, path: Path) -> None:
        source = dicomSource(case) or self._askFolder()
        if not source:
            return
        labels = self._services.files.newFile("labels.seg.nrrd")

        def params() -> dict:
            SegmentationFiles.writeLabels(case.segmentation, case.volume, labels)
            request = {"labels": str(labels), "source": source, "output": str(path), "creator": reviewer()}
            model = self._model(case)
            return request | ({"model": str(model.folder), "corrected": case.isChanged} if model else {})

        def ended(*_reason) -> None:
            self._services.files.remove(labels)

        def finished(result: dict) -> None:
            ended()
            self._tell(path)

        callbacks = {"onFinished": finished, "onFailed": ended, "onCancelled": ended}
        needs = [case.volume, case.segmentation]
        self._services.jobs.run(_("Export DICOM"), "export_seg", params, needs=needs, **callbacks)

    def _model(self, case: ReviewCase) -> ModelBundle | None:
        """Which model drew it, if it still is on this computer."""
        try:
            return self._services.models.find(case.entry.model["id"]) if case.entry.model else None
        except UserError:
            return None

    def _tell(self, path: Path) -> None:
        self._ui.reviewExportLabel.text = _("Written: {path}").format(path=path)
        self.update()

    def _ask(self, title: str, suggested: Path, kinds: str) -> Path | None:
        answer = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, str(suggested), kinds)
        return Path(answer) if answer else None

    def _askFolder(self) -> str:
        title = _("Choose the folder with the DICOM slices of the image")
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, "")


def _records(count: int) -> str:
    return counted(count, _("record"), _("records"))


def dicomSource(case: ReviewCase) -> str:
    """A file of the image's DICOM series, or its folder; "" when it did not come from DICOM."""
    uids = (case.volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = ReviewSources.dicomDatabase()
    file = database.fileForInstance(uids[0]) if uids and database else ""
    if file:
        return file
    first = Path(case.entry.images[0])
    return str(first) if first.is_dir() or first.suffix.lower() == ".dcm" else ""


def exportSurfaces(segmentationNode, folder: Path) -> None:
    """One .stl file per segment (LPS, mm) in a new folder, which appears when all are written. Raises UserError."""
    if folder.exists():
        raise UserError(_("'{path}' is there already.").format(path=folder), _("Choose a new name."))
    unfinished = folder.with_name(f".{uuid.uuid4().hex[:8]}-{folder.name}")
    unfinished.mkdir(parents=True)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    done = logic.ExportSegmentsClosedSurfaceRepresentationToFiles(str(unfinished), segmentationNode, None, "STL")
    if not done or not any(unfinished.iterdir()):
        for file in unfinished.iterdir():
            file.unlink()
        unfinished.rmdir()
        raise UserError(
            _("The surfaces could not be written to '{path}'.").format(path=folder),
            _("Check that a segment is not empty, and that the disk has room."),
        )
    os.rename(unfinished, folder)
