"""The selective scan of Mamba (Gu and Dao 2023, arXiv 2312.00752, algorithm 2): one law, several backends.

For every batch item, channel d (of group g) and step t, with state size N::

    delta = softplus(delta + delta_bias)            where asked for
    h[t]  = exp(delta[t] * A[d]) * h[t-1] + delta[t] * B[g, :, t] * u[t]        h is (N,), h[-1] = 0
    y[t]  = <C[g, :, t], h[t]> + D[d] * u[t]
    y[t]  = y[t] * silu(z[t])                        where z is given

Letters as in the paper: D channels, L steps, N states, G groups. Two entries with the same meaning: ``selective_scan``
takes the official channels-first shapes, ``selective_scan_last`` the channels-last ones that the fast kernels and our
blocks use throughout, because transposing costs as much as scanning.

States are fp32 (or fp64) whatever the surrounding precision: exp(delta * A) of many steps does not survive half.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import llvm_engine, llvm_scan, mamba_ssm_scan, torch_scan, triton_scan
from .backends import Backend, Ladder, autocast_off, channels_to_check


def reference(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False) -> Tensor:
    """The specification, step by step, channels last.

    Args:
        u, delta, z: (Bt, L, D).
        A: (D, N).
        B, C: (Bt, L, G, N), with D a multiple of G; group g serves channels g*D/G to (g+1)*D/G - 1.
        D, delta_bias: (D,) or None.

    Returns:
        y: (Bt, L, D).
    """
    channels, groups = u.shape[2], B.shape[2]
    dt = delta if delta_bias is None else delta + delta_bias
    if delta_softplus:
        dt = F.softplus(dt, threshold=1e9)  # without torch's switch to the identity, which is off by 2e-9 at 20
    B = B.repeat_interleave(channels // groups, dim=2)  # (Bt, L, D, N)
    C = C.repeat_interleave(channels // groups, dim=2)
    h = u.new_zeros(u.shape[0], channels, A.shape[1])
    outputs = []
    for u_t, dt_t, B_t, C_t in zip(u.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        h = torch.exp(dt_t[..., None] * A) * h + (dt_t * u_t)[..., None] * B_t
        outputs.append((h * C_t).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + u * D
    return y if z is None else y * F.silu(z)


def _disagreement(function, device_type, dtype, channels, states, gate, softplus, gradients) -> float:
    """Largest scale-relative difference of a backend from ``reference`` over y and all gradients."""
    generator = torch.Generator().manual_seed(20231201)

    def random(*shape, scale=1.0, sign=None):
        tensor = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
        tensor = tensor if sign is None else sign * (tensor.abs() + 0.1)
        return tensor.to(device_type, getattr(torch, dtype)).requires_grad_(gradients)

    batch, length, groups = 2, 37, 2
    channels *= groups
    step_sign = None if softplus else 1  # negative steps would grow without bound
    inputs = [random(batch, length, channels), random(batch, length, channels, scale=0.5, sign=step_sign)]
    inputs += [random(channels, states, sign=-1)]
    inputs += [random(batch, length, groups, states), random(batch, length, groups, states), random(channels)]
    inputs += [random(batch, length, channels) if gate else None, random(channels, sign=step_sign)]
    weight = random(batch, length, channels).detach()

    def outputs(f):
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            y = f(*inputs, softplus)
            wanted = [x for x in inputs if x is not None]
            return [y, *torch.autograd.grad(y, wanted, weight)] if gradients else [y]

    pairs = zip(outputs(function), outputs(reference), strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item() for a, b in pairs)


LADDER = Ladder(
    "selective_scan",
    (
        Backend("mamba_ssm", mamba_ssm_scan.scan, ("cuda",), ("float32",), mamba_ssm_scan.why_not),
        Backend("jit", llvm_scan.scan, ("cpu",), ("float32", "float64"), llvm_engine.why_not),
        Backend("triton", triton_scan.scan, ("cuda",), ("float32",), triton_scan.why_not),
        Backend("torch", torch_scan.scan),
        Backend("reference", reference),
    ),
    _disagreement,
    {"float32": 2e-5, "float64": 1e-10},
)


def selective_scan_last(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, backend="auto"
) -> Tensor:
    """Selective scan with channels last; shapes as in :func:`reference`, result in the dtype of ``u``.

    Raises:
        ValueError: shapes do not fit together.
        UserError: the backend asked for cannot be had.
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    result_dtype = u.dtype
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    tensors = [None if x is None else x.to(dtype) for x in (u, delta, A, B, C, D, z, delta_bias)]
    kind = {
        "device_type": u.device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "channels": channels_to_check(u.shape[2] // B.shape[2]),
        "states": A.shape[1],
        "gate": z is not None,
        "softplus": bool(delta_softplus),
        "gradients": torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors),
    }
    with autocast_off(u.device.type):
        return LADDER.choose(backend, kind).function(*tensors, bool(delta_softplus)).to(result_dtype)


def selective_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, backend="auto") -> Tensor:
    """Selective scan in the official layout.

    Args:
        u, delta, z: (B, D, L).
        A: (D, N), real.
        B, C: (B, G, N, L), or (B, N, L) for one group.
        D, delta_bias: (D,) or None.
        delta_softplus: apply softplus to ``delta + delta_bias``.
        backend: ``auto``, ``mamba_ssm``, ``jit``, ``triton``, ``torch`` or ``reference``.

    Returns:
        y: (B, D, L), in the dtype of ``u``.

    Raises:
        ValueError: shapes do not fit together.
        UserError: the backend asked for cannot be had.
    """
    B, C = (x[:, None] if x.dim() == 3 else x for x in (B, C))
    last = [x.transpose(1, 2) for x in (u, delta)]
    B, C = (x.permute(0, 3, 1, 2) for x in (B, C))
    z = None if z is None else z.transpose(1, 2)
    return selective_scan_last(*last, A, B, C, D, z, delta_bias, delta_softplus, backend).transpose(1, 2)


def _check_shapes(u, delta, A, B, C, D, z, delta_bias):
    if u.dim() != 3 or A.dim() != 2 or B.dim() != 4:
        raise ValueError(f"expected u (B, D, L), A (D, N), B (B, G, N, L); got {[tuple(x.shape) for x in (u, A, B)]}")
    batch, length, channels = u.shape
    if length == 0:
        raise ValueError("expected at least one step along L, got none")
    expected = {"delta": (delta, u.shape), "z": (z, u.shape), "A": (A, (channels, A.shape[1]))}
    expected["B"] = (B, (batch, length, B.shape[2], A.shape[1]))
    expected["C"] = (C, (batch, length, B.shape[2], A.shape[1]))
    expected |= {"D": (D, (channels,)), "delta_bias": (delta_bias, (channels,))}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name}: expected {tuple(shape)} (channels last), got {tuple(tensor.shape)}")
    if channels % B.shape[2]:
        raise ValueError(f"expected the {channels} channels to divide into {B.shape[2]} groups")
