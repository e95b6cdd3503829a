"""VMamba backbones of three generations, and a small feature pyramid that makes segmenters of them.

Yue Liu et al., "VMamba: Visual State Space Model", arXiv 2401.10166 (NeurIPS 2024). The authors publish ImageNet
weights under MIT: the only scriptable, permissive pretraining in the field. The pyramid (Kirillov et al., "Panoptic
Feature Pyramid Networks", arXiv 1901.02446, in its smallest form) is our addition, so no segmenter's weights are
published.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import GroupNorm
from ..blocks.vss import PatchMerging, VMambaBlock, drop_path_rates
from .registry import Figure, register_variants
from .weights import fit_image_channels, load_strictly

GENERATIONS = {
    "v0": {"states": 16, "expand": 2.0, "gate": True, "conv_bias": True, "mlp_ratio": 0.0},
    "s1l8": {"states": 1, "expand": 1.0, "gate": False, "conv_bias": False, "mlp_ratio": 4.0},
    "s2l5": {"states": 1, "expand": 2.0, "gate": False, "conv_bias": False, "mlp_ratio": 4.0},
}


class Permute(nn.Module):
    """Reorder the axes; stands where the authors' Sequentials have it, because their keys count it."""

    def __init__(self, *axes: int):
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


def _to_last() -> Permute:
    return Permute(0, 2, 3, 1)


def _to_first() -> Permute:
    return Permute(0, 3, 1, 2)


def _patch_embed(in_channels: int, width: int, overlapping: bool) -> nn.Sequential:
    """(B, c, H, W) -> (B, H/4, W/4, C): one 4x4 convolution, or two 3x3 with stride 2."""
    if not overlapping:
        return nn.Sequential(nn.Conv2d(in_channels, width, 4, 4), _to_last(), nn.LayerNorm(width))
    half = width // 2
    first = nn.Conv2d(in_channels, half, 3, 2, 1), _to_last(), nn.LayerNorm(half), _to_first(), nn.GELU()
    return nn.Sequential(*first, nn.Conv2d(half, width, 3, 2, 1), _to_last(), nn.LayerNorm(width))


def _downsample(width: int, overlapping: bool) -> nn.Module:
    """(B, H, W, C) -> (B, H/2, W/2, 2C): patch merging, or a 3x3 convolution with stride 2."""
    if not overlapping:
        return PatchMerging(width)
    return nn.Sequential(_to_first(), nn.Conv2d(width, 2 * width, 3, 2, 1), _to_last(), nn.LayerNorm(2 * width))


class Stage(nn.Module):
    """Blocks, and what leads to the next stage."""

    def __init__(self, width: int, drop_paths, downsample: nn.Module | None, block: dict):
        super().__init__()
        self.blocks = nn.Sequential(*(VMambaBlock(width, rate, **block) for rate in drop_paths))
        self.downsample = downsample


class VMamba(nn.Module):
    """Image (B, c, H, W), sizes multiples of 32, -> features of four levels (B, C_i, H/4/2^i, W/4/2^i).

    Args:
        in_channels: of the image.
        generation: of ``GENERATIONS``.
        width: of the finest level, doubled at each.
        depths: blocks per level.
        drop_path: highest probability of stochastic depth.
        **block: overrides of the generation's settings.
    """

    def __init__(self, in_channels=3, generation="s1l8", width=96, depths=(2, 2, 8, 2), drop_path=0.2, **block):
        super().__init__()
        if generation not in GENERATIONS:
            raise ValueError(f"expected a generation of {list(GENERATIONS)}, got {generation!r}")
        block, overlapping = {**GENERATIONS[generation], **block}, generation != "v0"
        rates = drop_path_rates(drop_path, depths)
        self.widths = [width * 2**i for i in range(len(depths))]
        self.patch_embed = _patch_embed(in_channels, width, overlapping)
        last = len(depths) - 1
        self.layers = nn.ModuleList(
            Stage(w, rates[i], _downsample(w, overlapping) if i < last else None, block)
            for i, w in enumerate(self.widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = self.patch_embed(x), []
        for layer in self.layers:
            x = layer.blocks(x)
            features.append(x.permute(0, 3, 1, 2))
            x = x if layer.downsample is None else layer.downsample(x)
        return features


class VMambaSegmenter(AnySizeNetwork):
    """VMamba with a feature pyramid: widths made equal, upsampled and added, one 3x3 convolution, one head.

    Args:
        in_channels, out_channels: image channels; classes with background.
        pyramid_width: of the pyramid.
        **backbone: see ``VMamba``.
    """

    divisor = (32, 32)

    def __init__(self, in_channels: int, out_channels: int, pyramid_width: int = 128, **backbone):
        super().__init__()
        self.backbone = VMamba(in_channels, **backbone)
        self.norms = nn.ModuleList(GroupNorm(1, w) for w in self.backbone.widths)
        self.laterals = nn.ModuleList(nn.Conv2d(w, pyramid_width, 1) for w in self.backbone.widths)
        self.smooth = nn.Sequential(
            nn.Conv2d(pyramid_width, pyramid_width, 3, padding=1), GroupNorm(4, pyramid_width), nn.ReLU()
        )
        self.head = nn.Conv2d(pyramid_width, out_channels, 1)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        maps = [lat(n(f)) for lat, n, f in zip(self.laterals, self.norms, self.backbone(padded), strict=True)]
        x = maps[-1]
        for finer in maps[-2::-1]:
            x = finer + F.interpolate(x, size=finer.shape[2:], mode="bilinear", align_corners=False)
        logits = self.head(self.smooth(x))
        return [F.interpolate(logits, size=padded.shape[2:], mode="bilinear", align_corners=False)]

    def load_encoder(self, weights: dict, what: str) -> list[str]:
        """See ``weights.load_encoder``: of the same generation and depth; their classifier is left out."""
        named = rename_upstream_keys(weights)
        own = self.backbone.state_dict()
        fitting = {  # some files have linear maps as 1x1 convolutions
            k: t.reshape(own[k].shape) if k in own and t.numel() == own[k].numel() else t
            for k, t in named.items()
            if not k.startswith("classifier.")
        }
        first = next(k for k in own if k.startswith("patch_embed.0."))
        load_strictly(self.backbone, fit_image_channels(fitting, first, own[first].shape[1]), what)
        return []


def rename_upstream_keys(state: dict) -> dict:
    """Authors' weights of any generation -> the names of the current code, which are ours."""
    names = (
        ("patch_embed.proj.", "patch_embed.0."),
        ("patch_embed.norm.", "patch_embed.2."),
        (".ln_1.", ".norm."),
        (".self_attention.", ".op."),
    )
    renamed = {}
    for key, tensor in state.items():
        if key.startswith(("norm.", "head.")):
            key = f"classifier.{key}"
        for old, new in names:
            key = key.replace(old, new)
        renamed[key] = tensor
    return renamed


PAPER = "Liu et al.: VMamba: Visual State Space Model, arXiv 2401.10166, NeurIPS 2024"


def _top1(value: float) -> tuple[Figure, ...]:
    return (Figure("ImageNet-1K, the backbone as classifier", "top-1 %", value, "release notes of the repository"),)


VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "vmamba_t_v0": ({"generation": "v0", "depths": (2, 2, 9, 2)}, (3, 9, 22_459_625), _top1(82.2)),
    "vmamba_t_s1l8": ({"generation": "s1l8", "depths": (2, 2, 8, 2)}, (3, 9, 29_815_241), _top1(82.6)),
    "vmamba_t_s2l5": ({"generation": "s2l5", "depths": (2, 2, 5, 2)}, (3, 9, 30_272_009), _top1(82.5)),
    "vmamba_test": ({"width": 8, "depths": (1, 1, 1, 1), "pyramid_width": 8}, (1, 3, 88_699), ()),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=VMambaSegmenter,
    dims=2,
    paper=PAPER,
    url="https://github.com/MzeroMiko/VMamba",
    licence="code and ImageNet weights: MIT",
)
