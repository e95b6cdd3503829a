"""From the files of a case to arrays: for training on the network's grid, for measuring as inference prepares it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from MambaSegLib.bundle import Label
from MambaSegLib.corrected_case import known_labels
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.picture import is_picture_file
from MambaSegLib.preprocessing import Prepared, prepare
from MambaSegLib.request import one_volume
from MambaSegLib.volume import Volume

from .cases import Case
from .losses import UNKNOWN

BRIGHT = 127  # pixels of a mask above it are the structure
MOST_POINTS = 100_000  # of a case, to centre patches on
HELD_IN_MEMORY = 2 << 30  # bytes of prepared images


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case on the network's grid.

    Args:
        image: (C, Z, Y, X) float32.
        label: (Z, Y, X) uint8, model's values, ``UNKNOWN`` where nothing is known.
        points: (N, 3) places of labelled voxels, to centre patches on.
        merged: (K,) bool, classes that were not told apart from background; None: all were. See ``losses_partial``.
        is_colour: the channels are the colours of a picture.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    merged: np.ndarray | None = None
    is_colour: bool = False


@dataclass(frozen=True, eq=False)
class HeldOutCase:
    """A case to be predicted: the image as inference prepares it, and the labels on the image's own grid.

    ``annotated`` as in ``cases.Case``.
    """

    name: str
    prepared: Prepared
    truth: Volume
    annotated: dict | None = None


def training_case(case: Case, preprocessing: dict, values: dict[str, int] | None = None) -> TrainingCase:
    """Read a case and bring image and labels onto the network's grid, by the code of inference, without padding.

    Args:
        values: name -> label value of the model's structures; None: the file's numbers are the model's.
    """
    prepared = prepare(read_image(case), preprocessing)
    label = prepared.labels_like(read_case_labels(case, values)).astype(np.uint8)
    is_colour = is_picture_file(case.images[0]) and len(prepared.array) == 3
    return TrainingCase(case.name, prepared.array, label, points_in(label), merged_classes(case, values), is_colour)


def held_out_case(case: Case, recipe: dict, values: dict[str, int] | None = None) -> HeldOutCase:
    """Read a case for evaluation; ``recipe`` is preprocessing and inference together, as ``prepare`` takes it."""
    truth = read_case_labels(case, values)
    return HeldOutCase(case.name, prepare(read_image(case), recipe), truth, case.annotated)


class HeldOutCases(Sequence):
    """Cases for evaluation, read when they are asked for; the first ones stay in memory as far as there is room.

    Args:
        cases: what to read.
        recipe, values: see ``held_out_case``.
        room: bytes of prepared images to keep.
    """

    def __init__(self, cases: Sequence[Case], recipe: dict, values: dict[str, int], room: int = HELD_IN_MEMORY):
        self._cases, self._recipe, self._values, self._room = list(cases), recipe, values, room
        self._kept: OrderedDict[int, HeldOutCase] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> HeldOutCase:
        if index not in self._kept:
            read = held_out_case(self._cases[index], self._recipe, self._values)
            size = read.prepared.array.nbytes + read.truth.array.nbytes
            if size > self._room:
                return read
            # They are asked for one after the other, again and again: throwing out the oldest would keep none.
            self._kept[index], self._room = read, self._room - size
        return self._kept[index]


def read_image(case: Case) -> Volume:
    """The image of a case, (Z, Y, X), or (C, Z, Y, X)."""
    return one_volume([read_volume(path) for path in case.images])


def read_case_labels(case: Case, values: dict[str, int] | None = None) -> Volume:
    """Label values of the model on the image's grid, (Z, Y, X), ``UNKNOWN`` where nobody vouches for them.

    A picture that shows one structure may be black and white (0 and 255, also after JPEG), or number its objects.

    Raises:
        UserError: a value that the model does not have, or no structure that it has.
    """
    labels = read_labels(case.label)
    if is_picture_file(case.label) and case.structures is None:
        is_white = labels.array.max() > BRIGHT
        if len(values or ()) == 1 or (values is None and is_white):
            labels = labels.with_array((labels.array > (BRIGHT if is_white else 0)).astype(np.uint8))
    own = dict(case.structures) if case.structures else {value: name for name, value in (values or {}).items()}
    array = labels.array
    if case.annotated:
        table = [Label(value, name, (0, 0, 0), {}) for value, name in own.items()]
        vouched = case.annotated["structures"]
        annotated = case.annotated | {"structures": [t.name for t in table] if vouched is None else vouched}
        array = known_labels(array, table, annotated)
    if values is not None:
        array = _model_values(array, case, own, values)
    return labels.with_array(array)


def _model_values(array: np.ndarray, case: Case, own: dict[int, str], values: dict[str, int]) -> np.ndarray:
    """The case's numbers -> the model's, by name; structures that the model does not have are background."""
    if case.structures and not set(own.values()) & set(values):
        raise UserError(
            f"The case {case.name} has {', '.join(own.values())}, and the model none of them ({', '.join(values)}).",
            "Choose a model with these structures, or rename them.",
        )
    found = np.unique(array)
    foreign = set(found.tolist()) - {0, UNKNOWN, *own}
    if foreign:
        raise UserError(
            f"The labels of {case.name} hold the value {min(foreign)}, but known are {', '.join(map(str, own))}.",
            "Name every structure in the configuration's model.labels, or correct the file.",
        )
    numbers = np.zeros(256, np.uint8)
    for value, name in own.items():
        numbers[value] = values.get(name, 0)
    numbers[UNKNOWN] = UNKNOWN
    return numbers[array.astype(np.uint8)]


def merged_classes(case: Case, values: dict[str, int] | None) -> np.ndarray | None:
    """(K,) bool: background and the model's structures that nobody looked for in this case; None without any."""
    vouched = case.annotated["structures"] if case.annotated else None
    if vouched is None or values is None:
        return None
    missing = [value for name, value in values.items() if name not in vouched]
    merged = np.zeros(1 + max(values.values()), bool)
    merged[[0, *missing]] = True
    return merged if missing else None


def points_in(label: np.ndarray) -> np.ndarray:
    """(N, 3) int32 places of known structures, at most ``MOST_POINTS`` of them, evenly drawn."""
    flat = np.flatnonzero((label > 0) & (label != UNKNOWN))
    if len(flat) > MOST_POINTS:
        flat = np.sort(np.random.default_rng(len(flat)).choice(flat, MOST_POINTS, replace=False))
    return np.stack(np.unravel_index(flat, label.shape), axis=1).astype(np.int32)
