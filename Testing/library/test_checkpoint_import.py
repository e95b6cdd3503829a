"""Authors' checkpoints, made here in their naming: nnU-Net's dictionary with aliases and numpy numbers, and plain."""

import os
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch

from MambaSegLib.checkpoint_import import import_checkpoint, read_checkpoint
from MambaSegLib.errors import UserError
from MambaSegLib.networks import create, spec

CONV_NORM = re.compile(r"(.*(?:conv1|conv2|convs\.\d+|skip\.\d+))\.(conv|norm)\.(weight|bias)")
TOY_PATCH = (8, 8, 8)


def in_nnunet_naming(state: dict) -> dict:
    """Every tensor under all the names that nnU-Net's checkpoints give it."""
    named = dict(state)
    for key, tensor in state.items():
        if match := CONV_NORM.fullmatch(key):
            part, kind, what = match.groups()
            named[f"{part}.all_modules.{0 if kind == 'conv' else 1}.{what}"] = tensor
    return named | {f"decoder.{key}": t for key, t in named.items() if key.startswith("encoder.")}


def nnunet_checkpoint(network, name, dialect="old") -> dict:
    """The dictionary that nnU-Net's trainer saves."""
    dims = spec(name).dims
    strides = [[s] * dims if isinstance(s, int) else list(s) for s in spec(name).hyper["strides"]]
    child = {"inherits_from": "3d_fullres", "batch_size": 2}
    parent = {"patch_size": list(spec(name).hyper.get("patch", TOY_PATCH[:dims]))}
    if dialect == "old":
        parent["pool_op_kernel_sizes"] = strides
    else:
        parent["architecture"] = {"arch_kwargs": {"strides": strides}}
    plans = {"configurations": {"3d_fullres": parent, "3d_fullres_bs4": child}}
    return {
        "network_weights": in_nnunet_naming(network.state_dict()),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0, 1]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": np.array([0.01, 0.009], dtype=np.float32)},
        "_best_ema": np.float32(0.7),
        "current_epoch": np.int64(3),
        "init_args": {
            "plans": plans,
            "configuration": "3d_fullres_bs4",
            "dataset_json": {"labels": {"background": 0, "organ": 1}},
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainerSomething",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


def rename_numpy(path, numpy_major: int):
    """Write numpy's names in the pickle as this major version of numpy does."""
    core = b"numpy.core" if numpy_major == 1 else b"numpy._core"
    renamed = path.with_suffix(".renamed")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(renamed, "w", zipfile.ZIP_STORED) as target:
        for entry in source.namelist():
            data = source.read(entry)
            if entry.endswith("data.pkl"):
                assert b"numpy._core" in data or b"numpy.core" in data
                data = re.sub(rb"cnumpy\._?core\.", b"c" + core + b".", data)
            target.writestr(entry, data)
    shutil.move(renamed, path)


NNUNET_TOYS = (
    "umamba_bot_test",
    "umamba_enc_test",
    "umamba_adj_test",
    "umamba2_bot_test",
    "plain_unet_test",
    "resenc_unet_test",
)


@pytest.mark.parametrize("dialect", ["old", "new"])
@pytest.mark.parametrize("name", NNUNET_TOYS)
def test_nnunet_form_is_recognised_and_rebuilt(tmp_path, name, dialect):
    torch.manual_seed(0)
    network = create(name, 2, 3).eval()
    path = tmp_path / "checkpoint_final.pth"
    torch.save(nnunet_checkpoint(network, name, dialect), path)
    imported = import_checkpoint(path, trust=True)
    assert imported.name == name.removesuffix("_test")
    assert (imported.in_channels, imported.out_channels) == (2, 3)
    image = torch.randn(1, 2, 8, 8, 16)
    with torch.inference_mode():
        assert torch.equal(imported.network(image), network(image))
    again = create(imported.name, imported.in_channels, imported.out_channels, **imported.hyper)
    again.load_state_dict(imported.network.state_dict())


@pytest.mark.parametrize("numpy_major", [1, 2])
def test_numbers_of_either_numpy(tmp_path, numpy_major):
    path = tmp_path / "checkpoint_best.pth"
    torch.save(nnunet_checkpoint(create("plain_unet_test", 1, 2), "plain_unet_test"), path)
    rename_numpy(path, numpy_major)
    checkpoint = read_checkpoint(path, trust=True)
    assert checkpoint.trainer == "nnUNetTrainerSomething"
    assert checkpoint.plans["patch_size"] == list(TOY_PATCH)
    assert checkpoint.dataset["labels"] == {"background": 0, "organ": 1}
    assert set(checkpoint.weights) == set(create("plain_unet_test", 1, 2).state_dict())


def test_a_pickle_needs_trust(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(create("plain_unet_test", 1, 2).state_dict(), path)
    with pytest.raises(UserError, match="pickle") as error:
        import_checkpoint(path)
    assert "trust" in error.value.hint


class Attack:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_refused_even_with_trust(tmp_path, form):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    content = {"network_weights": {}, "logging": Attack(f"touch {trace}")}
    if form == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"weights\.pth") as error:
        import_checkpoint(path, trust=True)
    assert "system" in error.value.message
    assert not trace.exists()


@pytest.mark.parametrize("fault", ["missing", "left over", "shape"])
def test_nothing_is_loaded_in_part(tmp_path, fault):
    state = {f"module.vmunet.{key}": t for key, t in create("vm_unet_test", 1, 2).state_dict().items()}
    key = "module.vmunet.patch_embed.proj.weight"
    if fault == "missing":
        del state[key]
    elif fault == "left over":
        state["module.vmunet.extra.weight"] = torch.zeros(1)
    else:
        state[key] = torch.zeros(8, 5, 4, 4)
    path = tmp_path / "best.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match=r"patch_embed\.proj\.weight|extra\.weight"):
        import_checkpoint(path, "vm_unet_test", 1, 2, trust=True)


PREFIX = {"vm_unet_test": "vmunet.", "mamba_unet_test": "mamba_unet."}
PLAIN_TOYS = (
    "vm_unet_test",
    "mamba_unet_test",
    "ultralight_vm_unet_test",
    "swin_umamba_test",
    "swin_umamba_d_test",
    "segmamba_test",
    "lightm_unet_test",
)


@pytest.mark.parametrize("name", PLAIN_TOYS)
def test_plain_state_dicts(tmp_path, name):
    torch.manual_seed(0)
    network = create(name, 3, 2)
    path = tmp_path / "best.pth"
    torch.save({"model": {PREFIX.get(name, "") + key: t for key, t in network.state_dict().items()}}, path)
    imported = import_checkpoint(path, name, 3, 2, trust=True)
    for key, tensor in network.state_dict().items():
        assert torch.equal(imported.network.state_dict()[key], tensor), key


def test_nnmamba_shares_a_layer_between_blocks(tmp_path):
    """Its authors' state dict holds that layer once per block; ours once per stage."""
    network = create("nnmamba_test", 1, 2, blocks=3)
    state = {}
    for key, tensor in network.state_dict().items():
        key = key.replace(".blocks.", ".")
        names = (
            [key.replace(".mamba_layer.", f".{i}.mamba_layer.") for i in (1, 2)] if ".mamba_layer." in key else [key]
        )
        state |= dict.fromkeys(names, tensor)
    path = tmp_path / "best.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match="does not fit"):  # recognised: the full width was tried
        import_checkpoint(path, trust=True)
    imported = import_checkpoint(path, hyper={"width": 4, "states": 2}, trust=True)
    assert imported.name == "nnmamba"
    assert imported.network.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize("name", PLAIN_TOYS)
def test_the_family_is_recognised(tmp_path, name):
    """A toy is not the variant that its names tell; the refusal names both channels and the first misfit."""
    path = tmp_path / "best.pth"
    torch.save({PREFIX.get(name, "") + key: t for key, t in create(name, 3, 2).state_dict().items()}, path)
    with pytest.raises(UserError, match="does not fit this network"):
        import_checkpoint(path, trust=True)


def test_differing_copies_are_refused(tmp_path):
    state = in_nnunet_naming(create("resenc_unet_test", 1, 2).state_dict())
    key = "decoder.encoder.stem.convs.0.conv.weight"
    state[key] = state[key] + 1
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": state}, path)
    with pytest.raises(UserError, match="Two copies"):
        import_checkpoint(path, trust=True)


def test_what_weights_do_not_tell_is_asked_for(tmp_path):
    """U-Mamba upsamples without weights: without the plan its strides are unknown, and never guessed."""
    path = tmp_path / "weights.pth"
    network = create("umamba_enc_test", 1, 2).eval()
    torch.save(in_nnunet_naming(network.state_dict()), path)
    with pytest.raises(UserError, match="strides, patch"):
        import_checkpoint(path, trust=True)
    hyper = {"strides": (1, 2, 2), "patch": TOY_PATCH}
    imported = import_checkpoint(path, hyper=hyper, trust=True)
    image = torch.randn(1, 1, *TOY_PATCH)
    assert torch.equal(imported.network(image), network(image))


def test_unknown_and_unreadable_files(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"something.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="network"):
        import_checkpoint(path, trust=True)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError):
        import_checkpoint(path, trust=True)
    with pytest.raises(UserError, match="no weights file"):
        import_checkpoint(tmp_path / "absent.pth", trust=True)


def test_trainers_that_change_the_image_are_refused(tmp_path):
    content = nnunet_checkpoint(create("umamba_adj_test", 1, 2), "umamba_adj_test")
    content["trainer_name"] = "nnUNetTrainerUmambaSinNorm"
    path = tmp_path / "checkpoint_final.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="SinNorm"):
        import_checkpoint(path, trust=True)
