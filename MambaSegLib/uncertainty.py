"""How sure a model was: a map for the eye, a score per structure for the worklist, and places to look at. Torch-free.

Uncertainty of a voxel is 1 - (p1 - p2), p1 and p2 being the probabilities of its two most probable classes: 0 where
the model has no doubt, 1 where two classes are even. A voxel from `THRESHOLD` on is doubtful, and belongs to the
structures among its two classes. A structure's score is its doubtful volume over that plus its own volume: 0 is sure.
Of the definitions tried none followed the true Dice better on all models; see ``Testing/benchmarks/review_score.py``. A
model that finds nothing at all may do so without any doubt, on an image unlike those it knows: that scores 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from .bundle import Label
from .preprocessing import TwoBest
from .regrid import box_above
from .volume import Volume

THRESHOLD = 0.3  # as in PMC10587515, where thresholded scores told bad segmentations better than plain means
MOST_PLACES = 10
_PLACE_MM = 3.0  # standard deviation of the Gaussian that gathers doubtful voxels to a place
_LEAST_PLACE = 0.05  # of a place's score; below it there is but a thin rim of doubt, as around every structure


def uncertainty_map(best: TwoBest) -> np.ndarray:
    """uint8, (Z, Y, X): 100 * (1 - margin) where a structure is the first or second choice, else 0."""
    concerned = (best.winner > 0) | (best.runner_up > 0)
    return np.where(concerned, np.rint(100 * (1 - best.margin)), 0).astype(np.uint8)


def review(best: TwoBest, grid: Volume, labels: Sequence[Label], wanted: Sequence[Label]) -> list[dict]:
    """What deserves a look, structure by structure.

    Args:
        best: of every voxel of the image.
        grid: the image, for positions and voxel size.
        labels: the model's; class i is ``labels[i - 1]``.
        wanted: those to tell about.

    Returns:
        One {"structure", "score" (0 sure ... 1), "places"} per wanted label, in their order. A place is
        {"position_mm" (x, y, z in LPS), "score" (0..1), "volume_ml" (of doubtful voxels)}; worst first, at most
        `MOST_PLACES`. Where none of the wanted was found, each has the score 1.
    """
    rows, is_empty = [], True
    for index, label in enumerate(labels, start=1):
        if label not in wanted:
            continue
        own = best.winner == index
        doubt = np.where((own | (best.runner_up == index)) & (best.margin <= 1 - THRESHOLD), 1 - best.margin, 0)
        volume, doubtful = np.count_nonzero(own), np.count_nonzero(doubt)
        score = doubtful / (doubtful + volume) if doubtful else 0.0
        rows.append({"structure": label.name, "score": float(score), "places": _places(doubt, grid)})
        is_empty = is_empty and not volume
    return [row | {"score": 1.0} for row in rows] if is_empty else rows


def _places(doubt: np.ndarray, grid: Volume) -> list[dict]:
    """Where doubtful voxels gather: peaks of their density, at least two of its standard deviations apart."""
    box = box_above(doubt, THRESHOLD)
    if box[0].start == box[0].stop:
        return []
    spacing = np.array(grid.spacing_mm[::-1])
    margin = np.ceil(3 * _PLACE_MM / spacing).astype(int)
    box = tuple(
        slice(max(0, b.start - m), min(n, b.stop + m)) for b, m, n in zip(box, margin, doubt.shape, strict=True)
    )
    doubt = doubt[box].astype(np.float32)
    density = gaussian_filter(doubt, _PLACE_MM / spacing, mode="constant", truncate=3)
    apart = 2 * np.ceil(2 * _PLACE_MM / spacing).astype(int) + 1
    peaks = np.argwhere((density == maximum_filter(density, size=tuple(apart))) & (density >= _LEAST_PLACE))
    ranked = sorted(peaks.tolist(), key=lambda peak: -density[tuple(peak)])[:MOST_PLACES]
    return [_place(peak, float(density[tuple(peak)]), doubt, grid.cropped(box)) for peak in ranked]


def _place(peak: list[int], score: float, doubt: np.ndarray, grid: Volume) -> dict:
    reach = [int(np.ceil(2 * _PLACE_MM / s)) for s in grid.spacing_mm[::-1]]
    around = tuple(slice(max(0, p - r), p + r + 1) for p, r in zip(peak, reach, strict=True))
    position = grid.world_from_index() @ [*peak[::-1], 1]
    doubtful = np.count_nonzero(doubt[around])
    return {
        "position_mm": position[:3].tolist(),
        "score": min(score, 1.0),
        "volume_ml": doubtful * grid.voxel_volume_mm3 / 1000,
    }
