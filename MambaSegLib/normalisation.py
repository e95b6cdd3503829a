"""Intensities as networks expect them: by the image's own statistics, or by fixed numbers. Torch-free.

A way of normalising is a dict with a "name":

    zscore             (v - mean) / sd of the region of interest's bounding box
    percentile_zscore  the same, after clipping to its 0.5 and 99.5 percentiles
    ct_clip            "lo", "hi": clipped and scaled to -1..1 by fixed Hounsfield numbers
    ct_zscore          "lo", "hi", "mean", "sd": nnU-Net's for CT, clipped, then by the training data's mean and sd
    content_zscore     nnU-Net's for MR: mean and sd of the box around everything that is not zero in the whole image;
                       "masked": true takes only those voxels, holes filled, and leaves the others at 0
    content_range      nnU-Net's RescaleTo01: that box's minimum and maximum become 0 and 1
    divide             "by": divided by a fixed number, such as 255
    none               as they are
    per_channel        "channels": one of the above for each
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes

from .errors import UserError
from .volume import Box
from .wording import counted


def normalise(channels: np.ndarray, region: Box, crop: Box, how: dict) -> np.ndarray:
    """The crop of an image as float32.

    Args:
        channels: (C, Z, Y, X), the whole image.
        region: the bounding box of the region of interest.
        crop: what is wanted.
        how: see above.

    Raises:
        UserError: the image is constant in the region, or no such way.
    """
    ways = how["channels"] if how["name"] == "per_channel" else [how] * len(channels)
    if len(ways) != len(channels):
        raise UserError(
            f"The model normalises {counted(len(ways), 'channel')}, but the image has {len(channels)}.",
            "Give the image it wants.",
        )
    content = _Content(channels)
    return np.stack([_one(channel, region, crop, way, content) for channel, way in zip(channels, ways, strict=True)])


class _Content:
    """Where an image is not zero in every channel; looked for only when asked."""

    def __init__(self, channels: np.ndarray):
        self._channels = channels
        self._box = self._mask = None

    @property
    def box(self) -> Box:
        if self._box is None:
            any_channel = np.any(self._channels != 0, axis=0)
            self._box = tuple(
                _extent(any_channel.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)
            )
        return self._box

    @property
    def mask(self) -> np.ndarray:
        """(Z, Y, X), holes filled."""
        if self._mask is None:
            self._mask = binary_fill_holes(np.any(self._channels != 0, axis=0))
        return self._mask


def _extent(line: np.ndarray) -> slice:
    there = np.flatnonzero(line)
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, len(line))


def _one(channel: np.ndarray, region: Box, crop: Box, how: dict, content: _Content) -> np.ndarray:
    sample = channel[region]
    low, high = sample.min(), sample.max()
    if low == high:
        raise UserError(
            f"An image with structure was expected, but every voxel of the region is {low:g}.",
            "Choose the right image, or move the region of interest onto the patient.",
        )
    name = how["name"]
    if name == "zscore":
        return _standardised(channel[crop], sample)
    if name == "percentile_zscore":
        low, high = np.percentile(sample, (0.5, 99.5))
        return _standardised(*(np.clip(part.astype(np.float32), low, high) for part in (channel[crop], sample)))
    if name.startswith("content_"):
        return _by_content(channel, crop, how, content)
    return _by_fixed_numbers(channel[crop].astype(np.float32), how)


def _by_fixed_numbers(values: np.ndarray, how: dict) -> np.ndarray:
    """The same tissue looks the same in every scan."""
    if how["name"] == "ct_clip":
        middle, half = (how["hi"] + how["lo"]) / 2, (how["hi"] - how["lo"]) / 2
        return np.clip((values - middle) / half, -1, 1)
    if how["name"] == "ct_zscore":
        return (np.clip(values, how["lo"], how["hi"]) - np.float32(how["mean"])) / np.float32(max(how["sd"], 1e-8))
    if how["name"] == "divide":
        return values / np.float32(how["by"])
    if how["name"] == "none":
        return values
    known = "zscore, percentile_zscore, ct_clip, ct_zscore, content_zscore, content_range, divide, none or per_channel"
    raise UserError(f"Unknown normalisation '{how['name']}'.", f"Use {known}.")


def _by_content(channel: np.ndarray, crop: Box, how: dict, content: _Content) -> np.ndarray:
    box = channel[content.box]
    if how["name"] == "content_range":
        low, high = float(box.min()), float(box.max())
        return (channel[crop].astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-8))
    if not how.get("masked"):
        return _standardised(channel[crop], box)
    values = _standardised(channel[crop], channel[content.mask][None])
    return np.where(content.mask[crop], values, np.float32(0))


def _standardised(values: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """(values - mean) / standard deviation of the sample, float32; slice by slice, without a float64 copy."""
    mean = sample.mean(dtype=np.float64)
    variance = sum(np.square(plane - mean, dtype=np.float64).sum() for plane in sample) / sample.size
    scale = max(float(np.sqrt(variance)), 1e-8)
    if values.dtype.kind == "f" and values.dtype.itemsize == 8:
        return ((values - mean) / scale).astype(np.float32)
    return (values.astype(np.float32) - np.float32(mean)) / np.float32(scale)
