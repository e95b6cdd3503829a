"""Ways of normalising that other programs' models were trained with, against their formulas written out."""

import numpy as np
import pytest

from MambaSegLib.errors import UserError
from MambaSegLib.normalisation import normalise
from MambaSegLib.preprocessing import prepare
from MambaSegLib.volume import Volume

CROP = (slice(2, 9), slice(0, 8), slice(1, 10))
WHOLE = (slice(0, 10),) * 3


@pytest.fixture
def image():
    """(2, 10, 10, 10): a hollow body of intensities within zeros; channel 1 is larger in one voxel's width."""
    array = np.zeros((2, 10, 10, 10), np.float32)
    array[0, 2:8, 3:8, 1:9] = np.random.default_rng(0).normal(300, 80, (6, 5, 8))
    array[1, 2:8, 3:8, 1:10] = np.random.default_rng(1).normal(5, 2, (6, 5, 9))
    array[:, 4:6, 5, 4:6] = 0  # a hole
    return array


def test_ct_as_nnunet_has_it(image):
    how = {"name": "ct_zscore", "lo": 100.0, "hi": 400.0, "mean": 250.0, "sd": 60.0}
    got = normalise(image[:1], WHOLE, CROP, how)
    wanted = (np.clip(image[:1][(slice(None), *CROP)], 100, 400) - 250) / 60
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_mr_as_nnunet_has_it(image):
    """Mean and sd of the box around what any channel shows, whatever the region of interest is."""
    box = image[:, 2:8, 3:8, 1:10]
    region = (slice(3, 5), slice(3, 6), slice(2, 5))
    got = normalise(image, region, CROP, {"name": "content_zscore"})
    for channel in range(2):
        wanted = (image[channel][CROP] - box[channel].mean()) / box[channel].std()
        np.testing.assert_allclose(got[channel], wanted, rtol=1e-4, atol=1e-5)


def test_mr_within_a_mask(image):
    """Holes belong to the body; outside stays 0."""
    body = np.zeros((10, 10, 10), bool)
    body[2:8, 3:8, 1:10] = True
    got = normalise(image, WHOLE, WHOLE, {"name": "content_zscore", "masked": True})
    assert (got[:, ~body] == 0).all()
    for channel in range(2):
        inside = image[channel][body]
        np.testing.assert_allclose(got[channel][body], (inside - inside.mean()) / inside.std(), rtol=1e-4, atol=1e-5)
    assert (got[0, 4:6, 5, 4:6] < 0).all()


def test_fixed_and_own_ranges(image):
    ways = {"name": "per_channel", "channels": [{"name": "content_range"}, {"name": "divide", "by": 255}]}
    got = normalise(image, WHOLE, WHOLE, ways)
    np.testing.assert_allclose(got[0], (image[0] - image[0].min()) / (image[0].max() - image[0].min()), atol=1e-6)
    np.testing.assert_allclose(got[1], image[1] / 255, rtol=1e-6)
    np.testing.assert_array_equal(normalise(image, WHOLE, CROP, {"name": "none"}), image[(slice(None), *CROP)])


@pytest.mark.parametrize("how", [{"name": "magic"}, {"name": "per_channel", "channels": [{"name": "none"}]}])
def test_what_does_not_fit_is_refused(image, how):
    with pytest.raises(UserError, match="normalis"):
        normalise(image, WHOLE, WHOLE, how)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_along_any_axis(axis):
    """The chosen axis becomes the first, spacings mean the new axes, and labels come back to their places."""
    array = np.random.default_rng(2).normal(size=(6, 8, 10)).astype(np.float32)
    volume = _volume(array)
    spacing = [volume.spacing_mm[2 - axis], *(volume.spacing_mm[2 - other] for other in range(3) if other != axis)]
    recipe = {"orientation": None, "spacing_mm": spacing[::-1], "normalisation": {"name": "none"}}
    prepared = prepare(volume, recipe | {"slice_axis": axis})
    np.testing.assert_array_equal(prepared.array[0], np.moveaxis(array, axis, 0))
    labels = (array > 0).astype(np.uint8)
    on_grid = np.moveaxis(labels, axis, 0)
    probabilities = np.stack([1 - on_grid, on_grid]).astype(np.float32)
    np.testing.assert_array_equal(prepared.restore_labels(probabilities), labels)


def _volume(array):
    return Volume(array, (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), np.eye(3))


def test_neighbours_become_channels():
    array = np.random.default_rng(3).normal(size=(5, 4, 4)).astype(np.float32)
    recipe = {"orientation": None, "spacing_mm": [None] * 3, "normalisation": {"name": "none"}, "neighbours": 1}
    prepared = prepare(_volume(array), recipe)
    assert prepared.array.shape == (3, 5, 4, 4)
    np.testing.assert_array_equal(prepared.array[1], array)
    np.testing.assert_array_equal(prepared.array[0], array[[0, 0, 1, 2, 3]])
    np.testing.assert_array_equal(prepared.array[2], array[[1, 2, 3, 4, 4]])
