"""A model as a MONAI bundle: configuration, weights, card, and in ``scripts/`` the code that it needs.

The form is that of MONAI's model zoo (metadata.json, inference.json, model.pt), which MONAI Label and Deploy read.
"""

import ast
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from . import __version__
from .bundle import ModelBundle
from .inference import weights_of
from .networks import spec
from .preprocessing import recipe_of

PACKAGE = Path(__file__).resolve().parent
VENDORED = "scripts.MambaSegLib"
ROOTS = ("monai_bridge.py", "networks/__init__.py")
LICENCE = """\
Weights: {weights}
Data they were trained on: {data}
Code in scripts/: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0; it is part of SlicerMambaSegmentation.
"""
EVALUATION = {  # how 'python -m monai.bundle run' segments the images of a folder
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/images'",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "dataset": {
        "_target_": "Dataset",
        "data": "$[{'image': i} for i in sorted(glob.glob(@dataset_dir + '/*'))]",
        "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
    "handlers": [
        {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        }
    ],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    },
    "run": ["$@evaluator.run()"],
}


def write_monai_bundle(bundle: ModelBundle, output: Path) -> None:
    """Write the folder, complete or not at all.

    Args:
        bundle: the model.
        output: a new folder.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        for name in ("configs", "models", "docs", "scripts"):
            (temporary / name).mkdir()
        _write_json(temporary / "configs" / "metadata.json", metadata(bundle))
        _write_json(temporary / "configs" / "inference.json", inference_config(bundle))
        torch.save(weights_of(bundle), temporary / "models" / "model.pt")
        (temporary / "docs" / "README.md").write_text(bundle.card(), encoding="utf-8")
        (temporary / "LICENSE").write_text(LICENCE.format(**bundle.data["licence"]), encoding="utf-8")
        _copy_code(temporary / "scripts")
        os.chmod(temporary, 0o755)
        os.rename(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_code(scripts: Path) -> None:
    (scripts / "__init__.py").write_text("")
    for source in vendored_files():
        target = scripts / PACKAGE.name / source.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def vendored_files() -> list[Path]:
    """The library's files that ``ROOTS`` import, directly or not."""
    found, open_ends = set(), [PACKAGE / name for name in ROOTS]
    while open_ends:
        path = open_ends.pop()
        if path not in found:
            found.add(path)
            open_ends += _imported(path)
    return sorted(found)


def _imported(path: Path) -> list[Path]:
    """Files of this package that a file imports relatively, with the packages that they stand in."""
    files = [PACKAGE / "__init__.py", path.parent / "__init__.py"]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for place in (folder, *(folder / alias.name for alias in node.names)):
                files += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return files


def inference_config(bundle: ModelBundle) -> dict:
    """``configs/inference.json``."""
    network = bundle.network
    built = {"name": network["name"], "in_channels": network["in_channels"], "out_channels": network["out_channels"]}
    bridge = f"{VENDORED}.monai_bridge"
    before = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
        {"_target_": f"{bridge}.Prepare", "recipe": "@recipe"},
    ]
    after = [
        {"_target_": f"{bridge}.Restore", "recipe": "@recipe"},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "resample": False},
    ]
    return EVALUATION | {
        "recipe": recipe_of(bundle),
        "network_def": {"_target_": f"{VENDORED}.networks.create", **built, **network.get("hyper", {})},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {"_target_": f"{bridge}.Inferer", "recipe": "@recipe", "dims": spec(network["name"]).dims},
        "postprocessing": {"_target_": "Compose", "transforms": after},
    }


def metadata(bundle: ModelBundle) -> dict:
    """``configs/metadata.json``."""
    data = bundle.data
    channels = {str(i): item["name"] for i, item in enumerate(bundle.inputs)}
    patch = list(bundle.inference["patch"])
    classes = {"0": "background"} | {str(label.value): label.name for label in bundle.labels}
    modality = ", ".join(sorted({item["modality"] for item in bundle.inputs if item["modality"]})) or "n/a"
    image = {"type": "image", "format": "magnitude", "modality": modality, "num_channels": len(channels)}
    labels = {"type": "image", "format": "segmentation", "num_channels": len(classes), "dtype": "uint8"}
    shape = {"spatial_shape": patch, "is_patch_data": True}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": data["version"],
        "changelog": {data["version"]: f"exported by SlicerMambaSegmentation {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"scipy": "", "safetensors": ""},
        "name": data["title"],
        "task": "segmentation",
        "description": data["description"] or data["title"],
        "authors": "see docs/README.md",
        "copyright": data["licence"]["weights"],
        "data_source": data["licence"]["data"],
        "intended_use": data["intended_use"],
        "network_data_format": {
            "inputs": {"image": {**image, **shape, "dtype": "float32", "value_range": [], "channel_def": channels}},
            "outputs": {"pred": {**labels, **shape, "value_range": [0, len(classes) - 1], "channel_def": classes}},
        },
    }
