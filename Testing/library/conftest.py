"""Fixtures for the library's tests: a complete model with a tiny network."""

from pathlib import Path

import pytest

from MambaSegLib import catalogue
from MambaSegLib.bundle import write_bundle


@pytest.fixture
def tiny_bundle_data() -> dict:
    """bundle.json of a hippocampus model with a toy network, for 1 mm T1 images."""
    tissue = {"category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "3710005", "Hippocampus"]}
    return {
        "schema_version": 1,
        "id": "tiny",
        "version": "1.0.0",
        "title": "Toy hippocampus",
        "description": "A network with random weights, for tests.",
        "keywords": ["toy"],
        "network": {"name": "mm_unet_test", "in_channels": 1, "out_channels": 3, "hyper": {}},
        "labels": [
            {"value": 1, "name": "Anterior", "color": [220, 120, 60], "terminology": {**tissue, "type_modifier": None}},
            {
                "value": 2,
                "name": "Posterior",
                "color": [60, 120, 220],
                "terminology": {**tissue, "type_modifier": None},
            },
        ],
        "inputs": [{"name": "T1", "modality": "MR", "description": "T1-weighted"}],
        "preprocessing": {"orientation": "RAS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}},
        "inference": {
            "patch": [32, 32, 32],
            "overlap": 0.25,
            "mirror_axes": [],
            "min_component_mm3": 0,
            "margin_mm": 4,
        },
        "metrics": {"protocol": "none", "values": []},
        "intended_use": "Tests only.",
        "limitations": "Finds nothing real.",
        "licence": {"weights": "Apache-2.0", "data": "none", "code": "Apache-2.0"},
        "provenance": {
            "parent": None,
            "data": "none",
            "cases": [],
            "validation_cases": [],
            "seed": 0,
            "date": "2026-01-01",
            "code_version": "0.1.0",
            "config": {},
            "train_time_s": 0,
            "curve": [],
        },
    }


@pytest.fixture
def tiny_bundle(tmp_path, tiny_bundle_data):
    """The folder of that model, with seeded random weights."""
    import torch  # here: tests of the torch-free modules run without it

    from MambaSegLib.networks import create

    torch.manual_seed(0)
    network = create("mm_unet_test", 1, 3)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return write_bundle(tmp_path / "tiny_model", tiny_bundle_data, weights).folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder of the user's models."""
    for name in ("HOME", "XDG_DATA_HOME", "APPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return catalogue.user_folder()


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    """The temporary folder of another computer, which `remote_cases.FAR` starts."""
    folder = tmp_path_factory.mktemp("there")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("TMPDIR", str(folder)),
            ("PYTHONPATH", str(Path(__file__).resolve().parents[2])),
            ("OMP_NUM_THREADS", "1"),
        ):
            patch.setenv(name, value)
        yield folder


@pytest.fixture
def noise(tmp_path) -> Path:
    """Noise of 40 x 36 x 34 voxels with a geometry of its own, in a file with a German and a Japanese name."""
    import numpy
    import SimpleITK as sitk

    made = sitk.GetImageFromArray(numpy.random.default_rng(0).normal(100, 20, (34, 36, 40)).astype(numpy.float32))
    made.SetSpacing((0.9, 1.1, 1.2))
    made.SetOrigin((-20.5, 3.25, 7.0))
    folder = tmp_path / "Größe 頭"
    folder.mkdir()
    path = folder / "Kopf ü 頭.nrrd"
    sitk.WriteImage(made, str(path))
    return path
