"""Swin-UMamba and Swin-UMamba-D: a VMamba encoder, made for ImageNet weights, with a CNN or a VSS decoder.

Jiarun Liu et al., "Swin-UMamba: Mamba-based UNet with ImageNet-based pretraining", arXiv 2402.03302 (MICCAI 2024). The
authors' ablation says that the pretraining is the method: without it DSC on AbdomenMR falls from 0.776 to 0.705.
"""

import re

from torch import Tensor, cat, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.residual import EncoderBlock, OutBlock, UpBlock
from ..blocks.vss import PatchEmbed, PatchExpand, PatchMerging, VSSStage, drop_path_rates
from .registry import Figure, register_variants
from .vmamba_weights import start_from_vmamba, to_first_names
from .weights import fit_image_channels

DOWNSAMPLE = re.compile(r"^layers\.(\d)\.downsample")


class VSSEncoder(nn.Module):
    """Image -> features of four levels, channels last, each taken before the merging that leads to the next."""

    def __init__(self, in_channels: int, widths, depths, patch: int, drop_path: float, states: int):
        super().__init__()
        rates = drop_path_rates(drop_path, depths)
        self.patch_embed = PatchEmbed(in_channels, widths[0], patch)
        self.layers = nn.ModuleList(VSSStage(w, r, states=states) for w, r in zip(widths, rates, strict=True))
        self.downsamples = nn.ModuleList(PatchMerging(w) for w in widths[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        features = [self.layers[0](x)]
        for merge, layer in zip(self.downsamples, self.layers[1:], strict=True):
            features.append(layer(merge(features[-1])))
        return features


def _encoder_names(weights: dict) -> dict:
    """VMamba's names, of any of its code -> those of ``VSSEncoder`` in the whole network."""
    named = to_first_names(weights)
    return {"vssm_encoder." + DOWNSAMPLE.sub(r"downsamples.\1", key): tensor for key, tensor in named.items()}


class SwinUMamba(AnySizeNetwork):
    """Swin-UMamba, 2-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        width: of the first VSS level (at 1/4), doubled at each.
        depths: VSS blocks per level.
        drop_path: highest probability of stochastic depth.
        states: of the scans.
    """

    divisor = (32, 32)

    def __init__(
        self, in_channels: int, out_channels: int, width=96, depths=(2, 2, 9, 2), drop_path=0.2, states: int = 16
    ):
        super().__init__()
        half, w = width // 2, [width * 2**i for i in range(4)]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, half, 7, 2, 3), nn.InstanceNorm2d(half, affine=True))
        self.vssm_encoder = VSSEncoder(half, w, depths, 2, drop_path, states)
        self.encoder1 = EncoderBlock(2, in_channels, half)
        self.encoder2 = EncoderBlock(2, half, w[0])
        self.encoder3 = EncoderBlock(2, w[0], w[1])
        self.encoder4 = EncoderBlock(2, w[1], w[2])
        self.encoder5 = EncoderBlock(2, w[2], w[3])
        self.decoder6 = UpBlock(2, w[3], w[3])
        self.decoder5 = UpBlock(2, w[3], w[2])
        self.decoder4 = UpBlock(2, w[2], w[1])
        self.decoder3 = UpBlock(2, w[1], w[0])
        self.decoder2 = UpBlock(2, w[0], half)
        self.decoder1 = EncoderBlock(2, half, half)
        self.out_layers = nn.ModuleList(OutBlock(2, c, out_channels) for c in (half, *w[:3]))

    def load_encoder(self, weights: dict, what: str) -> list[str]:
        """See ``weights.load_encoder``; the 4x4 patches of VMamba have no counterpart behind this network's stem."""
        named, fresh = _encoder_names(weights), ("vssm_encoder.patch_embed.",)
        return start_from_vmamba(self, named, what, ("vssm_encoder.",), fresh)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        """Scales 1, 1/2, 1/4, 1/8."""
        stem = self.stem(padded)
        v1, v2, v3, v4 = (f.permute(0, 3, 1, 2) for f in self.vssm_encoder(stem))
        d5 = self.decoder5(self.decoder6(v4, self.encoder5(v3)), self.encoder4(v2))  # 1/8
        d4 = self.decoder4(d5, self.encoder3(v1))
        d3 = self.decoder3(d4, self.encoder2(stem))
        d1 = self.decoder1(self.decoder2(d3, self.encoder1(padded)))
        features = (d1, d3, d4, d5) if all_scales else (d1,)
        return [head(f) for head, f in zip(self.out_layers, features, strict=False)]


class VSSDecoder(nn.Module):
    """Patch expanding, concatenated skip, linear, two VSS blocks, three times; then expanding x4."""

    def __init__(self, widths, out_channels: int, drop_path: float, states: int):
        super().__init__()
        rates = drop_path_rates(drop_path, (2, 2, 2))
        self.expand_layers = nn.ModuleList(PatchExpand(2 * w, w) for w in widths)
        self.expand_layers.append(PatchExpand(widths[-1], widths[-1], 4))
        self.concat_back_dim = nn.ModuleList(nn.Linear(2 * w, w) for w in widths)
        self.stages = nn.ModuleList(
            VSSStage(w, r[::-1], states=states) for w, r in zip(widths, reversed(rates), strict=True)
        )
        self.seg_layers = nn.ModuleList(nn.Conv2d(w, out_channels, 1) for w in (*widths, widths[-1]))

    def forward(self, features: list[Tensor], all_scales: bool) -> list[Tensor]:
        """Features, finest first, channels last -> logits, finest first."""
        x, maps = features[-1], []
        steps = zip(self.expand_layers, self.concat_back_dim, self.stages, reversed(features[:-1]), strict=False)
        for expand, linear, stage, skip in steps:
            x = stage(linear(cat((expand(x), skip), dim=-1)))
            maps.append(x)
        maps.append(self.expand_layers[-1](x))
        pairs = list(zip(self.seg_layers, maps, strict=True))
        return [head(m.permute(0, 3, 1, 2)) for head, m in reversed(pairs if all_scales else pairs[-1:])]


class SwinUMambaD(AnySizeNetwork):
    """Swin-UMamba-D, 2-D: the same encoder on 4x4 patches, and a decoder of VSS blocks.

    Args: as ``SwinUMamba``.
    """

    divisor = (32, 32)

    def __init__(
        self, in_channels: int, out_channels: int, width=96, depths=(2, 2, 9, 2), drop_path=0.2, states: int = 16
    ):
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.vssm_encoder = VSSEncoder(in_channels, widths, depths, 4, drop_path, states)
        self.decoder = VSSDecoder(widths[2::-1], out_channels, drop_path, states)

    def load_encoder(self, weights: dict, what: str) -> list[str]:
        """See ``weights.load_encoder``."""
        first = "vssm_encoder.patch_embed.proj.weight"
        channels = self.vssm_encoder.patch_embed.proj.in_channels
        named = fit_image_channels(_encoder_names(weights), first, channels)
        return start_from_vmamba(self, named, what, ("vssm_encoder.",))

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        """Scales 1, 1/4, 1/8, 1/16."""
        return self.decoder(self.vssm_encoder(padded), all_scales)


PAPER = "Liu et al.: Swin-UMamba: Mamba-based UNet with ImageNet-based pretraining, arXiv 2402.03302, 2024"
OWN = "own tables, U-Mamba's split, with ImageNet weights; nnU-Net {}"


def _figures(mr, microscopy, *more):
    return (
        Figure("AbdomenMR 2-D", "DSC", mr, OWN.format("0.7450")),
        Figure("Microscopy", "F1", microscopy, OWN.format("0.5383")),
        *more,
    )


SYNAPSE = Figure("Synapse, 18/12 volumes, 224x224", "DSC %", 82.26, "table of MSVM-UNet (arXiv 2408.13735)")
TOY = {"width": 8, "depths": (1, 1, 1, 1), "states": 2}
VARIANTS = {
    # name: (build, hyper, (in, out, parameters), figures)
    "swin_umamba": (SwinUMamba, {}, (1, 14, 59_889_368), _figures(0.7760, 0.5806, SYNAPSE)),
    "swin_umamba_d": (SwinUMambaD, {}, (1, 14, 27_497_720), _figures(0.7705, 0.5982)),
    "swin_umamba_test": (SwinUMamba, TOY, (1, 3, 322_816), ()),
    "swin_umamba_d_test": (SwinUMambaD, TOY, (1, 3, 104_172), ()),
}
register_variants(
    "build hyper parameters figures",
    VARIANTS,
    dims=2,
    paper=PAPER,
    url="https://github.com/JiarunLiu/Swin-UMamba",
    licence="code: Apache-2.0; weights: on the authors' drive, without a licence of their own",
)
