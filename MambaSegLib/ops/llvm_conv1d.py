"""Depthwise causal convolution over sequences on the CPU, channels last, compiled by llvmlite, with gradients.

`conv` is the backend "jit" of `causal_conv1d`; `llvm_engine.why_not()` says whether it can run here.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch.autograd.function import once_differentiable

from . import llvm_engine

# Single-threaded seconds per element, measured with AVX2; they only choose the thread count.
FORWARD_COST_S, BACKWARD_COST_S = 1.2e-9, 2.5e-9
TAPS = range(2, 9)


@llvm_engine.not_traced
def conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    silu: bool = True,
    reverse: bool = False,
) -> torch.Tensor:
    """y_t = act(bias + sum_k weight[:, k] x_{t - taps + 1 + k}), zeros before the beginning; act is SiLU or nothing.

    x (Bt, L, D), weight (D, taps) with 2 to 8 taps, bias (D,) or None; returns (Bt, L, D) of x's dtype. `reverse` looks
    ahead instead of back: the same as flipping x along L, and the result back. float64 is computed in float64,
    everything else in float32. Tensors with unit channel stride are not copied. Raises ValueError for other shapes.
    """
    _check(x, weight, bias)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    operands = [None if t is None else t.to(dtype) for t in (x, weight, bias)]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands):
        y = _Convolution.apply(*operands, bool(silu), bool(reverse))
    else:
        y = _forward(*operands, bool(silu), bool(reverse))
    return y.to(x.dtype)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, silu, reverse):
        ctx.save_for_backward(x, weight, bias)
        ctx.options = silu, reverse
        return _forward(x, weight, bias, silu, reverse)

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        gradients = _backward(gy, *ctx.saved_tensors, *ctx.options)
        return *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False)), None, None


def _forward(x, weight, bias, silu, reverse):
    call = _Call(x, weight, bias, silu, reverse, FORWARD_COST_S)
    y = torch.empty(x.shape, dtype=x.dtype)
    call.bind(x=x, y=y)
    call.run(backward=False)
    return y


def _backward(gy, x, weight, bias, silu, reverse):
    """Gradients of x, weight and bias (None if there is none)."""
    call = _Call(x, weight, bias, silu, reverse, BACKWARD_COST_S)
    dx = torch.empty(x.shape, dtype=x.dtype)
    dweight = x.new_empty(x.shape[0], weight.shape[1], call.padded)
    dbias = x.new_empty(x.shape[0], call.padded)
    call.bind(x=x, gy=gy, dx=dx)
    call.values |= {"dweight": dweight.data_ptr(), "dbias": dbias.data_ptr()}
    call.run(backward=True)
    channels = weight.shape[0]
    return dx, dweight.sum(0)[:, :channels].t(), None if bias is None else dbias.sum(0)[:channels]


class _Call:
    """One run of a kernel: sizes, packed parameters, and the parameter block under construction."""

    def __init__(self, x, weight, bias, silu, reverse, cost_s):
        batch, self.length, self.channels = x.shape
        self.dtype, self.taps, self.silu, self.reverse = x.dtype, weight.shape[1], silu, reverse
        self.width = llvm_engine.vector_width(x.dtype)
        self.blocks = -(-self.channels // self.width)
        self.padded = self.blocks * self.width
        self.threads = llvm_engine.thread_count(x.numel() * cost_s)
        self.parts = min(self.blocks, -(-self.threads // batch))
        self.tasks = batch * self.parts
        self._keep = [torch.zeros(self.taps + 1, self.padded, dtype=x.dtype)]
        self._keep[0][: self.taps, : self.channels] = weight.detach().t()
        if bias is not None:
            self._keep[0][self.taps, : self.channels] = bias.detach()
        self.values = {
            "parts": self.parts,
            "blocks": self.blocks,
            "tail_lanes": self.channels - (self.blocks - 1) * self.width,
            "length": self.length,
            "padded": self.padded,
            "weight": self._keep[0].data_ptr(),
            "bias": self._keep[0][self.taps].data_ptr(),
        }

    def bind(self, **tensors) -> None:
        """Addresses and strides of (Bt, L, D) tensors; reversed sequences begin at the last row and go back."""
        for name, t in tensors.items():
            t = t if t.stride(2) == 1 else t.contiguous()
            row, address = t.stride(1), t.data_ptr()
            if self.reverse:
                row, address = -row, address + (self.length - 1) * row * t.element_size()
            self.values |= {name: address, name + "_batch": t.stride(0), name + "_row": row}
            self._keep.append(t)

    def run(self, backward: bool) -> None:
        ir = _ir()
        dtype = str(self.dtype).removeprefix("torch.")
        tail = self.channels != self.padded
        variant = ir.Variant(backward, dtype, self.width, self.taps, self.silu, tail)
        kernel = llvm_engine.kernel(variant, lambda: ir.build(variant))
        scratch = -(-self.blocks // self.parts) * ir.scratch_per_block(variant)
        kernel.run(self.tasks, self.threads, scratch, self.dtype, self.values)


def _ir() -> ModuleType:
    """The module that writes the kernels; it needs llvmlite, this one must be importable without."""
    from . import llvm_conv1d_ir

    return llvm_conv1d_ir


def _check(x, weight, bias) -> None:
    if x.dim() != 3 or weight.dim() != 2 or min(x.shape) < 1:
        raise ValueError(f"x (Bt, L, D) and weight (D, taps) expected, got {tuple(x.shape)} and {tuple(weight.shape)}")
    if weight.shape[0] != x.shape[2] or weight.shape[1] not in TAPS:
        raise ValueError(f"weight should have {x.shape[2]} channels and 2 to 8 taps, got shape {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (x.shape[2],):
        raise ValueError(f"bias should have shape {(x.shape[2],)}, got {tuple(bias.shape)}")
    if any(t is not None and t.device.type != "cpu" for t in (x, weight, bias)):
        raise ValueError("x, weight and bias should be on the CPU")
