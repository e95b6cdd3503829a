"""Operands, gradients and distances for the tests of the compiled kernels."""

import math

import torch

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def operands(batch, length, groups, channels, states, shared=False, missing=(), seed=0):
    """Random float64 operands of `scan`, in its order; those named in `missing` are None."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width = channels if shared else groups * channels
    tensors = {
        "u": random(batch, length, width),
        "delta": random(batch, length, groups * channels) * 0.5,
        "A": -random(groups * channels, states).abs() * 2,
        "B": random(batch, length, groups, states),
        "C": random(batch, length, groups, states),
        "D": random(groups * channels),
        "z": random(batch, length, width),
        "delta_bias": random(groups * channels) - 1,
    }
    return [None if name in missing else tensors[name] for name in NAMES]


def everything(function, tensors, dtype, *options):
    """[y, gradients of all operands that are there] for a fixed random weighting of y."""
    inputs = [None if t is None else t.detach().to(dtype, copy=True).requires_grad_() for t in tensors]
    y = function(*inputs, *options)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(dtype)
    return [y.detach(), *torch.autograd.grad(y, [t for t in inputs if t is not None], weight)]


def worst(ours, truth):
    """Largest difference relative to the largest true value of the same tensor; infinite if ours is not finite."""
    errors = [
        (a.double() - b).abs().max() / b.abs().max().clamp(min=1e-300) if a.isfinite().all() else torch.tensor(math.inf)
        for a, b in zip(ours, truth, strict=True)
    ]
    return torch.stack(errors).max().item()


def constant_steps(length, channels, states, delta, function, dtype):
    """[y, gradients] of a scan without softplus whose steps are all equal; the decays are 1, 2, 3 ... per unit."""
    tensors = operands(1, length, 1, channels, states)
    tensors[1], tensors[7] = torch.full_like(tensors[1], delta), torch.zeros(channels, dtype=torch.float64)
    tensors[2] = -torch.arange(1, states + 1, dtype=torch.float64).repeat(channels, 1)
    tensors = [t.float().double() for t in tensors]  # what float32 is given
    return everything(lambda *x: function(*x, False), tensors, dtype)
