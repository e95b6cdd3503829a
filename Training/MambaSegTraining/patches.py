"""Prepared cases in memory, and the patch that belongs to a step: the same step always gives the same batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.picture import is_picture_file
from MambaSegLib.preprocessing import Prepared, prepare
from MambaSegLib.volume import Volume

from .augment import IMAGE, LABEL, training_transforms
from .augment_slices import augmented
from .cases import Case
from .losses import UNKNOWN

BRIGHT = 127  # pixels of a mask above it are the structure


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case on the network's grid: image (C, Z, Y, X) float32, label (Z, Y, X) uint8."""

    name: str
    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOutCase:
    """A case to be predicted: the image as inference prepares it, and the labels on the image's own grid.

    ``annotated`` is what of the labels is really known, as in ``cases.Case``.
    """

    name: str
    prepared: Prepared
    truth: Volume
    annotated: dict | None = None


def training_case(case: Case, preprocessing: dict) -> TrainingCase:
    """Read a case and bring image and labels onto the network's grid, by the code of inference, without padding."""
    prepared = prepare(read_image(case), preprocessing)
    labels = prepared.labels_like(read_case_labels(case))
    return TrainingCase(case.name, prepared.array, labels.astype(np.uint8))


def held_out_case(case: Case, recipe: dict) -> HeldOutCase:
    """Read a case for evaluation; ``recipe`` is preprocessing and inference together, as ``prepare`` takes it."""
    return HeldOutCase(case.name, prepare(read_image(case), recipe), read_case_labels(case), case.annotated)


def read_image(case: Case) -> Volume:
    """The image of a case, (Z, Y, X), or (C, Z, Y, X)."""
    return read_volume(case.images[0])


def read_case_labels(case: Case) -> Volume:
    """Label values on the image's grid, (Z, Y, X); a mask in black and white (0, 255, also after JPEG) is 0 and 1."""
    labels = read_labels(case.label)
    if is_picture_file(case.label) and labels.array.max() > BRIGHT:
        labels = labels.with_array((labels.array > BRIGHT).astype(np.uint8))
    return labels


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
    """

    def __init__(self, cases, context, patch, foreground_share, context_share, mirror_axes, seed):
        self.cases, self.context = list(cases), list(context)
        self.patch = tuple(patch)
        # Room for the rotation to look beyond the patch's faces before it has to reflect.
        self.window = tuple(round(n * 1.25) for n in patch)
        self.foreground_share, self.context_share = foreground_share, context_share
        self.seed = seed
        self.flat = len(self.patch) == 2
        # mirror_axes count (Z, Y, X) also where the patch has no Z
        self.mirror_axes = tuple(axis - self.flat for axis in mirror_axes if axis >= self.flat)
        self.transforms = None if self.flat else training_transforms(self.patch, self.mirror_axes)
        self._foreground = [np.argwhere((c.label > 0) & (c.label != UNKNOWN)) for c in self.cases]

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """(images (B, C, *patch) float32, labels (B, *patch) int64) of a step, a function of seed and step alone."""
        random = np.random.default_rng((self.seed, step))
        if self.flat:
            windows = [self._window(random) for _ in range(size)]
            images, labels = (torch.from_numpy(np.stack([w[key] for w in windows])) for key in (IMAGE, LABEL))
            colour = images.shape[1] == 3
            images, labels = augmented(images, labels[:, 0], self.patch, self.mirror_axes, colour, random)
            return images, labels.long()
        items = []
        for _ in range(size):
            self.transforms.set_random_state(seed=int(random.integers(2**31)))
            items.append(self.transforms(self._window(random)))
        images = torch.stack([item[IMAGE] for item in items]).float()
        return images, torch.stack([item[LABEL][0] for item in items]).long()

    def _window(self, random) -> dict:
        """Image and labels around a random centre; beyond the case's borders the image is mirrored."""
        if self.context and random.random() < self.context_share:
            case, points = self.context[random.integers(len(self.context))], ()
        else:
            index = random.integers(len(self.cases))
            case, points = self.cases[index], self._foreground[index]
        if len(points) and random.random() < self.foreground_share:
            centre = points[random.integers(len(points))]
        else:
            centre = self._anywhere(case.label.shape, random)
        image, label = case.image, case.label
        if self.flat:
            image, label, centre = image[:, centre[0]], label[centre[0]], centre[1:]
        return {
            IMAGE: np.stack([cut(channel, centre, self.window) for channel in image]),
            # Mirrored tissue is fit to be looked at, but no anatomy to learn: its labels are unknown.
            LABEL: cut(label, centre, self.window, outside=UNKNOWN)[None],
        }

    def _anywhere(self, shape, random):
        """A centre whose patch stays inside the case where it fits, in its middle give or take 8 voxels where not."""
        patch = (1,) * (3 - len(self.patch)) + self.patch
        centre = []
        for n, p in zip(shape, patch, strict=True):
            low, high = (p // 2, n - p + p // 2) if n > p or p == 1 else (n // 2 - 8, n // 2 + 8)
            centre.append(int(random.integers(low, high + 1)))
        return centre


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
