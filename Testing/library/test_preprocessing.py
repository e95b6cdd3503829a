"""Onto the network's grid and back: every orientation, oblique, anisotropic, with and without a region of interest."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.metrics import dice
from MambaSegLib.preprocessing import Roi, prepare
from MambaSegLib.regrid import Resampling
from MambaSegLib.volume import Volume, axis_code

RECIPE = {"orientation": "RAS", "spacing_mm": (1, 1, 1), "normalisation": {"name": "zscore"}}
DIRECTIONS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(degrees_x, degrees_y, degrees_z):
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*np.radians([degrees_x, degrees_y, degrees_z]))
    return np.reshape(turn.GetMatrix(), (3, 3))


def blobs(shape=(30, 40, 50), spacing=(1, 1, 1), direction=None, seed=0) -> Volume:
    """Two smooth structures, labels 1 and 2, as a label map somewhere in space."""
    direction = np.eye(3) if direction is None else direction
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * np.array(spacing[::-1])
    extent = np.array(shape) * spacing[::-1]
    labels = np.zeros(shape, np.uint8)
    for value, centre in ((1, 0.35), (2, 0.65)):
        labels[((((grid - extent * centre) / (extent * 0.2)) ** 2).sum(-1)) < 1] = value
    return Volume(labels, spacing, (-11.5, 7.25, 103.0), direction)


def noisy(labels: Volume, seed=0) -> Volume:
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    return labels.with_array((100 * labels.array + 5 * noise).astype(np.float32))


def one_hot(labels: np.ndarray, classes=3) -> np.ndarray:
    return (labels == np.arange(classes)[:, None, None, None]).astype(np.float32)


@pytest.mark.parametrize("direction", DIRECTIONS, ids=axis_code)
def test_every_orientation_is_turned_like_itk_does_and_back_exactly(direction):
    labels = blobs((9, 11, 13), (0.7, 0.9, 2.5), direction)
    image = noisy(labels)
    turned_spacing = sitk.DICOMOrient(image.to_sitk(), "RAS").GetSpacing()
    recipe = {**RECIPE, "spacing_mm": turned_spacing}

    prepared = prepare(image, recipe)

    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(image.to_sitk(), "RAS"))
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(prepared.array[0], expected, atol=1e-4)
    there = prepared.labels_like(labels)
    np.testing.assert_array_equal(prepared.restore_labels(one_hot(there)), labels.array)
    np.testing.assert_array_equal(prepared.restore_probabilities(one_hot(there)), one_hot(labels.array))


def test_the_axis_codes_of_itk_are_ours():
    for direction in DIRECTIONS:
        image = sitk.Image(2, 2, 2, sitk.sitkUInt8)
        image.SetDirection(direction.ravel())
        assert axis_code(direction) == sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel())


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAR", "PIL"])
def test_an_oblique_image_is_turned_to_the_nearest_axes_only(code):
    labels = blobs(direction=rotation(20, -15, 30))
    prepared = prepare(noisy(labels), {**RECIPE, "orientation": code})
    assert sorted(prepared.array.shape[1:]) == [30, 40, 50]
    np.testing.assert_array_equal(prepared.restore_labels(one_hot(prepared.labels_like(labels))), labels.array)


@pytest.mark.parametrize("spacing", [(0.7, 0.9, 2.5), (0.5, 0.5, 0.5), (1.4, 1.4, 1.4)])
@pytest.mark.parametrize("direction", [np.eye(3), -np.eye(3), rotation(10, 5, -25)], ids=["lps", "negative", "oblique"])
def test_labels_survive_resampling(spacing, direction):
    shape = tuple(int(60 / s) for s in spacing[::-1])
    labels = blobs(shape, spacing, direction)
    prepared = prepare(noisy(labels), RECIPE)
    for new, old, s in zip(sorted(prepared.array.shape[1:]), sorted([60, 60, 60]), spacing, strict=True):
        assert abs(new - old) <= max(1, s)
    restored = prepared.restore_labels(one_hot(prepared.labels_like(labels)))
    for value in (1, 2):
        assert dice(restored == value, labels.array == value) > 0.97


def test_resampling_agrees_with_simpleitk_going_finer():
    array = np.random.default_rng(1).normal(size=(8, 9, 10)).astype(np.float32)
    change = Resampling.between(array.shape, (1, 1.5, 2), (0.5, 0.5, 0.8))
    ours = change.apply(array)
    image = Volume(array, (1, 1.5, 2)).to_sitk()
    spacing = (0.5, 0.5, 0.8)
    origin = [((n - 1) * s - (m - 1) * t) / 2 for n, s, m, t in
              zip((10, 9, 8), (1, 1.5, 2), ours.shape[::-1], spacing, strict=True)]  # fmt: skip
    itk = sitk.Resample(image, ours.shape[::-1], sitk.Transform(), sitk.sitkLinear, origin, spacing,
                        (1, 0, 0, 0, 1, 0, 0, 0, 1), 0, sitk.sitkFloat32, True)  # fmt: skip
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(ours[inner], sitk.GetArrayFromImage(itk)[inner], atol=1e-4)


def test_resampling_does_not_shift_and_does_not_alias():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (4, 4, 40))
    change = Resampling.between(ramp.shape, (1, 1, 1), (3.3, 1, 1))
    coarse = change.apply(ramp)[0, 0]
    inner = coarse[1:-1]
    np.testing.assert_allclose(np.diff(inner), 3.3, atol=0.12)  # sampled weights of the triangle
    assert abs(inner.mean() - 19.5) < 1e-3
    noise = np.random.default_rng(2).normal(size=(4, 4, 4000)).astype(np.float32)
    averaged = Resampling.between(noise.shape, (1, 1, 1), (4, 1, 1)).apply(noise)
    assert averaged.std() < 0.5  # picking single voxels would keep a standard deviation near 1


def test_an_almost_equal_spacing_changes_no_bit():
    array = np.random.default_rng(3).normal(size=(5, 6, 7)).astype(np.float32)
    change = Resampling.between(array.shape, (1.0005, 0.9999, 1), (1, 1, 1))
    assert change.apply(array) is array


def test_the_region_alone_decides_the_intensities_and_the_labels():
    labels = blobs()
    image = noisy(labels)
    bright = image.array.copy()
    bright[:3] = 1e5  # far from the region: must change nothing inside
    region = (slice(8, 22), slice(10, 30), slice(12, 40))
    part = labels.cropped(region)
    first, last = part.world_from_index() @ [0, 0, 0, 1], part.world_from_index() @ [27, 19, 13, 1]
    roi = Roi.from_bounds_mm(*np.stack([first[:3] - 0.4, last[:3] + 0.4], 1).ravel())

    prepared = prepare(image.with_array(bright), RECIPE, roi)

    assert prepared.region == region and prepared.crop == region
    expected = image.array[region]
    expected = ((expected - expected.mean()) / expected.std())[:, ::-1, ::-1]
    np.testing.assert_allclose(prepared.array[0], expected, atol=1e-4)
    everywhere = np.zeros((3, *prepared.array.shape[1:]), np.float32)
    everywhere[1] = 1
    restored = prepared.restore_labels(everywhere)
    assert (restored[region] == 1).all() and restored.sum() == 14 * 20 * 28
    probabilities = prepared.restore_probabilities(everywhere)
    np.testing.assert_allclose(probabilities.sum(0), 1)
    assert probabilities[0].sum() == restored.size - restored.sum()


def test_margin_and_patch_take_in_real_surroundings_before_mirroring():
    labels = blobs((60, 60, 60))
    centre = (labels.world_from_index() @ [30, 30, 4, 1])[:3]
    roi = Roi.from_bounds_mm(*np.stack([centre - 3, centre + 3], 1).ravel())
    recipe = {**RECIPE, "margin_mm": 5, "patch": (24, 40, 80)}
    prepared = prepare(noisy(labels), recipe, roi)
    assert prepared.array.shape == (1, 24, 40, 80)
    assert prepared.crop == (slice(0, 24), slice(11, 51), slice(0, 60))  # pushed inwards, not mirrored
    assert prepared.pad == ((0, 0), (0, 0), (10, 10))
    np.testing.assert_array_equal(prepared.array[..., 10:0:-1], prepared.array[..., 10:20])
    wide = prepare(noisy(labels), {**recipe, "patch": (24, 40, 200)})
    assert wide.array.shape == (1, 60, 60, 200)  # more padding than image
    back = wide.restore_labels(one_hot(wide.labels_like(labels)))
    np.testing.assert_array_equal(back, labels.array)


def test_an_oblique_box_is_labelled_inside_the_box_only():
    labels = blobs(direction=rotation(0, 0, 30))
    centre = (labels.world_from_index() @ [25, 20, 15, 1])[:3]
    roi = Roi.from_bounds_mm(*np.stack([centre - 6, centre + 6], 1).ravel())
    prepared = prepare(noisy(labels), RECIPE, roi)
    everywhere = one_hot(np.ones(prepared.array.shape[1:], int))
    where = np.argwhere(prepared.restore_labels(everywhere))[:, ::-1]
    world = where @ labels.world_from_index()[:3, :3].T + labels.origin_mm
    assert np.abs(world - centre).max() <= 6 + 1e-4
    assert abs(len(where) - 12 * 12 * 13) < 60


def test_a_narrow_winner_still_wins():
    labels = blobs((10, 12, 14), (0.8, 0.9, 2.2))
    prepared = prepare(noisy(labels), RECIPE)
    probabilities = np.full((4, *prepared.array.shape[1:]), 0.249, np.float32)
    probabilities[2, ..., :5] = probabilities[3, ..., 5:] = 0.253
    expected = prepared.restore_probabilities(probabilities).argmax(0)
    assert set(np.unique(expected)) == {2, 3}
    np.testing.assert_array_equal(prepared.restore_labels(probabilities), expected)


@pytest.mark.parametrize("roi", [None, (-30, -2, 12, 40, 105, 125)])
def test_labels_are_the_argmax_of_all_probabilities(roi):
    image = noisy(blobs((20, 44, 50), (0.8, 0.9, 2.2), rotation(5, 10, -15) @ np.diag([-1, 1, -1])))
    recipe = {**RECIPE, "patch": (64, 32, 32), "margin_mm": 3}
    prepared = prepare(image, recipe, Roi.from_bounds_mm(*roi) if roi else None)
    rng = np.random.default_rng(5)
    for classes in (2, 7):
        scores = rng.normal(size=(classes, *prepared.array.shape[1:])).astype(np.float32) * 3
        scores[1:, :, 8:] -= 4  # mostly background, the rest in a corner
        probabilities = np.exp(scores) / np.exp(scores).sum(0)
        labels = prepared.restore_labels(probabilities)
        expected = prepared.restore_probabilities(probabilities)
        np.testing.assert_allclose(expected.sum(0), 1, atol=1e-5)
        np.testing.assert_array_equal(labels, expected.argmax(0))
        assert len(np.unique(labels)) == classes


def test_a_mask_on_the_same_or_another_grid():
    labels = blobs((30, 40, 50))
    exact = prepare(noisy(labels), RECIPE, Roi.from_mask(labels))
    everywhere = one_hot(np.ones(exact.array.shape[1:], int))
    np.testing.assert_array_equal(exact.restore_labels(everywhere), labels.array > 0)

    finer = sitk.Resample(labels.to_sitk(), (100, 80, 60), sitk.Transform(), sitk.sitkNearestNeighbor,
                          np.subtract(labels.origin_mm, 0.25), (0.5, 0.5, 0.5))  # fmt: skip
    other = prepare(noisy(labels), RECIPE, Roi.from_mask(Volume.from_sitk(finer)))
    assert dice(other.restore_labels(one_hot(np.ones(other.array.shape[1:], int))) > 0, labels.array > 0) > 0.95


@pytest.mark.parametrize("name", ["zscore", "percentile_zscore"])
def test_standard_scores(name):
    labels = blobs()
    image = noisy(labels)
    array = image.array.copy()
    array[0, 0, 0] = 1e6
    values = prepare(image.with_array(array), {**RECIPE, "normalisation": {"name": name}}).array
    assert abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3
    assert (values.max() < 5) == (name == "percentile_zscore")


def test_hounsfield_numbers_map_to_fixed_values():
    array = np.array([-2000, -160, 40, 240, 3000, 0, 0, 0], np.int16).reshape(2, 2, 2)
    recipe = {**RECIPE, "orientation": "LPS", "normalisation": {"name": "ct_clip", "lo": -160, "hi": 240}}
    values = prepare(Volume(array), recipe).array.ravel()
    np.testing.assert_allclose(values[:6], [-1, -1, 0, 1, 1, -0.2], atol=1e-6)


def test_channels_are_standardised_one_by_one():
    image = noisy(blobs())
    two = image.with_array(np.stack([image.array, 7 - 30 * image.array]))
    prepared = prepare(two, RECIPE)
    np.testing.assert_allclose(prepared.array[0], -prepared.array[1], atol=1e-3)


def test_constant_images_and_regions_elsewhere_are_refused():
    image = noisy(blobs())
    with pytest.raises(UserError, match="every voxel of the region is 3"):
        prepare(image.with_array(np.full(image.shape, 3, np.int16)), RECIPE)
    with pytest.raises(UserError, match=r"lies outside.*LPS"):
        prepare(image, RECIPE, Roi.from_bounds_mm(500, 510, 0, 10, 0, 10))
    with pytest.raises(UserError, match="minimum below maximum"):
        Roi.from_bounds_mm(5, 5, 0, 10, 0, 10)
    lps, ras = Roi.from_bounds_mm(500, 510, 0, 10, 3, 9), Roi.from_bounds_mm(-510, -500, -10, 0, 3, 9, system="RAS")
    assert lps.bounds_mm == ras.bounds_mm
    with pytest.raises(UserError, match=r"-510\.0 -500\.0 -10\.0 .* mm \(RAS\)"):
        prepare(image, RECIPE, ras)
    with pytest.raises(UserError, match="empty"):
        Roi.from_mask(image.with_array(np.zeros(image.shape, np.uint8)))
    elsewhere = Volume(np.ones((3, 3, 3), np.uint8), origin_mm=(900, 0, 0))
    with pytest.raises(UserError, match="lies outside"):
        prepare(image, RECIPE, Roi.from_mask(elsewhere))


def test_real_hippocampus_and_ct_round_trip(hippocampus, shared):
    labels = read_labels(hippocampus / "labelsTr" / "hippocampus_001.nii.gz")
    image = read_volume(hippocampus / "imagesTr" / "hippocampus_001.nii.gz")
    prepared = prepare(image, {**RECIPE, "patch": (48, 64, 48)})
    assert prepared.array.shape == (1, 48, 64, 48)
    np.testing.assert_array_equal(prepared.restore_labels(one_hot(prepared.labels_like(labels))), labels.array)

    ct, organs = read_volume(shared / "data" / "ct_dicom"), read_labels(shared / "data" / "ct_dicom_labels.nii.gz")
    recipe = {**RECIPE, "spacing_mm": (1.5, 1.5, 1.5), "normalisation": {"name": "ct_clip", "lo": -160, "hi": 240}}
    prepared = prepare(ct, recipe)
    liver = organs.with_array((organs.array == 5).astype(np.uint8))
    restored = prepared.restore_labels(one_hot(prepared.labels_like(liver), 2))
    assert liver.array.sum() > 1000 and dice(restored, liver.array) > 0.97
