"""SS2D's scan (VMamba, Liu et al. 2024, arXiv 2401.10166): one image scanned along K orders at once, results summed.

For direction k with its own step, A, B, C, D, visiting flat position ``orders[k, t]`` at step t::

    y[n] = sum_k y_k[n],   y_k = selective scan of u with softplus(delta_k + bias_k), in the order k

Everything stands at its place in the image before and after: the orders are the kernel's business. The compiled kernel
follows them in place; the other rungs gather, scan K groups of channels and scatter, at K copies of the image.
"""

import functools
from functools import partial

import torch
from torch import Tensor

from . import llvm_engine, llvm_scan, mamba_ssm_scan, torch_scan, triton_scan
from .backends import Backend, Ladder, autocast_off, channels_to_check
from .scan_orders import scan_order
from .selective_scan import reference

FOUR_WAYS = ("HW", "WH", "-HW", "-WH")  # VMamba's: rows, columns, and both from the end


@functools.lru_cache(maxsize=64)
def cross_orders(grid: tuple[int, int], names: tuple[str, ...] = FOUR_WAYS) -> Tensor:
    """(K, L) int32 permutations of the positions of a grid (H, W). Shared: do not change it."""
    with torch.inference_mode(False):
        return torch.stack([scan_order(name, grid) for name in names]).int()


def _gather_scan(scan, u, delta, A, B, C, D, delta_bias, orders) -> Tensor:
    """Copy the image once per direction, scan all copies as groups of channels, put the results back and add them."""
    inner = u.shape[2]
    rows = orders.to(u.device).long()
    u_k = torch.cat([u[:, row] for row in rows], dim=2)
    delta_k = torch.cat([d[:, row] for d, row in zip(delta.split(inner, dim=2), rows, strict=True)], dim=2)
    B_k, C_k = (torch.stack([x[:, row, k] for k, row in enumerate(rows)], dim=2) for x in (B, C))
    y_k = scan(u_k, delta_k, A, B_k, C_k, D, None, delta_bias, True)
    places = torch.argsort(rows, dim=1)
    return sum(y[:, place] for y, place in zip(y_k.split(inner, dim=2), places, strict=True))


def _in_place(u, delta, A, B, C, D, delta_bias, orders) -> Tensor:
    return llvm_scan.scan(u, delta, A, B, C, D, None, delta_bias, True, orders=orders, shared_u=True)


def _disagreement(function, device_type, dtype, inner, states, directions, gradients) -> float:
    """Largest scale-relative difference of a backend from the gathered reference over y and all gradients."""
    generator = torch.Generator().manual_seed(20231201)
    grid, names = (5, 7), (FOUR_WAYS * directions)[:directions]
    length = grid[0] * grid[1]
    shapes = [(2, length, inner), (2, length, directions * inner), (directions * inner, states)]
    shapes += [(2, length, directions, states)] * 2 + [(directions * inner,)] * 2
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in [*shapes, shapes[0]]]
    *inputs, weight = [t.to(device_type, getattr(torch, dtype)) for t in tensors]
    inputs[2] = -inputs[2].abs() - 0.1
    inputs = [t.requires_grad_(gradients) for t in inputs]
    orders = cross_orders(grid, names)

    def outputs(f):
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            y = f(*inputs, orders)
            return [y, *torch.autograd.grad(y, inputs, weight)] if gradients else [y]

    pairs = zip(outputs(function), outputs(partial(_gather_scan, reference)), strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item() for a, b in pairs)


LADDER = Ladder(
    "cross_scan",
    (
        Backend(
            "mamba_ssm", partial(_gather_scan, mamba_ssm_scan.scan), ("cuda",), ("float32",), mamba_ssm_scan.why_not
        ),
        Backend("jit", _in_place, ("cpu",), ("float32", "float64"), llvm_engine.why_not),
        Backend("triton", partial(_gather_scan, triton_scan.scan), ("cuda",), ("float32",), triton_scan.why_not),
        Backend("torch", partial(_gather_scan, torch_scan.scan)),
        Backend("reference", partial(_gather_scan, reference)),
    ),
    _disagreement,
    {"float32": 2e-5, "float64": 1e-10},
)


def cross_scan(u, delta, A, B, C, D, delta_bias, orders, backend="auto") -> Tensor:
    """Scan an image along K orders and sum; L = H * W positions in raster order everywhere.

    Args:
        u: (Bt, L, E), shared by the directions.
        delta: (Bt, L, K*E), before bias and softplus; direction k owns columns k*E to (k+1)*E - 1.
        A: (K*E, N), negative.
        B, C: (Bt, L, K, N).
        D, delta_bias: (K*E,).
        orders: (K, L) int32 permutations, see ``cross_orders``.
        backend: ``auto``, ``mamba_ssm``, ``jit``, ``triton``, ``torch`` or ``reference``.

    Returns:
        (Bt, L, E), in the dtype of ``u``.

    Raises:
        ValueError: shapes do not fit together.
        UserError: the backend asked for cannot be had.
    """
    (batch, length, inner), (directions, states) = u.shape, B.shape[2:]
    expected = {"delta": (delta, (batch, length, directions * inner)), "A": (A, (directions * inner, states))}
    expected |= {"B": (B, (batch, length, directions, states)), "C": (C, (batch, length, directions, states))}
    expected |= {"D": (D, (directions * inner,)), "delta_bias": (delta_bias, (directions * inner,))}
    expected["orders"] = (orders, (directions, length))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
    result_dtype = u.dtype
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    tensors = [x.to(dtype) for x in (u, delta, A, B, C, D, delta_bias)]
    kind = {
        "device_type": u.device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "inner": channels_to_check(inner),
        "states": states,
        "directions": directions,
        "gradients": torch.is_grad_enabled() and any(x.requires_grad for x in tensors),
    }
    with autocast_off(u.device.type):
        return LADDER.choose(backend, kind).function(*tensors, orders).to(result_dtype)
