"""Labelled cases as they lie on disk: which files belong together.

decathlon   ``imagesTr/X.nii.gz`` with ``labelsTr/X.nii.gz`` (Medical Segmentation Decathlon)
pairs       ``images/X.*`` with ``labels/X.*`` or ``masks/X.*``: volumes or pictures
parts       any of these within ``train``/``training`` and ``val``/``validation``: a split that is kept
"""

import json
import re
from pathlib import Path

from MambaSegLib import image, picture
from MambaSegLib.errors import UserError

from .cases import HELD_OUT, TRAINING, Case

_ENDINGS = (*image.EXTENSIONS, *picture.EXTENSIONS)
_PARTS = {"train": TRAINING, "training": TRAINING, "val": HELD_OUT, "validation": HELD_OUT}
_LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))


def open_source(where) -> list[Case]:
    """The cases of a folder, sorted by name.

    Raises:
        UserError: no known layout, or an image without its labels.
    """
    folder = Path(where)
    parts = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name in _PARTS] if folder.is_dir() else []
    if parts:
        return [case for part in parts for case in _pairs(part, folder, _PARTS[part.name])]
    return _pairs(folder, folder, None)


def _pairs(folder: Path, root: Path, part: str | None) -> list[Case]:
    for images, labels in _LAYOUTS:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            break
    else:
        raise UserError(
            f"Expected images with their labels in {folder}, found none.",
            "Give a folder with imagesTr and labelsTr, images and labels, or images and masks.",
        )
    cases = []
    for file in sorted(p for p in (folder / images).iterdir() if p.name.lower().endswith(_ENDINGS)):
        name = stem(file)
        label = next((folder / labels / (name + ending) for ending in _endings_like(file) if
                      (folder / labels / (name + ending)).is_file()), None)  # fmt: skip
        if label is None:
            raise UserError(f"{file.name} has no labels in {folder / labels}.", "Add them, or remove the image.")
        shown = f"{folder.name}/{name}" if part else name
        cases.append(Case(shown, patient_of(root, name), (file,), label, part=part))
    if not cases:
        raise UserError(f"Expected images in {folder / images}, found none.", "Add images.")
    return cases


def stem(file: Path) -> str:
    """The file's name without its ending, also without one of two parts."""
    return next(file.name[: -len(ending)] for ending in sorted(_ENDINGS, key=len, reverse=True)
                if file.name.lower().endswith(ending))  # fmt: skip


def _endings_like(file: Path) -> tuple[str, ...]:
    """Endings that the labels may have, the image's own first."""
    own = file.name[len(stem(file)) :]
    return (own, *_ENDINGS)


def patient_of(folder: Path, name: str) -> str:
    """From ``patients.json`` ({case: patient}) where there is one; from names such as ``patient007_frame01``; else the
    case is a patient of its own."""
    table = folder / "patients.json"
    if table.is_file():
        return json.loads(table.read_text(encoding="utf-8"))[name]
    numbered = re.match(r"(patient[-_ ]?\d+)[-_. ]", name, re.IGNORECASE)
    return numbered[1] if numbered else name
