"""Label maps after the network: small islands removed, structures counted. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects, gaussian_filter

from .bundle import Label
from .volume import Volume


def to_label_values(classes: np.ndarray, labels: Sequence[Label], wanted: Sequence[Label]) -> np.ndarray:
    """Class indices (Z, Y, X), where class i is ``labels[i - 1]``, to label values; those not wanted become 0."""
    table = np.zeros(len(labels) + 1, np.min_scalar_type(max(label.value for label in labels)))
    for index, label in enumerate(labels, start=1):
        table[index] = label.value if label in wanted else 0
    if np.array_equal(table, np.arange(len(table))):
        return classes
    return table[classes]


def smooth(probabilities: np.ndarray, spacing_mm: Sequence[float], sigma_mm: float) -> np.ndarray:
    """Each class' probabilities through a Gaussian: smoother surfaces, and structures that never overlap.

    Args:
        probabilities: (K, Z, Y, X), summing to 1 over K; so does the result.
        spacing_mm: voxel size along (x, y, z).
        sigma_mm: standard deviation of the Gaussian; details below about twice of it go.
    """
    widths = [sigma_mm / spacing for spacing in spacing_mm[::-1]]
    return np.stack([gaussian_filter(channel, widths, mode="nearest") for channel in probabilities])


def remove_small_components(labels: Volume, min_mm3: float) -> Volume:
    """Without the connected components (by faces, label by label) that are smaller than `min_mm3`."""
    smallest = math.ceil(min_mm3 / labels.voxel_volume_mm3 - 1e-6)
    if smallest <= 1:
        return labels
    return _without_components(labels, lambda ranked: ranked == 0, smallest)


def keep_largest_components(labels: Volume) -> Volume:
    """Only the largest connected component (by faces) of each label."""
    return _without_components(labels, lambda ranked: ranked != 1, 0)


def _without_components(labels: Volume, goes: Callable[[np.ndarray], np.ndarray], smallest: int) -> Volume:
    """Without what `goes` says; it is given the components' ranks by size, 1 the largest, 0 below `smallest` voxels."""
    array = labels.array.copy()
    for value, box in boxes(array).items():
        part = array[box]
        mask = part == value
        components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
        # A copy: a view would outlive the image that it looks at.
        ranked = sitk.GetArrayFromImage(sitk.RelabelComponent(components, minimumObjectSize=smallest))
        part[mask & goes(ranked)] = 0
    return labels.with_array(array)


def measure(labels: Volume, segments: Sequence[Label], image: np.ndarray) -> list[dict]:
    """[{value, name, color, voxels, volume_ml, mean_intensity}], one per segment, in their order.

    `image`, (Z, Y, X), is what the mean is taken of; the mean is None for a segment without voxels.
    """
    found = boxes(labels.array)
    rows = []
    for segment in segments:
        box = found.get(segment.value)
        mask = labels.array[box] == segment.value if box else np.zeros(0, bool)
        voxels = int(np.count_nonzero(mask))
        rows.append(
            {
                "value": segment.value,
                "name": segment.name,
                "color": list(segment.color),
                "voxels": voxels,
                "volume_ml": voxels * labels.voxel_volume_mm3 / 1000,
                "mean_intensity": float(image[box][mask].mean(dtype=np.float64)) if voxels else None,
            }
        )
    return rows


def boxes(array: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    """value -> the slices along (Z, Y, X) that hold it, for every value above 0 that occurs; one pass."""
    return {value: box for value, box in enumerate(find_objects(array), start=1) if box is not None}
