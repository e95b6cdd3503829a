"""Augmentation of two-dimensional patches, a whole batch at once.

The kinds and ranges of ``augment``, in plain torch: a step of a 2-D network takes tens of milliseconds, and MONAI's
bookkeeping around every transform of every single patch takes longer than that.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def augmented(
    images: Tensor, labels: Tensor, patch: tuple[int, int], mirror_axes: tuple[int, ...], colour: bool, random
) -> tuple[Tensor, Tensor]:
    """Turned, scaled, mirrored and otherwise changed patches from the middle of larger windows.

    Args:
        images: (B, C, Y, X) float32 windows.
        labels: (B, Y, X) uint8.
        patch: (Y, X) of the result.
        mirror_axes: of (Y, X). Where both are named there is no up: any angle, else 30 degrees.
        colour: the channels are colours of a picture, which change one by one.
        random: ``numpy.random.Generator``.

    Returns:
        images (B, C, *patch), labels (B, *patch) of the same types.
    """
    count, width = images.shape[:2]
    matrices = [_matrix(images.shape[2:], patch, mirror_axes, random) for _ in range(count)]
    grid = F.affine_grid(torch.tensor(np.stack(matrices), dtype=torch.float32), (count, 1, *patch), align_corners=False)
    images = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    labels = F.grid_sample(labels[:, None].float(), grid, "nearest", "border", align_corners=False)[:, 0].to(
        labels.dtype
    )
    channels = width if colour else 1
    for index in range(count):
        images[index] = _changed(images[index], channels, random)
    return images, labels


def _matrix(window, patch, mirror_axes, random) -> np.ndarray:
    """(2, 3): from places in the patch to places in the window, x before y, both from -1 to 1."""
    matrix = np.eye(2)
    if random.random() < 0.7:
        angle = random.uniform(-1, 1) * (math.pi if len(mirror_axes) == 2 else math.radians(30))
        zoom = 1 / random.uniform(0.75, 1.3, 2)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = turn * zoom
    for axis in mirror_axes:
        if random.random() < 0.5:
            matrix[:, 1 - axis] *= -1
    # The angle is one of pixels, not of the two half widths that grid places are measured in.
    matrix = matrix * np.array(patch[::-1]) / np.array(window[::-1])[:, None]
    return np.concatenate([matrix, np.zeros((2, 1))], axis=1)


def _changed(image: Tensor, channels: int, random) -> Tensor:
    """Intensities of one (C, Y, X) patch; offsets and noise are in units of its standard deviation."""
    spread = float(image.std()) or 1.0
    if random.random() < 0.1:
        image = _blurred(image, random.uniform(0.5, 1.2))
    if random.random() < 0.1:
        size = [max(1, round(n * random.uniform(0.5, 1))) for n in image.shape[1:]]
        small = F.interpolate(image[None], size, mode="nearest-exact")
        image = F.interpolate(small, image.shape[1:], mode="bilinear", align_corners=False)[0]
    if random.random() < 0.3:
        image = _gamma(image, random.uniform(0.7, 1.5))
    if random.random() < 0.5:
        gain, offset = random.uniform((0.75, -0.3), (1.25, 0.3), (channels, 2)).astype(np.float32).T[..., None, None]
        mean = float(image.mean())
        image = (image - mean) * torch.from_numpy(gain) + mean + spread * torch.from_numpy(offset)
    if random.random() < 0.15:
        noise = torch.from_numpy(random.standard_normal(image.shape, np.float32))
        image = image + noise * (spread * random.uniform(0, 0.3))
    return image


def _blurred(image: Tensor, sigma: float) -> Tensor:
    reach = torch.arange(-3, 4, dtype=torch.float32)
    weights = torch.exp(-0.5 * (reach / sigma) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(image[:, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, 7)), weights.view(1, 1, 7, 1))[:, 0]


def _gamma(image: Tensor, gamma: float) -> Tensor:
    """A power of the values between the patch's own least and largest one."""
    low, high = torch.aminmax(image)
    return ((image - low) / (high - low).clamp(min=1e-6)).pow(gamma) * (high - low) + low
