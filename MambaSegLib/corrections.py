"""The store of corrected cases, from which a model learns: a folder with one folder per case. Torch-free.

Layout: ``<case id>/case.json``, ``image_0.nrrd`` (one file per channel; a grey picture is ``image_0.png``),
``labels.nrrd``, ``thumbnail.png``. What a newer version of the same work replaced stands under ``superseded/``.

Two promises. A case is there completely or not at all. And a patient is training or hold-out for ever: that is a hash
of the patient, decided when the case enters; the patient's key itself is never written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import catalogue, label_table
from .bundle import Label
from .corrected_case import (
    CASE_FILE,
    HOLD_OUT,
    SCHEMA_VERSION,
    TRAINING,
    UNKNOWN,
    CorrectedCase,
    check_case,
    image_hash,
    known_labels,
    patient_hash,
    plain_annotated,
    read_case,
)
from .errors import UserError
from .image import read_labels, read_volume, write_labels
from .job import Report
from .picture import in_colour
from .safe_file import cannot_write, write_text
from .thumbnail import thumbnail
from .volume import Volume

__all__ = [
    "HOLD_OUT",
    "TRAINING",
    "UNKNOWN",
    "CorrectedCase",
    "add",
    "cases",
    "default_folder",
    "known_labels",
    "remove",
    "run",
]

HOLD_OUT_SHARE = 0.25
_SUPERSEDED = "superseded"
_UNFINISHED = ".unfinished-"
_STALE_S = 3600.0  # an unfinished case that nobody has touched for so long is what a killed process left


def default_folder() -> Path:
    """Where this user's corrected cases are: beside the models. May not exist yet."""
    return catalogue.user_folder().parent / "corrections"


def add(
    folder: str | os.PathLike,
    images: Sequence[Volume | str | os.PathLike],
    labels: Volume | str | os.PathLike,
    structures: Sequence[Label],
    annotated: dict,
    patient_key: str,
    annotator: str,
    model: dict | None = None,
    title: str = "",
) -> CorrectedCase:
    """Take a case in. The same image by the same annotator is a new version, which replaces the old one.

    Args:
        folder: the store; made when it is not there.
        images: one per channel, on one grid; a colour picture is a single one.
        labels: values of `structures`, on the same grid.
        structures: all that the numbers may mean.
        annotated: what was really done, see `CorrectedCase.annotated`; all else is unknown, not background.
        patient_key: what names the patient on this site, for example the patient's id; only its hash is stored.
        annotator: who did it.
        model: {"id", "sha256"} of the model that made the first draft, or None.
        title: what a user reads in a list.

    Raises:
        UserError: something does not fit together, the image is there under another patient, or it cannot be written.
    """
    channels = [image if isinstance(image, Volume) else read_volume(image) for image in images]
    drawn = labels if isinstance(labels, Volume) else read_labels(labels)
    check_case(channels, drawn, structures, annotated)
    if not annotator.strip():
        raise UserError("The annotator's name was expected, but none came.", "Say who drew the labels.")
    folder = Path(folder).expanduser()
    data = {
        "title": title.strip() or channels[0].name or "Untitled",
        "patient": patient_hash(patient_key),
        "annotator": annotator.strip(),
        "model": model,
        "structures": label_table.to_json(structures),
        "annotated": plain_annotated(annotated),
        "image_sha256": image_hash(channels),
    }
    there = _all(folder)
    data |= {"part": _part(data["patient"], there), **_next_version(data, there)}
    try:
        return _stored(folder, {"schema_version": SCHEMA_VERSION, **data}, channels, drawn)
    except OSError as error:
        raise cannot_write(folder, error) from error


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job "add_correction": `add` for those who must not wait for it.

    Args:
        request: "images" (files), "labels" (file), "structures" ([{value, name, color, terminology}], or null for those
            of the file), "annotated", "patient" (key), "annotator"; optional "folder", "model", "title"; see `add`.
            "in_colour": True takes a grey picture in red, green and blue, as a model of colours needs it.
        report, warm: as for every job; nothing is kept warm.

    Returns:
        {id, part, version, folder (of the case)}

    Raises:
        UserError: as `add`.
    """
    report.message("Adding the case to the training set")
    labels = read_labels(request["labels"])
    given = request.get("structures")
    structures = label_table.from_json(given) if given else label_table.table_of(request["labels"], labels.array)
    who = request["patient"], request["annotator"], request.get("model"), request.get("title") or ""
    folder = request.get("folder") or default_folder()
    images = request["images"]
    if request.get("in_colour"):
        images = [in_colour(read_volume(path)) for path in images]
    case = add(folder, images, labels, structures, request["annotated"], *who)
    return {"id": case.id, "part": case.part, "version": case.data["version"], "folder": str(case.folder)}


def cases(folder: str | os.PathLike) -> list[CorrectedCase]:
    """The cases that count, oldest first: of several versions the newest one. [] when there is no such folder.

    Raises:
        UserError: a case is damaged, or was written by a newer version of the program.
    """
    newest: dict[tuple, CorrectedCase] = {}
    for case in _all(Path(folder).expanduser()):
        newest[_work(case.data)] = case
    return sorted(newest.values(), key=lambda case: (case.data["date"], case.id))


def remove(folder: str | os.PathLike, case_id: str) -> int:
    """Delete a case and all earlier versions of it; returns how many folders went. UserError when it is unknown."""
    folder = Path(folder).expanduser()
    wanted = next((case for case in cases(folder) if case.id == case_id), None)
    if wanted is None:
        raise UserError(f"There is no case '{case_id}' in {folder}.", "See 'mambaseg corrections list'.")
    older = _all(folder / _SUPERSEDED)
    doomed = [case for case in [*older, *_all(folder)] if _work(case.data) == _work(wanted.data)]
    try:
        for case in doomed:  # away in one operation each: nobody ever finds half a case
            grave = folder / f"{_UNFINISHED}{case.id}"
            os.rename(case.folder, grave)
            shutil.rmtree(grave)
    except OSError as error:
        raise UserError(f"The case cannot be removed: {error.strerror}.", "Close programs that use it.") from error
    return len(doomed)


def _part(patient: str, there: list[CorrectedCase]) -> str:
    """As decided when the patient first came; a hash decides for a new one."""
    for case in there:
        if case.patient == patient:
            return case.part
    return HOLD_OUT if int(patient[:16], 16) / 2**64 < HOLD_OUT_SHARE else TRAINING


def _next_version(data: dict, there: list[CorrectedCase]) -> dict:
    """{"version", "date", "id"}; a version is newer than all others of its work even if the clock was put back."""
    for case in there:
        if case.data["image_sha256"] == data["image_sha256"] and case.patient != data["patient"]:
            raise UserError(
                f"This image is in the store already, as '{case.title}' of another patient.",
                "Give the patient as then, or remove that case: one image on both sides of the split spoils the test.",
            )
    earlier = [case.data["version"] for case in there if _work(case.data) == _work(data)]
    now = datetime.now(timezone.utc)
    name = f"{now:%Y%m%d-%H%M%S}-{data['image_sha256'][:8]}"
    return {"version": max(earlier, default=0) + 1, "date": now.isoformat(), "id": name}


def _stored(folder: Path, data: dict, channels: list[Volume], labels: Volume) -> CorrectedCase:
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    case = _written(folder, data, channels, labels)
    _supersede(folder, case)
    return case


def _written(folder: Path, data: dict, channels: list[Volume], labels: Volume) -> CorrectedCase:
    """The complete case, put in place by one rename."""
    temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    try:
        names = [_write_image(temporary, index, volume) for index, volume in enumerate(channels)]
        structures = label_table.from_json(data["structures"])
        write_labels(temporary / "labels.nrrd", labels.with_array(labels.array.astype(np.uint8)), structures)
        axis = data["annotated"]["slices"]["axis"] if data["annotated"]["slices"] else None
        picture = thumbnail(channels[0], labels, structures, axis)
        _save(sitk.GetImageFromArray(picture, isVector=True), temporary / "thumbnail.png")
        os.chmod(temporary, 0o755)  # mkdtemp makes private folders, but a store may be shared
        return _placed(temporary, folder, data | {"channels": names, "labels": "labels.nrrd"})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_image(folder: Path, index: int, volume: Volume) -> str:
    """Write one channel; returns the file's name. A grey picture without a place of its own stays a picture."""
    image = volume.to_sitk()
    is_grey_slice = volume.shape[0] == 1 and volume.array.ndim == 3 and volume.array.dtype in (np.uint8, np.uint16)
    if is_grey_slice and volume.same_grid(Volume(volume.array)):
        name, image = f"image_{index}.png", image[:, :, 0]
    else:
        name = f"image_{index}.nrrd"
    _save(image, folder / name)
    return name


def _save(image: sitk.Image, path: Path) -> None:
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:  # how SimpleITK says that the disk is full
        raise OSError(f"{path.name} could not be written") from error


def _placed(temporary: Path, folder: Path, data: dict) -> CorrectedCase:
    """Give the case its id, and its place; a second one within the same second gets a number."""
    for attempt in range(1, 1000):
        case_id = data["id"] if attempt == 1 else f"{data['id']}-{attempt}"
        target = folder / case_id
        if target.exists() or (folder / _SUPERSEDED / case_id).exists():
            continue
        data = data | {"id": case_id}
        write_text(temporary / CASE_FILE, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        try:
            os.rename(temporary, target)
        except OSError:
            if target.exists():  # another process was quicker
                continue
            raise
        return CorrectedCase(target, data)
    raise OSError(f"no free name for a case in {folder}")


def _supersede(folder: Path, case: CorrectedCase) -> None:
    """Put all but the newest version of this case's work aside."""
    versions = [other for other in _all(folder) if _work(other.data) == _work(case.data)]
    aside = folder / _SUPERSEDED
    for older in versions[:-1]:
        aside.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process puts the same one aside
            os.rename(older.folder, aside / older.id)


def _all(folder: Path) -> list[CorrectedCase]:
    """Every complete case in `folder`, old versions first."""
    if not folder.is_dir():
        return []
    found = [read_case(path.parent) for path in folder.glob(f"[!.]*/{CASE_FILE}")]
    return sorted((case for case in found if case), key=lambda case: (case.data["version"], case.data["date"], case.id))


def _work(data: dict) -> tuple[str, str]:
    """What two versions of the same work have in common."""
    return data["image_sha256"], data["annotator"]


def _sweep(folder: Path) -> None:
    """Delete what killed processes left."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path, ignore_errors=True)
