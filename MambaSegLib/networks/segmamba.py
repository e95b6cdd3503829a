"""SegMamba: a 3-D encoder of tri-directional Mamba behind gated convolutions, with UNETR's decoder.

Zhaohu Xing et al., "SegMamba: Long-range Sequential Modeling Mamba For 3D Medical Image Segmentation", arXiv 2401.13560
(MICCAI 2024). The authors' code has no licence: this is written from the description, with their parameter names.
"""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import pad_up
from ..blocks.mixers import V3, Mamba
from ..blocks.residual import EncoderBlock, OutBlock, UpBlock
from .registry import Figure, register_variants

SLICES = (64, 32, 16, 8)  # of the inter-slice scan per stage, whatever the size of the image


class GatedSpatialConv(nn.Module):
    """GSC: x + r4(r2(r1(x)) + r3(x)), every r a convolution, instance norm and ReLU; x (B, C, D, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv3d(width, width, 3, padding=1)
        self.proj2 = nn.Conv3d(width, width, 3, padding=1)
        self.proj3 = nn.Conv3d(width, width, 1)
        self.proj4 = nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        local = _norm_relu(self.proj2(_norm_relu(self.proj(x))))
        return x + _norm_relu(self.proj4(local + _norm_relu(self.proj3(x))))


def _norm_relu(x: Tensor) -> Tensor:
    return F.relu(F.instance_norm(x))


class TriMambaBlock(nn.Module):
    """x + Mamba(LN(x)) over the voxels in three orders; x (B, C, D, H, W)."""

    def __init__(self, width: int, slices: int, states: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mamba = Mamba(width, states, directions=V3, slices=slices)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mamba(self.norm(x.flatten(2).transpose(1, 2)))
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class ConvMlp(nn.Module):
    """Two 1x1x1 convolutions with a GELU between; C -> 2C -> C."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Conv3d(width, 2 * width, 1)
        self.fc2 = nn.Conv3d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class MambaEncoder(nn.Module):
    """Image -> four features at 1/2, 1/4, 1/8 and 1/16: downsampling, GSC, Mamba blocks; the output through an MLP."""

    def __init__(self, in_channels: int, widths, depths, states: int, mamba: bool):
        super().__init__()
        self.downsample_layers = nn.ModuleList([nn.Sequential(nn.Conv3d(in_channels, widths[0], 7, 2, 3))])
        for a, b in pairwise(widths):
            self.downsample_layers.append(nn.Sequential(nn.InstanceNorm3d(a), nn.Conv3d(a, b, 2, 2)))
        self.gscs = nn.ModuleList(GatedSpatialConv(w) for w in widths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(TriMambaBlock(w, n, states) for _ in range(depth if mamba else 0)))
            for w, depth, n in zip(widths, depths, SLICES, strict=True)
        )
        self.mlps = nn.ModuleList(ConvMlp(w) for w in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for down, gsc, stage, mlp in zip(self.downsample_layers, self.gscs, self.stages, self.mlps, strict=True):
            x = stage(gsc(down(x)))
            features.append(mlp(F.instance_norm(x)))
        return features


class SegMamba(AnySizeNetwork):
    """SegMamba, 3-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        widths: of the four levels.
        hidden: width of the bottleneck.
        depths: Mamba blocks per level.
        states: of the scans.
        mamba: False leaves the Mamba blocks out; the gated convolutions stay.
    """

    divisor = (16, 16, 16)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths=(48, 96, 192, 384),
        hidden: int = 768,
        depths=(2, 2, 2, 2),
        states: int = 16,
        mamba: bool = True,
    ):
        super().__init__()
        w = widths
        self.vit = MambaEncoder(in_channels, widths, depths, states, mamba)
        self.encoder1 = EncoderBlock(3, in_channels, w[0])
        self.encoder2 = EncoderBlock(3, w[0], w[1])
        self.encoder3 = EncoderBlock(3, w[1], w[2])
        self.encoder4 = EncoderBlock(3, w[2], w[3])
        self.encoder5 = EncoderBlock(3, w[3], hidden)
        self.decoder5 = UpBlock(3, hidden, w[3])
        self.decoder4 = UpBlock(3, w[3], w[2])
        self.decoder3 = UpBlock(3, w[2], w[1])
        self.decoder2 = UpBlock(3, w[1], w[0])
        self.decoder1 = EncoderBlock(3, w[0], w[0])
        self.out = OutBlock(3, w[0], out_channels)

    def pad(self, x: Tensor) -> Tensor:
        """To multiples of 16, and of 32 where the coarsest grid would not divide into its slices."""
        padded = pad_up(x, self.divisor)
        coarsest = math.prod(n // d for n, d in zip(padded.shape[2:], self.divisor, strict=True))
        return pad_up(x, (32, 32, 32)) if coarsest % SLICES[-1] else padded

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        f1, f2, f3, f4 = self.vit(padded)
        x = self.decoder5(self.encoder5(f4), self.encoder4(f3))
        x = self.decoder4(x, self.encoder3(f2))
        x = self.decoder3(x, self.encoder2(f1))
        x = self.decoder2(x, self.encoder1(padded))
        return [self.out(self.decoder1(x))]


PAPER = "Xing et al.: SegMamba: Long-range Sequential Modeling Mamba For 3D Medical Image Segmentation, 2401.13560"
FIGURES = tuple(
    Figure("BraTS 2023", f"Dice % {region}", value, "own table, 128 cubed windows")
    for region, value in (("whole tumour", 93.61), ("tumour core", 92.65), ("enhancing tumour", 87.71))
)
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "segmamba": ({}, (4, 4, 67_416_196), FIGURES),
    "segmamba_test": (
        {"widths": (4, 4, 8, 8), "hidden": 8, "depths": (1, 1, 1, 1), "states": 2},
        (1, 3, 41_739),
        (),
    ),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=SegMamba,
    dims=3,
    divisor=(32, 32, 32),
    paper=PAPER,
    url="https://github.com/ge-xing/SegMamba",
    licence="code: ours, Apache-2.0 (the authors' has no licence); no published weights",
)
