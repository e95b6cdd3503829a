"""Mamba mixers as their packages have them, with the official parameter names, over one selective scan.

``Mamba``      Mamba-1 (Gu and Dao 2023, arXiv 2312.00752), ``mamba_ssm.Mamba``; with more directions the "bimamba v2"
               of Vim (Zhu et al. 2024, 2401.09417) and the "v3" of SegMamba (Xing et al. 2024, 2401.13560)
``Mamba2``     Mamba-2 (Dao and Gu 2024, arXiv 2405.21060), ``mamba_ssm.Mamba2Simple`` with one group
``MambaLayer`` U-Mamba's wrapping of either for images

Shape letters: B batch, L tokens, C model width, E inner width, N states, R rank of the step projection, H heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.causal_conv1d import causal_conv1d_last
from ..ops.selective_scan import selective_scan_last
from .mamba import directional_scan, initial_step_bias, summed

FORWARD, BACKWARD, SLICES = "", "_b", "_s"  # directions by the suffix of their parameters
V2, V3 = (FORWARD, BACKWARD), (FORWARD, BACKWARD, SLICES)


class Mamba(nn.Module):
    """x (B, L, C) -> (B, L, C), no norm, no residual.

    All directions share the projections in and out; each has its own convolution, projections and scan. Their results
    are added at the tokens' places: 6 C C + directions * (110 C + 4 C R) parameters at the defaults.

    Args:
        width: C.
        states: N.
        taps: filter length of the causal convolution.
        expand: E / C.
        directions: ``(FORWARD,)``, ``V2`` or ``V3``.
        slices: n of the direction SLICES, which visits tokens 0, L/n, 2L/n, ..., then 1, 1 + L/n, ...; divides L.
    """

    def __init__(self, width: int, states=16, taps=4, expand=2, directions=(FORWARD,), slices: int = 1):
        super().__init__()
        inner = expand * width
        self.rank, self.states, self.directions, self.slices = math.ceil(width / 16), states, directions, slices
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, width, bias=False)
        for suffix in directions:
            self._add_direction(suffix, inner, taps)

    def _add_direction(self, suffix: str, inner: int, taps: int):
        dt_proj = nn.Linear(self.rank, inner)
        nn.init.uniform_(dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            dt_proj.bias.copy_(initial_step_bias(inner))
        a_log = torch.log(torch.arange(1, self.states + 1).float()).repeat(inner, 1)
        setattr(self, f"conv1d{suffix}", nn.Conv1d(inner, inner, taps, groups=inner, padding=taps - 1))
        setattr(self, f"x_proj{suffix}", nn.Linear(inner, self.rank + 2 * self.states, bias=False))
        setattr(self, f"dt_proj{suffix}", dt_proj)
        setattr(self, f"A{suffix}_log", nn.Parameter(a_log))
        setattr(self, f"D{suffix}", nn.Parameter(torch.ones(inner)))

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, L, E) each
        if self.directions == (FORWARD,):
            return self.out_proj(self._scan(u, FORWARD, z))
        y = summed(self._undo_order(self._scan(self._order(u, s), s), s) for s in self.directions)
        return self.out_proj(y * F.silu(z))  # the gate stands at the token's place, so it may follow the sum

    def _scan(self, u: Tensor, suffix: str, z: Tensor | None = None) -> Tensor:
        """u (B, L, E), gate z -> (B, L, E)."""
        own = (getattr(self, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj"))
        A_log, D = getattr(self, f"A{suffix}_log"), getattr(self, f"D{suffix}")
        return directional_scan(u, *own, A_log, D, z, reverse=suffix == BACKWARD)

    def _order(self, tokens: Tensor, suffix: str) -> Tensor:
        if suffix == SLICES:
            return tokens.unflatten(1, (self.slices, -1)).transpose(1, 2).flatten(1, 2)
        return tokens

    def _undo_order(self, tokens: Tensor, suffix: str) -> Tensor:
        """Exact inverse of ``_order``."""
        if suffix == SLICES:
            return tokens.unflatten(1, (-1, self.slices)).transpose(1, 2).flatten(1, 2)
        return tokens


class GatedRMSNorm(nn.Module):
    """g / sqrt(mean(g^2) + eps) * weight with g = y * SiLU(z); the mean runs over all channels."""

    def __init__(self, width: int, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        g = y * F.silu(z)
        return g * torch.rsqrt(g.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Mamba2(nn.Module):
    """x (B, L, C) -> (B, L, C): one step size and one decay per head of P channels, B and C shared by all.

    A head's state is (P, N), so its channels are channels of the ordinary scan with equal rows of A.

    Args:
        width: C.
        states: N.
        head_width: P, divides E.
        taps: filter length of the causal convolution.
        expand: E / C.
    """

    def __init__(self, width: int, states=32, head_width=80, taps=4, expand=2):
        super().__init__()
        inner = expand * width
        if inner % head_width:
            raise ValueError(f"expected a head width that divides the inner width {inner}, got {head_width}")
        heads, mixed = inner // head_width, inner + 2 * states
        self.inner, self.states, self.heads, self.head_width = inner, states, heads, head_width
        self.in_proj = nn.Linear(width, inner + mixed + heads, bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, taps, groups=mixed, padding=taps - 1)
        self.dt_bias = nn.Parameter(initial_step_bias(heads))
        self.A_log = nn.Parameter(torch.log(torch.empty(heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = GatedRMSNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        widths = [self.inner, self.inner + 2 * self.states, self.heads]
        z, mixed, dt = self.in_proj(x).split(widths, dim=-1)
        mixed = causal_conv1d_last(mixed, self.conv1d.weight[:, 0], self.conv1d.bias, "silu")
        u, B, C = mixed.split([self.inner, self.states, self.states], dim=-1)
        delta, bias, D, A = (
            t[..., None].expand(*t.shape, self.head_width).flatten(-2)  # repeat_interleave, which ONNX has not
            for t in (dt, self.dt_bias, self.D, -torch.exp(self.A_log.float()))
        )
        A = A[:, None].repeat(1, self.states)  # (E, N)
        y = selective_scan_last(u, delta, A, B.unsqueeze(2), C.unsqueeze(2), D, None, bias, True)
        return self.out_proj(self.norm(y, z))


class MambaLayer(nn.Module):
    """U-Mamba's layer, x (B, C, *grid) -> same shape: LayerNorm and mixer over tokens, no residual.

    Args:
        width: of a token.
        mixer: its Mamba; None: ``Mamba(width)``.
        channel_tokens: a token is a channel (its width the number of voxels) instead of a voxel.
    """

    def __init__(self, width: int, mixer: nn.Module | None = None, channel_tokens: bool = False):
        super().__init__()
        self.channel_tokens = channel_tokens
        self.norm = nn.LayerNorm(width)
        self.mamba = Mamba(width) if mixer is None else mixer

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)  # (B, C, L)
        if self.channel_tokens:
            return self.mamba(self.norm(tokens)).unflatten(2, x.shape[2:])
        return self.mamba(self.norm(tokens.transpose(1, 2))).transpose(1, 2).unflatten(2, x.shape[2:])
