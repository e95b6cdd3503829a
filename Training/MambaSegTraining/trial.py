"""How long a training step of a network takes here, and how much memory: measured, because no formula knows."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from MambaSegLib.networks import create

from .config import TrainConfig
from .loop import LAST
from .optimisation import build_optimizer
from .recovery import is_out_of_memory
from .supervision import loss_function

STEPS = 3  # after a first one, which fills caches


@dataclass(frozen=True)
class Trial:
    """One measurement.

    Attributes:
        step_s: seconds of a step, the least of ``STEPS``.
        memory_mb: of a GPU at most; None on the CPU.
    """

    step_s: float
    memory_mb: int | None


def try_out(config: TrainConfig, device: torch.device, too_long_s: float) -> Trial | None:
    """Train on noise for a few steps.

    Args:
        too_long_s: for a step; when the first one takes four times as long, it is the answer.

    Returns:
        None when the memory does not suffice.
    """
    try:
        return _measured(config, device, too_long_s)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(config: TrainConfig, device: torch.device, too_long_s: float) -> Trial:
    network = create(config.network, config.in_channels, config.classes, **config.hyper).to(device)
    network = network.to(memory_format=LAST[len(config.patch)]).train()
    optimizer, loss = build_optimizer(config, network), loss_function(config)
    images = torch.randn(config.batch, config.in_channels, *config.patch, device=device)
    labels = torch.randint(0, config.classes, (config.batch, *config.patch), device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    while len(times) < 1 + STEPS:
        begun = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            levels = network.forward_multiscale(images)
        value = loss(levels, labels)
        value.backward()
        optimizer.step()
        value.item()  # waits for the GPU
        times.append(time.monotonic() - begun)
        if times[0] > 4 * too_long_s:
            break
    memory = torch.cuda.max_memory_allocated(device) >> 20 if device.type == "cuda" else None
    return Trial(min(times[1:] or times), memory)
