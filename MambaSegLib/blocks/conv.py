"""Convolution, norm and padding, in 2-D and 3-D by one argument."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def conv(dims: int, in_channels: int, out_channels: int, kernel, stride=1) -> nn.Module:
    """Convolution that keeps the size at stride 1 (odd kernels): zero padding of half the kernel, with bias."""
    kernel = as_tuple(kernel, dims)
    return CONV[dims](in_channels, out_channels, kernel, stride, tuple(k // 2 for k in kernel))


def instance_norm(dims: int, channels: int) -> nn.Module:
    """Instance norm as nnU-Net sets it: eps 1e-5, learned scale and shift, no running statistics."""
    return INSTANCE_NORM[dims](channels, eps=1e-5, affine=True)


class GroupNorm(nn.GroupNorm):
    """Group norm over tokens: torch 2.2's backward fails on the CPU when gradient and grid differ in memory format."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(2)).unflatten(2, x.shape[2:])


def as_tuple(value, dims: int) -> tuple[int, ...]:
    """One number per axis, from a number or a sequence of ``dims`` numbers."""
    return (value,) * dims if isinstance(value, int) else tuple(value)


def pad_to_multiple(x: Tensor, divisor: tuple[int, ...]) -> Tensor:
    """Repeat the border at the end of each axis until it is a multiple of the divisor, and more than one divisor in
    all, so that the coarsest grid keeps two voxels and an instance norm has something to measure.

    Args:
        x: (B, C, *grid).
        divisor: one number per grid axis.
    """
    target = [math.ceil(n / d) * d for n, d in zip(x.shape[2:], divisor, strict=True)]
    if target == list(divisor):
        target[-1] *= 2
    return pad_end(x, target)


def pad_up(x: Tensor, divisor: tuple[int, ...]) -> Tensor:
    """Repeat the border at the end of each axis until it is a multiple of the divisor, and no further."""
    return pad_end(x, [math.ceil(n / d) * d for n, d in zip(x.shape[2:], divisor, strict=True)])


def pad_end(x: Tensor, size) -> Tensor:
    """Repeat the border at the end of each grid axis up to ``size``."""
    amounts = []
    for have, want in zip(reversed(x.shape[2:]), reversed(list(size)), strict=True):
        amounts += [0, want - have]
    return F.pad(x, amounts, mode="replicate") if any(amounts) else x


def crop_end(x: Tensor, size) -> Tensor:
    """Undo ``pad_end``: the first ``size`` voxels of each grid axis."""
    return x[(..., *(slice(n) for n in size))]


def crop_scales(outputs: list[Tensor], padded, size) -> list[Tensor]:
    """Undo the padding of an image on maps of several scales.

    Args:
        outputs: (B, K, *grid / scale) each, of an image padded at the ends of its axes.
        padded, size: its grid with and without the padding.

    Returns:
        each map cropped to ``ceil(size / scale)`` voxels per axis.
    """
    cropped = []
    for output in outputs:
        scales = [p // n for p, n in zip(padded, output.shape[2:], strict=True)]
        cropped.append(crop_end(output, [math.ceil(n / s) for n, s in zip(size, scales, strict=True)]))
    return cropped
