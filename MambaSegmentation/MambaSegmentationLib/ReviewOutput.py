"""What leaves a review: the segmentation in a format of the user's choice, and the log of decisions."""

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib import audit
from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import QuantitativeExport, ReviewDicom, SegmentationFiles, SurfaceFiles
from .Page import Services
from .ReviewCase import ReviewCase
from .ReviewLogic import Review, reviewer
from .ReviewNumbers import ReviewNumbers

_SEG, _NRRD, _NIFTI, _CSV = ".dcm", ".seg.nrrd", ".nii.gz", ".csv"
_REPORTED = "report"  # a DICOM segmentation, too
_DCMQI = "dcmqi"  # offered where the extension QuantitativeReporting is
_SURFACES = (SurfaceFiles.STL, SurfaceFiles.OBJ, SurfaceFiles.GLB)
_FORMATS = {
    _SEG: _("DICOM segmentation"),
    _REPORTED: _("DICOM SEG + report (SR)"),
    _NRRD: _("Slicer (.seg.nrrd)"),
    _NIFTI: _("Label map (.nii.gz)"),
    SurfaceFiles.STL: _("Surfaces (.stl)"),
    SurfaceFiles.OBJ: _("Surfaces (.obj)"),
    SurfaceFiles.GLB: _("Surfaces (.glb)"),
    _CSV: _("Numbers (.csv)"),
    _DCMQI: _("DICOM segmentation (QuantitativeReporting)"),
}


class ReviewOutput:
    """The sections Export and Log; `attempt(function)` shows a UserError."""

    def __init__(self, ui, review: Review, numbers: ReviewNumbers, services: Services, attempt: Callable):
        self._ui, self._review, self._numbers = ui, review, numbers
        self._services, self._attempt = services, attempt
        self._logText = ""
        for kind in (_SEG, _REPORTED, _NRRD, _NIFTI, *_SURFACES, _CSV):
            ui.reviewFormatSelector.addItem(_FORMATS[kind], kind)
        ui.reviewFormatSelector.setCurrentIndex(ui.reviewFormatSelector.findData(_NRRD))
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

    def forgetExport(self) -> None:
        """Another case is opened."""
        self._ui.reviewExportLabel.text = ""

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
        ending = _SEG if kind in (_DCMQI, _REPORTED) else kind
        name = "".join(c if c.isalnum() or c in " ._-" else "_" for c in case.entry.title) or "segmentation"
        suggested = self._review.session.path.parent / f"{name}{ending}"
        path = self._ask(_("Export the segmentation"), suggested, f"{_FORMATS[kind]} (*{ending})" if ending else "")
        if not path:
            return
        if ending and not path.name.lower().endswith(ending):
            path = path.with_name(path.name + ending)
        if path.exists():
            raise UserError(_("'{path}' is there already.").format(path=path), _("Choose a new name."))
        if kind in (_SEG, _REPORTED):
            self._exportDicom(
                case, path, ReviewDicom.report(case, self._review.entry, path) if kind == _REPORTED else {}
            )
        elif kind == _DCMQI:
            algorithm = ReviewDicom.algorithm(case, self._services.models)
            QuantitativeExport.export(case.segmentation, path, reviewer(), algorithm, case.isChanged)
            self._tell(path)
        elif kind == _CSV:
            self._exportNumbers(path)
        elif kind in _SURFACES:
            self._exportSurfaces(case, path)
        else:
            self._exportFile(case, path, ending)

    def _exportNumbers(self, path: Path) -> None:
        def save() -> None:
            if self._attempt(lambda: self._numbers.save(path)):
                self._tell(path)

        self._numbers.whenThere(save)

    def _exportSurfaces(self, case: ReviewCase, path: Path) -> None:
        with slicer.util.WaitCursor():
            empty = SurfaceFiles.export(case.segmentation, path)
        self._tell(path)
        if empty:
            names = _("Without a surface, as they have no voxel: {names}.").format(names=", ".join(empty))
            self._services.view.message("warning", names, "")

    def _exportFile(self, case: ReviewCase, path: Path, ending: str) -> None:
        if ending == _NRRD:
            SegmentationFiles.writeSegmentation(case.segmentation, path)
            covered = []
        else:
            covered = SegmentationFiles.writeLabels(case.segmentation, case.volume, path)
        self._tell(path)
        self._warn(covered)

    def _exportDicom(self, case: ReviewCase, path: Path, about: dict) -> None:
        source = ReviewDicom.source(case) or self._askFolder()
        if not source:
            return
        labels = self._services.files.newFile("labels.nrrd")
        covered: list[str] = []

        def params() -> dict:
            covered.extend(SegmentationFiles.writeForWorker(case.segmentation, case.volume, labels))
            request = {"labels": str(labels), "source": source, "output": str(path), "creator": reviewer()}
            request["structures"] = SegmentationFiles.structures(case.segmentation)
            return request | ReviewDicom.origin(case, self._services.models) | about

        def ended(*_reason) -> None:
            self._services.files.remove(labels)

        def finished(result: dict) -> None:
            ended()
            self._tell(path, result["report"])
            self._warn(covered)

        callbacks = {"onFinished": finished, "onFailed": ended, "onCancelled": ended}
        needs = [case.volume, case.segmentation]
        self._services.jobs.run(_("Export DICOM"), "export_seg", params, needs=needs, **callbacks)

    def _tell(self, *paths) -> None:
        written = "\n".join(str(path) for path in paths if path)
        self._ui.reviewExportLabel.text = _("Written: {path}").format(path=written)
        self.update()

    def _warn(self, covered: list[str]) -> None:
        if covered:
            self._services.view.message("warning", SegmentationFiles.coveredWarning(covered), "")

    def _ask(self, title: str, suggested: Path, kinds: str) -> Path | None:
        answer = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, str(suggested), kinds)
        return Path(answer) if answer else None

    def _askFolder(self) -> str:
        title = _("Choose the folder with the DICOM slices of the image")
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, "")


def _records(count: int) -> str:
    return counted(count, _("record"), _("records"))
