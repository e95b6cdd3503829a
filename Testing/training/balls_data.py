"""Synthetic cases in Decathlon layout."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_balls(folder: Path, count: int) -> None:
    """Decathlon layout: images of 20 x 22 x 18 voxels with a bright and a dark ball each."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    z, y, x = np.meshgrid(*(np.arange(n) for n in (20, 22, 18)), indexing="ij")
    for i in range(count):
        random = np.random.default_rng(i)
        image, label = random.normal(0, 0.3, z.shape), np.zeros(z.shape, np.uint8)
        for value, brightness, low in ((1, 2.0, 5), (2, -2.0, 13)):
            centre = random.uniform((low - 1, 6, 6), (low + 2, 15, 12))
            ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 4**2
            image[ball], label[ball] = image[ball] + brightness, value
        for kind, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", label)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / kind / f"case_{i:02d}.nii.gz"))


def balls_config(data: Path) -> dict:
    """Configuration of a run of six steps with the toy network."""
    return {
        "model": {
            "id": "balls",
            "version": "1.0.0",
            "title": "Balls",
            "description": "Two balls",
            "keywords": ["test"],
            "labels": [
                {"value": 1, "name": "Bright ball", "color": [255, 0, 0], "terminology": {}},
                {"value": 2, "name": "Dark ball", "color": [0, 0, 255], "terminology": {}},
            ],
            "inputs": [{"name": "image", "modality": "OT", "description": "noise"}],
            "intended_use": "tests",
            "limitations": "balls only",
            "licence": {"weights": "CC0", "data": "CC0", "code": "Apache-2.0"},
        },
        "network": "mm_unet_test",
        "preprocessing": {"orientation": "LPS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}},
        "inference": {
            "patch": [16, 16, 16],
            "overlap": 0.25,
            "mirror_axes": [],
            "margin_mm": 0,
            "min_component_mm3": 0,
        },
        "data": str(data),
        "validation_share": 0.3,
        "foreground_share": 0.5,
        "steps": 6,
        "batch": 2,
        "learning_rate": 0.01,
        "warmup_steps": 1,
        "ema_decay": 0.9,
        "threads": 1,
        "seed": 3,
        "validate_every": 3,
        "checkpoint_every": 1,
    }
