"""Labelled cases, and the split of their patients, decided once and for ever by a hash."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

TRAINING, HELD_OUT = "training", "hold-out"


@dataclass(frozen=True)
class Case:
    """One image with its labels.

    Args:
        name: unique among the cases of a source.
        patient: keeps cases of one person on one side of the split.
        images: a file per channel.
        label: file with label values on the grid of the images.
        annotated: what was really annotated; None is everything. {"structures": names, or None for all, "slices": None
            for all, or {"axis": 0, 1 or 2 of (Z, Y, X), "indices": [...]}}.
        part: "training" or "hold-out" where the source says so itself.
        structures: (label value, name) of what the label file holds; None: its numbers are the model's.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path
    annotated: dict | None = None
    part: str | None = None
    structures: tuple[tuple[int, str], ...] | None = None


def in_validation(patient: str, share: float) -> bool:
    """Whether a patient belongs to the validation set: a hash of the name, so that no later case moves anyone."""
    digest = hashlib.sha256(patient.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def least_share(cases: list[Case], usual: float) -> float:
    """The smallest of `usual` and larger shares of validation that leaves cases on both sides of `split`.

    Raises:
        UserError: there is none, as with a single patient.
    """
    for share in (usual, *(tenth / 10 for tenth in range(1, 10) if tenth / 10 > usual)):
        try:
            split(cases, share)
        except UserError:
            continue
        return share
    raise UserError(
        f"{counted(len(cases), 'case')} cannot be parted into training and validation by patient.",
        "Add cases of other patients, or name the parts in a table (column 'part').",
    )


def split(cases: list[Case], share: float) -> tuple[list[Case], list[Case]]:
    """(training, validation) cases: as the source says, and where it says nothing by the patient's hash.

    Raises:
        UserError: one of the two would be empty.
    """
    held_out = [c.part == HELD_OUT if c.part else in_validation(c.patient, share) for c in cases]
    training = [c for c, out in zip(cases, held_out, strict=True) if not out]
    validation = [c for c, out in zip(cases, held_out, strict=True) if out]
    if not training or not validation:
        raise UserError(
            f"The split of {counted(len(cases), 'case')} has {len(training)} for training and "
            f"{len(validation)} for validation.",
            "Add cases, or change 'validation_share'.",
        )
    return training, validation
