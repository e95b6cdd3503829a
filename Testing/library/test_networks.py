"""One test family over everything that is registered: a new network is tested the moment it registers."""

import inspect
import time

import pytest
import torch

from MambaSegLib import networks
from MambaSegLib.errors import UserError
from MambaSegLib.networks import create, names, spec

TOYS = [name for name in names() if name.endswith("_test")]


def toy(name, in_channels=1, out_channels=3):
    torch.manual_seed(0)
    return create(name, in_channels, out_channels)


def image(entry, size, channels=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, channels, *size[: entry.dims], generator=generator)


def test_every_family_has_a_toy():
    families = {spec(name).build for name in names()}
    assert {spec(name).build for name in TOYS} == families


@pytest.mark.parametrize("name", names())
def test_parameter_count_is_the_registered_one(name):
    in_channels, out_channels, count = spec(name).parameters
    with torch.device("meta"):
        network = create(name, in_channels, out_channels)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("size", [(32, 32, 32), (17, 30, 23), (1, 33, 9)])
def test_logits_have_the_input_size(name, size):
    entry = spec(name)
    network = toy(name, in_channels=2, out_channels=5).eval()
    with torch.no_grad():
        logits = network(image(entry, size, channels=2))
    assert logits.shape == (1, 5, *size[: entry.dims])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", TOYS)
def test_backward_reaches_every_parameter(name):
    network = toy(name).train()
    x = image(spec(name), (32, 32, 32))
    levels = network.forward_multiscale(x) if hasattr(network, "forward_multiscale") else [network(x)]
    sum(level.square().mean() for level in levels).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", TOYS)
def test_save_and_load_gives_the_same_answer(name, tmp_path):
    from safetensors.torch import load_file, save_file

    network = toy(name).eval()
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    other = create(name, 1, 3).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = image(spec(name), (32, 32, 32))
    with torch.no_grad():
        assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("name", TOYS)
def test_toy_is_quick(name):
    network = toy(name).eval()
    x = image(spec(name), (32, 32, 32))
    with torch.no_grad():
        network(x)  # kernels are compiled here
        started = time.process_time()
        network(x)
    assert time.process_time() - started < 2  # CPU seconds; 1 s of work, with room for a slow machine


def test_unknown_names_are_answered_with_similar_ones():
    with pytest.raises(UserError, match="Did you mean mm_unet"):
        create("mm_unett", 1, 2)


@pytest.mark.parametrize("name", TOYS)
def test_twins_without_mamba_are_those_that_the_docstring_lists(name):
    """They have fewer parameters and still give logits; the others do not know the argument."""
    titles = {"deco": "Deco-Mamba", "attention": "Attention-Mamba", "mm": "MM-UNet", "umamba": "U-Mamba"}
    titles |= {"umamba2": "U-Mamba2", "segmamba": "SegMamba", "nnmamba": "nnMamba"}
    listed = networks.__doc__.split("The others")[0]
    if "mamba" not in inspect.signature(spec(name).build).parameters:
        assert name.split("_")[0] not in titles
        return
    assert titles[name.split("_")[0]] in listed
    twin = create(name, 1, 3, mamba=False).eval()
    assert sum(p.numel() for p in twin.parameters()) < spec(name).parameters[2]
    assert not [key for key, _ in twin.named_parameters() if "A_log" in key]
    with torch.no_grad():
        assert torch.isfinite(twin(image(spec(name), (32, 32, 32)))).all()


@pytest.mark.parametrize("name", [n for n in names() if "mamba" in inspect.signature(spec(n).build).parameters])
def test_no_variant_keeps_a_scan_in_its_twin(name):
    in_channels, out_channels, count = spec(name).parameters
    with torch.device("meta"):
        twin = create(name, in_channels, out_channels, mamba=False)
    assert sum(p.numel() for p in twin.parameters()) < count
    assert not [key for key in twin.state_dict() if "A_log" in key]
