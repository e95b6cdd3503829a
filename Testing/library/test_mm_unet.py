"""MM-UNet against the layer table of its specification, and its block modes against their formulas."""

import pytest
import torch

from MambaSegLib.networks import create
from MambaSegLib.networks.mm_unet import MODES, MetaBlock


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def meta(**hyper):
    with torch.device("meta"):
        return create("mm_unet", 1, 16, **hyper)


def test_layer_table():
    network = meta()
    assert [parameters(b) for b in network.encoder] == [9_760, 209_216, 807_552, 3_171_584, 5_797_440, 6_370_880]
    decoder = [parameters(u) + parameters(b) for u, b in zip(network.upsample, network.decoder, strict=True)]
    assert decoder == [38_144, 406_016, 1_623_040, 6_096_896, 9_320_960]
    assert parameters(network.heads) == 3_632
    assert parameters(network.encoder[1].ssm) == 40_832


@pytest.mark.parametrize(
    "hyper,millions",
    [
        ({"mamba": False}, 31.72),
        ({"orders": "uni"}, 33.66),
        ({"orders": "segmamba"}, 34.05),
        ({"orders": "bi2"}, 34.24),
        ({"orders": "bi3"}, 34.62),
        ({"shared": True}, 33.66),
        ({"mamba_levels": range(6)}, 33.87),
        ({"mamba_levels": [5]}, 32.46),
        ({"mamba_levels": [], "mamba_decoder": True}, 33.13),
    ],
)
def test_ablations_have_the_specified_size(hyper, millions):
    assert round(parameters(meta(**hyper)) / 1e6, 2) == millions


class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_their_formulas(mode):
    """Replacing the MetaSSM by a doubling shows where it stands."""
    torch.manual_seed(0)
    block = MetaBlock(3, 2, 4, 3, 2, mode, lambda width: Doubling()).double()
    x = torch.randn(1, 2, 6, 6, 6, dtype=torch.float64)
    act, skip = torch.nn.LeakyReLU(0.01), block.skip(x)
    features = None if mode == "ssm" else block._convolve(x)
    expected = {
        "cnn": lambda: act(features + skip),
        "hybrid_inside": lambda: act(2 * features + skip),
        "hybrid_outside": lambda: 2 * act(features + skip),
        "hybrid_parallel": lambda: act(features + 3 * skip),
        "ssm": lambda: 3 * skip,
    }[mode]()
    assert torch.allclose(block(x), expected)


def test_levels_cover_the_input_at_their_scale():
    network = create("mm_unet_test", 1, 3)
    levels = network.forward_multiscale(torch.randn(1, 1, 9, 14, 7))
    assert [tuple(level.shape[2:]) for level in levels] == [(9, 14, 7), (5, 7, 4)]


def test_multiscale_and_forward_agree():
    network = create("mm_unet_test", 1, 3).eval()
    x = torch.randn(1, 1, 10, 12, 11)
    with torch.no_grad():
        assert torch.allclose(network.forward_multiscale(x)[0], network(x), atol=1e-6)


def test_without_mamba_no_scan_is_left():
    network = create("mm_unet_test", 1, 3, mamba=False)
    assert not [n for n, _ in network.named_parameters() if "ssm" in n]


def test_two_dimensions():
    network = create("mm_unet_test", 3, 2, dims=2)
    assert network(torch.randn(2, 3, 19, 26)).shape == (2, 2, 19, 26)
