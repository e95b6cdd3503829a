"""Mamba mixers over tokens of an image grid.

``directional_scan`` is the inside of a Mamba-1 block (Gu and Dao 2023): causal conv, input-dependent B, C and step,
selective scan; ``DirectionalScan`` holds its parameters, with the names of ``mamba_ssm.Mamba``. ``MetaSSM`` (MM-UNet,
arXiv 2503.17540) runs one of them per scan order between shared projections.

Volumes have hundreds of thousands of tokens. On a CPU each new tensor of that length costs about as much as a scan,
because the system hands out fresh pages; hence no copies for scans from the end, sums in place, gates piece by piece.

Shape letters: B batch, L tokens, d model width, E inner width, N states, R rank of the step projection.
"""

import functools
import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.causal_conv1d import causal_conv1d_last
from ..ops.cross_scan import cross_orders, cross_scan
from ..ops.scan_orders import LETTERS, inverse_order, order_set, scan_order
from ..ops.selective_scan import selective_scan_last

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # range of the initial step sizes, mamba_ssm
PIECE_ELEMENTS = 1 << 18  # 1 MiB in fp32, what a core keeps in its cache


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

    def forward(self, u: Tensor, reverse: bool = False) -> Tensor:
        """``reverse``: from the last token to the first."""
        return directional_scan(u, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, reverse=reverse)


def directional_scan(u, conv1d, x_proj, dt_proj, A_log, D, z=None, reverse=False) -> Tensor:
    """Causal conv, projections and scan along one direction; every result stands at its token's place.

    Args:
        u: (B, L, E).
        conv1d, x_proj, dt_proj: layers, depthwise over E, E -> R + 2 N, R -> E.
        A_log, D: (E, N) and (E,).
        z: gate (B, L, E) or None; not with ``reverse``.
        reverse: from the last token to the first.

    Returns:
        (B, L, E).
    """
    if reverse and u.device.type != "cpu":  # the CPU's kernels walk backwards; for others two copies are cheaper
        return directional_scan(u.flip(1), conv1d, x_proj, dt_proj, A_log, D).flip(1)
    u = causal_conv1d_last(u, conv1d.weight[:, 0], conv1d.bias, "silu", reverse)
    states = A_log.shape[1]
    low_rank, B, C = x_proj(u).split([dt_proj.in_features, states, states], dim=-1)
    delta = F.linear(low_rank, dt_proj.weight)  # its bias goes into the scan, before the softplus
    A = -torch.exp(A_log.float())  # (E, N)
    B, C = B.unsqueeze(2), C.unsqueeze(2)  # one group
    if reverse:
        return cross_scan(u, delta, A, B, C, D, dt_proj.bias, cross_orders((1, u.shape[1]), ("-HW",)))
    return selective_scan_last(u, delta, A, B, C, D, z, dt_proj.bias, delta_softplus=True)


def summed(parts: Iterable[Tensor]) -> Tensor:
    """Their sum, in the memory of the first where no gradient is recorded."""
    return functools.reduce(torch.add if torch.is_grad_enabled() else Tensor.add_, parts)


def in_pieces(function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """``function(*tokens)``, on a CPU without gradients for some tokens at a time: what it makes stays in the cache.

    Args:
        function: tensors (B, l, ...) -> (B, C, l), token by token.
        tokens: (B, L, ...) each; the last is the widest.
    """
    batch, length, width = tokens[-1].shape
    step = max(64, PIECE_ELEMENTS // (batch * width))
    compiling = getattr(torch.compiler, "is_compiling", bool)  # torch 2.3 or newer
    traced = torch.jit.is_tracing() or compiling()
    if torch.is_grad_enabled() or traced or step >= length or tokens[-1].device.type != "cpu":
        return function(*tokens)
    result = None
    for start in range(0, length, step):
        part = function(*(t[:, start : start + step] for t in tokens))
        result = part.new_empty(batch, part.shape[1], length) if result is None else result
        result[:, :, start : start + step] = part
    return result


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
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # (B, L, d)
        for_u, for_z = self.in_proj.weight.chunk(2)
        u = F.linear(tokens, for_u)  # (B, L, E)
        y = summed(self._scan(u, i, grid) for i in range(len(self.orders)))
        if self.merge == "mean":
            y = y / len(self.orders)

        def leave(tokens: Tensor, y: Tensor) -> Tensor:
            return self.out_proj(y * F.silu(F.linear(tokens, for_z))).transpose(1, 2)

        return in_pieces(leave, tokens, y).unflatten(2, grid)

    def _scan(self, u: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """u (B, L, E) along the order i; the result in raster order again."""
        name = self.orders[i].removeprefix("-")
        scan = self.directions[i % len(self.directions)]
        return undo_reorder(scan(reorder(u, name, grid), reverse=name != self.orders[i]), name, grid)


def reorder(tokens: Tensor, name: str, grid: tuple[int, ...]) -> Tensor:
    """(B, L, E) in raster order -> in the named scan order."""
    if name == LETTERS[-len(grid) :]:
        return tokens
    return tokens.index_select(1, scan_order(name, grid).to(tokens.device))


def undo_reorder(tokens: Tensor, name: str, grid: tuple[int, ...]) -> Tensor:
    """Exact inverse of ``reorder``."""
    if name == LETTERS[-len(grid) :]:
        return tokens
    return tokens.index_select(1, inverse_order(name, grid).to(tokens.device))
