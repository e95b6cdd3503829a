"""Selective scan on the CPU with kernels compiled by llvmlite, channels last, with gradients.

`scan` is the backend "jit" of `selective_scan`; `llvm_engine.why_not()` says whether it can run here.
"""

from __future__ import annotations

import math
import weakref
from types import ModuleType

import torch
from torch.autograd.function import once_differentiable

from . import llvm_engine

# Single-threaded seconds per channel step and per state step, measured with AVX2; they only choose the thread count.
FORWARD_COST_S = (1.5e-9, 0.5e-9)
BACKWARD_COST_S = (2.5e-9, 1.1e-9)


@llvm_engine.not_traced
def scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    orders: torch.Tensor | None = None,
    shared_u: bool = False,
) -> torch.Tensor:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = (C_t h_t + D u_t) silu(z_t).

    Shapes: u, z (Bt, L, K Dk); delta (Bt, L, K Dk); A (K Dk, N); B, C (Bt, L, K, N); D, delta_bias (K Dk,). Group k
    uses B[:, :, k] and visits position orders[k, t] at step t (int32 permutations (K, L); None: 0, 1, 2, ...), where it
    reads all operands and writes its result. With `shared_u`, u and z are (Bt, L, Dk), common to the K groups, and the
    result is the sum of the groups' results. delta_bias and then softplus are applied to delta before use.

    Returns y, of u's shape and dtype. float64 is computed in float64, everything else in float32. Tensors with unit
    stride in their last dimension are not copied. Raises ValueError for shapes or orders that do not fit.
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    operands = [None if t is None else t.to(dtype) for t in (u, delta, A, B, C, D, z, delta_bias)]
    _check_shapes(*operands, shared_u)
    if orders is not None:
        orders = _checked_orders(orders, B.shape[2], u.shape[1])
    options = (bool(delta_softplus), orders, bool(shared_u))
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands):
        y = _Scan.apply(*operands, *options)
    else:
        y, _ = _forward(*operands, *options, keep_states=False)
    return y.to(u.dtype)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, softplus, orders, shared):
        y, states = _forward(u, delta, A, B, C, D, z, delta_bias, softplus, orders, shared, keep_states=True)
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, orders, states)
        ctx.options = softplus, shared
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        *operands, orders, states = ctx.saved_tensors
        softplus, shared = ctx.options
        gradients = _backward(gy, states, *operands, softplus, orders, shared)
        wanted = (g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False))
        return *wanted, None, None, None


def _forward(u, delta, A, B, C, D, z, delta_bias, softplus, orders, shared, keep_states):
    """(y, checkpointed states or None)."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, orders, shared, FORWARD_COST_S)
    y = torch.empty(u.shape, dtype=u.dtype)
    states = None
    if keep_states:
        states = u.new_empty(call.batch, call.groups, call.blocks, call.tiles, call.state_size, call.width)
        call.values["states"] = states.data_ptr()
    call.bind(y=y)
    call.run(backward=False, softplus=softplus, keep_states=keep_states)
    return y, states


def _backward(gy, states, u, delta, A, B, C, D, z, delta_bias, softplus, orders, shared):
    """Gradients of u, delta, A, B, C, D, z, delta_bias; those of absent operands are None."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, orders, shared, BACKWARD_COST_S)
    du, ddelta = (torch.empty(t.shape, dtype=t.dtype) for t in (u, delta))
    dz = None if z is None else torch.empty(z.shape, dtype=z.dtype)
    db, dc = (u.new_empty(call.parts, *B.shape) for _ in range(2))
    per_block = (call.batch, call.groups, call.blocks)
    da = u.new_empty(*per_block, call.state_size, call.width)
    dd, dbias = (u.new_empty(*per_block, call.width) for _ in range(2))
    gy = _unit_stride(gy)
    call.bind(gy=gy, du=du, ddelta=ddelta, dz=dz, dB=db[0], dC=dc[0])
    call.values |= {
        "states": states.data_ptr(),
        "dA": da.data_ptr(),
        "dD": dd.data_ptr(),
        "dbias": dbias.data_ptr(),
        "part_stride": db.stride(0),
    }
    call.run(backward=True, softplus=softplus, keep_states=False)
    db, dc = (t[0] if call.parts == 1 else t.sum(0) for t in (db, dc))
    da = call.unpack_channels(da.sum(0).transpose(2, 3))
    dd = None if D is None else call.unpack_channels(dd.sum(0))
    dbias = None if delta_bias is None else call.unpack_channels(dbias.sum(0))
    return du, ddelta, da, db, dc, dd, dz, dbias


class _Call:
    """One run of a kernel: sizes, packed parameters, and the parameter block under construction."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, orders, shared, cost_s):
        self.dtype, self.shared, self.gated, self.ordered = u.dtype, shared, z is not None, orders is not None
        self.batch, self.length, self.groups, self.state_size = B.shape
        self.channels = A.shape[0] // self.groups
        self.width = llvm_engine.vector_width(u.dtype)
        self.blocks = -(-self.channels // self.width)
        self.tiles = -(-self.length // _ir().tile_length(self.width))
        self._choose_parts(cost_s)
        self.values = {
            "parts": self.parts,
            "groups": self.groups,
            "blocks": self.blocks,
            "tail_lanes": self.channels - (self.blocks - 1) * self.width,
            "length": self.length,
            "tiles": self.tiles,
            "order": 0 if orders is None else orders.data_ptr(),
        }
        self._keep = [orders]  # everything the kernel has a pointer to
        self._pack(A, D, delta_bias)
        self.bind(u=_unit_stride(u), delta=_unit_stride(delta), z=_unit_stride(z), B=_unit_stride(B), C=_unit_stride(C))

    def _choose_parts(self, cost_s) -> None:
        """Splits the channels of a group into parts, so that the tasks fill the threads evenly."""
        per_channel, per_state = cost_s
        steps = self.batch * self.groups * self.blocks * self.width * self.length
        self.threads = llvm_engine.thread_count(steps * (per_channel + per_state * self.state_size))
        rows = self.batch * (1 if self.shared else self.groups)
        self.parts = next(
            parts
            for parts in range(1, self.blocks + 1)
            if rows * parts % self.threads == 0 or rows * parts >= 4 * self.threads or parts == self.blocks
        )
        self.tasks = rows * self.parts

    def _pack(self, A, D, delta_bias) -> None:
        """Per-channel parameters by blocks: (groups, blocks, N, width), zero for channels that pad the last block."""
        a = self._blocks_of(A).transpose(2, 3).contiguous()
        a_log2e = (a.double() * math.log2(math.e)).to(self.dtype)
        packed = {"A": a, "A_log2e": a_log2e}
        for name, t in (("D", D), ("bias", delta_bias)):
            packed[name] = self._blocks_of(A.new_zeros(A.shape[0]) if t is None else t).contiguous()
        self.values |= {name: t.data_ptr() for name, t in packed.items()}
        self._keep.append(packed)

    def _blocks_of(self, t):
        """(groups * channels, ...) -> (groups, blocks, width, ...)."""
        t = t.detach().reshape(self.groups, self.channels, *t.shape[1:])
        padded = self.blocks * self.width
        if padded != self.channels:
            t = torch.cat([t, t.new_zeros(self.groups, padded - self.channels, *t.shape[2:])], 1)
        return t.reshape(self.groups, self.blocks, self.width, *t.shape[2:])

    def unpack_channels(self, t):
        """The inverse of _blocks_of."""
        t = t.reshape(self.groups, self.blocks * self.width, *t.shape[3:])[:, : self.channels]
        return t.reshape(self.groups * self.channels, *t.shape[2:])

    def bind(self, **tensors) -> None:
        """Addresses and strides of (Bt, L, channels) and (Bt, L, K, N) tensors."""
        for name, t in tensors.items():
            if t is None:
                continue
            shared = t.dim() == 3 and t.shape[2] == self.channels
            group = t.stride(2) if t.dim() == 4 else 0 if shared else self.channels
            strides = {"_batch": t.stride(0), "_group": group, "_row": t.stride(1)}
            self.values |= {name: t.data_ptr(), **{name + suffix: stride for suffix, stride in strides.items()}}
            self._keep.append(t)

    def run(self, backward: bool, softplus: bool, keep_states: bool) -> None:
        ir = _ir()
        variant = ir.Variant(
            backward=backward,
            dtype=str(self.dtype).removeprefix("torch."),
            width=self.width,
            state_size=self.state_size,
            gated=self.gated,
            softplus=softplus,
            ordered=self.ordered,
            shared=self.shared,
            tail=self.channels % self.width != 0,
            keep_states=keep_states,
        )
        kernel = llvm_engine.kernel(variant, lambda: ir.build(variant))
        scratch = -(-self.blocks // self.parts) * ir.scratch_per_block(variant)
        kernel.run(self.tasks, self.threads, scratch, self.dtype, self.values)


def _ir() -> ModuleType:
    """The module that writes the kernels; it needs llvmlite, this one must be importable without."""
    from . import llvm_scan_ir

    return llvm_scan_ir


def _unit_stride(t):
    return t if t is None or t.stride(-1) == 1 else t.contiguous()


def _check_shapes(u, delta, A, B, C, D, z, delta_bias, shared) -> None:
    if B.dim() != 4 or A.dim() != 2 or u.dim() != 3:
        raise ValueError(f"u (Bt, L, C), A (C, N), B (Bt, L, K, N) expected, got {[tuple(t.shape) for t in (u, A, B)]}")
    batch, length, groups, n = B.shape
    all_channels = A.shape[0]
    if all_channels % groups or min(B.shape) < 1 or all_channels < 1:
        raise ValueError(f"{all_channels} channels cannot be split into the {groups} groups of B {tuple(B.shape)}")
    outer = (batch, length, all_channels // groups if shared else all_channels)
    expected = {
        "u": (u, outer),
        "delta": (delta, (batch, length, all_channels)),
        "A": (A, (all_channels, n)),
        "C": (C, tuple(B.shape)),
        "D": (D, (all_channels,)),
        "z": (z, outer),
        "delta_bias": (delta_bias, (all_channels,)),
    }
    for name, (t, shape) in expected.items():
        if t is not None and tuple(t.shape) != shape:
            raise ValueError(f"{name} should have shape {shape}, got {tuple(t.shape)}")
        if t is not None and t.device.type != "cpu":
            raise ValueError(f"{name} should be on the CPU, got {t.device}")


_permutations: weakref.WeakValueDictionary[tuple[int, int], torch.Tensor] = weakref.WeakValueDictionary()


def _checked_orders(orders: torch.Tensor, groups: int, length: int) -> torch.Tensor:
    """Every row must be a permutation: a kernel would follow any number to any address. Tables are checked once."""
    if tuple(orders.shape) != (groups, length):
        raise ValueError(f"orders should have shape {(groups, length)}, got {tuple(orders.shape)}")
    key = None if orders.is_inference() else (id(orders), orders._version)
    if key is not None and _permutations.get(key) is orders:
        return orders
    table = orders.to(torch.int32).contiguous()
    lowest, highest = table.aminmax()
    seen = torch.zeros(groups, length, dtype=torch.bool)
    if lowest < 0 or highest >= length or not seen.scatter_(1, table.long(), True).all():
        raise ValueError(f"every row of orders should hold each position 0 ... {length - 1} once")
    if key is not None and table is orders:
        _permutations[key] = orders
    return table
