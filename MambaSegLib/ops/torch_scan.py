"""The selective scan in plain torch operations: any device, bounded memory, own backward.

Time is worked off in blocks that stay in the cache: decays exp(delta A) and states of one block are expanded, used and
overwritten, so nothing of size L x D x N exists. A step of the recurrence is one operation on a row of Bt x D x N
numbers; where a row is too small for the cost of a call, neighbouring steps are joined first (see ``Recurrence``).
What has no states (step sizes, gates, gradients of u and delta) is computed for a stretch of N blocks at a time. The
backward pass keeps the state at each block's start and recomputes the rest.

Layout of what is used below: (T, Bt, K, N, Dk), T steps, K groups, Dk = D / K channels of a group; N is 1 in "columns"
(u, delta, ...), Dk is 1 in B and C.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backends import autocast_off
from .llvm_engine import not_traced
from .torch_recurrence import DITHER_STEPS, LOG2E, Recurrence, dither
from .torch_threads import as_many_threads_as_pay

# Elements that one step should touch to hide the cost of a call, and elements of one block buffer.
STEP_ELEMENTS = {"cpu": 1 << 10}
BLOCK_ELEMENTS = {"cpu": 1 << 18}
STEP_ELEMENTS_ACCELERATOR, BLOCK_ELEMENTS_ACCELERATOR = 1 << 20, 1 << 24


class _Scan(torch.autograd.Function):
    """The whole operator; only the state at each block's start is kept beside the operands."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, softplus):
        blocks = _Blocks(u, delta, A, B, C, D, z, delta_bias, softplus)
        with as_many_threads_as_pay(u.device):
            y, starts = _outputs(blocks, keep=any(ctx.needs_input_grad))
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, starts)
        ctx.softplus = softplus
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        *operands, starts = ctx.saved_tensors
        with autocast_off(gy.device.type), as_many_threads_as_pay(gy.device):
            return *_Gradients(_Blocks(*operands, ctx.softplus), gy).sweep(starts), None


class _Blocks:
    """The operands of a scan, cut into stretches of steps, and these into blocks."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, softplus):
        batch, self.length, channels = u.shape
        self.groups, self.states = B.shape[2:]
        self.width = channels // self.groups
        self.row = (batch, self.groups, self.states, self.width)
        self.u, self.delta, self.B, self.C, self.D, self.z = u, delta, B, C, D, z
        self.bias, self.softplus = delta_bias, softplus
        self.A = A.view(self.groups, self.width, self.states).transpose(1, 2).contiguous()  # (K, N, Dk)
        self.A_log2e = self.A * LOG2E  # torch's exp2 takes a third of the time of its exp
        elements, kind = math.prod(self.row), u.device.type
        most = BLOCK_ELEMENTS.get(kind, BLOCK_ELEMENTS_ACCELERATOR) // elements
        self.steps = max(4, min(most, self.length))
        wanted = STEP_ELEMENTS.get(kind, STEP_ELEMENTS_ACCELERATOR)
        self.levels = max(0, math.ceil(math.log2(wanted / elements)))
        self.dither = dither(A).repeat(self.steps // DITHER_STEPS + 2).view(-1, 1, 1, 1, 1)
        self.count = -(-self.length // self.steps)
        stretch = self.steps * self.states
        self.stretches = [slice(t, min(t + stretch, self.length)) for t in range(0, self.length, stretch)]

    def buffer(self) -> Tensor:
        """Room for a block and one row more."""
        return self.A.new_empty(min(self.steps, self.length) + 1, *self.row)

    def column(self, x: Tensor) -> Tensor:
        """(Bt, T, D) -> (T, Bt, K, 1, Dk)."""
        return x.unflatten(2, (self.groups, 1, self.width)).transpose(0, 1)

    @staticmethod
    def flat(column: Tensor) -> Tensor:
        """(T, Bt, K, 1, Dk) -> (Bt, T, D)."""
        return column.flatten(2).transpose(0, 1)

    @staticmethod
    def per_state(x: Tensor, s: slice) -> Tensor:
        """B or C of a stretch: (Bt, L, K, N) -> (T, Bt, K, N, 1)."""
        return x[:, s].transpose(0, 1).unsqueeze(-1)

    def split(self, *tensors: Tensor | None) -> Iterator[tuple]:
        """The blocks' parts of a stretch's tensors (T, ...)."""
        count = -(-tensors[0].shape[0] // self.steps)
        return zip(*([None] * count if x is None else x.split(self.steps) for x in tensors), strict=True)

    def step_sizes(self, s: slice) -> tuple[Tensor, Tensor]:
        """delta with its bias, and what softplus makes of it, both (Bt, T, D)."""
        raw = self.delta[:, s] if self.bias is None else self.delta[:, s] + self.bias
        return raw, F.softplus(raw) if self.softplus else raw

    def add_skip(self, y: Tensor, s: slice) -> Tensor:
        return y if self.D is None else torch.addcmul(y, self.u[:, s], self.D)


class _Block:
    """Where a block of n steps is expanded: views of the buffers and the recurrences on them, made once.

    Attributes:
        decay, states, before: exp(delta A), the state after each step, and the one before it, (n, Bt, K, N, Dk).
        first, last: the state before the block and the one after it, (Bt, K, N, Dk).
        adjoint: what the backward pass sweeps backwards, like ``states``.
    """

    def __init__(self, blocks: _Blocks, n: int, decay: Tensor, states: Tensor, adjoint: Tensor | None = None):
        self.blocks, self.n = blocks, n
        self.decay, self.states, self.before = decay[1 : n + 1], states[1 : n + 1], states[:n]
        self.first, self.last = states[0], states[n]
        self.forwards = Recurrence(decay[: n + 1], states[: n + 1], blocks.levels)
        self.adjoint = None if adjoint is None else adjoint[:n]
        self.backwards = None if adjoint is None else Recurrence(self.decay, self.adjoint, blocks.levels, reverse=True)

    def expand(self, number: int, dt: Tensor, x: Tensor, B: Tensor) -> None:
        """Fills the buffers with block ``number`` from ``first``, its step sizes dt, x = dt u and B."""
        at = number * self.blocks.steps % DITHER_STEPS
        torch.addcmul(self.blocks.dither[at : at + self.n], dt, self.blocks.A_log2e, out=self.decay)
        self.forwards.join()
        if self.backwards is not None:
            self.backwards.join()
        torch.exp2(self.decay, out=self.decay)
        torch.mul(x, B, out=self.states)
        self.forwards.run()


class _Buffers(dict):
    """The blocks by their number of steps: all are alike but the last of the sequence."""

    def __init__(self, blocks: _Blocks, adjoint: bool = False):
        self.blocks = blocks
        self.tensors = [blocks.buffer() for _ in range(3 if adjoint else 2)]

    def __missing__(self, n: int) -> _Block:
        self[n] = _Block(self.blocks, n, *self.tensors)
        return self[n]


def _over_states(x: Tensor, states: Tensor, out: Tensor) -> None:
    """The column sum_n x_n states_n of a block, for x = B or C."""
    if x.shape[3] == 1:
        torch.mul(states, x, out=out)
    else:
        torch.bmm(x.flatten(0, 2).mT, states.flatten(0, 2), out=out.flatten(0, 2))


def _over_channels(column: Tensor, states: Tensor, out: Tensor) -> None:
    """sum_d column_d states_d of a block, like B or C."""
    torch.bmm(states.flatten(0, 2), column.flatten(0, 2).mT, out=out.flatten(0, 2))


def _outputs(blocks: _Blocks, keep: bool) -> tuple[Tensor, Tensor]:
    """y, and with ``keep`` the state at each block's start."""
    u = blocks.u
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    starts = u.new_empty(blocks.count if keep else 0, *blocks.row)
    with torch.inference_mode():  # less to do for each call
        buffers = _Buffers(blocks)
        buffers.tensors[1][0].zero_()  # the state before the first step
        for s in blocks.stretches:
            _stretch_outputs(buffers, s, starts, y[:, s])
    return y, starts


def _stretch_outputs(buffers: _Buffers, s: slice, starts: Tensor, y: Tensor) -> None:
    blocks, z = buffers.blocks, buffers.blocks.z
    dt = blocks.step_sizes(s)[1]
    given = [blocks.column(x) for x in (dt, dt * blocks.u[:, s])]
    given += [blocks.per_state(x, s) for x in (blocks.B, blocks.C)]
    result = torch.empty(given[0].shape, dtype=y.dtype, device=y.device)
    for number, (dt_part, x, B, C, out) in enumerate(blocks.split(*given, result), s.start // blocks.steps):
        block = buffers[out.shape[0]]
        if len(starts):
            starts[number].copy_(block.first)
        block.expand(number, dt_part, x, B)
        _over_states(C, block.states, out)
        block.first.copy_(block.last)
    if z is not None:
        torch.mul(blocks.add_skip(blocks.flat(result), s), F.silu(z[:, s]), out=y)
    elif blocks.D is not None:
        torch.addcmul(blocks.flat(result), blocks.u[:, s], blocks.D, out=y)
    else:
        y.copy_(blocks.flat(result))


class _Gradients:
    """The backward pass: blocks from the end, each recomputed and then swept by the adjoint recurrence."""

    def __init__(self, blocks: _Blocks, gy: Tensor):
        self.blocks, self.gy = blocks, gy
        like = {"dtype": gy.dtype, "device": gy.device}
        named = {"u": blocks.u, "delta": blocks.delta, "B": blocks.B, "C": blocks.C, "z": blocks.z}
        self.d = {name: None if x is None else torch.empty(x.shape, **like) for name, x in named.items()}
        # Sums over millions of steps; MPS has no float64.
        exact = {"dtype": torch.float32 if gy.device.type == "mps" else torch.float64, "device": gy.device}
        self.d |= {name: torch.zeros(blocks.u.shape[2], **exact) for name in ("D", "bias")}
        self.d["A"] = torch.zeros(blocks.A.shape, **exact)
        with torch.inference_mode():  # what is handed out must be made outside of it
            self.buffers = _Buffers(blocks, adjoint=True)
            self.scratch = blocks.buffer()
            self.carry = blocks.A.new_zeros(blocks.row)  # what reaches the state before the steps that are done

    def sweep(self, starts: Tensor) -> tuple:
        """Gradients of u, delta, A, B, C, D, z, delta_bias; None for those that are not there."""
        blocks, d = self.blocks, self.d
        with torch.inference_mode():
            for s in reversed(blocks.stretches):
                self._stretch(s, starts)
        dA = d["A"].to(self.gy.dtype).transpose(1, 2).reshape(-1, blocks.states)
        dD, dbias = (None if x is None else d[n].to(x.dtype) for n, x in (("D", blocks.D), ("bias", blocks.bias)))
        return d["u"], d["delta"], dA, d["B"], d["C"], dD, d["z"], dbias

    def _stretch(self, s: slice, starts: Tensor) -> None:
        blocks, gy, z = self.blocks, self.gy[:, s], self.blocks.z
        raw, dt = blocks.step_sizes(s)
        gate = None if z is None else torch.sigmoid(z[:, s])
        through_gate = gy if z is None else gy * (z[:, s] * gate)
        given = [blocks.column(x) for x in (dt, dt * blocks.u[:, s], through_gate)]
        given += [blocks.per_state(x, s) for x in (blocks.B, blocks.C)]
        from_A, from_B, dB, dC = (torch.empty(x.shape, dtype=gy.dtype, device=gy.device) for x in given[1:])
        y = None if z is None else torch.empty_like(from_A)
        parts = list(enumerate(blocks.split(*given, y, from_A, from_B, dB, dC), s.start // blocks.steps))
        for number, part in reversed(parts):
            self._block(number, starts[number], *part)
        for name, x in (("B", dB), ("C", dC)):
            self.d[name][:, s] = x.squeeze(-1).transpose(0, 1)
        if z is not None:
            slope = gate * (1 + z[:, s] * (1 - gate))
            torch.mul(gy * blocks.add_skip(blocks.flat(y), s), slope, out=self.d["z"][:, s])
        self._per_channel(s, raw, dt, through_gate, blocks.flat(from_A), blocks.flat(from_B))

    def _block(self, number: int, start: Tensor, dt, x, gy, B, C, y, from_A, from_B, dB, dC) -> None:
        """One block's states and their gradients, then what they give for the last five, which are results."""
        block = self.buffers[dt.shape[0]]
        g, scratch = block.adjoint, self.scratch[: block.n]
        block.first.copy_(start)
        block.expand(number, dt, x, B)
        if y is not None:
            _over_states(C, block.states, y)
        torch.mul(gy, C, out=g)
        g[-1] += self.carry
        block.backwards.run()
        torch.mul(block.decay[0], g[0], out=self.carry)
        _over_channels(gy, block.states, dC)
        _over_channels(x, g, dB)
        _over_states(B, g, from_B)
        through_decay = block.decay.mul_(g).mul_(block.before)  # decay[t] g[t] h[t-1]
        torch.sum(torch.mul(through_decay, self.blocks.A, out=scratch), -2, keepdim=True, out=from_A)
        self.d["A"] += torch.mul(through_decay, dt, out=scratch).sum((0, 1))

    def _per_channel(self, s: slice, raw, dt, gy, from_A, from_B) -> None:
        """du, ddelta and the sums dD and dbias, from dL/d(dt u) and the part of dL/d(dt) through A."""
        blocks, u = self.blocks, self.blocks.u[:, s]
        du = dt * from_B
        self.d["u"][:, s] = du if blocks.D is None else du.addcmul_(gy, blocks.D)
        ddelta = torch.addcmul(from_A, u, from_B)
        ddelta = ddelta.mul_(torch.sigmoid(raw)) if blocks.softplus else ddelta
        self.d["delta"][:, s] = ddelta
        self.d["D"] += (gy * u).sum((0, 1))
        self.d["bias"] += ddelta.sum((0, 1))


@not_traced  # torch's compiler would unroll the loop over time
def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Tensor:
    """Channels-last shapes as in ``selective_scan.reference``; any device, fp32 or fp64."""
    return _Scan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
