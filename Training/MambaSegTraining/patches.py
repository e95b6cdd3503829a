"""Patches to learn from: the same step always gives the same batch."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .augment import IMAGE, LABEL, training_transforms
from .losses import UNKNOWN
from .mirroring import Swap
from .reading import HeldOutCase, TrainingCase, held_out_case, training_case

__all__ = ["Batch", "HeldOutCase", "PatchSource", "TrainingCase", "cut", "held_out_case", "together", "training_case"]


class Batch(NamedTuple):
    """Patches of one step.

    Args:
        images: (B, C, *patch) float32.
        labels: (B, *patch) int64, ``UNKNOWN`` where nothing is known.
        merged: (B, K) bool, see ``losses_partial``; None where every case is annotated for every structure.
    """

    images: Tensor
    labels: Tensor
    merged: Tensor | None


def together(batches: list[Batch]) -> Batch:
    """One batch of several."""
    merged = None
    if any(b.merged is not None for b in batches):
        width = next(b.merged.shape[1] for b in batches if b.merged is not None)
        rows = [torch.zeros(len(b.images), width, dtype=torch.bool) if b.merged is None else b.merged for b in batches]
        merged = torch.cat(rows)
    return Batch(torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches]), merged)


class PatchSource:
    """Batches of augmented patches.

    Args:
        cases: with structures.
        context: that only teach what is not a structure.
        patch: (Z, Y, X), or (Y, X) for slices along Z.
        foreground_share: of the patches, centred on a labelled voxel; the others anywhere.
        context_share: of the patches, drawn from ``context``.
        mirror_axes: of (Z, Y, X).
        seed: of everything drawn here.
        swap: which labels change places when their axis is mirrored.
    """

    def __init__(
        self, cases, context, patch, foreground_share, context_share, mirror_axes, seed, swap: Swap | None = None
    ):
        self.cases, self.context = list(cases), list(context)
        self.patch, self.flat = tuple(patch), len(patch) == 2
        # Room for the rotation to look beyond the patch's faces before it has to reflect.
        self.window = tuple(round(n * 1.25) for n in patch)
        self.foreground_share, self.context_share = foreground_share, context_share
        self.seed = seed
        self.swap = swap if swap is not None and swap.axis in mirror_axes else None
        apart = self.swap.axis if self.swap else None
        # mirror_axes count (Z, Y, X) also where the patch has no Z
        self.mirror_axes = tuple(axis - self.flat for axis in mirror_axes if axis >= self.flat and axis != apart)
        is_colour = bool(self.cases) and self.cases[0].is_colour
        self.transforms = training_transforms(self.patch, self.mirror_axes, is_colour)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of a step, a function of seed and step alone."""
        random = np.random.default_rng((self.seed, step))
        items, cases = [], []
        for _ in range(size):
            self.transforms.set_random_state(seed=int(random.integers(2**31)))
            window, case = self._window(random)
            items.append(self.transforms(window))
            cases.append(case)
        images = torch.stack([item[IMAGE] for item in items]).float()
        return Batch(images, torch.stack([item[LABEL][0] for item in items]).long(), _merged(cases))

    def _window(self, random) -> tuple[dict, TrainingCase]:
        """Image and labels around a random centre, and their case; beyond its borders the image is mirrored."""
        if self.context and random.random() < self.context_share:
            case, points = self.context[random.integers(len(self.context))], ()
        else:
            case = self.cases[random.integers(len(self.cases))]
            points = case.points
        if len(points) and random.random() < self.foreground_share:
            centre = points[random.integers(len(points))]
        else:
            centre = self._anywhere(case.label.shape, random)
        image, label = case.image, case.label
        if self.flat:
            image, label, centre = image[:, centre[0]], label[centre[0]], centre[1:]
        image = np.stack([cut(channel, centre, self.window) for channel in image])
        # Mirrored tissue is fit to be looked at, but no anatomy to learn: its labels are unknown.
        label = cut(label, centre, self.window, outside=UNKNOWN)[None]
        if self.swap and random.random() < 0.5:
            axis = self.swap.axis - 3  # from the end, with or without Z
            image, label = np.flip(image, axis).copy(), self.swap.apply(np.flip(label, axis))
        return {IMAGE: image, LABEL: label}, case

    def _anywhere(self, shape, random):
        """A centre whose patch stays inside the case where it fits, in its middle give or take 8 voxels where not."""
        patch = (1,) * (3 - len(self.patch)) + self.patch
        centre = []
        for n, p in zip(shape, patch, strict=True):
            low, high = (p // 2, n - p + p // 2) if n > p or p == 1 else (n // 2 - 8, n // 2 + 8)
            centre.append(int(random.integers(low, high + 1)))
        return centre


def _merged(cases: list[TrainingCase]) -> Tensor | None:
    """(B, K) bool of the cases that patches come from."""
    width = max((len(case.merged) for case in cases if case.merged is not None), default=0)
    rows = [np.zeros(width, bool) if case.merged is None else case.merged for case in cases]
    return torch.from_numpy(np.stack(rows)) if width else None


def cut(array: np.ndarray, centre, size, outside: int | None = None) -> np.ndarray:
    """A window of ``size`` around ``centre``; beyond the array ``outside``, or its content mirrored."""
    beyond = np.zeros(tuple(size), bool)
    for axis, (c, n) in enumerate(zip(centre, size, strict=True)):
        index = np.arange(int(c) - n // 2, int(c) - n // 2 + n)
        length = array.shape[axis]
        off = (index < 0) | (index >= length)
        beyond |= off.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
        last = max(length - 1, 1)
        array = array.take(np.minimum(np.abs((index + last) % (2 * last) - last), length - 1), axis)
    return array if outside is None else np.where(beyond, np.array(outside, array.dtype), array)
