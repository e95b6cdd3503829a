"""Grey pictures: one slice in any format, for models of grey pictures and, with a warning, for those of colour."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import corrections
from MambaSegLib.bundle import Label, write_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.job import Report
from MambaSegLib.volume import Volume

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """(Y, X, 3) bytes of a real colonoscopy picture."""
    folder = SHARED / "kvasir_seg_352" / "validation" / "images"
    if not folder.is_dir():
        pytest.skip("needs the pictures of kvasir_seg_352")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "10.jpg")))


@pytest.fixture
def model(tiny_bundle_data, tmp_path):
    """model(inputs) -> the folder of a toy network for pictures with so many channels."""
    torch = pytest.importorskip("torch")
    from MambaSegLib.networks import create

    def make(inputs: int) -> Path:
        torch.manual_seed(0)
        network, data = create("vm_unet_test", inputs, 3).eval(), tiny_bundle_data
        with torch.no_grad():  # no class shall win everywhere
            network.final_conv.bias -= network(torch.randn(1, inputs, 64, 64)).mean((0, 2, 3))
        data["id"] = f"pictures_{inputs}"
        data["network"] = {"name": "vm_unet_test", "in_channels": inputs, "out_channels": 3, "hyper": {}}
        data["inputs"] = [{"name": f"Colour {i}", "modality": "XC", "description": ""} for i in range(inputs)]
        clip = {"name": "ct_clip", "lo": 0, "hi": 255}
        data["preprocessing"] = {"orientation": None, "spacing_mm": [None] * 3, "normalisation": clip}
        data["inference"] |= {"patch": [64, 64], "margin_mm": 0}
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        return write_bundle(tmp_path / f"model_{inputs}", data, weights).folder

    return make


def written(path, array, spacing=None, vector=False):
    image = sitk.GetImageFromArray(array, isVector=vector)
    if spacing:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def labels_of(path, folder, output, warm):
    """(labels, warnings) of the job."""
    from MambaSegLib.segment import run

    result = run({"input": str(path), "model": str(folder), "output": str(output), "device": "cpu"}, Report(), warm)
    return read_labels(output).array, result["warnings"]


def test_one_slice_in_every_format(photograph, model, tmp_path):
    """The same numbers from PNG, from one slice in 3-D and from two axes; a place in space is kept."""
    grey, folder, warm = photograph[100:180, 100:200, 1], model(1), {}
    expected, warnings = labels_of(written(tmp_path / "a.png", grey), folder, tmp_path / "png.nrrd", warm)
    assert expected.shape == (1, 80, 100) and len(np.unique(expected)) > 1 and not warnings
    for name, array, spacing in (
        ("slice.nrrd", grey[None], (0.4, 0.5, 3)),
        ("slice.nii.gz", grey[None].astype(np.float32), None),
        ("axes.nrrd", grey, (0.4, 0.5)),
        ("axes.nii.gz", grey, None),
        ("axes.mha", grey.astype(np.int16), (0.4, 0.5)),
    ):
        path = written(tmp_path / name, array, spacing)
        found, _warnings = labels_of(path, folder, tmp_path / f"{name.replace('.', '_')}.seg.nrrd", warm)
        assert np.array_equal(found, expected), name
        assert read_volume(path).spacing_mm[:2] == (spacing or (1, 1))[:2], name
    colours = written(tmp_path / "same.png", np.stack([grey] * 3, -1), vector=True)
    found, warnings = labels_of(colours, folder, tmp_path / "same.nrrd", warm)
    assert np.array_equal(found, expected) and not warnings, "a grey picture saved in colour"
    with pytest.raises(UserError, match="needs a grey picture, but 'real.png' has colours"):
        labels_of(written(tmp_path / "real.png", photograph, vector=True), folder, tmp_path / "no.nrrd", warm)
    with pytest.raises(UserError, match="several slices"):
        read_volume(written(tmp_path / "line.nrrd", grey[None, :1]))


def test_grey_for_a_model_of_colours(photograph, model, tmp_path):
    grey, folder, warm = photograph[100:180, 100:200, 1], model(3), {}
    colours = written(tmp_path / "colours.png", np.stack([grey] * 3, -1), vector=True)
    expected, warnings = labels_of(colours, folder, tmp_path / "colours.nrrd", warm)
    assert len(np.unique(expected)) > 1 and not warnings
    for path in (written(tmp_path / "grey.png", grey), written(tmp_path / "grey.nrrd", grey[None].astype(np.int16))):
        found, warnings = labels_of(path, folder, tmp_path / f"{path.suffix[1:]}.seg.nrrd", warm)
        assert np.array_equal(found, expected), path.name
        assert warnings == [
            "The model was trained on colour pictures, but this one is grey: expect less from the result."
        ]
    scan = written(tmp_path / "scan.nrrd", grey[None].astype(np.int16) * 8 - 1024)
    with pytest.raises(UserError, match=r"Grey values of 0 to 255 .* has -1024 to"):
        labels_of(scan, folder, tmp_path / "no.nrrd", warm)
    with pytest.raises(UserError, match="expects 3 input images"):
        labels_of(written(tmp_path / "stack.nrrd", np.stack([grey] * 4)), folder, tmp_path / "no.nrrd", warm)


def test_models_of_one_file_and_different_colours_do_not_share_the_prepared_picture(photograph, model, tmp_path):
    path, warm = written(tmp_path / "grey.png", photograph[100:180, 100:200, 1]), {}
    alone = labels_of(path, model(3), tmp_path / "a.nrrd", {})[0]
    labels_of(path, model(1), tmp_path / "b.nrrd", warm)
    shutil.rmtree(tmp_path / "model_3")
    assert np.array_equal(labels_of(path, model(3), tmp_path / "c.nrrd", warm)[0], alone)


def test_a_single_dicom_slice(tmp_path):
    if not (SHARED / "ct_dicom").is_dir():
        pytest.skip("needs ct_dicom")
    source = sorted((SHARED / "ct_dicom").iterdir())[3]
    (tmp_path / "radiograph").mkdir()
    shutil.copy(source, tmp_path / "radiograph")
    volume = read_volume(tmp_path / "radiograph")
    assert volume.shape[0] == 1 and min(volume.shape[1:]) > 100 and volume.array.min() < 0
    assert read_volume(tmp_path / "radiograph" / source.name).same_grid(volume)


def test_a_grey_slice_in_the_training_set_keeps_its_place(tmp_path):
    grey = Volume(np.random.default_rng(0).integers(0, 255, (1, 20, 30), np.uint8), (0.4, 0.5, 3), (10, 20, 30))
    labels = grey.with_array((grey.array > 99).astype(np.uint8))
    label = Label.from_json({"value": 1, "name": "Bright", "color": [255, 0, 0], "terminology": None})
    annotated = {"structures": ["Bright"], "slices": None}
    case = corrections.add(tmp_path / "store", [grey], labels, [label], annotated, "P1", "Ann")
    stored = read_volume(case.images[0])
    assert stored.same_grid(grey) and np.array_equal(stored.array, grey.array)
    assert read_labels(case.folder / "labels.nrrd").same_grid(stored)
