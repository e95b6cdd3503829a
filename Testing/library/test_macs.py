"""The MAC counter against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from MambaSegLib.blocks.mamba import MetaSSM
from MambaSegLib.networks import create
from MambaSegLib.networks.macs import count, count_variant
from MambaSegLib.ops.scan_orders import scan_order


class Everything(nn.Module):
    """One of each: what it costs is written beside it, for an image of 8 x 6."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)  # 48 * 4 * 18, bias 48 * 4
        self.down = nn.Conv2d(4, 4, 2, 2, groups=4, bias=False)  # 12 * 4 * 4
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)  # 12 * 4 * 2 * 4, bias 48 * 2
        self.linear = nn.Linear(2, 6)  # 48 * 12, bias 48 * 6
        self.norm = nn.LayerNorm(6)  # 48 * 6 elements
        self.raw = nn.Parameter(torch.empty(3, 6))

    def forward(self, x):
        x = self.up(self.down(self.conv(x)))
        tokens = self.norm(self.linear(x.flatten(2).transpose(1, 2)))  # (1, 48, 6)
        narrow = F.linear(tokens, self.raw)  # einsum: 48 * 18
        mixed = torch.einsum("blc,blk->bck", tokens, narrow)  # 48 * 18
        tokens = tokens @ mixed  # 48 * 6 * 3
        heads = tokens.unsqueeze(1)
        return F.scaled_dot_product_attention(heads, heads, heads)  # 2 * 48 * 48 * 3


def test_every_kind_by_hand():
    with torch.device("meta"):
        network = Everything().train()
    macs = count(network, (1, 2, 8, 6))
    assert macs.conv == 48 * 4 * 18 + 12 * 4 * 4 + 12 * 4 * 2 * 4
    assert macs.bias == 48 * 4 + 48 * 2 + 48 * 6
    assert macs.linear == 48 * 12 and macs.einsum == 3 * 48 * 18
    assert macs.attention == 2 * 48 * 48 * 3 and macs.norm_elements == 48 * 6
    assert macs.layers == macs.conv + macs.bias + macs.linear + macs.einsum
    assert network.training  # as it was


def test_scan_by_hand():
    """Two directions of L = 20 tokens, E = 8 channels, N = 4 states, no gate inside the scan."""
    with torch.device("meta"):
        block = MetaSSM(4, "bi", dims=2, states=4)
    macs = count(block, (1, 4, 4, 5))
    assert macs.scan_states == 2 * 20 * 8 * 4
    assert macs.scan == 9 * macs.scan_states + 2 * 20 * 8
    assert macs.conv == 2 * 20 * 8 * 4  # causal filters of four taps
    assert macs.everything == macs.layers + macs.scan


def test_published_macs_of_mm_unet():
    macs = count_variant("mm_unet", 1, 16, (64, 160, 160))
    billions = [macs.conv / 1e9, macs.linear / 1e9, 3 * macs.scan_states / 1e9]
    assert billions == pytest.approx([450.1, 24.1, 6.7], abs=0.05)


def test_without_mamba_no_scan_is_counted():
    assert count_variant("mm_unet_test", 1, 3, (16, 16, 16), mamba=False).scan == 0


def test_counting_leaves_no_trace():
    """Scan orders are kept for later calls, and operators are replaced while counting."""
    count_variant("deco_mamba_test", 1, 3, (64, 96))
    assert scan_order("HW", (64, 96)).device.type == "cpu"
    network = create("deco_mamba_test", 1, 3).eval()
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 1, 64, 96))).all()


def test_size_must_have_the_networks_axes():
    with pytest.raises(ValueError, match="3 grid axes"):
        count_variant("mm_unet_test", 1, 3, (16, 16))
