"""Pictures as volumes one slice thick, and recipes that keep an image's own axes, spacing or a fixed size."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import catalogue
from MambaSegLib.bundle_schema import check_bundle_data
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.preprocessing import prepare
from MambaSegLib.volume import Volume

COLOURS = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
CLIP = {"name": "ct_clip", "lo": 0, "hi": 255}


def written(path, array, vector=None):
    vector = array.ndim == 3 if vector is None else vector
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_colours_become_channels(tmp_path, ending):
    volume = read_volume(written(tmp_path / f"a.{ending}", COLOURS))
    assert volume.array.shape == (3, 1, 7, 9) and volume.spacing_mm == (1, 1, 1)
    assert np.array_equal(volume.array[:, 0], np.moveaxis(COLOURS, -1, 0))


def test_grey_pictures_and_opacity(tmp_path):
    grey = read_volume(written(tmp_path / "grey.png", COLOURS[..., 0]))
    assert grey.array.shape == (1, 7, 9) and np.array_equal(grey.array[0], COLOURS[..., 0])
    rgba = np.concatenate([COLOURS, np.full((7, 9, 1), 255, np.uint8)], axis=2)
    assert read_volume(written(tmp_path / "rgba.png", rgba)).array.shape == (3, 1, 7, 9)


def test_a_colour_slice_as_slicer_saves_it_keeps_its_place(tmp_path):
    image = sitk.GetImageFromArray(COLOURS[None], isVector=True)
    image.SetSpacing((0.5, 0.5, 2))
    image.SetOrigin((10, 20, 30))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.array.shape == (3, 1, 7, 9) and volume.spacing_mm == (0.5, 0.5, 2)
    assert tuple(volume.origin_mm) == (10, 20, 30)


def test_masks_saved_in_colour_and_masks_that_are_none(tmp_path):
    mask = np.zeros((7, 9), np.uint8)
    mask[2:4] = 255
    for name, array in (("grey", mask), ("colour", np.stack([mask] * 3, axis=-1))):
        labels = read_labels(written(tmp_path / f"{name}.png", array))
        assert labels.array.shape == (1, 7, 9) and np.array_equal(labels.array[0], mask)
    with pytest.raises(UserError, match="a picture with colours"):
        read_labels(written(tmp_path / "photo.png", COLOURS))


def test_broken_pictures_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError):
        read_volume(tmp_path / "a.png")
    pages = written(tmp_path / "pages.tif", np.zeros((4, 7, 9), np.uint8), vector=False)
    with pytest.raises(UserError, match="4 pages"):
        read_volume(pages)


def test_a_fixed_size_and_back(tmp_path):
    volume = read_volume(written(tmp_path / "a.png", np.kron(COLOURS, np.ones((10, 10, 1), np.uint8))))
    recipe = {"orientation": None, "spacing_mm": [None] * 3, "size": [45, 35, None], "normalisation": CLIP}
    prepared = prepare(volume, recipe | {"patch": [35, 45]})
    assert prepared.array.shape == (3, 1, 35, 45)
    red = (prepared.array[0] + 1) / 2
    restored = prepared.restore_probabilities(np.stack([1 - red, red]))
    assert restored.shape == (2, 1, 70, 90)
    assert np.abs(restored[1] * 255 - volume.array[0]).mean() < 20


def test_an_oblique_stack_keeps_its_slices():
    """The nearest patient axes of a slanting stack would turn its slices into another plane; null leaves them."""
    angle = np.radians(60)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    stack = Volume(np.random.default_rng(0).random((5, 24, 28)), (1.25, 1.25, 8), direction=turn)
    own = {"orientation": None, "spacing_mm": [2.5, 2.5, None], "normalisation": {"name": "zscore"}}
    assert prepare(stack, own).array.shape == (1, 5, 12, 14)
    patient = own | {"orientation": "LPS", "spacing_mm": [1.25, 8, 1.25]}
    assert prepare(stack, patient).array.shape == (1, 24, 5, 28)
    labels = np.random.default_rng(1).random((2, 5, 12, 14)).astype(np.float32)
    assert prepare(stack, own).restore_labels(labels / labels.sum(0)).shape == (5, 24, 28)


def test_bundles_may_say_so(bundle_data):
    for preprocessing in (
        {"orientation": None, "spacing_mm": [None, None, None], "size": [256, 256, None]},
        {"orientation": "LPS", "spacing_mm": [1.5, 1.5, None]},
    ):
        check_bundle_data(bundle_data | {"preprocessing": preprocessing | {"normalisation": CLIP}}, "here")
    for field, value in (("spacing_mm", [1, 1, 0]), ("size", [256, 256]), ("size", [256.5, 256, None])):
        wrong = {"orientation": None, "spacing_mm": [1, 1, 1], "normalisation": CLIP, field: value}
        with pytest.raises(UserError, match=f"preprocessing.{field}"):
            check_bundle_data(bundle_data | {"preprocessing": wrong}, "here")


@pytest.fixture
def bundle_data():
    return json.loads((catalogue.shipped_folder() / "hippocampus" / "bundle.json").read_text(encoding="utf-8"))
