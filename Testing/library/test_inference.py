"""Windows, mirroring, cancelling, devices, weights: against plain torch on the same network."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.inference import load_network, predict, resolve_device, scan_backend, window_count
from MambaSegLib.job import Report
from MambaSegLib.networks import create
from MambaSegLib.ops import selective_scan
from MambaSegLib.segment import segment
from MambaSegLib.volume import Volume

CPU = torch.device("cpu")
RECIPE = {"patch": [8, 12, 16], "overlap": 0.5, "mirror_axes": []}


def random_image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def pointwise():
    torch.manual_seed(0)
    return nn.Conv3d(1, 3, 1)


@pytest.fixture
def lopsided():
    """Sees its neighbours, and is not symmetric."""
    torch.manual_seed(0)
    return nn.Conv3d(1, 3, 3, padding=1)


@pytest.mark.parametrize("shape", [(8, 12, 16), (9, 30, 21), (5, 40, 16)])
def test_windows_blend_into_what_the_network_says_about_the_whole(pointwise, shape):
    image = random_image(1, *shape)
    probabilities = predict(pointwise, image, RECIPE, CPU)
    expected = torch.softmax(pointwise(torch.from_numpy(image)[None]), 1)[0].detach().numpy()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("axes", [[0], [1, 2], [0, 1, 2]])
def test_mirroring_averages_the_softmax_over_all_flips(lopsided, axes):
    image = random_image(1, 8, 12, 16)
    tensor = torch.from_numpy(image)[None]
    flips = [f for n in range(len(axes) + 1) for f in itertools.combinations([a + 2 for a in axes], n)]
    expected = sum(torch.softmax(lopsided(tensor.flip(f)).flip(f), 1) for f in flips) / len(flips)
    probabilities = predict(lopsided, image, {**RECIPE, "mirror_axes": axes}, CPU)
    np.testing.assert_allclose(probabilities, expected[0].detach(), atol=1e-5)
    assert np.abs(probabilities - predict(lopsided, image, RECIPE, CPU)).max() > 0.01


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(8, 12, 16), (17, 12, 33), (20, 25, 40), (4, 5, 6)])
def test_progress_counts_exactly_the_windows(pointwise, shape, overlap):
    events = []
    predict(pointwise, random_image(1, *shape), {**RECIPE, "overlap": overlap}, CPU, Report(events.append))
    total = window_count(shape, RECIPE["patch"], overlap)
    assert [e["done"] for e in events] == list(range(total + 1)) and {e["of"] for e in events} == {total}
    assert events[0]["label"] == f"Window 1 of {total}"


def test_cancelling_stops_before_the_next_pass(pointwise):
    passes = []
    report = Report()

    def counting(window):
        passes.append(1)
        if len(passes) == 3:
            report.cancel()
        return pointwise(window)

    with pytest.raises(Cancelled):
        predict(counting, random_image(1, 40, 40, 40), {**RECIPE, "mirror_axes": [0, 1]}, CPU, report)
    assert len(passes) == 3


def test_running_out_of_memory_is_said_in_a_sentence():
    def greedy(window):
        return torch.empty(1 << 60)

    with pytest.raises(UserError, match=r"memory.*'cpu'"):
        predict(greedy, random_image(1, 8, 12, 16), RECIPE, CPU)


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="'tpu' came"):
        resolve_device("tpu")
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=missing):
        resolve_device(missing)


def test_weights_come_back_as_they_were_stored(tiny_bundle_data, tmp_path):
    torch.manual_seed(1)
    network = create("mm_unet_test", 1, 3)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    data = {**tiny_bundle_data, "weights": {"dtype": "float16"}}
    loaded = load_network(write_bundle(tmp_path / "half", data, weights), CPU)
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == network.state_dict()[name].dtype
        torch.testing.assert_close(tensor, network.state_dict()[name], atol=1e-3, rtol=1e-3)
    loaded(torch.zeros(1, 1, 8, 8, 8))
    assert scan_backend(loaded, CPU) in ("jit", "torch")


def test_a_flat_network_works_slice_by_slice(tiny_bundle_data, tmp_path):
    torch.manual_seed(2)
    name, hyper = "mm_unet_2d", {"features": [4, 8], "strides": [1, 2], "kernels": [3, 3]}
    weights = {k: v.numpy() for k, v in create(name, 1, 3, **hyper).state_dict().items()}
    data = {**tiny_bundle_data, "network": {"name": name, "in_channels": 1, "out_channels": 3, "hyper": hyper}}
    data["inference"] = {**data["inference"], "patch": [32, 32]}
    bundle = write_bundle(tmp_path / "flat", data, weights)
    network = load_network(bundle, CPU)
    image = random_image(1, 3, 32, 32)
    probabilities = predict(network, image, data["inference"], CPU)
    for z in range(3):
        expected = torch.softmax(network.network(torch.from_numpy(image[None, :, z])), 1)[0]
        np.testing.assert_allclose(probabilities[:, z], expected, atol=1e-5)
    found = segment(Volume(random_image(4, 30, 40)), bundle, device="cpu")
    assert found.labels.shape == (4, 30, 40)


def test_changed_weights_are_refused_even_if_the_bundle_was_open(tiny_bundle):
    opened = open_bundle(tiny_bundle)
    content = bytearray(opened.weights_path.read_bytes())
    content[-1] ^= 1
    opened.weights_path.write_bytes(content)
    with pytest.raises(UserError, match="was changed"):
        load_network(opened, CPU)


def test_weights_of_another_network_are_refused(tiny_bundle_data, tmp_path):
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    bundle = write_bundle(tmp_path / "model", tiny_bundle_data, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="mm_unet_test"):
        load_network(bundle, CPU)


def test_the_first_use_of_a_kernel_is_announced_once(monkeypatch):
    monkeypatch.setattr(selective_scan.LADDER, "_verdicts", {})
    torch.manual_seed(0)
    network, events = create("mm_unet_test", 1, 2).eval(), []
    for _ in range(2):
        predict(network, random_image(1, 8, 12, 16), {**RECIPE, "overlap": 0}, CPU, Report(events.append))
    told = [event for event in events if event["event"] == "message"]
    assert len(told) == 1 and "Preparing the fast kernels" in told[0]["text"]
