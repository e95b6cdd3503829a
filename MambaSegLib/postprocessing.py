"""Label maps after the network: small islands removed, structures counted. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects

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


def remove_small_components(labels: Volume, min_mm3: float) -> Volume:
    """Without the connected components (by faces, label by label) that are smaller than `min_mm3`."""
    smallest = math.ceil(min_mm3 / labels.voxel_volume_mm3 - 1e-6)
    if smallest <= 1:
        return labels
    array = labels.array.copy()
    for value, box in boxes(array).items():
        part = array[box]
        mask = part == value
        components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
        # A copy: a view would outlive the image that it looks at.
        kept = sitk.GetArrayFromImage(sitk.RelabelComponent(components, minimumObjectSize=smallest))
        part[mask & (kept == 0)] = 0
    return labels.with_array(array)


def measure(labels: Volume, segments: Sequence[Label]) -> list[dict]:
    """[{value, name, color, voxels, volume_ml}], one per segment, in their order."""
    found = boxes(labels.array)
    rows = []
    for segment in segments:
        box = found.get(segment.value)
        voxels = int(np.count_nonzero(labels.array[box] == segment.value)) if box else 0
        rows.append(
            {
                "value": segment.value,
                "name": segment.name,
                "color": list(segment.color),
                "voxels": voxels,
                "volume_ml": voxels * labels.voxel_volume_mm3 / 1000,
            }
        )
    return rows


def boxes(array: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    """value -> the slices along (Z, Y, X) that hold it, for every value above 0 that occurs; one pass."""
    return {value: box for value, box in enumerate(find_objects(array), start=1) if box is not None}
