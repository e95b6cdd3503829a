"""Mamba mixers over tokens of an image grid.

``DirectionalScan`` is the inside of a Mamba-1 block (Gu and Dao 2023): causal conv, input-dependent B, C and step,
selective scan; parameter names as in ``mamba_ssm.Mamba``. ``MetaSSM`` (MM-UNet, arXiv 2503.17540) runs one of them per
scan order between shared projections.

Shape letters: B batch, L tokens, d model width, E inner width, N states, R rank of the step projection.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.causal_conv1d import causal_conv1d_last
from ..ops.scan_orders import LETTERS, inverse_order, order_set, scan_order
from ..ops.selective_scan import selective_scan_last

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # range of the initial step sizes, mamba_ssm


def initial_step_bias(*shape: int) -> Tensor:
    """Bias of the step projection: the inverse softplus of steps drawn log-uniform in [DT_MIN, DT_MAX]."""
    low, high = math.log(DT_MIN), math.log(DT_MAX)
    dt = torch.exp(torch.rand(shape) * (high - low) + low).clamp(min=DT_FLOOR)
    return dt + torch.log(-torch.expm1(-dt))


class DirectionalScan(nn.Module):
    """u (B, L, E) -> (B, L, E): conv, projections and scan of one direction.

    Args:
        inner: E.
        rank: R.
        states: N.
        taps: filter length of the causal convolution.
    """

    def __init__(self, inner: int, rank: int, states: int = 16, taps: int = 4):
        super().__init__()
        self.rank, self.states = rank, states
        self.conv1d = nn.Conv1d(inner, inner, taps, groups=inner, padding=taps - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, states + 1).float()).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self._init_step()

    def _init_step(self):
        bound = self.rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        with torch.no_grad():
            self.dt_proj.bias.copy_(initial_step_bias(self.dt_proj.out_features))

    def forward(self, u: Tensor) -> Tensor:
        u = causal_conv1d_last(u, self.conv1d.weight[:, 0], self.conv1d.bias, "silu")  # (B, L, E)
        low_rank, B, C = self.x_proj(u).split([self.rank, self.states, self.states], dim=-1)
        delta = F.linear(low_rank, self.dt_proj.weight)  # its bias goes into the scan, before the softplus
        A = -torch.exp(self.A_log.float())  # (E, N)
        B, C = B.unsqueeze(2), C.unsqueeze(2)  # one group
        return selective_scan_last(u, delta, A, B, C, self.D, None, self.dt_proj.bias, delta_softplus=True)


class MetaSSM(nn.Module):
    """Norm, shared projections and one ``DirectionalScan`` per order; x (B, d, *grid) -> same shape, no residual.

    Args:
        width: d.
        orders: scan orders, see ``ops.scan_orders``, or the name of a set there.
        dims: 2 or 3 grid axes; what the set's orders are for.
        states, taps, expand: N, filter length and E / d.
        shared: all orders use one ``DirectionalScan``.
        merge: ``sum`` (default) or ``mean`` of the directions.
    """

    def __init__(self, width: int, orders="bi", dims=3, states=16, taps=4, expand=2, shared=False, merge="sum"):
        super().__init__()
        if merge not in ("sum", "mean"):
            raise ValueError(f"expected merge 'sum' or 'mean', got {merge!r}")
        self.orders = order_set(orders, dims) if isinstance(orders, str) else tuple(orders)
        self.merge = merge
        inner, rank = expand * width, math.ceil(width / 16)
        self.norm = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        count = 1 if shared else len(self.orders)
        self.directions = nn.ModuleList(DirectionalScan(inner, rank, states, taps) for _ in range(count))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        grid = tuple(x.shape[2:])
        u, z = self.in_proj(self.norm(x.flatten(2).transpose(1, 2))).chunk(2, dim=-1)  # (B, L, E) each
        y = 0
        for i, name in enumerate(self.orders):
            scanned = self.directions[i % len(self.directions)](reorder(u, name, grid))
            y = y + undo_reorder(scanned, name, grid)
        if self.merge == "mean":
            y = y / len(self.orders)
        return self.out_proj(y * F.silu(z)).transpose(1, 2).unflatten(2, grid)


def reorder(tokens: Tensor, name: str, grid: tuple[int, ...]) -> Tensor:
    """(B, L, E) in raster order -> in the named scan order."""
    raster = LETTERS[-len(grid) :]
    if name == raster:
        return tokens
    if name == "-" + raster:
        return tokens.flip(1)
    return tokens.index_select(1, scan_order(name, grid).to(tokens.device))


def undo_reorder(tokens: Tensor, name: str, grid: tuple[int, ...]) -> Tensor:
    """Exact inverse of ``reorder``."""
    if name.removeprefix("-") == LETTERS[-len(grid) :]:
        return reorder(tokens, name, grid)  # both are their own inverse
    return tokens.index_select(1, inverse_order(name, grid).to(tokens.device))
