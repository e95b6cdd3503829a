"""The scans that `operators.py` measures: shapes, operands, and what float64 makes of them."""

from __future__ import annotations

import math

import torch

from MambaSegLib.ops import torch_scan

# name: batch, length, groups, channels of a group, states, with a gate z
ROWS = {
    "56x56x192x4": (1, 56 * 56, 4, 192, 16, False),
    "56x56x192x4 N=1": (1, 56 * 56, 4, 192, 1, False),
    "28x28x384x4": (1, 28 * 28, 4, 384, 16, False),
    "28x28x384x4 N=1": (1, 28 * 28, 4, 384, 1, False),
    "112x112x96x4": (1, 112 * 112, 4, 96, 16, False),
    "112x112x96": (1, 112 * 112, 1, 96, 16, True),
    "24^3x256": (1, 24**3, 1, 256, 16, True),
    "48^3x64": (1, 48**3, 1, 64, 16, True),
}


def operands(batch, length, groups, channels, states, gated):
    """Operands as Mamba's layers produce them: steps of 0.001 to 0.1 around their initial bias."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    width = groups * channels
    step = torch.exp(torch.rand(width, generator=generator) * math.log(100.0) + math.log(0.001))
    return [
        random(batch, length, width),
        random(batch, length, width) * 0.5,
        -torch.arange(1, states + 1).float() * torch.exp(0.3 * random(width, states)),
        random(batch, length, groups, states),
        random(batch, length, groups, states),
        1 + 0.1 * random(width),
        random(batch, length, width) if gated else None,
        step + torch.log(-torch.expm1(-step)),
    ]


def with_gradients(function, tensors, gy):
    """[y, gradients of all operands that are there]."""
    inputs = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = function(*inputs, True)
    return [y.detach(), *torch.autograd.grad(y, [t for t in inputs if t is not None], gy)]


class Problem:
    """Operands, the gradient of the result, and what float64 makes of them."""

    def __init__(self, tensors):
        self.tensors, self.steps = tensors, tensors[0].shape[1]
        self.gy = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
        doubles = [None if t is None else t.double() for t in tensors]
        self.truth = with_gradients(torch_scan.scan, doubles, self.gy.double())

    def start(self, steps):
        """The operands of the first steps."""
        return [t if t is None or t.dim() < 3 else t[:, :steps].contiguous() for t in self.tensors]

    def both(self, function):
        return with_gradients(function, self.tensors, self.gy)

    def forward(self, function):
        with torch.no_grad():
            function(*self.tensors, True)
