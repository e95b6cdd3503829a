"""The selective scan in plain torch operations: any device, bounded memory, own backward.

Time is worked off in blocks that stay in the cache: decays exp(delta A) and states of one block are expanded, used and
overwritten, so nothing of size L x D x N exists. A step of the recurrence is one operation on a row of Bt x D x N
numbers; where a row is too small for the cost of a call, neighbouring steps are joined first (see ``_Recurrence``).
The backward pass keeps the state at each block's start and recomputes the rest.

Block layout used below: (T, Bt, K, N, Dk), T steps, K groups, Dk = D / K channels of a group.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backends import autocast_off
from .llvm_engine import not_traced

LOG2E = math.log2(math.e)
# Elements that one step should touch to hide the cost of a call, and elements of one block buffer.
STEP_ELEMENTS = {"cpu": 1 << 12}
BLOCK_ELEMENTS = {"cpu": 1 << 18}
STEP_ELEMENTS_ACCELERATOR, BLOCK_ELEMENTS_ACCELERATOR = 1 << 20, 1 << 24
DITHER_STEPS = 256


class _Recurrence:
    """x[t] += decay[t] x[t-1] in place along two buffers of rows, or with ``reverse`` x[t] += decay[t+1] x[t+1].

    Each level joins pairs of steps, leaving half as many steps of twice the reach (Blelloch 1990): first the second
    step of every pair, then all of these one after the other, then the steps between them. Views are made only once.

    ``decay`` is handed over as exponents of two: those of a pair are added, not its decays multiplied, because a
    product close to 1 would be rounded alike in every pair of a slow decay.
    """

    def __init__(self, decay: Tensor, x: Tensor, levels: int, reverse: bool = False):
        n = len(x)
        at, of = (range(n - 1, -1, -1), range(n, 0, -1)) if reverse else (range(n), range(n))
        self.sums, self.updates, between = [], [], []
        for _ in range(levels):
            if len(at) < 4:
                break
            self.updates.append((_rows(x, at[1::2]), _rows(decay, of[1::2]), _rows(x, at[0:-1:2])))
            between.append((_rows(x, at[2::2]), _rows(decay, of[2::2]), _rows(x, at[1:-1:2])))
            at = at[1::2]
            pairs = decay.new_empty(len(at), *decay.shape[1:])
            pair_of = range(len(at) - 1, -1, -1) if reverse else range(len(at))
            self.sums.append((_rows(pairs, pair_of[1:]), _rows(decay, of[3::2]), _rows(decay, of[2:-1:2])))
            decay, of = pairs, pair_of
        self.updates += [(x[at[i]], decay[of[i]], x[at[i - 1]]) for i in range(1, len(at))]
        self.updates += reversed(between)

    def join(self) -> None:
        """Before the exponents in ``decay`` are replaced by their powers of two."""
        for out, a, b in self.sums:
            torch.add(a, b, out=out)
        for out, _, _ in self.sums:
            torch.exp2(out, out=out)

    def run(self) -> None:
        for target, decay, source in self.updates:
            target.addcmul_(decay, source)


def _rows(x: Tensor, at: range) -> Tensor:
    """These rows in the order of the buffer; torch has no views with negative steps."""
    at = at if at.step > 0 else at[::-1]
    return x[at.start : at.stop : at.step]


def _dither(like: Tensor) -> Tensor:
    """Up to half a unit in the last place of numbers just below 1, another one in each step, zero on average.

    exp(delta A) close to 1 is rounded alike in every step of a constant delta, which adds up: 1e-4 in the gradients at
    delta = 1e-4. Rounding now up and now down makes it noise.
    """
    bits = (DITHER_STEPS - 1).bit_length()
    reversed_bits = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(DITHER_STEPS)]  # evenly spread at any length
    spread = (torch.tensor(reversed_bits) + 0.5) / DITHER_STEPS - 0.5
    return (spread * (LOG2E * torch.finfo(like.dtype).eps / 2)).to(like)


class _Scan(torch.autograd.Function):
    """The whole operator; only the state at each block's start is kept beside the operands."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, softplus):
        blocks = _Blocks(u, delta, A, B, C, D, z, delta_bias, softplus)
        keep = any(ctx.needs_input_grad)
        starts = u.new_empty(len(blocks.slices) if keep else 0, *blocks.row)
        y, h = torch.empty(u.shape, dtype=u.dtype, device=u.device), u.new_zeros(blocks.row)
        recurrences = {}
        decay, states = blocks.buffers(2)
        for i, s in enumerate(blocks.slices):
            if keep:
                starts[i] = h
            n = s.stop - s.start
            if n not in recurrences:
                recurrences[n] = _Recurrence(decay[:n], states[:n], blocks.levels)
            blocks.expand(s, blocks.step_sizes(s)[1], h, decay[:n], states[:n], recurrences[n])
            h = states[n - 1].clone()  # the block buffers are overwritten next
            blocks.output(s, states[:n], y[:, s])
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, starts)
        ctx.softplus = softplus
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        *operands, starts = ctx.saved_tensors
        with autocast_off(gy.device.type):
            return *_Gradients(_Blocks(*operands, ctx.softplus), gy).sweep(starts), None


class _Blocks:
    """The operands of a scan, cut into blocks of steps."""

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
        self.dither = _dither(A).repeat(self.steps // DITHER_STEPS + 2).view(-1, 1, 1, 1, 1)
        starts = range(0, self.length, self.steps)
        self.slices = [slice(t, min(t + self.steps, self.length)) for t in starts]

    def buffers(self, count: int) -> list[Tensor]:
        return [self.A.new_empty(min(self.steps, self.length), *self.row) for _ in range(count)]

    def by_group(self, x: Tensor) -> Tensor:
        """(Bt, T, D) -> (T, Bt, K, 1, Dk)."""
        return x.unflatten(2, (self.groups, 1, self.width)).transpose(0, 1)

    def step_sizes(self, s: slice) -> tuple[Tensor, Tensor]:
        """delta with its bias, and what softplus makes of it, both (Bt, T, D)."""
        raw = self.delta[:, s] if self.bias is None else self.delta[:, s] + self.bias
        return raw, F.softplus(raw) if self.softplus else raw

    def expand(self, s: slice, dt, h, decay, states, forwards, *others) -> None:
        """Fills the two buffers with exp(delta A) and the states of a block that starts from ``h``.

        ``forwards`` is the recurrence of the two buffers; ``others`` on ``decay`` are made ready to run.
        """
        first = s.start % DITHER_STEPS
        torch.addcmul(self.dither[first : first + len(decay)], self.by_group(dt), self.A_log2e, out=decay)
        for recurrence in (forwards, *others):
            recurrence.join()
        torch.exp2(decay, out=decay)
        torch.mul(self.by_group(dt * self.u[:, s]), self.per_state(self.B, s), out=states)
        states[0].addcmul_(decay[0], h)
        forwards.run()

    @staticmethod
    def per_state(x: Tensor, s: slice) -> Tensor:
        """B or C of a block: (Bt, L, K, N) -> (T, Bt, K, N, 1)."""
        return x[:, s].transpose(0, 1).unsqueeze(-1)

    def over_states(self, x: Tensor, s: slice, states: Tensor) -> Tensor:
        """sum_n x_n states_n of a block, (Bt, T, D), for x = B or C."""
        if self.states == 1:
            total = states * self.per_state(x, s)
        else:
            rows = x[:, s].transpose(0, 1).reshape(-1, 1, self.states)
            total = torch.bmm(rows, states.reshape(-1, self.states, self.width))
        return total.view(len(states), self.row[0], -1).transpose(0, 1)

    def output(self, s: slice, states: Tensor, y: Tensor) -> None:
        """y of a block."""
        result, z = self.over_states(self.C, s, states), None if self.z is None else self.z[:, s]
        if z is None and self.D is None:
            y.copy_(result)
        elif z is None:
            torch.addcmul(result, self.u[:, s], self.D, out=y)
        else:
            result = result if self.D is None else torch.addcmul(result, self.u[:, s], self.D)
            torch.mul(result, F.silu(z), out=y)


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
        self.decay, self.states, self.g, self.scratch = blocks.buffers(4)
        self.recurrences = {}

    def sweep(self, starts: Tensor) -> tuple:
        """Gradients of u, delta, A, B, C, D, z, delta_bias; None for those that are not there."""
        blocks, d = self.blocks, self.d
        carry = starts.new_zeros(blocks.row)
        for i in range(len(blocks.slices) - 1, -1, -1):
            carry = self._block(blocks.slices[i], starts[i], carry)
        dA = d["A"].to(self.gy.dtype).transpose(1, 2).reshape(-1, blocks.states)
        dD, dbias = (None if x is None else d[n].to(x.dtype) for n, x in (("D", blocks.D), ("bias", blocks.bias)))
        return d["u"], d["delta"], dA, d["B"], d["C"], dD, d["z"], dbias

    def _ungate(self, s: slice, states: Tensor) -> Tensor:
        """The gradient before the gate; writes that of z."""
        blocks, gy = self.blocks, self.gy[:, s]
        if blocks.z is None:
            return gy
        z, y = blocks.z[:, s], blocks.over_states(blocks.C, s, states)
        gate = torch.sigmoid(z)
        y = y if blocks.D is None else torch.addcmul(y, blocks.u[:, s], blocks.D)
        torch.mul(gy * y, gate * (1 + z * (1 - gate)), out=self.d["z"][:, s])
        return gy * (z * gate)

    def _block(self, s: slice, start: Tensor, carry: Tensor) -> Tensor:
        """One block's gradients; returns what reaches the state before it."""
        blocks, n = self.blocks, s.stop - s.start
        decay, h, g, scratch = (x[:n] for x in (self.decay, self.states, self.g, self.scratch))
        if n not in self.recurrences:
            self.recurrences[n] = (
                _Recurrence(decay, h, blocks.levels),
                _Recurrence(decay, g, blocks.levels, reverse=True),
            )
        forwards, backwards = self.recurrences[n]
        raw, dt = blocks.step_sizes(s)
        blocks.expand(s, dt, start, decay, h, forwards, backwards)
        gy = self._ungate(s, h)
        torch.mul(blocks.by_group(gy), blocks.per_state(blocks.C, s), out=g)
        g[-1] += carry
        backwards.run()
        carry = decay[0] * g[0]
        self._over_channels("C", s, h, gy)
        self._over_channels("B", s, g, dt * blocks.u[:, s])
        from_B = blocks.over_states(blocks.B, s, g)
        through_decay = decay.mul_(g)  # decay[t] g[t] h[t-1]
        through_decay[0].mul_(start)
        through_decay[1:].mul_(h[:-1])
        from_A = torch.mul(through_decay, blocks.A, out=scratch).sum(-2).transpose(0, 1).flatten(2)
        self.d["A"] += torch.mul(through_decay, blocks.by_group(dt), out=scratch).sum((0, 1))
        self._per_channel(s, raw, dt, gy, from_A, from_B)
        return carry

    def _over_channels(self, name: str, s: slice, rows: Tensor, x: Tensor) -> None:
        """dB or dC: sum_d rows_d x_d of a block."""
        blocks = self.blocks
        x = blocks.by_group(x).reshape(-1, blocks.width, 1)
        total = torch.bmm(rows.reshape(-1, blocks.states, blocks.width), x)
        self.d[name][:, s] = total.view(rows.shape[:-1]).transpose(0, 1)

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
