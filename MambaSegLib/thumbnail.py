"""A small picture of a labelled case: the slice with most labels, upright, with the outlines of the structures.

Torch-free, and without matplotlib: it is made in Slicer's process too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk

from .bundle import Label
from .volume import Volume, axis_code

SIDE = 192  # pixels of the longer side
_RIGHT = {"L": 1, "R": -1, "P": 1, "A": -1}  # what points to the right of a picture: the patient's left, or posterior
_DOWN = {"I": 1, "S": -1, "P": 1, "A": -1}  # what points down: feet, or posterior in an axial slice


def thumbnail(
    volume: Volume,
    labels: Volume,
    structures: Iterable[Label],
    axis: int | None = None,
    index: int | None = None,
    side: int = SIDE,
) -> np.ndarray:
    """Draw it.

    Args:
        volume: the image, (Z, Y, X) or (C, Z, Y, X); three bytes per voxel count as a colour picture.
        labels: (Z, Y, X) on the same grid.
        structures: values and colours.
        axis: 0, 1 or 2 of (Z, Y, X): across which slices are cut; None takes the axis of the thickest slices.
        index: of the slice; None takes the one with most labels.
        side: pixels of the longer side.

    Returns:
        (rows, columns, 3) uint8, `side` pixels long.
    """
    axis = acquisition_axis(volume) if axis is None else axis
    across = tuple(other for other in range(3) if other != axis)
    if index is None:
        count = np.count_nonzero(labels.array, axis=across)
        index = int(count.argmax()) if count.any() else count.size // 2
    colour = volume.array.ndim == 4 and len(volume.channels) == 3 and volume.array.dtype == np.uint8
    planes = [channel.take(index, axis) for channel in (volume.channels if colour else volume.channels[:1])]
    planes = planes if colour else [_windowed(planes[0])] * 3
    steps = [volume.spacing_mm[2 - other] for other in across]
    turn = _turn(axis_code(volume.direction), across) if volume.shape[0] > 1 else (False, False, False)
    shown = [_resampled(_turned(plane, turn), _turned_steps(steps, turn), side, True) for plane in planes]
    mask = _resampled(_turned(labels.array.take(index, axis), turn), _turned_steps(steps, turn), side, False)
    picture = np.stack(shown, -1).clip(0, 255).astype(np.uint8)
    for structure in structures:
        inside = mask == structure.value
        core = _eroded(inside)
        # A bright line beside a dark one shows on any ground, as an orange polyp has.
        picture[core & ~_eroded(core)] //= 3
        picture[inside & ~core] = structure.color
    return picture


def acquisition_axis(volume: Volume) -> int:
    """The array axis with the largest spacing; with equal ones the patient's head-feet axis."""
    spacing = volume.spacing_mm[::-1]
    if max(spacing) > 1.05 * min(spacing):
        return int(np.argmax(spacing))
    code = axis_code(volume.direction)
    return next(2 - i for i, letter in enumerate(code) if letter in "SI")


def _turn(code: str, across: tuple[int, int]) -> tuple[bool, bool, bool]:
    """(transpose, flip rows, flip columns) that bring a slice upright; `code` names where x, y, z point to."""
    rows, columns = (code[2 - axis] for axis in across)
    transpose = rows in "LR" or (columns in "SI")
    down, right = (columns, rows) if transpose else (rows, columns)
    return transpose, _DOWN[down] < 0, _RIGHT[right] < 0


def _turned(plane: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    plane = plane.T if turn[0] else plane
    plane = plane[::-1] if turn[1] else plane
    return plane[:, ::-1] if turn[2] else plane


def _turned_steps(steps: list[float], turn: tuple[bool, bool, bool]) -> list[float]:
    return steps[::-1] if turn[0] else steps


def _windowed(plane: np.ndarray) -> np.ndarray:
    plane = plane.astype(np.float32)
    body = plane[plane > plane.min()]
    low, high = np.percentile(body, [1, 99.5]) if body.size else (0.0, 1.0)
    low = low if high > low else plane.min()
    return 255 * (plane - low) / max(high - low, 1e-6)


def _resampled(plane: np.ndarray, steps_mm: list[float], side: int, smooth: bool) -> np.ndarray:
    """To square pixels, `side` of them on the longer side."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(plane).astype(np.float32))
    image.SetSpacing([float(step) for step in steps_mm[::-1]])
    lengths = [n * step for n, step in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    pixel = max(lengths) / side
    size = [max(1, round(length / pixel)) for length in lengths]
    origin = [(pixel - step) / 2 for step in image.GetSpacing()]
    method = sitk.sitkLinear if smooth else sitk.sitkNearestNeighbor
    # Beyond the outermost centres there is still half a voxel of picture: it is cut from the nearest one.
    resample = sitk.ResampleImageFilter()
    resample.SetSize(size)
    resample.SetOutputSpacing([pixel, pixel])
    resample.SetOutputOrigin(origin)
    resample.SetInterpolator(method)
    resample.SetUseNearestNeighborExtrapolator(True)
    return sitk.GetArrayFromImage(resample.Execute(image))


def _eroded(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
