"""A small data set that can be learned in seconds: bright and dark balls in noise."""

import json
import sys
from pathlib import Path

import pytest
from balls_data import write_balls

sys.path.append(str(Path(__file__).resolve().parents[2] / "Training"))

INFERENCE = {"patch": [16, 16, 16], "overlap": 0.25, "mirror_axes": [], "margin_mm": 0, "min_component_mm3": 0}
LABELS = [
    {"value": 1, "name": "Bright ball", "color": [255, 0, 0], "terminology": {}},
    {"value": 2, "name": "Dark ball", "color": [0, 0, 255], "terminology": {}},
]


@pytest.fixture(scope="session")
def balls(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("balls")
    write_balls(folder, 12)
    return folder


@pytest.fixture
def config_file(balls, tmp_path):
    """Writes a configuration for the toy network on the balls; keyword arguments override its fields."""

    def write(**changes) -> Path:
        config = {
            "model": {
                "id": "balls",
                "version": "1.0.0",
                "title": "Balls",
                "description": "Two balls",
                "keywords": ["test"],
                "labels": LABELS,
                "inputs": [{"name": "image", "modality": "OT", "description": "noise"}],
                "intended_use": "tests",
                "limitations": "balls only",
                "licence": {"weights": "CC0", "data": "CC0", "code": "Apache-2.0"},
            },
            "network": "mm_unet_test",
            "preprocessing": {"orientation": "LPS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}},
            "inference": INFERENCE,
            "data": str(balls),
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
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config | changes))
        return path

    return write
