"""Depthwise causal convolution along time, the short filter in front of every Mamba scan.

For channel d and step t, with a filter of width K::

    y[t] = bias[d] + sum_k weight[d, k] * x[t - (K - 1) + k]         x is zero before its start
    y[t] = silu(y[t])                                                where asked for

``reverse`` is its mirror image along time (zero beyond the end): what a scan from the end needs, without copies.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from . import llvm_conv1d, llvm_engine
from .backends import Backend, Ladder, autocast_off, channels_to_check


def reference(x, weight, bias=None, silu=False, reverse=False) -> Tensor:
    """The specification, step by step: x (Bt, L, D), weight (D, K), bias (D,) or None; returns (Bt, L, D)."""
    if reverse:
        return reference(x.flip(1), weight, bias, silu).flip(1)
    taps = weight.shape[1]
    outputs = []
    for t in range(x.shape[1]):
        y = x.new_zeros(x.shape[0], x.shape[2]) if bias is None else bias.expand(x.shape[0], -1)
        for k in range(taps):
            source = t - (taps - 1) + k
            if source >= 0:
                y = y + weight[:, k] * x[:, source]
        outputs.append(y)
    y = torch.stack(outputs, dim=1)
    return F.silu(y) if silu else y


def shifted_sums(x, weight, bias=None, silu=False, reverse=False) -> Tensor:
    """The same as ``reference`` in whole-tensor operations: one multiply-add per tap, on any device."""
    taps, length = weight.shape[1], x.shape[1]
    padded = F.pad(x, (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    if reverse:
        weight = weight.flip(1)
    y = padded[:, :length] * weight[:, 0]
    for k in range(1, taps):
        y = torch.addcmul(y, padded[:, k : k + length], weight[:, k])
    if bias is not None:
        y = y + bias
    return F.silu(y) if silu else y


@functools.cache
def _package_why_not() -> str | None:
    try:
        from causal_conv1d import causal_conv1d_fn  # noqa: F401
    except ImportError as error:
        return f"causal-conv1d is not installed ({error})"
    except Exception as error:  # half-built packages raise all sorts of things at import
        return f"causal-conv1d does not import: {type(error).__name__}: {error}"
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def _package(x, weight, bias, silu, reverse) -> Tensor:
    """The authors' CUDA kernel (taps 2 to 4)."""
    from causal_conv1d import causal_conv1d_fn

    x = x.flip(1) if reverse else x
    y = causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu" if silu else None).transpose(1, 2)
    return y.flip(1) if reverse else y


def _disagreement(function, device_type, dtype, channels, taps, bias, silu, reverse, gradients) -> float:
    """Largest scale-relative difference of a backend from ``reference`` over y and all gradients."""
    generator = torch.Generator().manual_seed(20231201)
    shapes = [(2, 37, channels), (channels, taps)] + ([(channels,)] if bias else [])
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in [*shapes, shapes[0]]]
    *inputs, weight = [t.to(device_type, getattr(torch, dtype)) for t in tensors]
    inputs = [t.requires_grad_(gradients) for t in inputs]

    def outputs(f):
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            y = f(*inputs, *([] if bias else [None]), silu, reverse)
            return [y, *torch.autograd.grad(y, inputs, weight)] if gradients else [y]

    pairs = zip(outputs(function), outputs(reference), strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item() for a, b in pairs)


LADDER = Ladder(
    "causal_conv1d",
    (
        Backend("causal_conv1d", _package, ("cuda",), ("float32",), _package_why_not),
        Backend("jit", llvm_conv1d.conv, ("cpu",), ("float32", "float64"), llvm_engine.why_not),
        Backend("torch", shifted_sums),
        Backend("reference", reference),
    ),
    _disagreement,
    {"float32": 2e-5, "float64": 1e-10},
)


def causal_conv1d_last(x, weight, bias=None, activation=None, reverse=False, backend="auto") -> Tensor:
    """Causal depthwise convolution with channels last.

    Args:
        x: (B, L, D).
        weight: (D, K).
        bias: (D,) or None.
        activation: None or ``silu``.
        reverse: look at the future instead of the past.
        backend: ``auto``, ``causal_conv1d``, ``jit``, ``torch`` or ``reference``.

    Returns:
        (B, L, D), in the dtype of ``x``.

    Raises:
        ValueError: shapes do not fit, unknown activation.
        UserError: the backend asked for cannot be had.
    """
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[2]:
        raise ValueError(f"expected x (B, L, D) and weight (D, K), got {tuple(x.shape)} and {tuple(weight.shape)}")
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"expected activation None or 'silu', got {activation!r}")
    result_dtype = x.dtype
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    tensors = [None if t is None else t.to(dtype) for t in (x, weight, bias)]
    kind = {
        "device_type": x.device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "channels": channels_to_check(x.shape[2]),
        "taps": weight.shape[1],
        "bias": bias is not None,
        "silu": activation is not None,
        "reverse": bool(reverse),
        "gradients": torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors),
    }
    with autocast_off(x.device.type):
        function = LADDER.choose(backend, kind).function
        return function(*tensors, activation is not None, bool(reverse)).to(result_dtype)


def causal_conv1d(x, weight, bias=None, activation=None, backend="auto") -> Tensor:
    """Causal depthwise convolution in the official layout: x (B, D, L) -> (B, D, L); see ``causal_conv1d_last``."""
    if x.dim() != 3:
        raise ValueError(f"expected x (B, D, L), got {tuple(x.shape)}")
    return causal_conv1d_last(x.transpose(1, 2), weight, bias, activation, backend=backend).transpose(1, 2)
