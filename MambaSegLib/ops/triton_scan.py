"""The selective scan on NVIDIA GPUs with Triton, which comes with torch for CUDA: nothing to build, nothing to install.

`scan` is the backend "triton" of `selective_scan`; `why_not()` says whether it can run here. The forward pass keeps the
state every T steps, the backward pass computes the states between them again: nothing of size L x D x N exists. Large N
cost several launches, a single long sequence is cut into segments that fill the GPU (see `triton_scan_kernels`).

What has been run so far: Triton's interpreter, which executes the kernels step by step on a CPU, and Triton's compiler
for compute capabilities 8.0 and 9.0. No GPU was at hand, so the choices of tile and segment sizes below are untimed
and the self-check on the user's GPU is the first run on one.

dB and dC are sums over channel blocks by atomic addition: their last bits may differ from run to run.
"""

import functools
import os
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .llvm_engine import not_traced

OLDEST_TRITON = (3, 0)  # the first with scans from the end; comes with torch 2.4
MAX_STATES = 256
T = 16  # steps of a chunk: a thread's registers hold its row of several tiles
TILE = 128  # channels x states of a tile, one thread each
STATES_AT_ONCE = 16
CHUNKS_PER_SEGMENT = 8  # at least; below, finding the states at segment borders costs too much
PROGRAMS_PER_PROCESSOR = 8


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def why_not() -> str | None:
    """None if kernels can run here, else one sentence that says what is missing."""
    try:
        import triton
    except ImportError as error:
        return f"triton is not installed ({error}); it comes with torch for CUDA on Linux"
    except Exception as error:  # half-built packages raise all sorts of things at import
        return f"triton does not import: {type(error).__name__}: {error}"
    found = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if found < OLDEST_TRITON:
        return f"triton {triton.__version__} is too old, {'.'.join(map(str, OLDEST_TRITON))} or newer is needed"
    if _interpreted():
        return None
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if torch.version.hip:
        return "these kernels are for NVIDIA GPUs"
    major, minor = torch.cuda.get_device_capability()
    return None if major >= 7 else f"triton needs compute capability 7.0, this GPU has {major}.{minor}"


@not_traced
def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Tensor:
    """Channels-last shapes as in `selective_scan.reference`, float32, N up to 256; ValueError for more."""
    if A.shape[1] > MAX_STATES:
        raise ValueError(f"expected at most {MAX_STATES} states, got {A.shape[1]}")
    return _Scan.apply(u, delta, A, B, C, D, z, delta_bias, bool(delta_softplus))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, softplus):
        keep = any(ctx.needs_input_grad)
        call = _Call(u, delta, A, B, C, D, z, delta_bias, softplus)
        out, y, states = call.forward(keep)
        if keep:
            ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, y, states)
            ctx.softplus = softplus
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        *operands, y, states = ctx.saved_tensors
        gradients = _Call(*operands, ctx.softplus).backward(gy.contiguous(), y, states)
        wanted = (g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False))
        return *wanted, None


class _Call:
    """One scan: its sizes, how it is cut, and the launches of its kernels."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, softplus):
        import triton

        u, delta, z, B, C = (_unit_stride(t) for t in (u, delta, z, B, C))
        A, D, delta_bias = (None if t is None else t.contiguous() for t in (A, D, delta_bias))
        self.u, self.delta, self.A, self.B, self.C, self.D, self.z, self.bias = u, delta, A, B, C, D, z, delta_bias
        self.softplus = softplus
        self.batch, self.length, self.channels = u.shape
        self.groups, self.N = B.shape[2:]
        self.width = self.channels // self.groups
        self.BN = min(STATES_AT_ONCE, triton.next_power_of_2(self.N))
        self.DB = min(TILE // self.BN, triton.next_power_of_2(self.width))
        all_chunks = -(-self.length // T)
        programs = self.batch * self.groups * -(-self.width // self.DB)
        wanted = max(1, min(_programs_wanted(u.device) // programs, all_chunks // CHUNKS_PER_SEGMENT))
        self.chunks = -(-all_chunks // wanted)  # of a segment
        self.segments = -(-all_chunks // self.chunks)
        self.all_chunks = self.segments * self.chunks
        self.grid = (programs // self.batch, self.segments, self.batch)
        self.sizes = {"length": self.length, "width": self.width, "channels": self.channels, "N": self.N}
        self.sizes |= {"chunks": self.chunks, "SOFTPLUS": softplus, "T": T, "DB": self.DB, "BN": self.BN}

    def launch(self, kernel, **arguments) -> None:
        """Once for every block of states, on the tensors' device, whichever torch calls current."""
        with torch.cuda.device(self.u.device) if self.u.is_cuda else nullcontext():
            for n0 in range(0, self.N, self.BN):
                first = {"n0": n0, "FIRST": n0 == 0}
                kernel[self.grid](**arguments, **self.sizes, **first, num_warps=TILE // 32, enable_fp_fusion=True)

    def entries(self, adjoint: bool, gy=None):
        """The state (or q, going back) that every segment starts from; None where there is one segment."""
        from . import triton_scan_kernels as kernels

        if self.segments == 1:
            return None
        p, R = (gy, self.C) if adjoint else (self.u, self.B)
        sums = self.A.new_empty(self.batch, self.segments, *self.A.shape)
        time = self.A.new_empty(self.batch, self.segments, self.channels)
        tensors = {"p": p, "delta": self.delta, "A": self.A, "R": R, "bias": self.bias, "z": self.z}
        strides = _strides(p=p, delta=self.delta, z=self.z, R=R)
        self.launch(kernels.segment_sums, **tensors, sums=sums, time=time, **strides, ADJOINT=adjoint)
        entries = torch.empty_like(sums)
        sizes = {"segments": self.segments, "channels": self.channels, "N": self.N, "ADJOINT": adjoint}
        with torch.cuda.device(self.u.device) if self.u.is_cuda else nullcontext():
            grid = (-(-self.A.numel() // TILE), self.batch)
            kernels.carry[grid](self.A, sums, time, entries, **sizes, BLOCK=TILE, enable_fp_fusion=True)
        return entries

    def common(self) -> dict:
        """Arguments of the forward and the backward kernel."""
        tensors = {"u": self.u, "delta": self.delta, "A": self.A, "B": self.B, "C": self.C, "D": self.D, "z": self.z}
        strides = _strides(u=self.u, delta=self.delta, z=self.z, B=self.B, C=self.C)
        return tensors | strides | {"bias": self.bias, "all_chunks": self.all_chunks}

    def forward(self, keep: bool):
        """(result, result before the gate or None, states at the chunks' starts or None)."""
        from . import triton_scan_kernels as kernels

        gated = self.z is not None
        y = self.u.new_empty(self.u.shape) if keep or not gated or self.BN < self.N else None
        out = self.u.new_empty(self.u.shape) if gated else None
        states = self.A.new_empty(self.batch, self.all_chunks, *self.A.shape) if keep else None
        entries = self.entries(adjoint=False)
        self.launch(kernels.forward, **self.common(), entries=entries, y=y, out=out, states=states)
        return (out, y, states) if gated else (y, None, states)

    def backward(self, gy, y, states):
        """Gradients of u, delta, A, B, C, D, z and delta_bias; those of absent operands are None."""
        from . import triton_scan_kernels as kernels

        du, ddelta = self.u.new_empty(self.u.shape), self.u.new_empty(self.u.shape)
        dz = None if self.z is None else torch.empty_like(du)
        dB, dC = (self.B.new_zeros(self.B.shape) for _ in range(2))
        dA = self.A.new_empty(self.batch, self.segments, *self.A.shape)
        dD = self.A.new_empty(self.batch, self.segments, self.channels)
        gradients = {"du": du, "ddelta": ddelta, "dA": dA, "dB": dB, "dC": dC, "dD": dD, "dz": dz}
        entries = self.entries(adjoint=True, gy=gy)
        self.launch(kernels.backward, **self.common(), **gradients, entries=entries, y=y, gy=gy, states=states)
        dD = None if self.D is None else dD.sum((0, 1))
        dbias = None if self.bias is None else ddelta.sum((0, 1))
        return du, ddelta, dA.sum((0, 1)), dB, dC, dD, dz, dbias


def _unit_stride(t):
    return t if t is None or t.stride(-1) == 1 else t.contiguous()


def _strides(**tensors) -> dict[str, int]:
    """Of batch, row and, where there are four dimensions, group; zeros for absent tensors."""
    found = {}
    for name, t in tensors.items():
        strides = (0, 0) if t is None else t.stride()
        found |= {f"{name}_batch": strides[0], f"{name}_row": strides[1]}
        if len(strides) == 4:
            found[f"{name}_group"] = strides[2]
    return found


def _programs_wanted(device: torch.device) -> int:
    """Programs that fill the device."""
    if device.type != "cuda":
        return 16  # in the interpreter: enough for more than one segment
    return PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
