"""The operators as short chains of whole-tensor operations: nothing to loop over, nothing compiled, for export.

The scan is Hillis and Steele's (1986): h[t] = a[t] h[t-1] + b[t] is associative in the pairs (a, b), so after the step
with distance k every position has taken in the 2k before it, and log2(L) steps do. All a are between 0 and 1: nothing
grows. It costs log2(L) times the work of the sequential scan, and states are taken in groups to bound its memory.
"""

from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cross_scan, deform_conv
from .backends import Backend, Ladder
from .causal_conv1d import shifted_sums

GROUP_ELEMENTS = 1 << 26  # of one (Bt, L, D, states) tensor: 256 MiB in fp32


def log_step_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False) -> Tensor:
    """Channels-last shapes as in ``selective_scan.reference``."""
    channels, groups = u.shape[2], B.shape[2]
    dt = delta if delta_bias is None else delta + delta_bias
    dt = F.softplus(dt) if delta_softplus else dt
    dx = dt * u
    width = max(1, min(A.shape[1], GROUP_ELEMENTS // max(1, u.numel())))
    y = 0
    for first in range(0, A.shape[1], width):  # b, c, h: (Bt, L, D, states)
        part = slice(first, first + width)
        b, c = (x[:, :, :, None, part].expand(-1, -1, -1, channels // groups, -1).flatten(2, 3) for x in (B, C))
        h = _solve(torch.exp(dt[..., None] * A[:, part]), dx[..., None] * b)
        y = y + (h * c).sum(-1)
    if D is not None:
        y = y + u * D
    return y if z is None else y * F.silu(z)


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t] along axis 1."""
    distance, length = 1, a.shape[1]
    while distance < length:
        b = torch.cat((b[:, :distance], b[:, distance:] + a[:, distance:] * b[:, :-distance]), dim=1)
        if 2 * distance < length:
            a = torch.cat((a[:, :distance], a[:, distance:] * a[:, :-distance]), dim=1)
        distance *= 2
    return b


PLAIN = {
    "selective_scan": log_step_scan,
    "cross_scan": partial(cross_scan._gather_scan, log_step_scan),
    "causal_conv1d": shifted_sums,
    "deform_conv2d": deform_conv.reference,
}


@contextmanager
def operators_replaced(functions: dict):
    """Within, every operator is the function under its name, and autocast is not touched. For one thread at a time.

    Args:
        functions: operator's name -> what takes a backend's arguments.
    """

    def choose(ladder, requested, kind):
        return Backend("replaced", functions[ladder.operator])

    with _replaced(Ladder, "choose", choose), _replaced(torch, "autocast", lambda *_, **__: nullcontext()):
        yield


@contextmanager
def _replaced(owner, name: str, value):
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
