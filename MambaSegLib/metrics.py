"""How well two segmentations agree: overlap, surface distances in mm, volumes. Torch-free.

Masks are bool, (Z, Y, X), on the same grid; spacing is (x, y, z) in mm. A measure that does not exist because a
structure is absent is NaN, never 0 or 1, so that means over cases (`numpy.nanmean`) count only what was there.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, generate_binary_structure

_NEIGHBOURS = generate_binary_structure(3, 1)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2 |a and b| / (|a| + |b|); NaN when both are empty, 0 when one is."""
    a, b = _same_grid(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else float("nan")


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """|a and b| / |a or b| (Jaccard); NaN when both are empty, 0 when one is."""
    a, b = _same_grid(a, b)
    total = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / total if total else float("nan")


def volume_ml(mask: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """Volume of the True voxels in millilitres."""
    return float(np.count_nonzero(mask) * np.prod(list(spacing_mm)) / 1000)


def hd95(a: np.ndarray, b: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """Symmetric Hausdorff distance at 95 %, in mm; NaN when either is empty.

    The larger of the two 95th percentiles of the distances from one surface's voxels to the other surface (as in MONAI
    and in the Medical Segmentation Decathlon).
    """
    return _distance_95(_surface_distances(a, b, spacing_mm))


def assd(a: np.ndarray, b: np.ndarray, spacing_mm: Iterable[float]) -> float:
    """Average symmetric surface distance in mm: the mean over the voxels of both surfaces; NaN when either is empty."""
    return _mean_distance(_surface_distances(a, b, spacing_mm))


def surface_distances_mm(a: np.ndarray, b: np.ndarray, spacing_mm: Iterable[float]) -> dict[str, float]:
    """{"hd95_mm", "assd_mm"}: both at the price of one."""
    distances = _surface_distances(a, b, spacing_mm)
    return {"hd95_mm": _distance_95(distances), "assd_mm": _mean_distance(distances)}


def surface_dice(a: np.ndarray, b: np.ndarray, spacing_mm: Iterable[float], tolerance_mm: float) -> float:
    """Share of both surfaces' voxels that lie within `tolerance_mm` of the other one (Nikolov 2018, arXiv 1809.04430).

    NaN when both are empty, 0 when one is.
    """
    return _surface_share(*_same_grid(a, b), _surface_distances(a, b, spacing_mm), tolerance_mm)


def per_label(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Iterable[float],
    values: Iterable[int],
    tolerance_mm: float = 1.0,
) -> dict[int, dict[str, float]]:
    """All measures of several structures.

    Args:
        prediction, reference: label maps, (Z, Y, X).
        spacing_mm: (x, y, z).
        values: the label values to compare.
        tolerance_mm: of the surface Dice.

    Returns:
        value -> {"dice", "iou", "hd95_mm", "assd_mm", "surface_dice", "volume_ml", "reference_volume_ml",
        "volume_error_percent"}; the error is that of the prediction relative to the reference.
    """
    spacing_mm = tuple(spacing_mm)
    return {
        int(value): _one_label(prediction == value, reference == value, spacing_mm, tolerance_mm) for value in values
    }


def _one_label(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float) -> dict[str, float]:
    a, b = _same_grid(a, b)
    distances = _surface_distances(a, b, spacing_mm)
    volume, true = volume_ml(a, spacing_mm), volume_ml(b, spacing_mm)
    return {
        "dice": dice(a, b),
        "iou": iou(a, b),
        "hd95_mm": _distance_95(distances),
        "assd_mm": _mean_distance(distances),
        "surface_dice": _surface_share(a, b, distances, tolerance_mm),
        "volume_ml": volume,
        "reference_volume_ml": true,
        "volume_error_percent": 100 * (volume - true) / true if true else float("nan"),
    }


def _same_grid(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"both masks must be on the same grid, got {a.shape} and {b.shape} voxels")
    return a, b


def _distance_95(distances) -> float:
    return float("nan") if distances is None else float(max(np.percentile(d, 95) for d in distances))


def _mean_distance(distances) -> float:
    return float("nan") if distances is None else float(np.concatenate(distances).mean())


def _surface_share(a: np.ndarray, b: np.ndarray, distances, tolerance_mm: float) -> float:
    if distances is None:
        return 0.0 if a.any() or b.any() else float("nan")
    near = sum(np.count_nonzero(d <= tolerance_mm) for d in distances)
    return near / sum(d.size for d in distances)


def _surface_distances(a: np.ndarray, b: np.ndarray, spacing_mm) -> tuple[np.ndarray, np.ndarray] | None:
    """mm from each surface voxel of a to the surface of b, and the reverse; None when either mask is empty."""
    a, b = _same_grid(a, b)
    if not a.any() or not b.any():
        return None
    box = find_objects((a | b).astype(np.uint8))[0]
    # Erosion takes what lies beyond the box as background, so a structure at the image's edge has its surface there.
    surface_a, surface_b = (mask[box] ^ binary_erosion(mask[box], _NEIGHBOURS) for mask in (a, b))
    sampling = list(spacing_mm)[::-1]
    to_a, to_b = (distance_transform_edt(~surface, sampling) for surface in (surface_a, surface_b))
    return to_b[surface_a], to_a[surface_b]
