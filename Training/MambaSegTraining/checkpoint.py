"""The state of a training run on disk: replaced whole or not at all, and read without running anything in it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from MambaSegLib.errors import UserError


@dataclass
class RunState:
    """What a run needs to go on as if it had never stopped. Batches follow from the step, so no generator is kept."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None  # exponential moving average of the weights
    step: int = 0
    time_s: float = 0.0
    best_score: float = -1.0
    best_step: int = 0
    best_weights: dict = field(default_factory=dict)
    losses: list = field(default_factory=list)  # since the last validation
    curve: list = field(default_factory=list)  # one dictionary per validation

    @property
    def model(self) -> nn.Module:
        """The network whose weights count: the average where there is one."""
        return self.network if self.average is None else self.average.module


_PLAIN = ("step", "time_s", "best_score", "best_step", "best_weights", "losses", "curve")


def save(state: RunState, path: Path) -> None:
    """Write beside the old checkpoint, then replace it in one operation."""
    content = {name: getattr(state, name) for name in _PLAIN}
    content |= {"network": state.network.state_dict(), "optimizer": state.optimizer.state_dict()}
    content["average"] = None if state.average is None else state.average.state_dict()
    temporary = path.with_suffix(".writing")
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(state: RunState, path: Path) -> None:
    """Put a checkpoint into ``state``.

    Raises:
        UserError: no checkpoint there, or of another network.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint to resume from at {path}.", "Start without --resume.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        state.network.load_state_dict(content["network"])
        state.optimizer.load_state_dict(content["optimizer"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"The checkpoint {path} belongs to another network or optimizer.", "Start anew in another folder."
        ) from error
    for name in _PLAIN:
        setattr(state, name, content[name])
