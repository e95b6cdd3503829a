"""The selective scan in plain torch operations: any device, bounded memory, own backward.

Time is cut into nC chunks whose rows advance together, so one step of the recurrence is one large elementwise
operation. Chunks do not know the state they start from; it is found first by scanning every chunk from zero and
carrying the chunk results serially (``_entry_states``). Inside a chunk, blocks of Tb steps are expanded to states,
used, and overwritten: nothing of size L x D x N exists. The backward pass stores the state at each block's start and
recomputes the rest.

Row layout used below: (T, Bt, nC, K, ...), T steps within a chunk, K groups, Dk = D / K channels of a group.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .llvm_engine import not_traced

MIN_CHUNK_STEPS = 64
# Elements that one step should touch to hide the cost of a call, and elements of one block buffer.
STEP_ELEMENTS = {"cpu": 1 << 12}
BLOCK_ELEMENTS = {"cpu": 1 << 17}
STEP_ELEMENTS_ACCELERATOR, BLOCK_ELEMENTS_ACCELERATOR = 1 << 20, 1 << 24


class Plan(NamedTuple):
    """How L steps are cut: nC chunks of T steps (the last one padded), worked off in blocks of Tb."""

    nC: int
    T: int
    Tb: int


def plan(batch: int, length: int, channels: int, states: int, device_type: str) -> Plan:
    """Enough chunks that a step is worth a call, blocks that stay in the cache."""
    row = batch * channels * states
    wanted = STEP_ELEMENTS.get(device_type, STEP_ELEMENTS_ACCELERATOR)
    nC = 1
    while row * nC < wanted and length // (nC * 2) >= MIN_CHUNK_STEPS:
        nC *= 2
    T = -(-length // nC)
    Tb = max(4, min(T, BLOCK_ELEMENTS.get(device_type, BLOCK_ELEMENTS_ACCELERATOR) // (row * nC)))
    return Plan(nC, -(-T // Tb) * Tb, Tb)


def _rows(x: Tensor, p: Plan) -> Tensor:
    """(Bt, L, K, c) -> (T, Bt, nC, K, c), zero-padded at the end."""
    length = x.shape[1]
    if p.nC * p.T != length:
        x = F.pad(x, (0, 0, 0, 0, 0, p.nC * p.T - length))
    return x.unflatten(1, (p.nC, p.T)).permute(2, 0, 1, 3, 4)


def _unrows(x: Tensor, length: int) -> Tensor:
    """(T, Bt, nC, K, c) -> (Bt, L, K * c)."""
    return x.permute(1, 2, 0, 3, 4).flatten(1, 2).flatten(2)[:, :length]


def _new_rows(like: Tensor, p: Plan, batch: int, groups: int, width: int) -> Tensor:
    return like.new_empty(batch, p.nC, p.T, groups, width).permute(2, 0, 1, 3, 4)


def _states(dt: Tensor, dx: Tensor, B: Tensor, At: Tensor, h: Tensor, decay: Tensor, states: Tensor) -> Tensor:
    """Expand one block: ``decay`` = exp(dt A), ``states`` = h of every step; returns the last one."""
    torch.mul(dt.unsqueeze(-2), At, out=decay).exp_()
    torch.mul(dx.unsqueeze(-2), B.unsqueeze(-1), out=states)
    for a, b in zip(decay.unbind(0), states.unbind(0), strict=True):
        h = b.addcmul_(a, h)
    return h.clone()  # the block buffers are overwritten next


def _adjoint(decay: Tensor, g: Tensor, carry: Tensor) -> Tensor:
    """In place g[t] += decay[t+1] * g[t+1]; returns what the previous block receives."""
    g[-1] += carry
    steps, decays = g.unbind(0), decay.unbind(0)
    for t in range(len(steps) - 2, -1, -1):
        steps[t].addcmul_(decays[t + 1], steps[t + 1])
    return decays[0] * steps[0]


class _Rows:
    """Inputs of a scan in row layout, shared by the forward and the backward pass."""

    def __init__(self, u, delta, A, B, C, delta_bias, softplus):
        batch, length, channels = u.shape
        groups, states = B.shape[2:]
        self.plan = plan(batch, length, channels, states, u.device.type)
        self.raw = delta if delta_bias is None else delta + delta_bias
        dt = F.softplus(self.raw) if softplus else self.raw
        self.dt_flat = dt
        by_group = (groups, channels // groups)
        self.dt = _rows(dt.unflatten(2, by_group), self.plan)
        self.dx = _rows((dt * u).unflatten(2, by_group), self.plan)
        self.B, self.C = _rows(B, self.plan), _rows(C, self.plan)
        self.At = A.view(*by_group, states).transpose(1, 2).contiguous()  # (K, N, Dk)
        self.state_shape = (batch, self.plan.nC, groups, states, channels // groups)
        self.blocks = [slice(t, t + self.plan.Tb) for t in range(0, self.plan.T, self.plan.Tb)]

    def buffers(self, count: int) -> list[Tensor]:
        return [self.dx.new_empty(self.plan.Tb, *self.state_shape) for _ in range(count)]

    def chunk_decay(self) -> Tensor:
        """exp of A times the summed steps of each chunk: what a state at its start is multiplied by."""
        return torch.exp(self.dt.sum(0).unsqueeze(-2) * self.At)

    def entry_states(self, decay: Tensor, states: Tensor) -> Tensor:
        """State at the start of every chunk."""
        h = self.dx.new_zeros(self.state_shape)
        if self.plan.nC == 1:
            return h
        for s in self.blocks:
            h = _states(self.dt[s], self.dx[s], self.B[s], self.At, h, decay, states)
        total, entry = self.chunk_decay(), torch.zeros_like(h)
        for c in range(1, self.plan.nC):
            entry[:, c] = h[:, c - 1] + total[:, c - 1] * entry[:, c - 1]
        return entry

    def exit_adjoints(self, gy: Tensor, decay: Tensor, g: Tensor) -> Tensor:
        """Gradient that reaches every chunk from its successors."""
        carry = self.dx.new_zeros(self.state_shape)
        if self.plan.nC == 1:
            return carry
        for s in reversed(self.blocks):
            torch.mul(self.dt[s].unsqueeze(-2), self.At, out=decay).exp_()
            torch.mul(gy[s].unsqueeze(-2), self.C[s].unsqueeze(-1), out=g)
            carry = _adjoint(decay, g, carry)
        total, entering = self.chunk_decay(), torch.zeros_like(carry)
        for c in range(self.plan.nC - 2, -1, -1):
            entering[:, c] = carry[:, c + 1] + total[:, c + 1] * entering[:, c + 1]
        return entering


class _Scan(torch.autograd.Function):
    """y and the state at each block's start; gates and skips are applied on the flat result."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, softplus):
        rows = _Rows(u, delta, A, B, C, delta_bias, softplus)
        batch, length, channels = u.shape
        decay, states = rows.buffers(2)
        h = rows.entry_states(decay, states)
        y = _new_rows(u, rows.plan, batch, B.shape[2], channels // B.shape[2])
        starts = u.new_empty(len(rows.blocks), *rows.state_shape)
        for i, s in enumerate(rows.blocks):
            starts[i] = h
            h = _states(rows.dt[s], rows.dx[s], rows.B[s], rows.At, h, decay, states)
            y[s] = torch.matmul(rows.C[s].unsqueeze(-2), states).squeeze(-2)
        y = _unrows(y, length)
        if D is not None:
            y = torch.addcmul(y, u, D)
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, starts, None if z is None else y)
        ctx.softplus = softplus
        return y if z is None else y * F.silu(z)

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        u, delta, A, B, C, D, z, delta_bias, starts, y = ctx.saved_tensors
        dz = None
        if z is not None:
            gate = torch.sigmoid(z)
            dz = gy * y * gate * (1 + z * (1 - gate))
            gy = gy * z * gate
        rows = _Rows(u, delta, A, B, C, delta_bias, ctx.softplus)
        from_B, from_A, dB, dC, dAt = _block_gradients(rows, gy, starts)
        du = rows.dt_flat * from_B
        if D is not None:
            du = torch.addcmul(du, gy, D)
        ddelta = torch.addcmul(from_A, u, from_B)
        if ctx.softplus:
            ddelta = ddelta * torch.sigmoid(rows.raw)
        dA = dAt.transpose(1, 2).reshape(A.shape)
        dD = None if D is None else (gy * u).sum((0, 1))
        dbias = None if delta_bias is None else ddelta.sum((0, 1))
        return du, ddelta, dA, dB.view_as(B), dC.view_as(C), dD, dz, dbias, None


def _block_gradients(rows: _Rows, gy: Tensor, starts: Tensor):
    """Sums over states: dL/d(dt u) = <B, g>, the part of dL/d(dt) through A, and dB, dC, dA."""
    batch, length = gy.shape[:2]
    groups, states, width = rows.At.shape
    p = rows.plan
    gr = _rows(gy.unflatten(2, (groups, width)), p)
    decay, h, g, scratch = rows.buffers(4)
    from_B, from_A = (_new_rows(gy, p, batch, groups, width) for _ in range(2))
    dB, dC = (_new_rows(gy, p, batch, groups, states) for _ in range(2))
    dAt = torch.zeros_like(rows.At)
    carry = rows.exit_adjoints(gr, decay, g)
    for i in range(len(rows.blocks) - 1, -1, -1):
        s = rows.blocks[i]
        _states(rows.dt[s], rows.dx[s], rows.B[s], rows.At, starts[i], decay, h)
        torch.mul(gr[s].unsqueeze(-2), rows.C[s].unsqueeze(-1), out=g)
        carry = _adjoint(decay, g, carry)
        dC[s] = torch.matmul(h, gr[s].unsqueeze(-1)).squeeze(-1)
        dB[s] = torch.matmul(g, rows.dx[s].unsqueeze(-1)).squeeze(-1)
        from_B[s] = torch.matmul(rows.B[s].unsqueeze(-2), g).squeeze(-2)
        through_decay = decay.mul_(g)  # decay[t] g[t] h[t-1]
        through_decay[0].mul_(starts[i])
        through_decay[1:].mul_(h[:-1])
        from_A[s] = torch.mul(through_decay, rows.At, out=scratch).sum(-2)
        dAt += torch.mul(through_decay, rows.dt[s].unsqueeze(-2), out=scratch).sum((0, 1, 2))
    return *(_unrows(x, length) for x in (from_B, from_A, dB, dC)), dAt


@not_traced  # torch's compiler would unroll the loop over time
def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Tensor:
    """Channels-last shapes as in ``selective_scan.reference``; any device, fp32 or fp64."""
    return _Scan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
