"""Two-dimensional patches: the right slice, labels on their pixels, and training from pictures to a bundle."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MambaSegLib.bundle import open_bundle
from MambaSegLib.image import read_volume
from MambaSegLib.job import Report
from MambaSegLib.segment import segment
from MambaSegTraining.losses import UNKNOWN
from MambaSegTraining.mirroring import Swap
from MambaSegTraining.patches import PatchSource
from MambaSegTraining.reading import TrainingCase, points_in
from MambaSegTraining.train import run


def case(colours=1, **changes):
    """A volume of 6 slices of 40 x 50; slice z holds the value z, and a label in the middle."""
    image = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None], (6, 40, 50))
    label = np.zeros((6, 40, 50), np.uint8)
    label[2:4, 15:25, 10:20], label[2:4, 15:25, 30:40] = 1, 2
    image = np.stack([image + 10 * (label > 0)] * colours).astype(np.float32)
    return TrainingCase("c", image, label, points_in(label), **changes)


def source(*cases, **changes):
    arguments = {"context": [], "foreground_share": 1.0, "context_share": 0.0, "mirror_axes": (1, 2), "seed": 4}
    return PatchSource(cases, patch=(24, 32), **(arguments | changes))


def test_shapes_and_repetition():
    first, again = source(case()), source(case())
    images, labels, merged = first.batch(3, 5)
    assert images.shape == (5, 1, 24, 32) and labels.shape == (5, 24, 32) and merged is None
    assert torch.equal(images, again.batch(3, 5).images)
    assert not torch.equal(images, first.batch(4, 5).images)
    assert set(labels.unique().tolist()) <= {0, 1, 2, UNKNOWN} and (labels == 1).any()


def test_labels_stay_on_their_pixels():
    """Labelled pixels are 10 brighter in one slice; turned, scaled and mirrored they still are."""
    images, labels = (source(case()).batch(0, 16))[:2]
    for image, label in zip(images, labels, strict=True):
        inside, outside = image[0][(label == 1) | (label == 2)], image[0][label == 0]
        if len(inside) > 20 and len(outside) > 20:
            assert inside.median() > outside.median()


def different_channels(is_colour):
    """In how many of 40 batches of a flat patch, whose channels came equal, they do not stay so."""
    flat = TrainingCase("c", np.ones((3, 1, 40, 50), np.float32), np.zeros((1, 40, 50), np.uint8), is_colour=is_colour)
    patches = PatchSource([flat], [], (24, 32), 0.0, 0.0, (), seed=1)
    batches = [patches.batch(step, 1).images[0].mean((1, 2)) for step in range(40)]
    return sum(float(means.std()) > 0.05 for means in batches)


def test_colours_change_one_by_one_and_neighbouring_slices_together():
    assert different_channels(is_colour=True) > 10
    assert different_channels(is_colour=False) == 0


def middle_turned(mirror_axes):
    """Is a bright left half ever found at the bottom or at the top?"""
    image = np.zeros((1, 1, 60, 60), np.float32)
    image[..., :30] = 1
    halves = TrainingCase("c", image, np.zeros((1, 60, 60), np.uint8))
    batch = PatchSource([halves], [], (32, 32), 0.0, 0.0, mirror_axes, seed=1).batch(0, 40).images[:, 0]
    rows = batch[:, :16].mean((1, 2)) - batch[:, 16:].mean((1, 2))
    return bool((rows.abs() > 0.6).any())


def test_only_what_has_no_up_is_turned_by_any_angle():
    assert middle_turned((1, 2)) and not middle_turned((2,)) and not middle_turned(())


def test_sides_are_swapped_where_the_image_is():
    """Label 1 lies at low x, label 2 at high x: in a mirrored patch too, as the left hand stays left."""
    patches = source(case(), swap=Swap(2, ((1, 2),)), mirror_axes=(2,), foreground_share=0.0)
    seen = 0
    for step in range(6):
        for label in patches.batch(step, 8).labels:
            left, right = (torch.nonzero(label == value)[:, 1].float() for value in (1, 2))
            if len(left) > 30 and len(right) > 30:
                assert left.mean() < right.mean()
                seen += 1
    assert seen > 5


def test_what_was_not_annotated_comes_with_the_patch():
    whole, part = case(), case(merged=np.array([True, False, True]))
    merged = source(whole, part).batch(0, 16).merged
    assert {tuple(row) for row in merged.tolist()} == {(False, False, False), (True, False, True)}


@pytest.fixture
def squares(tmp_path):
    """Colour pictures with a red square on noise, in ``train`` and ``validation``."""
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("validation", 3)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / part / kind).mkdir(parents=True)
        for i in range(count):
            image, mask = random.integers(60, 120, (48, 56, 3)).astype(np.uint8), np.zeros((48, 56), np.uint8)
            y, x = random.integers(4, 24, 2)
            image[y : y + 20, x : x + 20, 0], mask[y : y + 20, x : x + 20] = 230, 255
            for kind, array, ending in (("images", image, "png"), ("masks", mask, "png")):
                file = tmp_path / "data" / part / kind / f"{i}.{ending}"
                sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(file))
    return tmp_path / "data"


def test_learns_pictures_and_segments_a_png(config_file, squares, tmp_path):
    config = json.loads(config_file().read_text())
    config["model"]["labels"] = config["model"]["labels"][:1]
    config["model"]["inputs"] = [{"name": n, "modality": "XC", "description": ""} for n in ("red", "green", "blue")]
    config |= {
        **{"network": "ultralight_vm_unet_test", "in_channels": 3, "data": str(squares), "batch": 4, "steps": 40},
        **{"validate_every": 40, "foreground_share": 0.0, "mirror_axes": [1, 2], "learning_rate": 0.02},
        "preprocessing": {
            **{"orientation": None, "spacing_mm": [None] * 3, "size": [32, 32, None]},
            "normalisation": {"name": "ct_clip", "lo": 0, "hi": 255},
        },
        "inference": config["inference"] | {"patch": [32, 32]},
    }
    path = tmp_path / "pictures.json"
    path.write_text(json.dumps(config))
    result = run({"config": str(path), "output": str(tmp_path / "run")}, Report())
    assert result["best_score"] > 0.7
    assert not (tmp_path / "run" / "prepared").exists()
    measured = {(row["name"], row["unit"]) for row in open_bundle(result["bundle"]).data["metrics"]["values"]}
    assert measured == {("Dice", ""), ("HD95", "pixels"), ("Surface Dice at 1 pixel", "")}
    provenance = open_bundle(result["bundle"]).data["provenance"]
    assert provenance["validation_cases"] == ["validation/0", "validation/1", "validation/2"]
    found = segment(read_volume(squares / "validation" / "images" / "0.png"), result["bundle"], device="cpu")
    assert found.labels.shape == (1, 48, 56) and 200 < found.segments[0]["voxels"] < 800
