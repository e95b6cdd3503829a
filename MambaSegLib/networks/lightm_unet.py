"""LightM-UNet: depthwise convolutions and Mamba layers with scaled skips, in 2-D and 3-D.

Weibin Liao et al., "LightM-UNet: Mamba Assists in Lightweight UNet for Medical Image Segmentation", arXiv 2403.05246
(2024). The paper's 1.09 and 1.87 million parameters leave the Mamba weights out; there are 5.0 million.

With one image channel all channels of the first LayerNorm are multiples of one number. Where a ReLU leaves almost
nothing of it (variance below the norm's eps), rounding is amplified: single voxels of fp32 logits are 2e-4 from fp64,
and two correct fp32 programs, such as torch and ONNX Runtime, as far from each other (two channels: 6e-6).
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import CONV, GroupNorm
from ..blocks.mixers import Mamba
from .registry import Figure, register_variants

MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}
GROUPS = 8


def separable_conv(dims: int, in_channels: int, out_channels: int, kernel: int = 3, bias=False) -> nn.Sequential:
    """Depthwise convolution, then 1x1."""
    depthwise = CONV[dims](in_channels, in_channels, kernel, padding=kernel // 2, groups=in_channels, bias=bias)
    pointwise = CONV[dims](in_channels, out_channels, 1, bias=bias)
    return nn.Sequential(*(nn.Sequential(OrderedDict(conv=layer)) for layer in (depthwise, pointwise)))


class ScaledMamba(nn.Module):
    """norm, Mamba, plus the scaled *un-normed* input, the same norm, linear; x (B, C, *grid) -> (B, D, *grid)."""

    def __init__(self, in_channels: int, out_channels: int, states: int = 16):
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.mamba = Mamba(in_channels, states)
        self.proj = nn.Linear(in_channels, out_channels)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        y = self.proj(self.norm(self.mamba(self.norm(tokens)) + self.skip_scale * tokens))
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class ResidualMamba(nn.Module):
    """x + conv2 ReLU norm2 conv1 ReLU norm1 x, both "convolutions" ScaledMambas."""

    def __init__(self, width: int, states: int):
        super().__init__()
        self.norm1 = GroupNorm(GROUPS, width)
        self.norm2 = GroupNorm(GROUPS, width)
        self.conv1 = ScaledMamba(width, width, states)
        self.conv2 = ScaledMamba(width, width, states)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class ResidualUp(nn.Module):
    """ReLU norm2 (conv ReLU norm1 x + scaled x)."""

    def __init__(self, dims: int, width: int):
        super().__init__()
        self.norm1 = GroupNorm(GROUPS, width)
        self.norm2 = GroupNorm(GROUPS, width)
        self.conv = separable_conv(dims, width, width)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv(F.relu(self.norm1(x))) + self.skip_scale * x))


class LightMUNet(AnySizeNetwork):
    """LightM-UNet.

    Args:
        in_channels, out_channels: image channels; classes with background.
        dims: 2 or 3.
        width: of the finest level, a multiple of 8, doubled at each.
        depths: residual Mamba blocks per level.
        states: of the scans.
    """

    def __init__(self, in_channels: int, out_channels: int, dims=3, width=32, depths=(1, 2, 2, 4), states: int = 16):
        super().__init__()
        widths = [width * 2**i for i in range(len(depths))]
        self.mode = LINEAR_MODE[dims]
        self.divisor = (2 ** (len(depths) - 1),) * dims
        self.convInit = separable_conv(dims, in_channels, width)
        self.down_layers = nn.ModuleList()
        for i, (w, depth) in enumerate(zip(widths, depths, strict=True)):
            down = nn.Sequential(ScaledMamba(w // 2, w, states), MAX_POOL[dims](2)) if i else nn.Identity()
            self.down_layers.append(nn.Sequential(down, *(ResidualMamba(w, states) for _ in range(depth))))
        narrower = widths[-2::-1]
        self.up_samples = nn.ModuleList(
            nn.Sequential(nn.Sequential(OrderedDict(conv=CONV[dims](2 * w, w, 1, bias=False)))) for w in narrower
        )
        self.up_layers = nn.ModuleList(nn.Sequential(ResidualUp(dims, w)) for w in narrower)
        last = separable_conv(dims, width, out_channels, 1, bias=True)
        self.conv_final = nn.Sequential(GroupNorm(GROUPS, width), nn.ReLU(), last)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        x, skips = self.convInit(padded), []
        for layer in self.down_layers:
            x = layer(x)
            skips.append(x)
        for narrow, layer, skip in zip(self.up_samples, self.up_layers, skips[-2::-1], strict=True):
            x = F.interpolate(narrow(x), scale_factor=2.0, mode=self.mode, align_corners=False)
            x = layer(x + skip)
        return [self.conv_final(x)]


PAPER = "Liao et al.: LightM-UNet: Mamba Assists in Lightweight UNet for Medical Image Segmentation, arXiv 2403.05246"
LITS = Figure("LiTS", "mDice %", 84.6, "own table, approximate")
LUNG = Figure("Montgomery and Shenzhen chest X-ray", "DSC %", 96.17, "own table")
VARIANTS = {
    # name: (hyper, divisor, (in, out, parameters), figures)
    "lightm_unet": ({}, (8, 8, 8), (1, 3, 5_015_766), (LITS,)),
    "lightm_unet_2d": ({"dims": 2}, (8, 8), (1, 2, 5_011_683), (LUNG,)),
    "lightm_unet_test": ({"width": 8, "depths": (1, 1), "states": 2}, (2, 2, 2), (1, 3, 7_484), ()),
}
register_variants(
    "hyper divisor parameters figures",
    VARIANTS,
    build=LightMUNet,
    paper=PAPER,
    url="https://github.com/MrBlankness/LightM-UNet",
    licence="code: Apache-2.0; no published weights",
)
