"""``mambaseg import``: folders and files made here as nnU-Net and the authors leave them, to a model that segments."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_checkpoint_import import PREFIX, in_nnunet_naming, nnunet_checkpoint

from MambaSegLib import cli, import_model, import_preview
from MambaSegLib.bundle import open_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.inference import load_network
from MambaSegLib.job import Report
from MambaSegLib.networks import create

CT = {"percentile_00_5": -900.0, "percentile_99_5": 1200.0, "mean": 90.0, "std": 300.0}
CONFIGURATION = {
    "spacing": [3.0, 0.8, 0.8],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
}
SETTINGS = {
    "preprocessing": {"orientation": "RAS", "spacing_mm": [1, 1, None], "normalisation": {"name": "zscore"}},
    "inference": {"patch": [32, 32]},
}


def trained_folder(place, name="umamba_enc_test", folds=("0",), trainer="nnUNetTrainerUMambaEnc", **plan):
    """<Dataset>/<trainer>__nnUNetPlans__3d_fullres as nnU-Net leaves it; returns it and the network."""
    torch.manual_seed(3)
    network = create(name, 1, 3).eval()
    content = nnunet_checkpoint(network, name) | {"trainer_name": trainer}
    plans = content["init_args"]["plans"] | {"dataset_name": "Dataset701_AbdomenCT", "plans_name": "nnUNetPlans"}
    plans |= {"transpose_forward": [0, 1, 2], "image_reader_writer": "SimpleITKIO"} | plan.pop("top", {})
    plans["foreground_intensity_properties_per_channel"] = {"0": CT}
    plans["configurations"]["3d_fullres"] |= CONFIGURATION | plan
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2}}
    content["init_args"] |= {"plans": plans, "configuration": "3d_fullres", "dataset_json": dataset}
    folder = place / "Dataset701_AbdomenCT" / f"{trainer}__nnUNetPlans__3d_fullres"
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder, network


def do_import(checkpoint, place, **more):
    return import_model.run({"checkpoint": str(checkpoint), "output": str(place / "models"), **more}, Report())


def test_a_trained_folder_becomes_a_model(tmp_path):
    folder, network = trained_folder(tmp_path)
    result = do_import(folder.parent, tmp_path, trust=True)
    bundle = open_bundle(result["bundle"])
    assert bundle.network["name"] == result["network"] == "umamba_enc"
    assert [label.name for label in bundle.labels] == ["liver", "spleen"]
    assert bundle.inputs == [{"name": "CT", "modality": "CT", "description": ""}]
    recipe = bundle.preprocessing
    assert recipe["spacing_mm"] == [0.8, 0.8, 3.0] and recipe["orientation"] is None
    assert recipe["normalisation"] == {"name": "ct_zscore", "lo": -900, "hi": 1200, "mean": 90, "sd": 300}
    assert bundle.inference["patch"] == [8, 8, 8] and bundle.inference["mirror_axes"] == []
    assert bundle.data["provenance"]["config"]["imported_from"]["trainer"] == "nnUNetTrainerUMambaEnc"
    loaded = load_network(bundle, torch.device("cpu"))
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network(image))


def test_plans_beside_a_file_without_them(tmp_path):
    """And a 2-D plan: slices along the axis that nnU-Net moves to the front, voxels of that axis as they come."""
    plan = {"spacing": [0.8, 0.8], "patch_size": [64, 64], "normalization_schemes": ["ZScoreNormalization"]}
    plan |= {"use_mask_for_norm": [True], "top": {"transpose_forward": [1, 0, 2]}}
    folder, network = trained_folder(tmp_path, "umamba_bot_test", **plan)
    torch.save({"network_weights": in_nnunet_naming(network.state_dict())}, folder / "fold_0" / "checkpoint_final.pth")
    bundle = open_bundle(do_import(folder / "fold_0" / "checkpoint_final.pth", tmp_path, trust=True)["bundle"])
    assert bundle.preprocessing["spacing_mm"] == [0.8, 0.8, None]
    assert bundle.preprocessing["normalisation"] == {"name": "content_zscore", "masked": True}
    assert bundle.inference["slice_axis"] == 1 and bundle.inference["patch"] == [64, 64]


def test_mirroring_and_folds(tmp_path):
    folder, _ = trained_folder(tmp_path, folds=("0", "1", "all"))
    result = do_import(folder, tmp_path, trust=True, mirror=True)
    assert open_bundle(result["bundle"]).inference["mirror_axes"] == [0, 1, 2]
    assert any("Only fold all" in note for note in result["notes"])
    with pytest.raises(UserError, match="no fold '4'"):
        do_import(folder, tmp_path, trust=True, fold="4")


@pytest.mark.parametrize(
    "change,complaint",
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "overlapping regions"),
        ({"labels": {"background": 0, "liver": 1}}, "Named 1 structure"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "names 2 channels"),
    ],
)
def test_what_contradicts_or_is_not_supported_is_refused(tmp_path, change, complaint):
    folder, network = trained_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": in_nnunet_naming(network.state_dict())}, path)
    (folder / "dataset.json").write_text(json.dumps(json.loads((folder / "dataset.json").read_text()) | change))
    with pytest.raises(UserError, match=complaint):
        do_import(folder, tmp_path, trust=True)
    assert not list((tmp_path / "models").glob("[!.]*"))


@pytest.mark.parametrize(
    "plan,complaint",
    [
        ({"normalization_schemes": ["NoiseNormalization"]}, "NoiseNormalization"),
        ({"previous_stage": "3d_lowres"}, "refines the result"),
        ({"top": {"transpose_forward": [2, 1, 0]}}, "reorders the axes"),
    ],
)
def test_plans_that_cannot_be_followed_are_refused(tmp_path, plan, complaint):
    folder, _ = trained_folder(tmp_path, **plan)
    with pytest.raises(UserError, match=complaint):
        do_import(folder, tmp_path, trust=True)


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_a_plain_file_with_settings(tmp_path, container):
    """VM-UNet's file for ISIC: one class, a sigmoid, which becomes background and structure."""
    torch.manual_seed(1)
    network = create("vm_unet_test", 3, 1).eval()
    state = {f"module.vmunet.{key}": tensor for key, tensor in network.state_dict().items()}
    torch.save({container: state} if container else state, tmp_path / "best.pth")
    more = {"trust": True, "network": "vm_unet_test", "in_channels": 3, "labels": ["lesion"]}
    with pytest.raises(UserError, match="nothing about voxel size"):
        do_import(tmp_path / "best.pth", tmp_path, **more)
    result = do_import(tmp_path / "best.pth", tmp_path, **more, settings=SETTINGS | {"title": "Lesions"})
    bundle = open_bundle(result["bundle"])
    assert (bundle.title, bundle.network["out_channels"]) == ("Lesions", 2)
    image = torch.randn(1, 3, 1, 32, 32)
    with torch.inference_mode():
        both = load_network(bundle, torch.device("cpu"))(image).softmax(1)[:, 1:]
        assert torch.allclose(both, network(image[:, :, 0]).sigmoid()[:, :, None], atol=1e-6)


def test_what_is_known_before(tmp_path):
    """The same is told of a folder as of its import; of a file only what its weights say."""
    folder, network = trained_folder(tmp_path)
    with pytest.raises(UserError, match="pickle"):
        import_preview.run({"checkpoint": str(folder)}, Report())
    found = import_preview.run({"checkpoint": str(folder), "trust": True}, Report())
    assert (found["network"], found["channels"], found["classes"], found["has_plan"]) == ("umamba_enc", 1, 3, True)
    assert found["labels"] == ["liver", "spleen"] and found["inputs"][0]["modality"] == "CT"
    assert found["dims"]["umamba_enc"] == 3 and found["dims"]["vm_unet"] == 2 and "vm_unet_test" not in found["dims"]
    torch.save(in_nnunet_naming(network.state_dict()), tmp_path / "plain.pth")
    plain = import_preview.run({"checkpoint": str(tmp_path / "plain.pth"), "trust": True}, Report())
    assert (plain["network"], plain["classes"], plain["labels"], plain["has_plan"]) == ("umamba_enc", 3, [], False)


def test_weights_that_tell_nothing(tmp_path):
    """Of a network of our own, trained elsewhere: what cannot be told may be said."""
    network = create("mm_unet_test", 2, 3)
    torch.save(network.state_dict(), tmp_path / "best.pth")
    found = import_preview.run({"checkpoint": str(tmp_path / "best.pth"), "trust": True}, Report())
    assert (found["network"], found["channels"], found["classes"]) == ("", 0, 0)
    settings = SETTINGS | {"inference": {"patch": [16, 16, 16]}}
    more = {"trust": True, "network": "mm_unet_test", "settings": settings, "labels": ["a", "b"]}
    with pytest.raises(UserError, match="number of channels or classes"):
        do_import(tmp_path / "best.pth", tmp_path, **more)
    result = do_import(tmp_path / "best.pth", tmp_path, **more, in_channels=2, out_channels=3)
    assert (result["channels"], result["classes"]) == (2, 3)


def test_two_models_never_get_one_id(tmp_path):
    folder, _ = trained_folder(tmp_path / "a")
    first = do_import(folder, tmp_path, trust=True)
    assert do_import(folder, tmp_path, trust=True)["bundle"] == first["bundle"]
    second = do_import(folder, tmp_path, trust=True, labels=["lung", "heart"])
    assert open_bundle(second["bundle"]).id == open_bundle(first["bundle"]).id + "-2"


def test_half_the_weights_are_no_model(tmp_path):
    state = create("vm_unet_test", 1, 2).state_dict()
    state = {PREFIX["vm_unet_test"] + key: t for key, t in state.items() if "layers.2" not in key}
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"layers\.2.* is missing"):
        do_import(tmp_path / "best.pth", tmp_path, trust=True, network="vm_unet_test", settings=SETTINGS)
    assert not (tmp_path / "models").exists()


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    for name in ("HOME", "XDG_DATA_HOME", "APPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    folder, _ = trained_folder(tmp_path)
    assert cli.main(["import", str(folder)]) == 2
    complaint = capsys.readouterr().err
    assert "pickle" in complaint and "--trust" in complaint
    assert cli.main(["import", str(folder), "--trust", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    array = np.random.default_rng(0).normal(100, 50, (6, 24, 24)).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 3.0))
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    arguments = ["segment", tmp_path / "ct.nrrd", "-m", result["id"], "-o", tmp_path / "labels.nrrd", "--device", "cpu"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert sitk.ReadImage(str(tmp_path / "labels.nrrd")).GetSize() == (24, 24, 6)
