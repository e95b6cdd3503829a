"""What every operator's backends can do on this machine: available or why not, their self-check, their speed."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from . import causal_conv1d, cross_scan, deform_conv, selective_scan
from .backends import Backend, Ladder

SHORTEST_MEASUREMENT_S = 0.1


class Probe(NamedTuple):
    """A small call of an operator, of a size as networks use it."""

    ladder: Ladder
    size: str  # in words
    operands: Callable[[], list[Tensor]]  # float32, on the CPU
    call: Callable[[list[Tensor], str], Tensor]  # of operands and a backend's name


class Finding(NamedTuple):
    """One backend of one operator on one device."""

    operator: str
    backend: str
    device: str
    why_not: str | None  # a sentence, or None where it works
    self_check: str  # how it compares with the reference, and its speed; empty where it does not work


def backends(devices: tuple[str, ...] | None = None) -> list[Finding]:
    """Every backend of every operator on the devices it is made for.

    Takes a few seconds: compiles, checks and times all that is available.

    Args:
        devices: torch's names of device types to try; None for all that are present.
    """
    present = _present_devices() if devices is None else devices
    findings = []
    for probe in PROBES:
        for backend in probe.ladder.backends:
            made_for = [d for d in present if not backend.devices or d in backend.devices]
            for device in made_for or backend.devices[:1]:
                findings.append(_examine(probe, backend, device, device in present))
    return findings


def _present_devices() -> tuple[str, ...]:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return tuple(name for name, available in there.items() if available)


def _examine(probe: Probe, backend: Backend, device: str, present: bool) -> Finding:
    def finding(why_not, self_check=""):
        return Finding(probe.ladder.operator, backend.name, device, why_not, self_check)

    reason = backend.refuses(device, "float32") or (None if present else f"there is no {device} device")
    if reason:
        return finding(reason)
    inputs = [t.to(device).requires_grad_() for t in probe.operands()]

    def forward():
        with torch.no_grad():
            probe.call(inputs, backend.name)
        _wait_for(device)

    def forward_and_backward():
        torch.autograd.grad(probe.call(inputs, backend.name).sum(), inputs)
        _wait_for(device)

    try:
        if backend.name == "reference":  # a yardstick for the forward pass; its backward pass takes seconds
            return finding(
                None, f"is the reference; {probe.size}: {_seconds(forward, warm=False) * 1e3:.3g} ms forward"
            )
        ahead, both = _seconds(forward), _seconds(forward_and_backward)
    except UserError as error:  # the self-check failed, and says by how much
        return finding(error.message)
    except Exception as error:  # a backend that breaks on a real size must not end the report
        return finding(f"raised {type(error).__name__}: {error}")
    times = f"{ahead * 1e3:.3g} ms forward, {both * 1e3:.3g} ms with gradients"
    return finding(None, f"agrees with the reference; {probe.size}: {times}")


def _wait_for(device: str) -> None:
    if device != "cpu":
        getattr(torch, device).synchronize()


def _seconds(run: Callable[[], None], warm: bool = True) -> float:
    """The fastest of several runs, ``warm`` after one that compiles and checks."""
    if warm:
        run()
    fastest, spent = float("inf"), 0.0
    while spent < SHORTEST_MEASUREMENT_S:
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        fastest, spent = min(fastest, elapsed), spent + elapsed
    return fastest


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _scan_operands() -> list[Tensor]:
    u, delta, A, B, C, D, z = _random(
        (1, 4096, 64), (1, 4096, 64), (64, 16), (1, 4096, 1, 16), (1, 4096, 1, 16), (64,), (1, 4096, 64)
    )
    return [u, delta, -A.exp(), B, C, D, z]


def _cross_scan_operands() -> list[Tensor]:
    u, delta, A, B, C, D, bias = _random(
        (1, 784, 64), (1, 784, 256), (256, 16), (1, 784, 4, 16), (1, 784, 4, 16), (256,), (256,)
    )
    return [u, delta, -A.exp(), B, C, D, bias]


PROBES = (
    Probe(
        selective_scan.LADDER,
        "4096 steps x 64 channels, 16 states",
        _scan_operands,
        lambda t, name: selective_scan.selective_scan_last(*t, delta_softplus=True, backend=name),
    ),
    Probe(
        cross_scan.LADDER,
        "28 x 28 pixels x 64 channels, 4 directions, 16 states",
        _cross_scan_operands,
        lambda t, name: cross_scan.cross_scan(*t, cross_scan.cross_orders((28, 28)), backend=name),
    ),
    Probe(
        causal_conv1d.LADDER,
        "4096 steps x 64 channels, 4 taps",
        lambda: _random((1, 4096, 64), (64, 4), (64,)),
        lambda t, name: causal_conv1d.causal_conv1d_last(*t, activation="silu", backend=name),
    ),
    Probe(
        deform_conv.LADDER,
        "56 x 56 pixels, 64 to 64 channels, 3 x 3",
        lambda: _random((1, 64, 56, 56), (1, 18, 56, 56), (64, 64, 3, 3), (1, 9, 56, 56)),
        lambda t, name: deform_conv.deform_conv2d(*t[:3], mask=t[3], padding=1, backend=name),
    ),
)
