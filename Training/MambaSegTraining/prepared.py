"""Prepared cases on disk: read and resampled once, then looked at piece by piece, however large the data are.

Arrays are mapped into memory, so that the operating system keeps what is used and what there is room for.
"""

import hashlib
import json
import os
import uuid
from pathlib import Path

import numpy as np

from MambaSegLib.request import file_key
from MambaSegLib.safe_file import cannot_write

from .cases import Case
from .reading import TrainingCase, training_case

_ARRAYS = ("image", "label", "points", "merged")


def prepared_case(case: Case, preprocessing: dict, values: dict[str, int], folder: Path) -> TrainingCase:
    """The case as ``reading.training_case`` gives it, its arrays in files of ``folder``, made when they are not there.

    Raises:
        UserError: the case cannot be read, or the folder cannot be written.
    """
    made_of = [file_key([*case.images, case.label]), preprocessing, values, case.annotated, case.structures]
    place = folder / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]
    if not place.is_dir():
        _write(training_case(case, preprocessing, values), place)
    image, label, points, merged = (np.load(place / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
    is_colour = (place / "colour").exists()
    return TrainingCase(case.name, image, label, points, np.array(merged) if len(merged) else None, is_colour)


def _write(read: TrainingCase, place: Path) -> None:
    """All arrays or none; when another process was faster, its files stay."""
    unfinished = place.with_name(f".{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        for name in _ARRAYS:
            array = getattr(read, name)
            np.save(unfinished / f"{name}.npy", np.zeros(0, bool) if array is None else array)
        if read.is_colour:
            (unfinished / "colour").touch()
        os.rename(unfinished, place)
    except OSError as error:
        _remove(unfinished)
        if not place.is_dir():
            raise cannot_write(place, error) from error


def _remove(folder: Path) -> None:
    for file in folder.glob("*"):
        file.unlink()
    if folder.is_dir():
        folder.rmdir()
