"""U-Mamba and its residual siblings: nnU-Nets with Mamba layers at the bottleneck, in the encoder or on the skips.

Jun Ma, Feifei Li, Bo Wang, "U-Mamba: Enhancing Long-range Dependency for Biomedical Image Segmentation", arXiv
2401.04722 (2024): ``umamba_bot*``, ``umamba_enc*``. Jintao Ren et al., "UMambaAdj", 2410.12940: ``umamba_adj*``. Zhi
Qin Tan et al., "U-Mamba2", arXiv 2509.12069 (2025): ``umamba2_bot*`` and, with Mamba-1 there, ``umamba_bot_resenc``.
``mamba=False`` is the "No-Mamba base" of nnU-Net Revisited (arXiv 2404.09556), and about as good.
"""

import math

import torch.nn.functional as F
from torch import Tensor, cat, nn

from ..blocks.conv import CONV, as_tuple, conv, instance_norm, pad_up
from ..blocks.mixers import Mamba2, MambaLayer
from ..blocks.unet import ConvNormAct, Decoder, Encoder, UNet, drop_aliases
from .registry import Figure, register_variants


class DownBlock(nn.Module):
    """LeakyReLU(norm2 conv2 LeakyReLU(norm1 conv1 x) + conv3 x); conv1 and the 1x1 conv3 carry the stride."""

    def __init__(self, dims, in_channels, out_channels, kernel, stride=1):
        super().__init__()
        self.conv1 = conv(dims, in_channels, out_channels, kernel, as_tuple(stride, dims))
        self.norm1 = instance_norm(dims, out_channels)
        self.conv2 = conv(dims, out_channels, out_channels, kernel)
        self.norm2 = instance_norm(dims, out_channels)
        self.conv3 = conv(dims, in_channels, out_channels, 1, as_tuple(stride, dims))
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return self.act(y + self.conv3(x))


class SameBlock(nn.Module):
    """LeakyReLU(conv2 conv1 x + x)."""

    def __init__(self, dims, width, kernel):
        super().__init__()
        self.conv1 = ConvNormAct(dims, width, width, kernel)
        self.conv2 = ConvNormAct(dims, width, width, kernel, act=False)
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.conv1(x)) + x)


def _stage(dims, in_channels, out_channels, kernel, stride, count) -> nn.Sequential:
    same = (SameBlock(dims, out_channels, kernel) for _ in range(count - 1))
    return nn.Sequential(DownBlock(dims, in_channels, out_channels, kernel, stride), *same)


class UMambaEncoder(nn.Module):
    """Stem, stages, and behind each stage a MambaLayer or nothing; image -> features, finest first."""

    def __init__(self, dims, in_channels, features, kernels, strides, counts, mamba_layers):
        super().__init__()
        self.stem = _stage(dims, in_channels, features[0], kernels[0], 1, counts[0])
        widths = [features[0], *features]
        levels = enumerate(zip(features, kernels, strides, counts, strict=True))
        self.stages = nn.ModuleList(_stage(dims, widths[i], f, k, s, n) for i, (f, k, s, n) in levels)
        self.mamba_layers = nn.ModuleList(mamba_layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, skips = self.stem(x), []
        for stage, mamba in zip(self.stages, self.mamba_layers, strict=True):
            x = mamba(stage(x))
            skips.append(x)
        return skips


class UpsampleConv(nn.Module):
    """Nearest neighbour, then 1x1 convolution."""

    def __init__(self, dims, in_channels, out_channels, stride):
        super().__init__()
        self.stride = tuple(float(s) for s in stride)
        self.conv = CONV[dims](in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=self.stride, mode="nearest"))


class UMambaDecoder(nn.Module):
    """Step j runs from level n-1-j to n-2-j; in 2-D the last step takes no skip."""

    def __init__(self, dims, features, kernels, strides, counts, out_channels):
        super().__init__()
        steps = range(len(features) - 1, 0, -1)
        self.skipless = dims == 2
        self.stages = nn.ModuleList(
            _stage(
                dims, (1 if self.skipless and i == 1 else 2) * features[i - 1], features[i - 1], kernels[i - 1], 1, n
            )
            for i, n in zip(steps, counts, strict=True)
        )
        self.upsample_layers = nn.ModuleList(
            UpsampleConv(dims, features[i], features[i - 1], as_tuple(strides[i], dims)) for i in steps
        )
        self.seg_layers = nn.ModuleList(conv(dims, features[i - 1], out_channels, 1) for i in steps)

    def forward(self, skips: list[Tensor], all_scales: bool) -> list[Tensor]:
        """Features, finest first -> logits, finest first (of the finest level alone unless ``all_scales``)."""
        x, outputs, last = skips[-1], [], len(self.stages) - 1
        for j, (up, stage, head) in enumerate(zip(self.upsample_layers, self.stages, self.seg_layers, strict=True)):
            x = up(x)
            x = stage(x if self.skipless and j == last else cat((x, skips[-2 - j]), dim=1))
            if all_scales or j == last:
                outputs.insert(0, head(x))
        return outputs


class UMamba(UNet):
    """U-Mamba in 2-D or 3-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        dims: 2 or 3.
        features, strides, kernels: per level, finest first; the first stride is 1.
        place: ``bottleneck`` (Bot) or ``encoder`` (Enc: behind every stage; in 2-D behind every second, so that the
            last is one).
        patch: grid of the training patches. Enc makes a token of each channel where a stage has no more voxels than
            channels; then the weights fix the grid, and larger images are worked off patch by patch.
        blocks, decoder_blocks: residual blocks per level (decoder: coarsest first). None: 2, and 1 in the deeper
            half of the encoder and the finer half of the decoder, as the authors' code makes of a plan's 2.
        mamba: False builds the same network without its Mamba layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 3,
        features=(32, 64, 128, 256, 320, 320),
        strides=(1, 2, 2, 2, 2, 2),
        kernels=(3, 3, 3, 3, 3, 3),
        place: str = "bottleneck",
        patch=(128, 128, 128),
        blocks=None,
        decoder_blocks=None,
        mamba: bool = True,
    ):
        if place not in ("bottleneck", "encoder"):
            raise ValueError(f"expected place 'bottleneck' or 'encoder', got {place!r}")
        levels = len(features)
        strides = [as_tuple(s, dims) for s in strides]
        half = math.ceil(levels / 2)
        blocks = [1 if i >= half else 2 for i in range(levels)] if blocks is None else blocks
        decoder_blocks = (
            [1 if j >= half else 2 for j in range(levels - 1)] if decoder_blocks is None else decoder_blocks
        )
        layers = [nn.Identity() for _ in features]
        if mamba and place == "encoder":
            layers = _encoder_layers(dims, features, strides, patch)
        super().__init__(
            UMambaEncoder(dims, in_channels, features, kernels, strides, blocks, layers),
            UMambaDecoder(dims, features, kernels, strides, decoder_blocks, out_channels),
            strides,
        )
        self.mamba_layer = MambaLayer(features[-1]) if mamba and place == "bottleneck" else nn.Identity()
        fixed = any(isinstance(layer, MambaLayer) and layer.channel_tokens for layer in layers)
        self.patch = tuple(patch) if fixed else None

    def bridge(self, skips: list[Tensor]) -> list[Tensor]:
        return [*skips[:-1], self.mamba_layer(skips[-1])]

    def pad(self, x: Tensor) -> Tensor:
        return super().pad(x) if self.patch is None else pad_up(x, self.patch)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        if self.patch is None:
            return super().run(padded, all_scales)
        counts = [n // p for n, p in zip(padded.shape[2:], self.patch, strict=True)]
        outputs = super().run(_to_tiles(padded, counts), all_scales)
        return [_from_tiles(output, counts) for output in outputs]


def _encoder_layers(dims, features, strides, patch) -> list[nn.Module]:
    """Enc's MambaLayers: tokens are voxels, or channels where the stage has no more voxels than channels."""
    layers, grid = [], list(patch)
    for i, width in enumerate(features):
        grid = [n // s for n, s in zip(grid, strides[i], strict=True)]
        voxels = math.prod(grid)
        if dims == 2 and i % 2 == len(features) % 2:
            layers.append(nn.Identity())
        else:
            layers.append(MambaLayer(voxels, channel_tokens=True) if voxels <= width else MambaLayer(width))
    return layers


def _to_tiles(x: Tensor, counts) -> Tensor:
    """(B, C, *grid) -> (tiles * B, C, *tile): ``counts`` tiles side by side per axis."""
    for axis, count in enumerate(counts, start=2):
        x = cat(x.chunk(count, dim=axis), dim=0)
    return x


def _from_tiles(x: Tensor, counts) -> Tensor:
    """Exact inverse of ``_to_tiles``, at any scale."""
    for axis, count in reversed(list(enumerate(counts, start=2))):
        x = cat(x.chunk(count, dim=0), dim=axis)
    return x


class ResEncUMamba(UNet):
    """nnU-Net's residual-encoder U-Net with Mamba layers on the features that the decoder receives.

    Args:
        in_channels, out_channels: image channels; classes with background.
        dims: 2 or 3.
        features, strides, kernels, blocks: per level, finest first.
        place: ``bottleneck`` (one layer on the coarsest) or ``skips`` (UMambaAdj: on all but the finest).
        mixer: ``mamba`` or ``mamba2``.
        head_width, states: of Mamba-2.
        mamba: False builds the same network without its Mamba layers, nnU-Net ResEnc.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 3,
        features=(32, 64, 128, 256, 320, 320),
        strides=(1, 2, 2, 2, 2, 2),
        kernels=(3, 3, 3, 3, 3, 3),
        blocks=(1, 3, 4, 6, 6, 6),
        place: str = "bottleneck",
        mixer: str = "mamba",
        head_width: int = 80,
        states: int = 32,
        mamba: bool = True,
    ):
        if place not in ("bottleneck", "skips") or mixer not in ("mamba", "mamba2"):
            raise ValueError(f"expected place 'bottleneck' or 'skips', mixer 'mamba' or 'mamba2': {place!r}, {mixer!r}")
        super().__init__(
            Encoder(dims, in_channels, features, kernels, strides, blocks, residual=True),
            Decoder(dims, features, kernels, strides, (1,) * (len(features) - 1), out_channels),
            [as_tuple(s, dims) for s in strides],
        )

        def layer(width):
            return MambaLayer(width, Mamba2(width, states, head_width) if mixer == "mamba2" else None)

        self.mamba_layer, self.mamba_layers = nn.Identity(), None
        if mamba and place == "skips":
            self.mamba_layers = nn.ModuleList(layer(width) for width in features[1:])
        elif mamba:
            self.mamba_layer = layer(features[-1])

    def bridge(self, skips: list[Tensor]) -> list[Tensor]:
        if self.mamba_layers is None:
            return [*skips[:-1], self.mamba_layer(skips[-1])]
        return [skips[0], *(layer(x) for layer, x in zip(self.mamba_layers, skips[1:], strict=True))]


UMAMBA = ("Ma, Li, Wang: U-Mamba, arXiv 2401.04722, 2024", "https://github.com/bowang-lab/U-Mamba")
ADJ = ("Ren et al.: UMambaAdj, arXiv 2410.12940, 2024", "https://github.com/Aarhus-RadOnc-AI/UMambaAdj")
UMAMBA2 = ("Tan et al.: U-Mamba2, arXiv 2509.12069, 2025", "https://github.com/zhiqin1998/UMamba2")
APACHE = "code: Apache-2.0; no published weights"
REVISITED = "nnU-Net Revisited, arXiv 2404.09556, main table, five-fold"
OWN = "U-Mamba, arXiv 2401.04722, own split, nnU-Net baseline"


def _figures(ct, mr, btcv, acdc, amos):
    return (
        Figure("AbdomenCT 3-D", "DSC", ct, f"{OWN} 0.8615"),
        Figure("AbdomenMR 3-D", "DSC", mr, f"{OWN} 0.8309"),
        Figure("BTCV", "DSC", btcv, f"{REVISITED}; without Mamba 83.69, nnU-Net 83.08"),
        Figure("ACDC", "DSC", acdc, f"{REVISITED}; without Mamba 91.89, nnU-Net 91.54"),
        Figure("AMOS", "DSC", amos, f"{REVISITED}; without Mamba 89.04, nnU-Net 88.64"),
    )


BOT = _figures(0.8683, 0.8453, 83.51, 91.79, 89.13)
ENC = _figures(0.8638, 0.8501, 82.41, 91.22, 88.38)
BOT_2D = (Figure("AbdomenMR 2-D", "DSC", 0.7588, f"{OWN} 0.7450"),)
ENC_2D = (Figure("AbdomenMR 2-D", "DSC", 0.7625, f"{OWN} 0.7450"),)

PLAN_2D = {
    "dims": 2,
    "features": (32, 64, 128, 256, 512, 512, 512),
    "strides": (1, 2, 2, 2, 2, 2, 2),
    "kernels": (3,) * 7,
    "patch": (320, 320),
}
TOY = {"features": (4, 8, 8), "strides": (1, 2, 2), "kernels": (3, 3, 3)}
ENC_TOY = {**TOY, "place": "encoder", "patch": (8, 8, 8)}  # its last stage makes tokens of channels
RES_TOY = {**TOY, "blocks": (1, 1, 1)}
ISOTROPIC, FLAT = (32, 32, 32), (64, 64)

VARIANTS = {
    # name: (build, hyper, divisor, (in, out, parameters), (paper, url), licence, figures)
    "umamba_bot": (UMamba, {}, ISOTROPIC, (4, 4, 42_124_692), UMAMBA, APACHE, BOT),
    "umamba_enc": (UMamba, {"place": "encoder"}, (128,) * 3, (4, 4, 42_755_220), UMAMBA, APACHE, ENC),
    "umamba_bot_2d": (UMamba, PLAN_2D, FLAT, (1, 14, 47_533_012), UMAMBA, APACHE, BOT_2D),
    "umamba_enc_2d": (
        UMamba,
        {**PLAN_2D, "place": "encoder"},
        (320, 320),
        (1, 14, 47_015_538),
        UMAMBA,
        APACHE,
        ENC_2D,
    ),
    "umamba_adj": (
        ResEncUMamba,
        {"place": "skips"},
        ISOTROPIC,
        (4, 4, 104_293_428),
        ADJ,
        "code: Apache-2.0; weights: Apache-2.0 (head and neck MR)",
        (),
    ),
    "umamba_bot_resenc": (ResEncUMamba, {}, ISOTROPIC, (4, 4, 103_029_812), UMAMBA2, APACHE, ()),
    "umamba2_bot": (
        ResEncUMamba,
        {"mixer": "mamba2"},
        ISOTROPIC,
        (4, 4, 102_996_236),
        UMAMBA2,
        "code: ours, Apache-2.0 (authors' additions: CC BY-NC 4.0); weights: CC BY-NC 4.0, non-commercial",
        (Figure("ToothFairy3 task 1, held-out test", "mean Dice", 0.84, "abstract of v3; 7-stage plan, clicks off"),),
    ),
    "umamba_bot_test": (UMamba, TOY, (4, 4, 4), (1, 3, 25_594), UMAMBA, APACHE, ()),
    "umamba_enc_test": (UMamba, ENC_TOY, (8, 8, 8), (1, 3, 27_466), UMAMBA, APACHE, ()),
    "umamba_adj_test": (ResEncUMamba, {**RES_TOY, "place": "skips"}, (4, 4, 4), (1, 3, 15_002), ADJ, APACHE, ()),
    "umamba2_bot_test": (
        ResEncUMamba,
        {**RES_TOY, "mixer": "mamba2", "head_width": 8, "states": 4},
        (4, 4, 4),
        (1, 3, 13_000),
        UMAMBA2,
        APACHE,
        (),
    ),
}
register_variants(
    "build hyper divisor parameters reference licence figures",
    VARIANTS,
    rename_upstream_keys=drop_aliases,
)
