"""Writes models with random weights for the panel's tests: python make_models.py FOLDER. Unlike them it needs torch."""

import sys
from pathlib import Path

import torch

from MambaSegLib.bundle import write_bundle
from MambaSegLib.networks import create

_SOURCE = {"parent": None, "data": "none", "cases": [], "validation_cases": [], "seed": 0, "date": "2026-01-01"}
_RUN = {"code_version": "0.1.0", "config": {}, "train_time_s": 0, "curve": []}


def _label(value: int, name: str, color: list[int], modifier: list[str] | None = None) -> dict:
    kind = ["SCT", "5366008", "Hippocampus"]
    category = ["SCT", "123037004", "Anatomical Structure"]
    terminology = {"category": category, "type": kind, "type_modifier": modifier}
    return {"value": value, "name": name, "color": color, "terminology": terminology}


def bundle_data(model_id: str, title: str, patch: int, overlap: float) -> dict:
    """bundle.json of a model of the hippocampus for 1 mm T1 images."""
    return {
        "schema_version": 1,
        "id": model_id,
        "version": "1.0.0",
        "title": title,
        "description": "A network with random weights: it draws noise, always the same.",
        "keywords": ["brain", "test"],
        "network": {"name": "mm_unet_test", "in_channels": 1, "out_channels": 3, "hyper": {}},
        "labels": [
            _label(1, "Anterior hippocampus", [220, 120, 60], ["SCT", "255549009", "Anterior"]),
            _label(2, "Posterior hippocampus", [60, 120, 220]),
        ],
        "inputs": [{"name": "T1", "modality": "MR", "description": "T1-weighted"}],
        "preprocessing": {"orientation": "RAS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}},
        "inference": {
            "patch": [patch] * 3,
            "overlap": overlap,
            "mirror_axes": [],
            "min_component_mm3": 0,
            "margin_mm": 4,
        },
        "metrics": {
            "protocol": "Held-out cases of no data set",
            "values": [{"structure": "Anterior hippocampus", "name": "Dice", "mean": 0.011, "sd": 0.002, "n": 3}],
        },
        "intended_use": "Tests of the panel only.",
        "limitations": "Finds nothing real.",
        "licence": {"weights": "Apache-2.0", "data": "none", "code": "Apache-2.0"},
        "provenance": {**_SOURCE, **_RUN},
    }


def main(folder: Path) -> None:
    torch.manual_seed(0)
    weights = {name: tensor.numpy() for name, tensor in create("mm_unet_test", 1, 3).state_dict().items()}
    write_bundle(folder / "quick", bundle_data("quick", "Quick hippocampus", 32, 0.0), weights)
    # Many small windows: long enough to be watched, and to be cancelled or killed.
    write_bundle(folder / "slow", bundle_data("slow", "Slow hippocampus", 16, 0.5), weights)
    write_bundle(folder / "endless", bundle_data("endless", "Endless hippocampus", 16, 0.8), weights)
    # Two images of one head: what it finds depends on both, and on their order.
    pair = bundle_data("pair", "Pair of images", 32, 0.25)
    pair["network"]["in_channels"] = 2
    pair["inputs"].append({"name": "T2", "modality": "MR", "description": "T2-weighted"})
    weights = {name: tensor.numpy() for name, tensor in create("mm_unet_test", 2, 3).state_dict().items()}
    write_bundle(folder / "pair", pair, weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
