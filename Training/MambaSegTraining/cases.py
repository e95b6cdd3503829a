"""Labelled cases on disk and the split of their patients, decided once and for ever by a hash."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from MambaSegLib.errors import UserError


@dataclass(frozen=True)
class Case:
    """One image with its labels; ``patient`` keeps cases of one person on one side of the split."""

    name: str
    patient: str
    image: Path
    label: Path


def decathlon_cases(folder) -> list[Case]:
    """Cases of a Medical Segmentation Decathlon folder: ``imagesTr/X.nii.gz`` with ``labelsTr/X.nii.gz``.

    Raises:
        UserError: no such layout, or an image without its labels.
    """
    folder = Path(folder)
    images = sorted((folder / "imagesTr").glob("*.nii*"))
    if not images:
        raise UserError(f"Expected images in {folder / 'imagesTr'}, found none.", "Give a Decathlon-style folder.")
    cases = []
    for image in images:
        label = folder / "labelsTr" / image.name
        if not label.is_file():
            raise UserError(f"{image.name} has no labels at {label}.", "Add them, or remove the image.")
        name = image.name.split(".")[0]
        cases.append(Case(name, _patient(folder, name), image, label))
    return cases


def _patient(folder: Path, name: str) -> str:
    """From ``patients.json`` ({case: patient}) where there is one; else every case is a patient of its own."""
    table = folder / "patients.json"
    return json.loads(table.read_text(encoding="utf-8"))[name] if table.is_file() else name


def in_validation(patient: str, share: float) -> bool:
    """Whether a patient belongs to the validation set: a hash of the name, so that no later case moves anyone."""
    digest = hashlib.sha256(patient.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def split(cases: list[Case], share: float) -> tuple[list[Case], list[Case]]:
    """(training, validation) cases.

    Raises:
        UserError: one of the two would be empty.
    """
    training = [c for c in cases if not in_validation(c.patient, share)]
    validation = [c for c in cases if in_validation(c.patient, share)]
    if not training or not validation:
        raise UserError(
            f"The split of {len(cases)} cases has {len(training)} for training and {len(validation)} for validation.",
            "Add cases, or change 'validation_share'.",
        )
    return training, validation
