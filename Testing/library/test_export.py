"""Models for other programs: the written file gives the network's logits, the MONAI bundle gives our labels."""

import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MambaSegLib import cli, export, network_file, segment
from MambaSegLib.bundle import open_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.job import Report
from MambaSegLib.networks import create, names, spec
from MambaSegLib.ops.plain import PLAIN, log_step_scan, operators_replaced
from MambaSegLib.ops.selective_scan import reference

TOYS = [name for name in names() if name.endswith("_test")]
EVERYDAY = ("plain_unet_test", "mm_unet_test", "vm_unet_test")


@pytest.mark.parametrize("length", [1, 2, 37, 64])
@pytest.mark.parametrize("softplus,extras", [(True, True), (False, False)])
def test_the_scan_without_a_loop(length, softplus, extras):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    u, delta, A = random(2, length, 12), random(2, length, 12).abs(), -random(12, 5).abs()
    rest = [random(2, length, 3, 5), random(2, length, 3, 5)]
    rest += [random(12), random(2, length, 12), random(12)] if extras else [None, None, None]
    expected = reference(u, delta, A, *rest, softplus)
    torch.testing.assert_close(log_step_scan(u, delta, A, *rest, softplus), expected, rtol=1e-4, atol=1e-5)


def test_states_are_taken_in_groups(monkeypatch):
    u, A, BC = torch.randn(1, 20, 4), -torch.rand(4, 6), torch.randn(1, 20, 1, 6)
    whole = log_step_scan(u, u.abs(), A, BC, BC)
    monkeypatch.setattr("MambaSegLib.ops.plain.GROUP_ELEMENTS", 4 * u.numel())
    torch.testing.assert_close(log_step_scan(u, u.abs(), A, BC, BC), whole)


def toy_and_image(name, channels):
    """In evaluation mode, its batch norms with the image's statistics: fresh ones make nnMamba's logits constant."""
    torch.manual_seed(0)
    network, image = create(name, channels, 3), torch.randn(1, channels, *(32,) * spec(name).dims)
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # the mean of all passes, here of one
    with torch.no_grad():
        network.train()(image)
        assert network.eval()(image).std() > 1e-3
    return network, image


@pytest.mark.parametrize("name", TOYS)
def test_networks_are_the_same_in_plain_operations(name):
    network, image = toy_and_image(name, 1)
    with torch.no_grad():
        expected = network(image)
        with operators_replaced(PLAIN):
            found = network(image)
    assert (found - expected).abs().max() < 1e-4 * max(1, expected.abs().max())


def each_family():
    """The everyday ones, and all the others on request: translating takes some seconds each."""
    for name in TOYS:
        yield pytest.param(name, marks=() if name in EVERYDAY else pytest.mark.slow)


@pytest.mark.parametrize("name", list(each_family()))
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_every_family_can_be_written(name, kind, tmp_path):
    packages = pytest.importorskip("onnxruntime") if kind == "onnx" else None
    write, read = (getattr(network_file, f"_{way}_{kind}") for way in ("write", "read"))
    network, image = toy_and_image(name, 2)  # LightM-UNet of one channel is not defined to 1e-4 in fp32: see its file
    expected = network_file.export_network(network, image, tmp_path / "net", write, name, kind)
    difference = np.abs(read(tmp_path / "net", image, packages) - expected.numpy()).max()
    with torch.no_grad():  # VM-UNet's norms over few channels turn the rounding of the image into 7e-5 of the logits
        rounding = (network(image * (1 + 1e-7 * torch.randn_like(image))) - expected).abs().max().item()
    assert difference < max(1e-4 * max(1, expected.abs().max().item()), 4 * rounding)


def test_a_model_becomes_one_file(tiny_bundle, tmp_path, capsys, recwarn):
    pytest.importorskip("onnxruntime")
    output = tmp_path / "out" / "tiny.onnx"
    assert cli.main(["export", str(tiny_bundle), "-o", str(output), "--format", "onnx", "--json"]) == 0
    assert not [w for w in recwarn if "Tracer" in w.category.__name__], "warnings about what is meant to be so"
    result = json.loads(capsys.readouterr().out)
    assert result["input_shape"] == [1, 1, 32, 32, 32] and result["difference"] < 1e-4
    described = json.loads(output.with_name("tiny.onnx.json").read_text())
    assert described["labels"] == open_bundle(tiny_bundle).data["labels"]
    assert sorted(path.name for path in output.parent.iterdir()) == ["tiny.onnx", "tiny.onnx.json"]
    assert cli.main(["export", str(tiny_bundle), "-o", str(output), "--format", "torch"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_what_cannot_be_translated_is_said(tmp_path):
    def write(network, image, file):
        raise NotImplementedError("the operator 'magic' is not known")

    network, image = torch.nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4)
    with pytest.raises(UserError, match="cannot be written as onnx.*'magic' is not known"):
        network_file.export_network(network, image, tmp_path / "net", write, "some_network", "onnx")


def monai_labels(folder, image_file):
    """What MONAI makes of the bundle's own configuration, without its engine."""
    from monai.bundle import ConfigParser

    sys.path.insert(0, str(folder))
    try:
        parser = ConfigParser()
        parser.read_config(folder / "configs" / "inference.json")
        parser.read_meta(folder / "configs" / "metadata.json")
        parser["bundle_root"], parser["device"] = str(folder), "$torch.device('cpu')"
        parser["postprocessing"]["transforms"].pop()  # writes the file
        network = parser.get_parsed_content("network")
        network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
        data = parser.get_parsed_content("preprocessing")({"image": str(image_file)})
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
        return parser.get_parsed_content("postprocessing")(data)["pred"]
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]


def ours(model, image_file, place):
    segment.run({"input": str(image_file), "model": str(model), "output": str(place), "device": "cpu"}, Report())
    return sitk.GetArrayFromImage(sitk.ReadImage(str(place)))


def test_a_monai_bundle_gives_our_labels(tiny_bundle, tmp_path):
    """On an oblique image with voxels of its own."""
    pytest.importorskip("nibabel")
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (20, 30, 26)).astype(np.float32))
    image.SetSpacing((1.2, 0.9, 1.5))
    image.SetOrigin((5, -7, 11))
    turn = np.deg2rad(8)
    image.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "image.nii.gz"))
    export.run({"model": str(tiny_bundle), "output": str(tmp_path / "monai"), "format": "monai"}, Report())
    found = monai_labels(tmp_path / "monai", tmp_path / "image.nii.gz")
    expected = ours(tiny_bundle, tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz")
    assert len(np.unique(expected)) > 1
    assert (np.asarray(found[0]).transpose(2, 1, 0) == expected).mean() > 0.9999
    assert (tmp_path / "monai" / "LICENSE").is_file() and (tmp_path / "monai" / "docs" / "README.md").is_file()


def test_the_shipped_model_in_monai(shared, tmp_path):
    pytest.importorskip("nibabel")
    cases = sorted((shared / "data" / "hippocampus_msd" / "imagesTr").glob("[!.]*.nii.gz"))
    if not cases:
        pytest.skip("no hippocampus cases: they stand in 'shared/data' beside the checkout")
    export.run({"model": "hippocampus", "output": str(tmp_path / "monai"), "format": "monai"}, Report())
    found = np.asarray(monai_labels(tmp_path / "monai", cases[0])[0]).transpose(2, 1, 0)
    expected = ours("hippocampus", cases[0], tmp_path / "labels.nii.gz")
    for value in (1, 2):
        sizes = (found == value).sum() + (expected == value).sum()
        assert 2 * ((found == value) & (expected == value)).sum() / sizes > 0.999


def test_metadata_is_what_monai_asks_for(tiny_bundle, tmp_path):
    export.run({"model": str(tiny_bundle), "output": str(tmp_path / "monai"), "format": "monai"}, Report())
    data = json.loads((tmp_path / "monai" / "configs" / "metadata.json").read_text())
    outputs = data["network_data_format"]["outputs"]["pred"]
    assert outputs["channel_def"] == {"0": "background", "1": "Anterior", "2": "Posterior"}
    needed = ("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description")
    assert all(data[key] for key in (*needed, "authors", "copyright"))
