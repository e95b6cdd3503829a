"""Measures as papers compute them, against small cases worked out by hand and against medpy's own code."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

from MambaSegLib.metrics import hd95
from MambaSegLib.metrics_published import ALL, MODES, medpy_hd95, published_summary

EMPTY, ONE = np.zeros((4, 6, 6), bool), np.zeros((4, 6, 6), bool)
ONE[1:3, 2:4, 2:4] = True


def test_hd95_in_voxels_pools_both_surfaces():
    a, b = np.zeros((2, 9, 20, 20), bool)
    a[2:7, 3:15, 3:15] = b[2:7, 3:15, 3:15] = True
    b[3:6, 7:10, 15:19] = True  # a rod: 8 % of its own surface, 4 % of both
    footprint = generate_binary_structure(3, 1)

    def distances(one, other):  # the two steps of medpy.metric.binary.__surface_distances
        border, target = (mask ^ binary_erosion(mask, structure=footprint, iterations=1) for mask in (one, other))
        return distance_transform_edt(~target)[border]

    expected = np.percentile(np.hstack((distances(a, b), distances(b, a))), 95)
    assert medpy_hd95(a, b) == pytest.approx(expected)
    assert medpy_hd95(a, b) < hd95(a, b, (1, 1, 1))  # ours takes the worse of the two sides


@pytest.mark.parametrize(
    ("found", "truth", "dice", "hd95_voxels"),
    [(ONE, ONE, 1, 0), (ONE, EMPTY, 1, 0), (EMPTY, ONE, 0, 0), (EMPTY, EMPTY, 0, 0)],
)
def test_the_empty_rules_of_transunet(found, truth, dice, hd95_voxels):
    row = MODES["synapse"].measure(found, truth)
    assert row == {"published_dice": dice, "published_hd95_voxels": hd95_voxels}
    assert MODES["acdc"].measure(found, truth) == {"published_dice": dice}


def test_means_are_taken_over_volumes_and_then_over_structures():
    def row(case, structure, dice):
        return {"case": case, "structure": structure, "published_dice": dice}

    rows = [row("a", "x", 1.0), row("b", "x", 0.5), row("a", "y", 0.2), row("b", "y", 0.0)]
    table = {(r["structure"], r["name"]): r for r in published_summary("acdc", rows)}
    assert table["x", "Dice"]["mean"] == 0.75 and table["y", "Dice"]["mean"] == 0.1 and table["x", "Dice"]["n"] == 2
    assert table[ALL, "Dice"]["mean"] == pytest.approx(0.425)


def test_pixels_of_all_pictures_are_counted_together():
    small, large = np.zeros((1, 64, 64), bool), np.zeros((1, 256, 256), bool)
    small[0, :32], large[0, :128] = True, True
    shifted = np.roll(large, 64, axis=1)  # half of it overlaps
    measure = MODES["isic"].measure
    rows = [
        {"case": n, "structure": "lesion", **measure(f, t)}
        for n, (f, t) in enumerate(((small, small), (shifted, large)))
    ]
    assert sum(rows[0][key] for key in rows[0] if key.endswith("tives")) == 256 * 256  # a small picture weighs the same
    table = {row["name"]: row["mean"] for row in published_summary("isic", rows)}
    tp, fp, fn = 256 * 128 + 256 * 64, 256 * 64, 256 * 64
    assert table["F1 over all pixels"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-4)
    assert table["IoU over all pixels"] == pytest.approx(tp / (tp + fp + fn), abs=1e-4)
    assert table["Sensitivity"] == pytest.approx(tp / (tp + fn), abs=1e-4)
    assert table["Accuracy"] == pytest.approx(1 - (fp + fn) / (2 * 256 * 256), abs=1e-4)
