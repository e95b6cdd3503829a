"""PVTv2, the encoder of Deco-Mamba: four stages of overlapping patches and spatially reduced attention.

Wenhai Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", arXiv 2106.13797 (2022). Parameters
bear timm's names, so that its files load as they are; ``rename_original_keys`` takes the authors'.

Shape letters: B batch, L = H*W tokens, C width.
"""

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.drop_path import DropPath

HEADS, MLP_RATIOS, REDUCTIONS = (1, 2, 5, 8), (8, 8, 4, 4), (8, 4, 2, 1)
VARIANTS = {
    "pvt_v2_b0": {"widths": (32, 64, 160, 256), "depths": (2, 2, 2, 2)},
    "pvt_v2_b2": {"widths": (64, 128, 320, 512), "depths": (3, 4, 6, 3)},
    "pvt_v2_test": {"widths": (4, 4, 8, 8), "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "mlp_ratios": (2, 2, 2, 2)},
}


class PatchEmbed(nn.Module):
    """Overlapping patches: (B, c, H, W) -> tokens (B, L', C) and their grid."""

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), tuple(x.shape[2:])


class Attention(nn.Module):
    """Self-attention whose keys and values come from a grid thinned out by a strided convolution.

    Args:
        width: C.
        heads: divides C.
        reduction: stride of that convolution; 1 for none.
    """

    def __init__(self, width: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width) if reduction > 1 else None

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        source = x
        if self.sr is not None:
            image = x.transpose(1, 2).unflatten(2, grid)
            source = self.norm(self.sr(image).flatten(2).transpose(1, 2))  # (B, L / reduction^2, C)
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, C / heads)
        k, v = self.kv(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ConvMlp(nn.Module):
    """Linear, depthwise 3x3, GELU, linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = self.dwconv(self.fc1(x).transpose(1, 2).unflatten(2, grid))
        return self.fc2(F.gelu(x.flatten(2).transpose(1, 2)))


class Block(nn.Module):
    """x + attention(norm1 x), then x + mlp(norm2 x)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, reduction: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = ConvMlp(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


class Stage(nn.Module):
    """Blocks of one resolution, after halving the grid where ``in_width`` is given; tokens in, image out."""

    def __init__(self, in_width: int | None, width: int, depth: int, drop_path: list[float], **block):
        super().__init__()
        self.downsample = None if in_width is None else PatchEmbed(in_width, width, 3, 2)
        self.blocks = nn.ModuleList(Block(width, drop_path=drop_path[i], **block) for i in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        for block in self.blocks:
            x = block(x, grid)
        return self.norm(x).transpose(1, 2).unflatten(2, grid)


class PVTv2(nn.Module):
    """Image (B, c, H, W) -> features at 1/4, 1/8, 1/16, 1/32, of ``widths`` channels.

    Args:
        in_channels: c.
        widths, depths, heads, mlp_ratios: per stage.
        drop_path: probability of the last block; it grows linearly from 0.
    """

    def __init__(self, in_channels: int, widths, depths, heads=HEADS, mlp_ratios=MLP_RATIOS, drop_path: float = 0.0):
        super().__init__()
        self.widths = tuple(widths)
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        self.patch_embed = PatchEmbed(in_channels, widths[0], 7, 4)
        self.stages = nn.ModuleList()
        for i, depth in enumerate(depths):
            first = sum(depths[:i])
            options = {"heads": heads[i], "mlp_ratio": mlp_ratios[i], "reduction": REDUCTIONS[i]}
            in_width = widths[i - 1] if i else None
            self.stages.append(Stage(in_width, widths[i], depth, rates[first : first + depth], **options))
        self.apply(initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            tokens, grid = self.patch_embed(x) if stage.downsample is None else stage.downsample(x)
            x = stage(tokens, grid)
            features.append(x)
        return features


def initialise(module: nn.Module) -> None:
    """The authors' start: linear weights normal 0.02, cut off, convolutions normal by fan-out, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def rename_original_keys(state: dict) -> dict:
    """Authors' names, or timm's with ``features_only`` -> ours, which are timm's; the classifier is left out."""
    renamed = {}
    for key, tensor in state.items():
        key = re.sub(r"^patch_embed1\.", "patch_embed.", key)
        key = re.sub(r"^patch_embed([234])\.", lambda m: f"stages.{int(m[1]) - 1}.downsample.", key)
        key = re.sub(r"^block(\d)\.(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}.", key)
        key = re.sub(r"^norm(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.norm.", key)
        key = re.sub(r"^stages_(\d)\.", r"stages.\1.", key).replace("dwconv.dwconv.", "dwconv.")
        if not key.startswith("head."):
            renamed[key] = tensor
    return renamed
