"""What one may ask of a segmentation beyond image and model: several inputs, doubt, smoothing, one piece, a frame."""

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import estimate
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.inference import load_network, predict, resolve_device
from MambaSegLib.job import Report
from MambaSegLib.networks import create
from MambaSegLib.postprocessing import keep_largest_components
from MambaSegLib.preprocessing import prepare, recipe_of
from MambaSegLib.segment import run
from MambaSegLib.volume import Volume


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Measured rates of the tests stay out of the user's folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def noise(shape=(34, 36, 40), seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(rng.normal(size=shape).astype(np.float32)), 2.5)
    return (1000 * sitk.GetArrayFromImage(smooth)).astype(np.int16)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.nrrd"
    sitk.WriteImage(Volume(noise(), (1, 1.2, 0.9), (5, -7, 9), np.diag([-1, 1, -1])).to_sitk(), str(path))
    return path


def segmented(image, bundle, name="out.nrrd", **more) -> dict:
    request = {"input": str(image), "model": str(bundle), "output": str(image.parent / name), "device": "cpu", **more}
    return run(request, Report())


def test_the_map_of_doubt_is_the_margin_of_the_two_best_classes(image, tiny_bundle):
    result = segmented(image, tiny_bundle, uncertainty=str(image.parent / "doubt.nrrd"))
    bundle = open_bundle(tiny_bundle)
    volume, recipe = read_volume(image), recipe_of(bundle)
    prepared = prepare(volume, recipe)
    cpu = resolve_device("cpu")
    everywhere = prepared.restore_probabilities(predict(load_network(bundle, cpu), prepared.array, recipe, cpu))
    ordered = np.sort(everywhere, axis=0)
    doubt = read_labels(result["uncertainty"])
    assert doubt.array.dtype == np.uint8 and doubt.same_grid(volume)
    concerned = doubt.array > 0
    assert concerned.mean() > 0.3
    expected = 100 * (1 - ordered[-1] + ordered[-2])
    assert np.abs(expected - doubt.array)[concerned].max() <= 2.6  # below 2 % a class may count as none; rounding
    np.testing.assert_array_equal(read_labels(result["output"]).array, everywhere.argmax(0))


def test_scores_and_places_point_at_what_is_doubtful(image, tiny_bundle):
    result = segmented(image, tiny_bundle, uncertainty=str(image.parent / "doubt.nrrd"))
    doubt = read_labels(result["uncertainty"])
    assert [row["structure"] for row in result["review"]] == [s["name"] for s in result["segments"]]
    for row in result["review"]:
        assert 0 < row["score"] <= 1 and 1 <= len(row["places"]) <= 10
        scores = [place["score"] for place in row["places"]]
        assert scores == sorted(scores, reverse=True)
        x, y, z = np.rint((doubt.index_from_world() @ [*row["places"][0]["position_mm"], 1])[:3]).astype(int)
        around = doubt.array[max(0, z - 3) : z + 4, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        assert around.mean() > doubt.array.mean()


def test_smoothing_makes_fewer_pieces_and_smoother_surfaces(image, tiny_bundle):
    plain = read_labels(segmented(image, tiny_bundle)["output"]).array
    smooth = read_labels(segmented(image, tiny_bundle, "smooth.nrrd", smoothing_mm=2.0)["output"]).array

    def surface(labels):
        return sum(np.count_nonzero(np.diff(labels, axis=axis)) for axis in range(3))

    assert surface(smooth) < 0.8 * surface(plain) and smooth.any()
    with pytest.raises(UserError, match="smoothing_mm"):
        segmented(image, tiny_bundle, smoothing_mm=-1)


def test_of_each_structure_the_largest_piece_stays(image, tiny_bundle):
    plain = read_labels(segmented(image, tiny_bundle)["output"])
    one = read_labels(segmented(image, tiny_bundle, "one.nrrd", largest_component=True)["output"]).array
    for value in (1, 2):
        pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray((one == value).astype("u1"))))
        assert pieces.max() == 1
        assert np.count_nonzero(one == value) < np.count_nonzero(plain.array == value)
        assert (plain.array[one == value] == value).all()
    np.testing.assert_array_equal(keep_largest_components(plain).array, one)


def test_mean_intensity_is_measured_in_the_image(image, tiny_bundle):
    result = segmented(image, tiny_bundle)
    labels, voxels = read_labels(result["output"]).array, read_volume(image).array
    for row in result["segments"]:
        assert row["mean_intensity"] == pytest.approx(voxels[labels == row["value"]].mean())


@pytest.fixture
def two_inputs(tiny_bundle_data, tmp_path):
    network = {**tiny_bundle_data["network"], "in_channels": 2}
    inputs = [{"name": name, "modality": "MR", "description": name} for name in ("T1", "T2")]
    weights = {k: v.numpy() for k, v in create("mm_unet_test", 2, 3).state_dict().items()}
    return write_bundle(tmp_path / "two", {**tiny_bundle_data, "network": network, "inputs": inputs}, weights).folder


def test_several_inputs_are_channels_in_their_order(image, two_inputs):
    other = image.parent / "other.nrrd"
    first = read_volume(image)
    sitk.WriteImage(first.with_array(noise(seed=1)).to_sitk(), str(other))
    warm = {}
    request = {"model": str(two_inputs), "output": str(image.parent / "out.nrrd"), "device": "cpu"}
    run({**request, "input": [str(image), str(other)]}, Report(), warm)
    there = read_labels(request["output"]).array
    assert warm["volume"][1][0].array.shape == (2, *first.shape)
    run({**request, "input": [str(other), str(image)]}, Report(), warm)
    assert (read_labels(request["output"]).array != there).any()


def test_inputs_on_other_grids_are_refused(image, two_inputs):
    other = image.parent / "other.nrrd"
    volume = read_volume(image)
    sitk.WriteImage(Volume(volume.array, (1, 1, 1), volume.origin_mm, volume.direction).to_sitk(), str(other))
    with pytest.raises(UserError, match=r"'image.nrrd'.*'other.nrrd'.*differ"):
        run({"input": [str(image), str(other)], "model": str(two_inputs), "output": None}, Report())


def test_one_frame_of_a_sequence(image, tiny_bundle):
    frames = [noise(seed=seed) for seed in range(3)]
    single = read_labels(segmented(image, tiny_bundle)["output"]).array
    volume = read_volume(image)
    as_4d = sitk.JoinSeries([volume.with_array(f).to_sitk() for f in (frames[1], frames[0], frames[2])])
    sitk.WriteImage(as_4d, str(image.parent / "cine.nii.gz"))
    as_slicer = sitk.Compose([volume.with_array(f).to_sitk() for f in (frames[1], frames[0], frames[2])])
    sitk.WriteImage(as_slicer, str(image.parent / "cine.seq.nrrd"))
    for name in ("cine.nii.gz", "cine.seq.nrrd"):
        result = segmented(image.parent / name, tiny_bundle, frame=1)
        np.testing.assert_array_equal(read_labels(result["output"]).array, single)
        with pytest.raises(UserError, match="0 to 2"):
            segmented(image.parent / name, tiny_bundle, frame=3)
        with pytest.raises(UserError, match="frame"):
            segmented(image.parent / name, tiny_bundle)


def test_an_estimate_guesses_first_and_then_measures(image, tiny_bundle):
    request = {"input": str(image), "model": str(tiny_bundle), "device": "cpu"}
    guessed = estimate.run(request, Report())
    events = []
    run({**request, "output": None}, Report(events.append))
    measured = estimate.run(request, Report())
    assert "guessed" in guessed["how"] and "measured" in measured["how"]
    assert guessed["windows"] == measured["windows"] == max(e["of"] for e in events if e["event"] == "progress")
    assert 0 < measured["seconds"] < 60 and 100 < measured["memory_mb"] < 2000
    inside = estimate.run({**request, "roi": [-10, 0, -5, 5, -5, 5]}, Report())
    assert inside["windows"] < measured["windows"] and inside["memory_mb"] < measured["memory_mb"]
