"""Clicks: what each decides, and what the rest of the volume learns from a few of them."""

import numpy as np
import pytest
import SimpleITK as sitk
from test_correct import LABELS, edits_of, looked_at, mean_dice, phantom  # noqa: F401

from MambaSegLib import catalogue
from MambaSegLib.clicks import CLICKED, Click, decide, radius_mm, reach_mm
from MambaSegLib.correct import Edits, correct, run
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.job import Report
from MambaSegLib.metrics import dice
from MambaSegLib.segment import run as segment


def test_a_ball_is_as_large_as_the_structure_allows():
    assert radius_mm(0, (1, 1, 1)) == 0 and radius_mm(10**7, (1, 1, 1)) == 3.0
    hippocampus, ventricle = radius_mm(1500, (1, 1, 1)), radius_mm(100_000, (1, 1, 1))
    assert 0.4 < hippocampus < 0.6 and 1.5 < ventricle < 2.5
    assert radius_mm(100_000 * 8, (0.5, 0.5, 0.5)) == pytest.approx(ventricle), "mm, not voxels"
    assert 3 < reach_mm(1500, (1, 1, 1)) < 4 and 6 < reach_mm(100_000, (1, 1, 1)) < 9


def test_a_click_decides_what_shows_the_same_within_its_ball():
    labels = np.zeros((20, 40, 40), np.uint8)
    labels[:, :, 20:] = 5
    labels[:, :20, :20] = 2
    radius = radius_mm(np.count_nonzero(labels == 5), (1, 1, 2))
    assert 1 < radius < 2
    edited, decided = decide([Click((10, 30, 19), 5, True)], labels, (1, 1, 2))
    changed = np.argwhere(edited != labels) - [10, 30, 19]
    assert (edited[10, 30, 19], edited[10, 31, 19], edited[10, 30, 18], edited[11, 30, 19]) == (5, 5, 5, 0)
    assert np.array_equal(decided, edited != labels) and (changed[:, 2] <= 0).all(), (
        "the structure behind it is not its"
    )
    away, where = decide([Click((10, 30, 20), 5, False)], labels, (1, 1, 1))
    assert away[10, 30, 20] == 0 and where[10, 30, 20] and not where[10, 30, 19]
    same, where = decide([Click((10, 10, 10), 5, False), Click((10, 30, 30), 5, True)], labels, (1, 1, 1))
    assert np.array_equal(same, labels) and where[10, 10, 10] and where[10, 30, 30], (
        "so it is already: a word, no change"
    )


def test_later_clicks_overrule_and_forbidden_voxels_are_left():
    labels = np.zeros((5, 5, 5), np.uint8)
    both = [Click((2, 2, 2), 3, True), Click((2, 2, 2), 3, False), Click((0, 0, 0), 7, True), Click((4, 4, 4), 7, True)]
    allowed = np.ones(labels.shape, bool)
    allowed[4] = False
    edited, decided = decide(both, labels, (1, 1, 1), allowed)
    assert edited[2, 2, 2] == 0 and edited[0, 0, 0] == 7 and edited[4, 4, 4] == 0
    assert np.array_equal(np.argwhere(decided), [[0, 0, 0], [2, 2, 2]])


def test_one_click_moves_the_border_near_it(phantom, looked_at):  # noqa: F811
    """The shell is drawn too small everywhere; a click on its rim makes it larger there, and spoils little."""
    volume, truth = phantom
    features, initial = looked_at
    click = largest_error(initial, truth, 7)
    edited, clicked = decide([click], initial, volume.spacing_mm)
    locked = np.zeros(truth.shape, bool)
    result, strength = correct(
        features, Edits(initial, edited, clicked, locked, clicked=clicked), LABELS, volume, Report()
    )
    assert strength > 0 and result[click.place] == 7
    changed = result != initial
    everywhere = np.ones(truth.shape, bool)
    assert changed.sum() > 20 and mean_dice(result, truth, everywhere) > mean_dice(initial, truth, everywhere) + 0.002
    assert np.linalg.norm(np.argwhere(changed) - click.place, axis=1).max() < 12
    as_stroke, _ = correct(features, Edits(initial, edited, clicked, locked), LABELS, volume, Report())
    assert (as_stroke != initial).sum() < changed.sum(), "a stroke of one voxel proves less"


def test_a_click_and_strokes_are_both_followed(phantom, looked_at):  # noqa: F811
    volume, truth = phantom
    features, initial = looked_at
    drawn = edits_of(initial, truth, [14])
    only, _ = correct(features, drawn, LABELS, volume, Report())
    place = tuple(np.argwhere((truth == 0) & (only == 7) & ~drawn.touched)[0])
    wanted, clicked = decide([Click(place, 7, False)], drawn.edited, volume.spacing_mm)
    both = Edits(initial, wanted, drawn.touched | clicked, drawn.locked, clicked=clicked)
    result, _ = correct(features, both, LABELS, volume, Report())
    assert result[place] == 0 and np.array_equal(result[drawn.touched], truth[drawn.touched])
    assert mean_dice(result, truth, ~drawn.touched) > mean_dice(initial, truth, ~drawn.touched) + 0.03


def test_what_clicks_decided_and_what_is_locked_stays(phantom, looked_at):  # noqa: F811
    volume, truth = phantom
    features, initial = looked_at
    places = np.argwhere((truth == 7) & (initial == 0))[::40]
    edited, clicked = decide([Click(tuple(p), 7, True) for p in places], initial, volume.spacing_mm)
    edits = Edits(initial, edited, clicked, edited == 3, (3,), clicked)
    result, _ = correct(features, edits, LABELS, volume, Report())
    assert np.array_equal(result[clicked], edited[clicked]) and np.array_equal(result == 3, initial == 3)
    assert (result != edited).sum() > len(places)


def test_real_cases_get_better_by_clicks(hippocampus, tmp_path, monkeypatch):
    """Three clicks into the largest errors of unseen cases, through the files of the job."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # measured rates stay out of the user's folders
    gains = []
    for case in catalogue.find("hippocampus").data["provenance"]["validation_cases"][:2]:
        image, truth = (
            hippocampus / "imagesTr" / f"{case}.nii.gz",
            read_labels(hippocampus / "labelsTr" / f"{case}.nii.gz"),
        )
        files = {name: str(tmp_path / f"{case} {name}.nrrd") for name in ("initial", "edited", "touched", "output")}
        warm, common = {}, {"input": str(image), "model": "hippocampus", "device": "cpu"}
        segment({**common, "output": files["initial"]}, Report(), warm)
        initial, volume = read_labels(files["initial"]).array, read_volume(image)
        clicks = [largest_error(initial, truth.array, value) for value in (1, 2)]
        edited, clicked = decide(clicks, initial, volume.spacing_mm)
        for name, array in (("edited", edited), ("touched", CLICKED * clicked)):
            sitk.WriteImage(volume.with_array(array.astype(np.uint8)).to_sitk(), files[name])
        run({**common, **files}, Report(), warm)
        result = read_labels(files["output"]).array
        assert np.array_equal(result[clicked], edited[clicked])
        changed = (result != initial) & ~clicked
        assert changed.sum() > 5, "more than the clicked voxels"
        gains.append(
            np.mean([dice(result == v, truth.array == v) - dice(initial == v, truth.array == v) for v in (1, 2)])
        )
    assert min(gains) > 0 and np.mean(gains) > 0.002


def largest_error(found, truth, value) -> Click:
    """A click at the innermost voxel of what is wrong about a structure."""
    from scipy.ndimage import distance_transform_edt

    missing, excess = (truth == value) & (found != value), (found == value) & (truth != value)
    belongs = missing.sum() > excess.sum()
    depth = distance_transform_edt(missing if belongs else excess)
    return Click(tuple(int(v) for v in np.unravel_index(depth.argmax(), depth.shape)), value, bool(belongs))
