"""Where the cases of a review come from: the open scene, a folder, a table, the DICOM database."""

import hashlib
import re
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib import catalogue, review, worklist
from MambaSegLib.errors import UserError

from . import SceneIO, SegmentVoxels

SCENE, FOLDER, TABLE, DICOM = "scene", "folder", "table", "dicom"
DICOM_PREFIX = "dicom:"
_SCENE_NAME = "scene "
_MODALITY = "0008,0060"
_SERIES_DESCRIPTION = "0008,103e"


def dicomDatabase():
    """Slicer's DICOM database, None where there is none or it is closed."""
    database = getattr(slicer, "dicomDatabase", None)
    return database if database and database.isOpen else None


def entries(source: str, path: str, warn: Callable[[str], None]) -> list[worklist.Entry]:
    """What there is to review; `path` is that of a folder or table. Raises UserError when there is nothing."""
    if source == FOLDER:
        return worklist.from_folder(_given(path, _("Choose the folder with the images.")), warn)
    if source == TABLE:
        return worklist.from_csv(_given(path, _("Choose the CSV file that lists them.")), warn)
    return _fromDicom(dicomDatabase()) if source == DICOM else _fromScene(warn)


def sessionFile(source: str, path: str, warn: Callable[[str], None]) -> Path:
    """Where the review of this source is kept: beside the images or the table, else in this user's own folder.

    `warn` is told when nothing can be written beside them. Raises UserError.
    """
    if source not in (FOLDER, TABLE):
        name = "dicom" if source == DICOM else f"{_SCENE_NAME}{datetime.now():%Y-%m-%d %H-%M-%S}"
        return _ownFolder() / (name + review.ENDING)
    place = Path(path).expanduser()
    beside = place / f"{place.name}{review.ENDING}" if source == FOLDER else place.with_name(place.stem + review.ENDING)
    if isWritable(beside.parent):
        return beside
    own = _ownFolder() / f"{place.stem[:60]} {hashlib.sha256(str(place).encode()).hexdigest()[:8]}{review.ENDING}"
    problem = _("'{folder}' cannot be written to: this review and what you change are kept in '{own}'.")
    warn(problem.format(folder=beside.parent, own=own.parent))
    if beside.exists() and not own.exists():
        warn(_("There is a review in '{folder}' that cannot be continued.").format(folder=beside.parent))
    return own


def isWritable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _ownFolder() -> Path:
    folder = catalogue.user_folder().parent / "reviews"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = _("Reviews are kept in '{folder}', which cannot be made: {error}.")
        raise UserError(
            problem.format(folder=folder, error=error.strerror), _("Check the rights of the folder.")
        ) from error
    return folder


def isSceneSession(file: str) -> bool:
    """Whether that file is the review of a scene."""
    return Path(file).name.startswith(_SCENE_NAME)


def segmentations() -> list:
    """The segmentations of the scene that a user may review."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [
        node for node in nodes if not node.GetHideFromEditors() and not node.GetAttribute(SceneIO.DERIVED_ATTRIBUTE)
    ]


def _given(path: str, hint: str) -> Path:
    if not path.strip():
        raise UserError(_("The place of the cases was expected, but nothing was chosen."), hint)
    return Path(path)


def _fromScene(warn: Callable[[str], None]) -> list[worklist.Entry]:
    rows, left = [], []
    for node in segmentations():
        volume = SegmentVoxels.volumeOf(node)
        if volume is None:
            left.append(node.GetName())
            continue
        row = {"image": volume.GetID(), "segmentation": node.GetID(), "title": node.GetName()}
        rows.append(row | _judgement(SceneIO.resultOf(node)))
    if left:
        warn(_("Left out, as their image is unknown: {names}.").format(names=", ".join(left)))
    if not rows:
        raise UserError(
            _("The scene has no segmentation with an image."),
            _("Segment a volume first, load a case, or choose a folder."),
        )
    return worklist.from_rows(rows)


def _judgement(result: dict | None) -> dict:
    """What the model said about its own result."""
    if result is None:
        return {}
    rows = result.get("review", [])
    return {
        "model": {"id": result["model"], "sha256": result.get("model_sha256", "")},
        "scores": {row["structure"]: row["score"] for row in rows},
        "places": {row["structure"]: row["places"] for row in rows},
    }


def _fromDicom(database) -> list[worklist.Entry]:
    """Every segmentation object of the database with the series that it was drawn on."""
    rows = []
    for patient in database.patients() if database else ():
        for study in database.studiesForPatient(patient):
            for series in database.seriesForStudy(study):
                files = database.filesForSeries(series)
                if files and database.fileValue(files[0], _MODALITY) == "SEG":
                    rows += _dicomRow(database, patient, series, files[0])
    if not rows:
        raise UserError(
            _("The DICOM database has no segmentation whose images are there, too."),
            _("Import both in the DICOM module."),
        )
    return worklist.from_rows(rows)


def _dicomRow(database, patient: str, series: str, file: str) -> list[dict]:
    import pydicom  # comes with Slicer; only needed here

    header = pydicom.dcmread(file, specific_tags=["ReferencedSeriesSequence"], stop_before_pixels=True)
    images = [str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence", ())]
    images = [uid for uid in images if database.filesForSeries(uid)]
    name = re.sub(r"\^+", " ", database.nameForPatient(patient) or "").strip()
    title = " ".join(filter(None, (name, database.fileValue(file, _SERIES_DESCRIPTION))))
    row = {"images": [DICOM_PREFIX + uid for uid in images], "segmentation": DICOM_PREFIX + series, "title": title}
    return [row] if images else []
