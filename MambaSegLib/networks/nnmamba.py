"""nnMamba: a residual CNN with Mamba beside the convolutions, read from four mirrored sequences.

Haifan Gong et al., "nnMamba: 3D Biomedical Image Segmentation, Classification and Landmark Detection with State Space
Model", arXiv 2402.03526 (2024). The authors' code has no licence: this is written from the paper and from what their
checkpoints' names and shapes say, and agrees with the outputs of their code.
"""

import re

import torch.nn.functional as F
from torch import Tensor, cat, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import pad_to_multiple
from ..blocks.mixers import Mamba
from ..blocks.unet import merge_copies
from .registry import Figure, register_variants

MIRRORED = ((), (1,), (2,), (1, 2))  # of tokens (B, L, C): as they are, from the end, channels from the last, both


class DoubleConv(nn.Module):
    """Twice convolution, batch norm, ReLU; the first with the stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        first = nn.Conv3d(in_channels, out_channels, 3, stride, 1), nn.BatchNorm3d(out_channels), nn.ReLU()
        second = nn.Conv3d(out_channels, out_channels, 3, padding=1), nn.BatchNorm3d(out_channels), nn.ReLU()
        self.conv = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _mirror(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.flip(axes) if axes else x  # ONNX knows no flip along no axis


class SiameseMamba(nn.Module):
    """MICCSS: 1x1 conv, norm, ReLU; plus the mean of one Mamba's results on four mirrored sequences; the first again.

    x (B, C, D, H, W) -> same shape.
    """

    def __init__(self, width: int, states: int):
        super().__init__()
        self.nin = nn.Conv3d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.mamba = Mamba(width, states)
        self.nin2 = nn.Conv3d(width, width, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.nin(x)))
        tokens = x.flatten(2).transpose(1, 2)  # (B, L, C)
        mirrored = cat([_mirror(tokens, axes) for axes in MIRRORED], dim=0)
        results = self.mamba(mirrored).chunk(len(MIRRORED), dim=0)
        mean = sum(_mirror(y, axes) for y, axes in zip(results, MIRRORED, strict=True)) / len(MIRRORED)
        x = x + mean.transpose(1, 2).unflatten(2, x.shape[2:])
        return F.relu(self.norm2(self.nin2(x)))


class BasicBlock(nn.Module):
    """ReLU(norm conv ReLU(norm conv x) + parallel x + skip x)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.downsample = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv3d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(out_channels))

    def forward(self, x: Tensor, parallel: nn.Module | None = None) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if parallel is not None:
            y = y + parallel(x)
        return F.relu(y + self.downsample(x))


class Stage(nn.Module):
    """A halving block, then blocks that share one SiameseMamba beside their convolutions."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, states: int, mamba: bool):
        super().__init__()
        self.blocks = nn.ModuleList(
            BasicBlock(out_channels if i else in_channels, out_channels, 1 if i else 2) for i in range(blocks)
        )
        self.mamba_layer = SiameseMamba(out_channels, states) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, self.mamba_layer if i else None)
        return x


class ChannelScale(nn.Module):
    """One weight in 0 to 1 per channel, from the global means; x (B, C, D, H, W) -> x scaled."""

    def __init__(self, width: int, reduction: int = 16):
        super().__init__()
        self.layer1 = nn.Linear(width, max(1, width // reduction))
        self.layer2 = nn.Linear(max(1, width // reduction), width)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer2(F.relu(self.layer1(x.mean((2, 3, 4))))).sigmoid()
        return x * weight[..., None, None, None]


class NNMamba(AnySizeNetwork):
    """nnMamba, 3-D. Its logits pass a last ReLU, as the authors have it: none is negative.

    Args:
        in_channels, out_channels: image channels; classes with background.
        width: of the finest level (at 1/2), doubled at each.
        blocks: per level.
        states: of the scans.
        mamba: False builds the same network without its Mamba layers.
    """

    divisor = (16, 16, 16)

    def __init__(self, in_channels: int, out_channels: int, width=32, blocks=3, states: int = 16, mamba=True):
        super().__init__()
        w = [width * 2**i for i in range(4)]
        self.in_conv = DoubleConv(in_channels, w[0], 2)
        self.att1, self.att2, self.att3 = (ChannelScale(c) for c in w[:3])
        self.layer1 = Stage(w[0], w[1], blocks, states, mamba)
        self.layer2 = Stage(w[1], w[2], blocks, states, mamba)
        self.layer3 = Stage(w[2], w[3], blocks, states, mamba)
        self.conv5 = DoubleConv(w[3] + w[2], w[2])
        self.conv6 = DoubleConv(w[2] + w[1], w[1])
        self.conv7 = DoubleConv(w[1] + w[0], w[0])
        self.conv8 = DoubleConv(w[0], out_channels)

    def pad(self, x: Tensor) -> Tensor:
        return pad_to_multiple(x, self.divisor)  # leaves the coarsest batch norm two voxels

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        c1 = self.in_conv(padded)
        c2 = self.layer1(c1)
        c3 = self.layer2(c2)
        x = self.layer3(c3)
        x = self.conv5(cat((_double(x), self.att3(c3)), dim=1))
        x = self.conv6(cat((_double(x), self.att2(c2)), dim=1))
        x = self.conv7(cat((_double(x), self.att1(c1)), dim=1))
        return [self.conv8(_double(x))]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)


def rename_upstream_keys(state: dict) -> dict:
    """Authors' weights -> ours: blocks get a room of their own, the Mamba that a stage's blocks share is kept once."""

    def rename(key: str) -> str:
        key = re.sub(r"^(layer\d)\.\d+\.mamba_layer\.", r"\1.mamba_layer.", key)
        return re.sub(r"^(layer\d)\.(\d+)\.", r"\1.blocks.\2.", key)

    return merge_copies(state, rename)


PAPER = "Gong et al.: nnMamba: 3D Biomedical Image Segmentation ... with State Space Model, arXiv 2402.03526, 2024"
FIGURES = (
    Figure("AMOS22 CT, hidden test", "mDice %", 89.63, "own table; nnU-Net 89.04, U-Mamba 87.53"),
    Figure("AMOS22 MR, hidden test", "mDice %", 73.98, "own table; nnU-Net 67.63, U-Mamba 74.21"),
    Figure("BraTS 2023", "mean Dice %", 89.97, "own table"),
)
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "nnmamba": ({}, (1, 16, 15_959_598), FIGURES),
    "nnmamba_test": ({"width": 4, "blocks": 2, "states": 2}, (1, 3, 178_716), ()),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=NNMamba,
    dims=3,
    paper=PAPER,
    url="https://github.com/lhaof/nnMamba",
    licence="code: ours, Apache-2.0 (the authors' has no licence); their weights have none either",
    rename_upstream_keys=rename_upstream_keys,
)
