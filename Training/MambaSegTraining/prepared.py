"""Prepared cases on disk: read and resampled once, then looked at piece by piece, however large the data are.

Arrays are mapped into memory, so that the operating system keeps what is used and what there is room for.
"""

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MambaSegLib.request import file_key
from MambaSegLib.safe_file import cannot_write

from .cases import Case
from .reading import TrainingCase, training_case

_ARRAYS = ("image", "label", "points", "merged")


@dataclass(frozen=True)
class PreparedCase:
    """A ``reading.TrainingCase`` whose arrays are opened anew each time: thousands of cases need no open file."""

    name: str
    place: Path
    merged: np.ndarray | None
    is_colour: bool

    @property
    def image(self) -> np.ndarray:
        return self._array("image")

    @property
    def label(self) -> np.ndarray:
        return self._array("label")

    @property
    def points(self) -> np.ndarray:
        return self._array("points")

    def _array(self, name: str) -> np.ndarray:
        return np.load(self.place / f"{name}.npy", mmap_mode="r")


def prepared_case(case: Case, preprocessing: dict, values: dict[str, int], folder: Path) -> PreparedCase:
    """The case as ``reading.training_case`` gives it, its arrays in files of ``folder``, made when they are not there.

    Raises:
        UserError: the case cannot be read, or the folder cannot be written.
    """
    made_of = [file_key([*case.images, case.label]), preprocessing, values, case.annotated, case.structures]
    place = folder / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]
    if not place.is_dir():
        _write(training_case(case, preprocessing, values), place)
    merged = np.load(place / "merged.npy")
    return PreparedCase(case.name, place, merged if len(merged) else None, (place / "colour").exists())


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
