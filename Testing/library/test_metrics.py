"""Metrics against brute force on small masks, against MONAI on real ones, and what they say about absent structures."""

import itertools
import math

import numpy as np
import pytest

from MambaSegLib.image import read_labels
from MambaSegLib.metrics import assd, dice, hd95, iou, per_label, surface_dice, volume_ml

SPACING = (0.7, 1.1, 2.5)


def random_masks(seed, shape=(6, 7, 8)):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.3, rng.random(shape) < 0.2


def surface(mask):
    """Voxels of the mask with a face neighbour outside it; beyond the image is outside."""
    found = []
    for z, y, x in np.argwhere(mask):
        for dz, dy, dx in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            place = (z + dz, y + dy, x + dx)
            if any(v < 0 or v >= n for v, n in zip(place, mask.shape, strict=True)) or not mask[place]:
                found.append((x * SPACING[0], y * SPACING[1], z * SPACING[2]))
                break
    return found


def brute_force_distances(a, b):
    points = surface(a), surface(b)
    return [[min(math.dist(p, q) for q in other) for p in one] for one, other in (points, points[::-1])]


@pytest.mark.parametrize("seed", range(4))
def test_against_loops_over_every_pair_of_surface_voxels(seed):
    a, b = random_masks(seed)
    if seed == 3:  # solid bodies, one touching the image's border
        a, b = np.zeros((2, 6, 7, 8), bool)
        a[0:4, 1:6, 2:8] = True
        b[2:6, 2:7, 1:5] = True
    there, back = brute_force_distances(a, b)
    assert hd95(a, b, SPACING) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert assd(a, b, SPACING) == pytest.approx(np.mean(there + back))
    for tolerance in (0, 0.7, 1.2, 3):
        near = sum(d <= tolerance + 1e-9 for d in there + back) / len(there + back)
        assert surface_dice(a, b, SPACING, tolerance + 1e-9) == pytest.approx(near)
    counts = [0, 0, 0]
    for index in itertools.product(*map(range, a.shape)):
        counts = [counts[0] + (a[index] and b[index]), counts[1] + a[index], counts[2] + b[index]]
    assert dice(a, b) == pytest.approx(2 * counts[0] / (counts[1] + counts[2]))
    assert iou(a, b) == pytest.approx(counts[0] / (counts[1] + counts[2] - counts[0]))
    assert volume_ml(a, SPACING) == pytest.approx(counts[1] * 0.7 * 1.1 * 2.5 / 1000)


def test_distances_are_symmetric_and_in_millimetres():
    a, b = np.zeros((2, 10, 10, 40), bool)
    a[5, 5, 5] = b[5, 5, 25] = True
    assert hd95(a, b, (0.5, 1, 1)) == hd95(b, a, (0.5, 1, 1)) == pytest.approx(10)
    assert surface_dice(a, b, (0.5, 1, 1), 9.9) == 0 and surface_dice(a, b, (0.5, 1, 1), 10.1) == 1


def test_identical_masks_are_perfect():
    a, _ = random_masks(9)
    assert dice(a, a) == 1 and hd95(a, a, SPACING) == 0 and surface_dice(a, a, SPACING, 0) == 1


def test_absent_structures_are_nan_and_missed_ones_count():
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert all(math.isnan(f) for f in (dice(empty, empty), hd95(empty, empty, SPACING), hd95(full, empty, SPACING)))
    assert math.isnan(surface_dice(empty, empty, SPACING, 1))
    assert dice(full, empty) == dice(empty, full) == surface_dice(full, empty, SPACING, 1) == 0
    rows = per_label(np.zeros((4, 4, 4), int), np.full((4, 4, 4), 2), SPACING, [1, 2])
    absent = ("dice", "iou", "hd95_mm", "assd_mm", "surface_dice", "volume_error_percent")
    assert all(math.isnan(rows[1][name]) for name in absent)
    assert rows[2]["dice"] == rows[2]["iou"] == 0 and rows[2]["volume_error_percent"] == -100
    assert math.isnan(rows[2]["assd_mm"]) and math.isnan(rows[2]["hd95_mm"])


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match="same grid"):
        dice(np.ones((2, 2, 2)), np.ones((2, 2, 3)))


def test_against_monai_on_a_real_hippocampus(hippocampus):
    torch, monai_metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    reference = read_labels(hippocampus / "labelsTr" / "hippocampus_001.nii.gz").array
    prediction = np.roll(reference, (1, 2, 0), (0, 1, 2))
    prediction[:, :18] = 0
    spacing = (0.8, 1.0, 1.3)
    rows = per_label(prediction, reference, spacing, [1, 2], tolerance_mm=1.5)
    for value, row in rows.items():
        a, b = (torch.from_numpy(np.pad(m == value, 2))[None, None].float() for m in (prediction, reference))
        options = {"include_background": True, "spacing": spacing[::-1]}
        theirs = monai_metrics.compute_hausdorff_distance(a, b, percentile=95, **options).item()
        assert row["hd95_mm"] == pytest.approx(theirs, abs=1e-3) and row["hd95_mm"] > 1
        share = monai_metrics.compute_surface_dice(a, b, [1.5], **options).item()
        assert row["surface_dice"] == pytest.approx(share, abs=1e-3) and 0.1 < row["surface_dice"] < 1
        assert row["hd95_mm"] == hd95(prediction == value, reference == value, spacing)
        assert row["surface_dice"] == surface_dice(prediction == value, reference == value, spacing, 1.5)
        volumes = [np.count_nonzero(m == value) for m in (prediction, reference)]
        assert row["volume_error_percent"] == pytest.approx(100 * (volumes[0] / volumes[1] - 1))
