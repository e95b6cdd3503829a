"""What a DICOM object says about a case of a review: the images, the model that drew it, who decided on it."""

from pathlib import Path

from MambaSegLib import review, worklist
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.dicom_codes import Algorithm
from MambaSegLib.errors import UserError

from . import ReviewSources
from .Models import Models
from .ReviewCase import ReviewCase
from .ReviewLogic import reviewer


def source(case: ReviewCase) -> str:
    """A file of the image's DICOM series, or its folder; "" when it did not come from DICOM."""
    uids = (case.volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = ReviewSources.dicomDatabase()
    file = database.fileForInstance(uids[0]) if uids and database else ""
    if file:
        return file
    first = Path(case.entry.images[0])
    return str(first) if first.is_dir() or first.suffix.lower() == ".dcm" else ""


def origin(case: ReviewCase, models: Models) -> dict:
    """The fields of the job "export_seg" that say who drew it."""
    model = _model(case, models)
    drawn = {"model": str(model.folder)} if model else {"drawn_by": case.entry.model}
    return drawn | {"corrected": case.isChanged}


def algorithm(case: ReviewCase, models: Models) -> Algorithm | None:
    """Which model drew it, None for a person."""
    model = _model(case, models)
    if model is None:
        return Algorithm.from_record(case.entry.model) if case.entry.model else None
    return Algorithm.of(model)


def report(case: ReviewCase, entry: worklist.Entry, path: Path) -> dict:
    """The fields of the job that ask for a report beside `path`, with what was decided about just this segmentation."""
    known = {"report": str(path.with_name(f"{path.stem} report.dcm")), "reviewer": reviewer()}
    if entry.status not in (review.COMPLETED, review.FLAGGED) or case.changes():
        return known
    return known | {"reviewer": entry.reviewer, "decision": entry.status, "comment": entry.comment}


def _model(case: ReviewCase, models: Models) -> ModelBundle | None:
    """The model that drew it, if it still is on this computer with the same weights."""
    known = case.entry.model or {}
    try:
        found = models.find(known["id"]) if known else None
    except UserError:
        return None
    return found if found and known.get("sha256") in (found.sha256, "", None) else None
