"""UltraLight VM-UNet: 49 thousand parameters, four channel chunks through one small Mamba.

Renkai Wu et al., "UltraLight VM-UNet: Parallel Vision Mamba Significantly Reduces Parameters for Skin Lesion
Segmentation", Patterns (2025), arXiv 2403.20035. The authors' network ends in a sigmoid; ours gives the logits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import GroupNorm
from ..blocks.mixers import Mamba
from .registry import Figure, register_variants

CHUNKS = 4


class ParallelMamba(nn.Module):
    """PVM: norm, one shared Mamba on each of four channel chunks with a scaled skip, the same norm, linear.

    The skip carries the *normed* chunk. x (B, C, H, W) -> (B, D, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, states: int = 16):
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.mamba = Mamba(in_channels // CHUNKS, states)
        self.proj = nn.Linear(in_channels, out_channels)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        chunks = cat(tokens.chunk(CHUNKS, dim=2), dim=0)  # one batch of (4 B, L, C / 4)
        mixed = self.mamba(chunks) + self.skip_scale * chunks
        y = self.proj(self.norm(cat(mixed.chunk(CHUNKS, dim=0), dim=2)))
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class SpatialAttention(nn.Module):
    """One 7x7 convolution, dilation 3, for all levels: weights from the mean and the maximum over channels."""

    def __init__(self):
        super().__init__()
        self.shared_conv2d = nn.Sequential(nn.Conv2d(2, 1, 7, padding=9, dilation=3), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.shared_conv2d(cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1))


class ChannelAttention(nn.Module):
    """Global means of all levels as one signal, a convolution along it, one linear map per level, sigmoid."""

    def __init__(self, widths):
        super().__init__()
        self.get_all_att = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        for i, width in enumerate(widths, start=1):
            setattr(self, f"att{i}", nn.Linear(sum(widths), width))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) -> gates (B, C_i, 1, 1)."""
        signal = self.get_all_att(cat([m.mean((2, 3)) for m in maps], dim=1).unsqueeze(1)).squeeze(1)
        gates = [getattr(self, f"att{i}")(signal).sigmoid() for i in range(1, len(maps) + 1)]
        return [gate[..., None, None] for gate in gates]


class SkipBridge(nn.Module):
    """SC bridge: spatial, then channel attention over all skips, each with its own residual."""

    def __init__(self, widths):
        super().__init__()
        self.satt = SpatialAttention()
        self.catt = ChannelAttention(widths)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        attended = [self.satt(t) for t in skips]
        sums = [t + a for t, a in zip(skips, attended, strict=True)]
        return [g * u + a for g, u, a in zip(self.catt(sums), sums, attended, strict=True)]


class UltraLightVMUNet(AnySizeNetwork):
    """UltraLight VM-UNet, 2-D.

    Args:
        in_channels, out_channels: image channels; classes with background, or 1 for a logit of the foreground.
        widths: of the six levels, each a multiple of 4.
        states: of the scans.
    """

    divisor = (32, 32)

    def __init__(self, in_channels: int, out_channels: int, widths=(8, 16, 24, 32, 48, 64), states: int = 16):
        super().__init__()
        c = [in_channels, *widths]
        for i in range(1, 7):
            block = nn.Conv2d(c[i - 1], c[i], 3, padding=1) if i <= 3 else ParallelMamba(c[i - 1], c[i], states)
            setattr(self, f"encoder{i}", nn.Sequential(block))
        for i in range(1, 6):
            a, b = c[7 - i], c[6 - i]
            block = ParallelMamba(a, b, states) if i <= 3 else nn.Conv2d(a, b, 3, padding=1)
            setattr(self, f"decoder{i}", nn.Sequential(block))
            setattr(self, f"ebn{i}", GroupNorm(4, c[i]))
            setattr(self, f"dbn{i}", GroupNorm(4, b))
        self.scab = SkipBridge(widths[:5])
        self.final = nn.Conv2d(widths[0], out_channels, 1)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        x, skips = padded, []
        for i in range(1, 6):
            encoder, norm = getattr(self, f"encoder{i}"), getattr(self, f"ebn{i}")
            x = F.gelu(F.max_pool2d(norm(encoder(x)), 2))
            skips.append(x)
        x = F.gelu(self.encoder6(x))
        skips = self.scab(skips)
        x = F.gelu(self.dbn1(self.decoder1(x))) + skips[4]
        for i in range(2, 6):
            decoder, norm = getattr(self, f"decoder{i}"), getattr(self, f"dbn{i}")
            x = F.gelu(_double(norm(decoder(x)))) + skips[5 - i]
        return [_double(self.final(x))]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


PAPER = "Wu et al.: UltraLight VM-UNet: Parallel Vision Mamba for Skin Lesion Segmentation, Patterns, 2025"
ISIC = Figure("ISIC 2017, own split, 256x256", "Dice over all pixels pooled", 0.9091, "own table")
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "ultralight_vm_unet": ({}, (3, 1, 49_457), (ISIC,)),
    "ultralight_vm_unet_test": ({"widths": (4, 4, 4, 8, 8, 8), "states": 2}, (1, 3, 2_587), ()),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=UltraLightVMUNet,
    dims=2,
    paper=PAPER,
    url="https://github.com/wurenkai/UltraLight-VM-UNet",
    licence="code: MIT; weights: on the authors' drive, without a licence of their own",
)
