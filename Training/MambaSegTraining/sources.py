"""Labelled cases as they lie on disk: which files belong together, and whose they are.

corrections  the store of corrected cases (``MambaSegLib.corrections``)
nnunet       nnU-Net raw: ``dataset.json``, ``imagesTr/X_0000.nii.gz`` (``_0001`` ...: further channels), ``labelsTr``
pairs        ``imagesTr/X.*`` with ``labelsTr/X.*`` (Medical Segmentation Decathlon), ``images`` with ``labels`` or
             ``masks``: volumes or pictures; within ``train`` and ``val`` (or ``training``, ``validation``) the split is
             theirs
beside       anywhere below, labels beside their image: ``X_gt.*`` (ACDC), ``X_anno.*`` (GlaS), ``X_segmentation.*``,
             ``X_mask.*``; folders named test are left out
isic         ``ISIC...Training...Input`` or ``Data`` with ``...GroundTruth``, and the same for validation
csv          a table with the columns image (channels parted by ';'), label, and if known patient and part; places are
             relative to the table
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

from MambaSegLib import corrections, image, picture
from MambaSegLib.corrected_case import CASE_FILE
from MambaSegLib.errors import UserError

from .cases import HELD_OUT, TRAINING, Case

_ENDINGS = tuple(sorted((*image.EXTENSIONS, *picture.EXTENSIONS), key=len, reverse=True))
_PARTS = {
    **{"train": TRAINING, "training": TRAINING},
    **{"val": HELD_OUT, "valid": HELD_OUT, "validation": HELD_OUT, "hold-out": HELD_OUT},
}
_LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))
_VALIDATION = ("imagesVa", "labelsVa")  # AMOS
_SUFFIXES = ("_gt", "_anno", "_segmentation", "_mask")
_ISIC = re.compile(r"isic.*(training|validation).*(input|data)", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_(\d{4})")


def open_source(where) -> list[Case]:
    """The cases of a folder or table, sorted by name.

    Args:
        where: its path, or {"kind": one of the above, "path"} where the layout shall not be guessed.

    Raises:
        UserError: no known layout, or an image without its labels.
    """
    kind, path = (where.get("kind"), where.get("path")) if isinstance(where, dict) else (None, where)
    if not path:
        raise UserError("A source needs a path.", 'Write the folder, or {"kind": ..., "path": ...}.')
    path = Path(path)
    if kind is None:
        kind = _kind_of(path)
    if kind not in KINDS:
        raise UserError(f"There is no kind of source '{kind}'.", f"Known are {', '.join(KINDS)}.")
    return KINDS[kind](path)


def _kind_of(path: Path) -> str:
    if path.suffix.lower() == ".csv":
        return "csv"
    if any(path.glob(f"*/{CASE_FILE}")):
        return "corrections"
    below = [p.name for p in path.iterdir()] if path.is_dir() else []
    if any(_ISIC.fullmatch(name) for name in below):
        return "isic"
    known = {*_PARTS, *(images for images, _ in _LAYOUTS)} & set(below)
    if (below and not known) or any(path.glob("training/*/*_gt.*")):
        return "beside"
    first = next((p for p in sorted((path / "imagesTr").glob("*")) if p.name.lower().endswith(_ENDINGS)), None)
    numbered = first is not None and _CHANNEL.fullmatch(stem(first)) and not (path / "labelsTr" / first.name).is_file()
    return "nnunet" if numbered and (path / "dataset.json").is_file() else "pairs"


def _corrections(folder: Path) -> list[Case]:
    found = corrections.cases(folder)
    if not found:
        raise UserError(f"Expected corrected cases in {folder}, found none.", "Correct a case and add it.")
    return [
        Case(
            c.id, c.patient, c.images, c.label_file, c.annotated, c.part, tuple((s.value, s.name) for s in c.structures)
        )
        for c in found
    ]


def _nnunet(folder: Path) -> list[Case]:
    channels: dict[str, dict[int, Path]] = {}
    for file in sorted(p for p in (folder / "imagesTr").iterdir() if p.name.lower().endswith(_ENDINGS)):
        name, number = _CHANNEL.fullmatch(stem(file)).groups()
        channels.setdefault(name, {})[int(number)] = file
    count = max(len(files) for files in channels.values())
    cases = []
    for name, files in channels.items():
        if sorted(files) != list(range(count)):
            raise UserError(
                f"{name} has the channels {sorted(files)} in {folder / 'imagesTr'}, others have {count}.",
                "Add the missing image, or remove the case.",
            )
        images = tuple(files[number] for number in range(count))
        cases.append(Case(name, patient_of(folder, name), images, _label_of(folder / "labelsTr", name, images[0])))
    return cases


def _pairs(folder: Path) -> list[Case]:
    parts = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name in _PARTS] if folder.is_dir() else []
    if (folder / _VALIDATION[0]).is_dir():
        training = _cases_of(folder / "imagesTr", folder / "labelsTr", folder, TRAINING, "")
        return training + _cases_of(*(folder / name for name in _VALIDATION), folder, HELD_OUT, "")
    if not parts:
        return _pairs_in(folder, folder, None)
    return [case for part in parts for case in _pairs_in(part, folder, _PARTS[part.name])]


def _pairs_in(folder: Path, root: Path, part: str | None) -> list[Case]:
    there = [pair for pair in _LAYOUTS if all((folder / name).is_dir() for name in pair)]
    if not there:
        raise UserError(
            f"Expected images with their labels in {folder}, found none.",
            "Give a folder with imagesTr and labelsTr, images and labels, or images and masks.",
        )
    return _cases_of(*(folder / name for name in there[0]), root, part, f"{folder.name}/" if part else "")


def _cases_of(images: Path, labels: Path, root: Path, part: str | None, before: str) -> list[Case]:
    """``before``: of the names, to tell parts apart."""
    cases = []
    for file in sorted(p for p in images.iterdir() if p.name.lower().endswith(_ENDINGS)):
        name = stem(file)
        label = _label_of(labels, name, file)
        cases.append(Case(before + name, patient_of(root, name, before + name), (file,), label, part=part))
    if not cases:
        raise UserError(f"Expected images in {images}, found none.", "Add images.")
    return cases


def _label_of(folder: Path, name: str, file: Path) -> Path:
    """The labels of a case: with the image's own ending where there are such, else with another one."""
    names = [name, name.replace("img", "label"), *(name + suffix for suffix in _SUFFIXES)]  # img0001: Synapse
    endings = (file.name[len(stem(file)) :], *_ENDINGS)
    places = (folder / (called + ending) for called in names for ending in endings)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"{file.name} has no labels in {folder}.", "Add them, or remove the image.")
    return found


def _isic(folder: Path) -> list[Case]:
    cases = []
    for images in sorted(p for p in folder.iterdir() if p.is_dir() and _ISIC.fullmatch(p.name)):
        word = _ISIC.fullmatch(images.name)[1].lower()
        truths = [p for p in folder.iterdir() if p.is_dir() and "groundtruth" in p.name.lower()]
        labels = next((p for p in sorted(truths) if word in p.name.lower()), None)
        if labels is None:
            raise UserError(f"{images} has no folder of masks beside it.", "Unpack its GroundTruth there.")
        cases += _cases_of(images, labels, folder, _PARTS[word], f"{word}/")
    return cases


def _beside(folder: Path) -> list[Case]:
    cases = []
    for label in sorted(p for p in folder.rglob("*") if p.name.lower().endswith(_ENDINGS)):
        suffix = next((s for s in _SUFFIXES if stem(label).endswith(s)), None)
        place = label.relative_to(folder)
        if suffix is None or any(part.lower().startswith("test") for part in place.parts[:-1]):
            continue
        name = stem(label)[: -len(suffix)]
        image = next((f for e in _ENDINGS if (f := label.with_name(name + e)).is_file()), None)
        if image is None:
            raise UserError(f"{label} has no image {name} beside it.", "Add the image, or remove the labels.")
        word = name.split("_")[0].lower()
        part = HELD_OUT if word.startswith("test") else _PARTS.get(word)  # GlaS: train_1, testA_1
        cases.append(Case(place.with_name(name).as_posix(), patient_of(folder, name), (image,), label, part=part))
    if not cases:
        raise UserError(
            f"Expected images with their labels in {folder}, found none.",
            "Give a folder with imagesTr and labelsTr, images and labels or masks, or labels beside their images.",
        )
    return cases


def _table(path: Path) -> list[Case]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"Cannot read the table {path}: {error.strerror}.", "Check the path.") from error
    if not rows or not {"image", "label"} <= set(rows[0]):
        raise UserError(f"{path} has no rows with the columns 'image' and 'label'.", "Write them in the first line.")
    cases = [_row(path, number, row) for number, row in enumerate(rows, 2)]
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{path} names the image '{twice}' twice.", "Keep one of the rows.")
    return cases


def _row(path: Path, number: int, row: dict) -> Case:
    places = [*row["image"].split(";"), row["label"]]
    *images, label = (path.parent / place.strip() for place in places)
    missing = next((place for place in (*images, label) if not place.is_file()), None)
    if missing:
        raise UserError(f"{path}, line {number}: there is no file {missing}.", "Places are relative to the table.")
    part = (row.get("part") or "").strip().lower()
    if part and part not in _PARTS:
        raise UserError(f"{path}, line {number}: there is no part '{part}'.", f"Write {' or '.join(_PARTS)}.")
    name = str(Path(places[0].strip()).with_name(stem(images[0])).as_posix())
    patient = (row.get("patient") or "").strip() or patient_of(path.parent, stem(images[0]))
    return Case(name, patient, tuple(images), label, part=_PARTS.get(part))


def stem(file: Path) -> str:
    """The file's name without its ending, also without one of two parts."""
    ending = next((ending for ending in _ENDINGS if file.name.lower().endswith(ending)), "")
    return file.name[: len(file.name) - len(ending)]


def patient_of(folder: Path, name: str, otherwise: str = "") -> str:
    """From ``patients.json`` ({case: patient}) where there is one; from names such as ``patient007_frame01``; else the
    case is a patient of its own, called by its name or ``otherwise``."""
    table = folder / "patients.json"
    if table.is_file():
        return json.loads(table.read_text(encoding="utf-8"))[name]
    numbered = re.match(r"(patient[-_ ]?\d+)[-_. ]", name, re.IGNORECASE)
    return numbered[1] if numbered else otherwise or name


KINDS: dict[str, Callable[[Path], list[Case]]] = {
    "corrections": _corrections,
    "nnunet": _nnunet,
    "pairs": _pairs,
    "beside": _beside,
    "isic": _isic,
    "csv": _table,
}
