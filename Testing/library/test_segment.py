"""The job "segment" from file to file with a toy network: its answer, report, files, and memory of last time."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MambaSegLib.bundle import Label, open_bundle, write_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.inference import load_network
from MambaSegLib.job import Report
from MambaSegLib.postprocessing import measure, remove_small_components, to_label_values
from MambaSegLib.preprocessing import Roi
from MambaSegLib.segment import run, segment
from MambaSegLib.volume import Volume


@pytest.fixture
def head(tmp_path):
    """An oblique T1-like image of 0.8 x 0.9 x 1.6 mm, with an accent and a space in its path."""
    folder = tmp_path / "Bilder für Ärzte 脳"
    folder.mkdir()
    rng = np.random.default_rng(0)
    array = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(
        rng.normal(size=(40, 60, 64)).astype(np.float32)), 3.0))  # fmt: skip
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, -0.2, 0.3)
    direction = np.reshape(turn.GetMatrix(), (3, 3)) @ np.diag([-1, 1, -1])
    volume = Volume((1000 * array).astype(np.int16), (0.8, 0.9, 1.6), (10, -20, 30), direction)
    path = folder / "head.nii.gz"
    sitk.WriteImage(volume.to_sitk(), str(path))
    return path


def request_for(head, bundle, **more):
    return {
        "input": str(head),
        "model": str(bundle),
        "output": str(head.parent / "out.seg.nrrd"),
        "device": "cpu",
        **more,
    }


def test_a_real_case_equals_the_network_called_by_hand(hippocampus, tiny_bundle_data, tiny_bundle, tmp_path):
    data = {**tiny_bundle_data, "inference": {**tiny_bundle_data["inference"], "patch": [40, 56, 40]}}
    bundle = write_bundle(tmp_path / "one_window", data, open_bundle(tiny_bundle).weights_path)
    image = read_volume(hippocampus / "imagesTr" / "hippocampus_001.nii.gz")

    found = segment(image, bundle, device="cpu")

    values = image.array.astype(np.float64)
    values = (values - values.mean()) / values.std()
    lacking = np.subtract((40, 56, 40), values.shape)
    padded = np.pad(values, [(n // 2, n - n // 2) for n in lacking], mode="reflect")
    with torch.inference_mode():
        logits = load_network(bundle, torch.device("cpu"))(torch.from_numpy(padded).float()[None, None])[0]
    inner = tuple(slice(n // 2, n // 2 + m) for n, m in zip(lacking, values.shape, strict=True))
    expected = logits.argmax(0).numpy()[inner]
    assert np.mean(found.labels.array == expected) > 0.9995  # fp32 rounding may turn a tie
    assert found.labels.same_grid(image) and len(np.unique(expected)) > 1
    counts = [np.count_nonzero(found.labels.array == v) for v in (1, 2)]
    assert [s["voxels"] for s in found.segments] == counts
    assert [s["volume_ml"] for s in found.segments] == pytest.approx([n / 1000 for n in counts])


def test_the_file_has_the_image_geometry_and_what_slicer_needs(head, tiny_bundle):
    result = run(request_for(head, tiny_bundle), Report())

    image, written = read_volume(head), sitk.ReadImage(result["output"])
    labels = read_labels(result["output"])
    assert labels.same_grid(image) and labels.shape == image.shape
    assert written.GetMetaData("Segment0_Name") == "Anterior" and written.GetMetaData("Segment1_ID") == "Segment_2"
    assert np.allclose(
        [float(c) * 255 for c in written.GetMetaData("Segment0_Color").split()], [220, 120, 60], atol=0.01
    )
    assert "SCT^3710005^Hippocampus~^^~" in written.GetMetaData("Segment0_Tags")
    assert "Segmentation_SourceRepresentation" in written.GetMetaDataKeys()
    i0, i1, j0, j1, k0, k1 = (int(v) for v in written.GetMetaData("Segment0_Extent").split())
    assert np.argwhere(labels.array == 1).min(0).tolist() == [k0, j0, i0]
    assert np.argwhere(labels.array == 1).max(0).tolist() == [k1, j1, i1]
    assert [p.name for p in head.parent.iterdir() if p.name not in ("head.nii.gz", "out.seg.nrrd")] == []
    assert result["size"] == [64, 60, 40] and result["spacing_mm"] == pytest.approx([0.8, 0.9, 1.6])
    assert set(result["seconds"]) >= {"read", "prepare", "predict", "restore", "write"}
    assert result["model"] == "tiny" and result["device"] == "cpu" and result["backend"]
    json.dumps(result)


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nrrd", "out.nii"])
def test_plain_label_maps_hold_the_same_numbers(head, tiny_bundle, name):
    as_segmentation = run(request_for(head, tiny_bundle), Report())
    plain = run(request_for(head, tiny_bundle, output=str(head.parent / name)), Report())
    np.testing.assert_array_equal(read_labels(plain["output"]).array, read_labels(as_segmentation["output"]).array)
    assert read_labels(plain["output"]).same_grid(read_volume(head))


def test_nothing_is_labelled_outside_the_region(head, tiny_bundle):
    image = read_volume(head)
    centre = (image.world_from_index() @ [32, 30, 20, 1])[:3]
    bounds = np.stack([centre - 8, centre + 8], 1).ravel().tolist()
    boxed = run(request_for(head, tiny_bundle, roi=bounds), Report())
    labels = read_labels(boxed["output"])
    where = np.argwhere(labels.array)[:, ::-1]
    world = where @ labels.world_from_index()[:3, :3].T + labels.origin_mm
    assert len(where) > 100 and np.abs(world - centre).max() < 8 + 1e-3

    mask = np.zeros(image.shape, np.uint8)
    mask[15:25, 20:40, 22:42] = 1
    sitk.WriteImage(image.with_array(mask).to_sitk(), str(head.parent / "mask.nrrd"))
    masked = run(request_for(head, tiny_bundle, roi_mask=str(head.parent / "mask.nrrd")), Report())
    labels = read_labels(masked["output"]).array
    assert labels.any() and not labels[mask == 0].any()
    by_hand = segment(image, tiny_bundle, Roi.from_mask(image.with_array(mask)), "cpu")
    np.testing.assert_array_equal(by_hand.labels.array, labels)


def test_only_the_structures_asked_for(head, tiny_bundle):
    full = read_labels(run(request_for(head, tiny_bundle), Report())["output"]).array
    result = run(request_for(head, tiny_bundle, labels=["Posterior"]), Report())
    np.testing.assert_array_equal(read_labels(result["output"]).array, np.where(full == 2, 2, 0))
    assert [s["name"] for s in result["segments"]] == ["Posterior"]
    assert not sitk.ReadImage(result["output"]).HasMetaDataKey("Segment1_Name")


def test_the_report_counts_windows_and_cancelling_writes_nothing(head, tiny_bundle):
    events = []
    run(request_for(head, tiny_bundle), Report(events.append))
    progress = [e for e in events if e["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["of"] > 1
    (head.parent / "out.seg.nrrd").unlink()

    def stop(event):
        if event["event"] == "progress" and event["done"] == 2:
            report.cancel()

    report = Report(stop)
    with pytest.raises(Cancelled):
        run(request_for(head, tiny_bundle), report)
    assert [p.name for p in head.parent.iterdir()] == ["head.nii.gz"]


def test_a_warm_second_run_is_the_same_and_sees_a_changed_image(head, tiny_bundle):
    warm = {}
    first = run(request_for(head, tiny_bundle), Report(), warm)
    labels = read_labels(first["output"]).array
    second = run(request_for(head, tiny_bundle), Report(), warm)
    np.testing.assert_array_equal(read_labels(second["output"]).array, labels)
    assert second["seconds"]["load"] < first["seconds"]["load"] / 5
    assert second["seconds"]["read"] < first["seconds"]["read"] / 2
    image = read_volume(head)
    sitk.WriteImage(image.with_array(-image.array).to_sitk(), str(head))
    third = run(request_for(head, tiny_bundle), Report(), warm)
    assert (read_labels(third["output"]).array != labels).any()
    centre = (image.world_from_index() @ [32, 30, 20, 1])[:3]
    bounds = np.stack([centre - 8, centre + 8], 1).ravel().tolist()
    boxed = run(request_for(head, tiny_bundle, roi=bounds), Report(), warm)
    assert boxed["segments"] != third["segments"]


def test_a_ct_from_dicom(shared, tiny_bundle, tmp_path):
    folder = shared / "data" / "ct_dicom"
    image = read_volume(folder)
    centre = (image.world_from_index() @ [256, 256, 10, 1])[:3]
    bounds = np.stack([centre - 12, centre + 12], 1).ravel().tolist()
    request = {"input": str(folder), "model": str(tiny_bundle), "output": str(tmp_path / "ct.seg.nrrd"), "roi": bounds}
    result = run(request, Report())
    assert result["size"] == [512, 512, 20] and read_labels(result["output"]).same_grid(image)


def test_thick_slices_and_absent_structures_are_warned_about(head, tiny_bundle_data, tiny_bundle, tmp_path):
    preprocessing = {**tiny_bundle_data["preprocessing"], "spacing_mm": [0.4, 0.4, 0.4]}
    inference = {**tiny_bundle_data["inference"], "min_component_mm3": 1e9}
    data = {**tiny_bundle_data, "preprocessing": preprocessing, "inference": inference}
    bundle = write_bundle(tmp_path / "strict", data, open_bundle(tiny_bundle).weights_path)
    image = read_volume(head)
    centre = (image.world_from_index() @ [32, 30, 20, 1])[:3]
    events = []
    roi = np.stack([centre - 4, centre + 4], 1).ravel().tolist()
    result = run(request_for(head, bundle.folder, roi=roi), Report(events.append))
    assert "coarser" in result["warnings"][0] and "Nothing was found of: Anterior, Posterior." in result["warnings"]
    assert [e["text"] for e in events if e.get("level") == "warning"] == result["warnings"]
    assert not read_labels(result["output"]).array.any()
    assert sitk.ReadImage(result["output"]).GetMetaData("Segment0_Extent") == "0 -1 0 -1 0 -1"


def test_without_output_nothing_is_written(head, tiny_bundle):
    result = run(request_for(head, tiny_bundle, output=None), Report())
    assert result["output"] is None and [p.name for p in head.parent.iterdir()] == ["head.nii.gz"]


def test_a_model_for_two_images_refuses_one(head, tiny_bundle_data, tmp_path):
    network = {**tiny_bundle_data["network"], "in_channels": 2}
    inputs = [{"name": name, "modality": "MR", "description": name} for name in ("T1", "T2")]
    from MambaSegLib.networks import create

    weights = {k: v.numpy() for k, v in create("mm_unet_test", 2, 3).state_dict().items()}
    bundle = write_bundle(tmp_path / "two", {**tiny_bundle_data, "network": network, "inputs": inputs}, weights)
    with pytest.raises(UserError, match=r"expects 2 input image.*T1, T2"):
        segment(read_volume(head), bundle, device="cpu")


def test_many_small_components_all_go():
    """Islands of few voxels in one another's neighbourhood, many times: what is compared must still be in memory."""
    for seed in range(20):
        array = (np.random.default_rng(seed).random((20, 60, 60)) < 0.01).astype(np.uint8)
        labels = Volume(array * (1 + seed % 2), (0.98, 0.98, 2.0))
        assert remove_small_components(labels, 100).array.max() == 0


def test_small_components_go_and_large_ones_stay():
    array = np.zeros((20, 20, 20), np.uint8)
    array[2:6, 2:6, 2:6] = 1  # 64 voxels
    array[10, 10, 10:13] = 1  # 3 voxels
    array[15:17, 15:17, 15:17] = 2  # 8 voxels
    array[17, 17, 17] = 2  # touches by a corner only
    labels = Volume(array, (1, 1, 2))
    kept = remove_small_components(labels, 16).array
    assert (kept == 1).sum() == 64 and (kept == 2).sum() == 8
    assert (remove_small_components(labels, 0).array == array).all()
    image = np.where(array == 1, 7.0, 3.0)
    rows = measure(labels, [Label(1, "a", (1, 2, 3), {}), Label(7, "b", (1, 2, 3), {})], image)
    assert [(r["voxels"], r["volume_ml"], r["mean_intensity"]) for r in rows] == [(67, 0.134, 7.0), (0, 0.0, None)]


def test_classes_become_the_values_of_their_labels():
    labels = [Label(17, "a", (0, 0, 0), {}), Label(300, "b", (0, 0, 0), {})]
    classes = np.array([0, 1, 2], np.uint8)
    assert to_label_values(classes, labels, labels).tolist() == [0, 17, 300]
    assert to_label_values(classes, labels, labels[1:]).tolist() == [0, 0, 300]
