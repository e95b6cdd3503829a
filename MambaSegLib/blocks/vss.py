"""Visual state-space blocks: SS2D, the four-way scan of an image, and the blocks and samplers around it.

Liu et al., "VMamba: Visual State Space Model", arXiv 2401.10166, in the generations that have weights:
    v0 (January 2024)       16 states, expand 2, z gate; block without MLP: VM-UNet, Swin-UMamba, Mamba-UNet, Deco-Mamba
    v05, "s1l8" and "s2l5"  1 state, expand 1 or 2, no gate, conv without bias; block with MLP: VMamba from March 2024
Parameter names are the authors'. All maps are channels last, (B, H, W, C), because everything but the 3x3 convolution
is a linear map or a scan over channels.

Shape letters: B batch, L = H*W, C width, E inner width, N states, R rank of the step projection, K = 4 directions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.cross_scan import FOUR_WAYS, cross_orders, cross_scan
from .drop_path import DropPath
from .mamba import initial_step_bias


class SS2D(nn.Module):
    """x (B, H, W, C) -> same shape, no residual.

    Args:
        width: C.
        states: N.
        expand: E / C.
        gate: multiply by SiLU(z) before the output projection (v0).
        conv_bias: bias of the depthwise 3x3 convolution (v0).
        norm_eps: of the LayerNorm after the scan.
    """

    def __init__(self, width: int, states=16, expand=2.0, gate=True, conv_bias=True, norm_eps=1e-5):
        super().__init__()
        inner, rank, ways = int(expand * width), math.ceil(width / 16), len(FOUR_WAYS)
        self.inner, self.rank, self.states, self.gate = inner, rank, states, gate
        self.in_proj = nn.Linear(width, 2 * inner if gate else inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=conv_bias)
        bound = inner**-0.5  # as nn.Linear draws it
        self.x_proj_weight = nn.Parameter(torch.empty(ways, rank + 2 * states, inner).uniform_(-bound, bound))
        self.dt_projs_weight = nn.Parameter(torch.empty(ways, inner, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.dt_projs_bias = nn.Parameter(initial_step_bias(ways, inner))
        self.A_logs = nn.Parameter(torch.log(torch.arange(1, states + 1).float()).repeat(ways * inner, 1))
        self.Ds = nn.Parameter(torch.ones(ways * inner))
        self.out_norm = nn.LayerNorm(inner, eps=norm_eps)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).split(self.inner, dim=-1) if self.gate else (self.in_proj(x), None)
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)  # (B, H, W, E)
        y = self.out_norm(self.scan(u.flatten(1, 2), tuple(u.shape[1:3]))).unflatten(1, u.shape[1:3])
        return self.out_proj(y if z is None else y * F.silu(z))

    def scan(self, u: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, L, E) -> (B, L, E): projections and scan of all directions, summed."""
        projected = F.linear(u, self.x_proj_weight.flatten(0, 1)).unflatten(2, (len(FOUR_WAYS), -1))
        low_rank, B, C = projected.split([self.rank, self.states, self.states], dim=-1)  # (B, L, K, R | N | N)
        delta = torch.einsum("blkr,ker->blke", low_rank, self.dt_projs_weight).flatten(2)
        A = -torch.exp(self.A_logs.float())
        return cross_scan(u, delta, A, B, C, self.Ds, self.dt_projs_bias.flatten(), cross_orders(grid))


class VSSBlock(nn.Module):
    """Block of v0 with its names: x + DropPath(SS2D(LN(x))); x (B, H, W, C).

    Args:
        width: C.
        drop_path: probability of leaving the branch out in training.
        norm_eps: of the LayerNorm before SS2D.
        inner_norm_eps: of the one inside.
        states: N.
    """

    def __init__(self, width: int, drop_path=0.0, norm_eps=1e-5, inner_norm_eps=1e-5, states=16):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=norm_eps)
        self.self_attention = SS2D(width, states, norm_eps=inner_norm_eps)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between; x (..., C)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class VMambaBlock(nn.Module):
    """Block of the later generations: x + op(norm x), then x + mlp(norm2 x) where there is an MLP; x (B, H, W, C).

    Args:
        width: C.
        drop_path: probability of leaving a branch out in training.
        mlp_ratio: hidden width of the MLP / C; 0 for none.
        **ss2d: see ``SS2D``.
    """

    def __init__(self, width: int, drop_path=0.0, mlp_ratio=4.0, **ss2d):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.op = SS2D(width, **ss2d)
        self.drop_path = DropPath(drop_path)
        if mlp_ratio:
            self.norm2 = nn.LayerNorm(width)
            self.mlp = Mlp(width, int(mlp_ratio * width))
        else:
            self.mlp = None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        return x if self.mlp is None else x + self.drop_path(self.mlp(self.norm2(x)))


class VSSStage(nn.Module):
    """VSSBlocks of one width.

    Args:
        width: C.
        drop_paths: one probability per block.
        downsample, upsample: what stands behind or before the blocks, under these names.
        **block: see ``VSSBlock``.
    """

    def __init__(self, width: int, drop_paths, downsample=None, upsample=None, **block):
        super().__init__()
        self.blocks = nn.Sequential(*(VSSBlock(width, rate, **block) for rate in drop_paths))
        self.downsample = nn.Identity() if downsample is None else downsample
        self.upsample = nn.Identity() if upsample is None else upsample

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(self.upsample(x)))


def drop_path_rates(highest: float, depths) -> list[list[float]]:
    """Probabilities rising linearly from 0 to ``highest`` over all blocks, split into stages of these depths."""
    blocks = sum(depths)
    rates = [highest * i / max(blocks - 1, 1) for i in range(blocks)]
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


class PatchEmbed(nn.Module):
    """Image (B, c, H, W) -> tokens (B, H/p, W/p, C): convolution with stride p, then LayerNorm."""

    def __init__(self, in_channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Swin's halving (B, H, W, C) -> (B, H/2, W/2, 2C): the four phases side by side, LayerNorm, linear."""

    def __init__(self, width: int):
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        phases = x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]
        return self.reduction(self.norm(torch.cat(phases, dim=-1)))


class PatchExpand(nn.Module):
    """Swin-Unet's enlarging (B, H, W, C) -> (B, fH, fW, D): linear to f*f*D, pixels from channels, LayerNorm.

    Args:
        width: C.
        out_width: D.
        factor: f.
    """

    def __init__(self, width: int, out_width: int, factor: int = 2):
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, factor * factor * out_width, bias=False)
        self.norm = nn.LayerNorm(out_width)

    def forward(self, x: Tensor) -> Tensor:
        f = self.factor
        x = self.expand(x).unflatten(-1, (f, f, -1))  # (B, H, W, row in pixel, column in pixel, D)
        return self.norm(x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2))
