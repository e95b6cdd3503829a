"""Writes weights as others leave them for the panel's tests: python make_weights.py FOLDER. It needs torch.

trained/...__nnUNetPlans__3d_fullres  a folder of nnU-Net with a tiny U-Mamba that draws noise
plain.safetensors                     weights of one of our networks, which tell nothing of themselves
evil.pth                              a pickle that would make the folder 'harm' beside it
child                                 a version of 'quick' whose history names a patient
"""

import json
import pickle
import re
import sys
from pathlib import Path

import torch
from make_models import bundle_data
from safetensors.torch import save_file

from MambaSegLib.bundle import write_bundle
from MambaSegLib.networks import create, spec

_CONV_NORM = re.compile(r"(.*(?:conv1|conv2|convs\.\d+|skip\.\d+))\.(conv|norm)\.(weight|bias)")
_NAME, _PATCH = "plain_unet_test", [32, 32, 32]


def trained(folder: Path) -> None:
    """As nnU-Net's trainer leaves it, every tensor under all of its names."""
    state = create(_NAME, 1, 3).state_dict()
    named = dict(state)
    for key, tensor in state.items():
        if match := _CONV_NORM.fullmatch(key):
            part, kind, what = match.groups()
            named[f"{part}.all_modules.{0 if kind == 'conv' else 1}.{what}"] = tensor
    named |= {f"decoder.{key}": tensor for key, tensor in named.items() if key.startswith("encoder.")}
    strides = [[step] * 3 if isinstance(step, int) else list(step) for step in spec(_NAME).hyper["strides"]]
    plan = {"patch_size": _PATCH, "spacing": [1.0, 1.0, 1.0], "normalization_schemes": ["ZScoreNormalization"]}
    plan |= {"use_mask_for_norm": [False], "architecture": {"arch_kwargs": {"strides": strides}}}
    plans = {"dataset_name": "Dataset004_Knee", "transpose_forward": [0, 1, 2], "image_reader_writer": "SimpleITKIO"}
    plans |= {"configurations": {"3d_fullres": plan}}
    dataset = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "femur": 1, "tibia": 2}}
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    settings = {"plans": plans, "configuration": "3d_fullres", "dataset_json": dataset}
    content = {"network_weights": named, "init_args": settings, "trainer_name": "nnUNetTrainer"}
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")


class Evil:
    """What a pickle may do to who reads it with the usual function."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self._folder),)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    trained(folder / "trained" / "Dataset004_Knee" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    save_file(create("mm_unet", 1, 3).state_dict(), folder / "plain.safetensors")
    (folder / "evil.pth").write_bytes(pickle.dumps({"weights": Evil(folder / "harm")}))
    data = bundle_data("quick", "Quick hippocampus", 32, 0.0) | {"version": "1.1.0"}
    history = {"parent": "quick", "lineage": "quick", "cases": ["Smith_John_1950"], "data": "/data/patients"}
    data["provenance"] = data["provenance"] | history
    weights = {name: tensor.numpy() for name, tensor in create("mm_unet_test", 1, 3).state_dict().items()}
    write_bundle(folder / "child", data, weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
