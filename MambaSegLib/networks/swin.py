"""Swin Transformer (tiny), the other encoder that Deco-Mamba was measured with.

Ze Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", arXiv 2103.14030 (2021).
Parameters bear the authors' names; ``rename_keys`` takes timm's. As in the authors' detection code the grid is filled
up with zeros to whole windows, so any size goes.

Shape letters: B batch, H, W grid, C width, T tokens of a window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.drop_path import DropPath
from ..blocks.vss import Mlp, PatchEmbed, PatchMerging
from .pvt_v2 import initialise

WINDOW = 7


class WindowAttention(nn.Module):
    """Attention within windows of 7x7 tokens, with a learned bias per relative position.

    Args:
        width: C.
        heads: divides C.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        rows, columns = torch.arange(WINDOW**2) // WINDOW, torch.arange(WINDOW**2) % WINDOW
        down, right = (p[:, None] - p[None] + WINDOW - 1 for p in (rows, columns))
        self.register_buffer("relative_position_index", down * (2 * WINDOW - 1) + right, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, windows, T, C); mask (windows, 1, T, T), minus infinity where tokens must not meet."""
        q, k, v = self.qkv(x).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (heads, T, T)
        bias = bias if mask is None else bias + mask
        return self.proj(F.scaled_dot_product_attention(q, k, v, bias).transpose(2, 3).flatten(3))


class SwinBlock(nn.Module):
    """x + attention(norm1 x), then x + mlp(norm2 x); x (B, H, W, C).

    Args:
        width, heads: of the attention.
        shifted: windows are moved by half a window, where an axis has more than one.
        drop_path: stochastic depth.
    """

    def __init__(self, width: int, heads: int, shifted: bool, drop_path: float):
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        grid = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -grid[1] % WINDOW, 0, -grid[0] % WINDOW))
        full = tuple(x.shape[1:3])
        shifts = [WINDOW // 2 if self.shifted and n > WINDOW else 0 for n in full]
        x = x.roll([-s for s in shifts], (1, 2))
        mask = _shift_mask(full, shifts).to(x) if any(shifts) else None
        x = _join(self.attn(_cut(x), mask), full).roll(shifts, (1, 2))
        return x[:, : grid[0], : grid[1]]


def _cut(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, windows, T, C)."""
    x = x.unflatten(1, (-1, WINDOW)).unflatten(3, (-1, WINDOW))  # (B, h, 7, w, 7, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _join(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Exact inverse of ``_cut``."""
    x = x.unflatten(1, (grid[0] // WINDOW, -1)).unflatten(3, (WINDOW, WINDOW))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shift_mask(grid: tuple[int, int], shifts: list[int]) -> Tensor:
    """(windows, 1, T, T): after the roll, a window at the border holds tokens from opposite ends of the image."""
    region = torch.zeros(1, *grid, 1)
    for axis, (size, shift) in enumerate(zip(grid, shifts, strict=True), start=1):
        place = torch.arange(size).view([-1 if a == axis else 1 for a in range(4)])
        region = 2 * region + (place >= size - shift)
    tokens = _cut(region)[0, :, :, 0]
    differ = tokens[:, None, :, None] != tokens[:, None, None, :]
    return torch.zeros(differ.shape).masked_fill(differ, float("-inf"))


class Stage(nn.Module):
    """Blocks of one resolution, every second one shifted; then, but for the last stage, patch merging."""

    def __init__(self, width: int, heads: int, drop_path: list[float], last: bool):
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(width, heads, i % 2 == 1, rate) for i, rate in enumerate(drop_path))
        self.downsample = None if last else PatchMerging(width)


class SwinTransformer(nn.Module):
    """Image (B, c, H, W), sides multiples of 32 -> features at 1/4, 1/8, 1/16, 1/32, of ``widths`` channels, no norm.

    Args:
        in_channels: c.
        width: of the first stage; the others double it.
        depths, heads: per stage.
        drop_path: probability of the last block; it grows linearly from 0.
    """

    def __init__(self, in_channels: int, width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), drop_path: float = 0.0):
        super().__init__()
        self.widths = tuple(width * 2**i for i in range(4))
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        self.patch_embed = PatchEmbed(in_channels, width, 4)
        self.layers = nn.ModuleList(
            Stage(w, h, [next(rates) for _ in range(d)], last=w == self.widths[-1])
            for w, h, d in zip(self.widths, heads, depths, strict=True)
        )
        self.apply(initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        features, x = [], self.patch_embed(x)
        for stage in self.layers:
            for block in stage.blocks:
                x = block(x)
            features.append(x)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return [feature.permute(0, 3, 1, 2) for feature in features]


def rename_keys(state: dict) -> dict:
    """Authors' or timm's names -> ours; left out: classifier, the norm before it, derived tables."""
    timm = "layers.3.downsample.reduction.weight" in state  # puts the merging before the stage, not after
    renamed = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] in ("head", "norm") or parts[-1] in ("relative_position_index", "attn_mask"):
            continue
        if timm and len(parts) > 2 and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts)] = tensor
    return renamed
