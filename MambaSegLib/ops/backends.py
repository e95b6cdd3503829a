"""Choosing an implementation of an operator: first what is available, then what has proved itself here.

Every operator has a plain reference, which is its specification, and a ladder of faster backends. ``auto`` takes the
first rung that is available for the tensors at hand *and* whose numbers agreed with the reference in this process, for
this kind of call, outputs and gradients alike. A rung that disagrees is switched off with a message naming it: kernels
that silently return wrong numbers are the one failure that nobody notices.

Verdicts live as long as the process and are not kept on disk: measured on one thread, a check takes 2 to 20 ms beside
the 50 to 450 ms that compiling the kernel takes in any case, and a stored verdict could outlive the driver or library
it was true for.
"""

import os
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from ..errors import UserError
from .llvm_engine import not_traced

BACKEND_VARIABLE = "MAMBASEG_BACKEND"  # forces one backend for a whole process, for fault finding
NAMES = ("mamba_ssm", "causal_conv1d", "torchvision", "jit", "triton", "torch", "reference")


def autocast_off(device_type: str) -> torch.autocast:
    """Switches autocast off around an operator; devices that know none (meta, MPS before torch 2.5) need nothing."""
    known = getattr(torch.amp, "is_autocast_available", ("cpu", "cuda").__contains__)  # torch 2.4 or newer
    return torch.autocast(device_type if known(device_type) else "cpu", enabled=False)


_tell: ContextVar[Callable[[], None] | None] = ContextVar("tell", default=None)


@contextmanager
def telling_of_preparation(tell: Callable[[], None]) -> Iterator[None]:
    """Calls ``tell()`` when a kernel has to be compiled and checked inside the block, before the first one."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def channels_to_check(channels: int) -> int:
    """A small number of channels that asks for the same kernel: their remainder decides, for vectors of 4, 8 or 16."""
    return channels if channels < 48 else 32 + channels % 16


@dataclass(frozen=True)
class Backend:
    """One implementation of an operator.

    Attributes:
        name: what users type (``reference``, ``torch``, ``jit``, ``mamba_ssm`` ...).
        function: takes the operator's arguments.
        devices: device types it runs on; empty means any.
        dtypes: names of the element types it computes in; empty means any floating type.
        why_not: None where it can run on this machine, else the reason in one sentence.
    """

    name: str
    function: Callable
    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    why_not: Callable[[], str | None] = lambda: None

    def refuses(self, device_type: str, dtype: str) -> str | None:
        """The reason why this backend cannot take tensors of that device and type, or None."""
        if self.devices and device_type not in self.devices:
            return f"runs on {' and '.join(self.devices)}, not on {device_type}"
        if self.dtypes and dtype not in self.dtypes:
            return f"computes in {' or '.join(self.dtypes)}, not in {dtype}"
        return self.why_not()


class Ladder:
    """The backends of one operator, fastest first, and what their self-checks said.

    Args:
        operator: its name, for messages.
        backends: fastest first; the last one must run anywhere.
        disagreement: ``f(backend_function, **kind) -> float``, the largest scale-relative difference from the
            reference over outputs and gradients on a small seeded input of that kind.
        tolerance: the largest disagreement that is accepted, by element type.
    """

    def __init__(self, operator: str, backends: tuple[Backend, ...], disagreement: Callable, tolerance: dict):
        self.operator = operator
        self.backends = backends
        self._disagreement = disagreement
        self._tolerance = tolerance
        self._verdicts: dict[tuple[str, Hashable], str | None] = {}
        self.taken: dict[str, str] = {}  # device type -> the backend that ``choose`` gave last

    @not_traced
    def choose(self, requested: str, kind: dict) -> Backend:
        """The backend for a call.

        Args:
            requested: a backend's name, or ``auto``: the environment's choice where this operator has such a backend,
                else the first that works.
            kind: what tells one compiled kernel from another; holds at least ``device_type`` and ``dtype`` (strings).

        Raises:
            UserError: the requested backend is unknown, unavailable, or failed its self-check.
        """
        if requested == "auto":
            requested = self._forced()
        backend = self._first_that_works(kind) if requested == "auto" else self._named(requested, kind)
        self.taken[kind["device_type"]] = backend.name
        return backend

    def _first_that_works(self, kind: dict) -> Backend:
        for backend in self.backends:
            if backend.refuses(kind["device_type"], kind["dtype"]) is None and self.verdict(backend, kind) is None:
                return backend
        raise UserError(
            f"No backend of {self.operator} works for {kind['dtype']} on {kind['device_type']}.",
            "Run 'mambaseg doctor' and send its output.",
        )

    def _forced(self) -> str:
        """The environment's choice; a name that only other operators have leaves this one free."""
        name = os.environ.get(BACKEND_VARIABLE, "auto")
        return "auto" if name in NAMES and name not in {b.name for b in self.backends} else name

    def _named(self, name: str, kind: dict) -> Backend:
        backend = next((b for b in self.backends if b.name == name), None)
        if backend is None:
            known = ", ".join(b.name for b in self.backends)
            raise UserError(f"Unknown backend '{name}' of {self.operator}.", f"Choose one of: auto, {known}.")
        reason = backend.refuses(kind["device_type"], kind["dtype"]) or self.verdict(backend, kind)
        if reason:
            raise UserError(f"Backend '{name}' of {self.operator} is not available: {reason}.", "Use 'auto'.")
        return backend

    def verdict(self, backend: Backend, kind: dict) -> str | None:
        """None where the backend agrees with the reference on this kind of call, else what went wrong (kept)."""
        key = (backend.name, tuple(sorted(kind.items())))
        if key not in self._verdicts:
            tell = _tell.get()
            if tell is not None:
                _tell.set(None)
                tell()
            self._verdicts[key] = self._check(backend, kind)
            if self._verdicts[key]:
                warnings.warn(f"{self.operator}: '{backend.name}' is off: {self._verdicts[key]}", stacklevel=3)
        return self._verdicts[key]

    def _check(self, backend: Backend, kind: dict) -> str | None:
        try:
            difference = self._disagreement(backend.function, **kind)
        except Exception as error:  # a broken kernel must never take the program down with it
            return f"self-check raised {type(error).__name__}: {error}"
        limit = self._tolerance[kind["dtype"]]
        if not difference <= limit:  # also true for NaN
            return f"self-check differs from the reference by {difference:.1e} (limit {limit:.0e})"
        return None
