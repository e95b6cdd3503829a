"""What a user sees of a model that learns: a held-out case, the reference beside the result, always the same slice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MambaSegLib.bundle import Label
from MambaSegLib.corrected_case import UNKNOWN
from MambaSegLib.thumbnail import acquisition_axis
from MambaSegLib.volume import Volume

from .evaluation_pictures import outlined, png, surroundings
from .reading import HeldOutCase

_GAP = 4  # pixels between reference and result
_GREY = 128


class Preview:
    """Draws one case whenever it was predicted, and reports where the picture is.

    Args:
        case: whose slice with most labels is shown.
        image: its image, (Z, Y, X) or (C, Z, Y, X), on the grid of the case's truth.
        structures: values and colours.
        folder: for the pictures, one file per step.
        report: of the job.
    """

    def __init__(self, case: HeldOutCase, image: Volume, structures: Sequence[Label], folder: Path, report):
        self._case, self._image, self._structures = case, image, structures
        self._folder, self._report = folder, report
        truth = case.truth.array * (case.truth.array != UNKNOWN)
        self._axis = acquisition_axis(image) if image.shape[0] > 1 else 0
        across = tuple(other for other in range(3) if other != self._axis)
        self._index = int(np.count_nonzero(truth, axis=across).argmax())
        self._box = surroundings(truth.take([self._index], self._axis), self._axis, image)
        self._reference = self._drawn(truth)

    def show(self, step: int, case: HeldOutCase, found: np.ndarray) -> None:
        """Draw `found`, label values (Z, Y, X), if it was found in this preview's case."""
        if case is not self._case:
            return
        gap = np.full((len(self._reference), _GAP, 3), _GREY, np.uint8)
        pixels = np.concatenate([self._reference, gap, self._drawn(found)], axis=1)
        path = self._folder / f"preview_{step:06}.png"
        path.write_bytes(png(pixels))
        count = self._image.shape[self._axis]
        where = f", slice {self._index + 1} of {count}" if count > 1 else ""
        self._report.picture(step, str(path), f"Step {step}: {case.name}{where}; left the reference, right the model")

    def _drawn(self, labels: np.ndarray) -> np.ndarray:
        return outlined(self._image, labels, self._structures, self._box, self._axis, self._index)


@contextlib.contextmanager
def pictures_in(folder: Path):
    """The pictures of a run, which show a patient, end with it, however it ends."""
    try:
        yield
    finally:
        for path in folder.glob("preview_*"):
            path.unlink(missing_ok=True)
