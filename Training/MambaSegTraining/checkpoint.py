"""The state of a training run on disk: replaced whole or not at all, and read without running anything in it."""

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from MambaSegLib.errors import UserError


@dataclass
class RunState:
    """What a run needs to go on as if it had never stopped.

    Batches and dropout follow from seed and step, so no generator is kept.
    """

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
    steps: int = 0  # of a run whose length follows from its time budget; 0: the configuration's
    # What trouble made of the configuration, see ``recovery``.
    precision: str = ""  # "": the configuration's
    rate_factor: float = 1.0
    micro_batch: int = 0  # patches per pass through the network; 0: the whole batch at once
    patch: list = field(default_factory=list)  # the middle of every patch that is learned from; []: all of it

    @property
    def model(self) -> nn.Module:
        """The network whose weights count: the average where there is one."""
        return self.network if self.average is None else self.average.module


_PLAIN = ("step", "time_s", "best_score", "best_step", "best_weights", "losses", "curve")
_LATER = ("steps", "precision", "rate_factor", "micro_batch", "patch")  # absent in checkpoints of version 1.0


def save(state: RunState, path: Path) -> None:
    """Write beside the old checkpoint, then replace it in one operation.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old checkpoint is as it was.
    """
    content = {name: getattr(state, name) for name in _PLAIN + _LATER}
    content |= {"network": state.network.state_dict(), "optimizer": state.optimizer.state_dict()}
    content["average"] = None if state.average is None else state.average.state_dict()
    temporary = path.with_suffix(".writing")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch wraps the first in the second on some ways
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = "the checkpoint before it is whole" if path.is_file() else "there is none before it"
        raise UserError(
            f"The checkpoint of step {state.step} cannot be written to {path} ({reason}); {kept}.",
            "Make room on the disk, then resume.",
        ) from error


def read(path: Path) -> dict:
    """The content of a checkpoint.

    Raises:
        UserError: no checkpoint there, or not one of this program.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint to resume from at {path}.", "Start without --resume.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is not a readable checkpoint.", "Start anew in another folder.") from error


def put(state: RunState, content: dict, path: Path) -> None:
    """Make ``state`` what the checkpoint says.

    Args:
        content: as ``read`` gives it.
        path: where it comes from, for the message.

    Raises:
        UserError: it belongs to another network or optimizer.
    """
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
    for name in _LATER:
        if name in content:
            setattr(state, name, content[name])
