"""The demonstration: real template, real job, a picture and a table that say what the segmentation file says."""

import csv
import time

import numpy as np
import pytest
from matplotlib.image import imread

from MambaSegLib import catalogue, demo, overview
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.volume import Volume

LABELS = (Label(1, "One", (230, 159, 0), {}), Label(2, "Two", (0, 158, 115), {}))


def test_the_template_is_the_one_millimetre_mni_brain():
    template = read_volume(demo.template_file())
    assert template.spacing_mm == (1, 1, 1) and template.shape == (189, 233, 197)
    matter = template.index_from_world() @ [0, 0, 0, 1]  # the anterior commissure lies at the origin, inside the brain
    x, y, z = np.rint(matter[:3]).astype(int)
    assert template.array[z, y, x] > 0


def test_without_nilearn_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed.*pip install"):
        demo.template_file()


@pytest.mark.parametrize("flip", [1, -1])
def test_left_and_right_are_the_patients(flip):
    """World x runs to the patient's left (LPS), whichever way the voxels run."""
    array = np.zeros((4, 4, 10), np.uint8)
    direction = np.diag([flip, flip, 1.0])
    volume = Volume(array, (2, 2, 2), (-9 * flip, 0, 0), direction)  # voxel centres at x = -9, -7 ... 9 mm, or reversed
    left_half = array[:, :, 5:] if flip == 1 else array[:, :, :5]
    left_half[0, 0, :3] = 1
    right_half = array[:, :, :5] if flip == 1 else array[:, :, 5:]
    right_half[1, 1, :2] = 1
    right_half[2, 2, :4] = 2
    rows = demo.volumes_by_side(volume, LABELS)
    assert rows[0] == {"structure": "One", "left_ml": 0.024, "right_ml": pytest.approx(0.016), "total_ml": 0.04}
    assert (rows[1]["left_ml"], rows[1]["right_ml"]) == (0, pytest.approx(0.032))


def test_the_whole_demonstration(tmp_path, tiny_bundle, capsys):
    folder = tmp_path / "new" / "output"
    assert demo.main(["--output", str(folder), "--model", str(tiny_bundle)]) == 0
    names = ["mni152_hippocampus.seg.nrrd", "overview.png", "volumes.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    printed = capsys.readouterr().out
    assert all(str((folder / name).resolve()) in printed for name in names)

    labels = read_labels(folder / names[0])
    assert labels.same_grid(read_volume(demo.template_file()))
    with open(folder / "volumes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for value, row in enumerate(rows, start=1):
        assert float(row["total_ml"]) == pytest.approx((labels.array == value).sum() / 1000, abs=1e-3)
        assert float(row["left_ml"]) + float(row["right_ml"]) == pytest.approx(float(row["total_ml"]), abs=2e-3)
        assert f"{float(row['total_ml']):.2f}" in printed
    z, y, x = np.nonzero(labels.array)
    world = labels.world_from_index() @ np.stack([x, y, z, np.ones_like(x)])
    low, high = np.array(demo.ROI_MM[::2]), np.array(demo.ROI_MM[1::2])
    assert (world[:3].min(1) >= low - 1).all() and (world[:3].max(1) <= high + 1).all()


def test_a_folder_that_cannot_be_made_is_exit_code_2(tmp_path, tiny_bundle, capsys):
    (tmp_path / "file").write_text("in the way")
    assert demo.main(["--output", str(tmp_path / "file"), "--model", str(tiny_bundle)]) == 2
    assert "--output" in capsys.readouterr().err


def test_the_picture_shows_the_outlines_in_the_labels_colours(tmp_path):
    template = read_volume(demo.template_file())
    array = np.zeros(template.shape, np.uint8)
    for value, (x, y, z) in ((1, (25, 12, -20)), (1, (-25, 12, -20)), (2, (25, 30, -8)), (2, (-25, 30, -8))):
        i, j, k = np.rint(template.index_from_world() @ [x, y, z, 1])[:3].astype(int)
        array[k - 4 : k + 5, j - 6 : j + 7, i - 4 : i + 5] = value
    labels = template.with_array(array)
    shares = {}
    for name, shown in (("with", labels), ("without", template.with_array(np.zeros_like(array)))):
        rows = demo.volumes_by_side(shown, LABELS)
        overview.draw(tmp_path / f"{name}.png", "Title", template, shown, LABELS, rows, demo.ROI_MM)
        picture = imread(tmp_path / f"{name}.png")[:, :, :3]
        panels = picture[:, : int(0.8 * picture.shape[1])]  # without the legend, which shows the colours anyway
        shares[name] = [(np.abs(panels - np.array(label.color) / 255).max(2) < 0.02).mean() for label in LABELS]
    assert min(shares["with"]) > 2e-4 and max(shares["without"]) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["with.png", "without.png"]


def test_the_shipped_model_finds_two_plausible_hippocampi(tmp_path):
    if "hippocampus" not in {bundle.id for bundle in catalogue.bundles()}:
        pytest.skip("the shipped model 'hippocampus' is not in this checkout")
    began = time.monotonic()
    assert demo.main(["--output", str(tmp_path)]) == 0
    assert time.monotonic() - began < 60
    labels = read_labels(tmp_path / "mni152_hippocampus.seg.nrrd")
    rows = demo.volumes_by_side(labels, catalogue.find("hippocampus").labels)
    left, right = (sum(row[side] for row in rows) for side in ("left_ml", "right_ml"))
    assert 2 < left < 6 and 2 < right < 6 and abs(left - right) < 0.3 * max(left, right)
