"""A small data set that can be learned in seconds: bright and dark balls in noise."""

import json
import sys
from pathlib import Path

import pytest
from balls_data import balls_config, write_balls

sys.path.append(str(Path(__file__).resolve().parents[2] / "Training"))


@pytest.fixture(scope="session")
def balls(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("balls")
    write_balls(folder, 12)
    return folder


@pytest.fixture
def config_file(balls, tmp_path):
    """Writes a configuration for the toy network on the balls; keyword arguments override its fields."""

    def write(**changes) -> Path:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(balls_config(balls) | changes))
        return path

    return write
