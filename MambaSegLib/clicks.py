"""Clicks: places that belong to a structure or do not, as the small balls of voxels that they decide. Torch-free.

What is wrong at a click is what is shown there: of the ball only those voxels are decided that show the same as the
clicked one, so that a click near a border takes nothing from the structure behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLICKED = 2  # where a click decided, in the file "touched" of the job "correct"; 1 is for strokes and slices
RADIUS_SHARE = 0.07  # of the radius of a ball as large as the structure; larger balls reached over thin errors
LARGEST_RADIUS_MM = 3.0
REACH_PER_ROOT_MM = 1.4  # 4 mm for a hippocampus, 8 mm for a ventricle of the heart, 12 mm for a liver


@dataclass(frozen=True)
class Click:
    """One click.

    Args:
        place: (z, y, x), a voxel.
        value: label value of the structure that is meant.
        belongs: whether the voxel belongs to it.
    """

    place: tuple[int, int, int]
    value: int
    belongs: bool


def radius_mm(voxels: int, spacing_mm) -> float:
    """How far a click on a structure of so many voxels decides; spacing in the order x, y, z.

    The clicked voxel is always decided, however small the radius.
    """
    return min(RADIUS_SHARE * _equivalent_radius_mm(voxels, spacing_mm), LARGEST_RADIUS_MM)


def reach_mm(voxels: int, spacing_mm) -> float:
    """How far such a click is felt, as a length scale: what is wrong about a large structure is larger, too."""
    return REACH_PER_ROOT_MM * _equivalent_radius_mm(voxels, spacing_mm) ** 0.5


def _equivalent_radius_mm(voxels: int, spacing_mm) -> float:
    """Of a ball as large as so many voxels."""
    return (3 * voxels * float(np.prod(spacing_mm)) / (4 * np.pi)) ** (1 / 3)


def decide(
    clicks: Sequence[Click], labels: np.ndarray, spacing_mm, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The labels as the clicks want them, and the voxels that they decided; a later click overrules an earlier one.

    Args:
        clicks: on the grid of `labels`.
        labels: label values (Z, Y, X), 0 for background.
        spacing_mm: (x, y, z).
        allowed: bool, the voxels that may be decided; None for all.
    """
    edited, decided = labels.copy(), np.zeros(labels.shape, bool)
    for click in clicks:
        radius = radius_mm(np.count_nonzero(labels == click.value), spacing_mm)
        box, ball = _ball(click.place, labels.shape, radius, spacing_mm)
        ball &= labels[box] == labels[click.place]
        if allowed is not None:
            ball &= allowed[box]
        if click.belongs:
            edited[box][ball] = click.value
        else:
            shown = labels[click.place]
            edited[box][ball] = 0 if shown == click.value else shown
        decided[box] |= ball
    return edited, decided


def _ball(place, shape, radius: float, spacing_mm) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box around a ball, and the ball in it."""
    steps = np.array(spacing_mm[::-1], float)
    reach = np.floor(radius / steps).astype(int)
    box = tuple(slice(max(p - r, 0), min(p + r + 1, n)) for p, r, n in zip(place, reach, shape, strict=True))
    axes = np.ix_(*(np.arange(b.start, b.stop) for b in box))
    squared = sum(((axis - p) * step) ** 2 for axis, p, step in zip(axes, place, steps, strict=True))
    return box, squared <= radius**2 + 1e-6
