"""Optimizers, schedules and averages: what turns gradients into weights."""

import math

import torch
from torch import nn

from .config import TrainConfig


def build_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that learn.

    Weight decay leaves norms, biases and A_log alone, unless ``decay_all`` asks for the papers' single group.
    """
    learning = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [p for name, p in learning if config.decay_all or _is_weight(name, p)]
    others = [p for name, p in learning if not config.decay_all and not _is_weight(name, p)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() > 1 and not name.endswith("A_log")


def moving_average(network: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel | None:
    """Exponential moving average of the weights that follows fast at first; none for a decay of 0.

    After n updates the decay is min(decay, (1 + n) / (10 + n)).
    """

    def update(mean, current, count):
        return mean + (1 - min(decay, (1 + float(count)) / (10 + float(count)))) * (current - mean)

    return torch.optim.swa_utils.AveragedModel(network, avg_fn=update) if decay else None


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then the schedule, as a function of the step of a run of ``steps``.

    cosine          half a wave, from the rate to ``least_rate`` at the last step
    poly            (1 - part)^0.9, nnU-Net's
    cosine_wave     waves without end: down in ``schedule_period`` steps, up in as many (torch's CosineAnnealingLR)
    cosine_restarts half a wave of ``schedule_period`` steps, then one twice as long ... (T_mult = 2)
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "poly":
        return config.learning_rate * (1 - step / steps) ** 0.9
    if config.schedule == "cosine":
        part = step / steps
    elif config.schedule == "cosine_wave":
        part = step / config.schedule_period
    else:
        cycle = int(math.log2(step / config.schedule_period + 1))
        part = (step / config.schedule_period - (2**cycle - 1)) / 2**cycle
    return config.least_rate + (config.learning_rate - config.least_rate) * 0.5 * (1 + math.cos(math.pi * part))
