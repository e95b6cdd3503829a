"""What a run does when a loss is no number or memory runs out: it goes on more carefully, says so, and gives up late.

A loss or gradient that is no number: back to the last checkpoint, then in fp32 if it was autocast, then with half of
the rate, then with a tenth. Memory: fewer patches at once with their gradients added up, so that the batch stays what
it was, then smaller patches.
"""

import torch

from MambaSegLib.errors import UserError
from MambaSegLib.networks import spec

from . import checkpoint

RATES = (0.5, 0.1)  # of the configured rate, one after the other
_MEMORY = ("not enough memory", "can't allocate", "out of memory", "DefaultCPUAllocator")
LEAST_PATCH = 16  # voxels per axis


class NotANumber(Exception):
    """The loss, the gradient or a weight is NaN or infinite."""


def is_out_of_memory(error: Exception) -> bool:
    """Also where torch has nothing but a text for it."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _MEMORY)


def calm(run, trouble: NotANumber) -> None:
    """Back to the last checkpoint, the next careful setting chosen.

    Where nothing was learned since that checkpoint its own weights are the trouble: the best ones take their place.

    Raises:
        UserError: every setting was tried.
    """
    state, failed = run.state, run.state.step
    precision, factor = state.precision or run.config.precision, state.rate_factor
    if precision != "fp32":
        cure, precision = "in fp32", "fp32"
    elif smaller := [rate for rate in RATES if rate < factor]:
        cure, factor = f"with {smaller[0]:g} of the learning rate", smaller[0]
    else:
        raise UserError(f"{trouble} at step {failed}, also {_tried(run)}.", _kept(state))
    path = run.folder.checkpoint
    checkpoint.put(state, run.ranks.from_first(lambda: checkpoint.read(path)), path)
    if state.step == failed and state.best_weights:
        state.network.load_state_dict(state.best_weights)
        state.optimizer.state.clear()
        if state.average is not None:
            state.average.module.load_state_dict(state.best_weights)
    state.precision, state.rate_factor = precision, factor
    run.report.message(f"{trouble} at step {failed}: on from step {state.step} {cure}.", "warning")


def _tried(run) -> str:
    first = "" if run.config.precision == "fp32" else "in fp32 and "
    return f"{first}with {RATES[-1]:g} of the learning rate"


def _kept(state) -> str:
    if state.best_weights:
        best = f"The best weights so far (step {state.best_step}, Dice {state.best_score:.3f}) are in the checkpoint"
    else:
        best = "The state before is in the checkpoint"
    return f"{best}: look at the data, lower the learning rate and resume."


def make_room(run, error: Exception) -> None:
    """Fewer patches at once, or smaller ones.

    Raises:
        UserError: one small patch does not fit either.
    """
    state, config = run.state, run.config
    state.optimizer.zero_grad(set_to_none=True)
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    at_once = state.micro_batch or config.batch
    if at_once > 1:
        state.micro_batch = -(-at_once // 2)
        what = f"{state.micro_batch} patch(es) at once, gradients added up to a batch of {config.batch}"
    elif smaller := smaller_patch(state.patch or list(config.patch), spec(config.network).divisor):
        state.patch = smaller
        what = f"patches of {' x '.join(map(str, smaller))} voxels"
    else:
        raise UserError(
            f"Not enough memory on {run.device} to train {config.network} with one patch of "
            f"{' x '.join(map(str, state.patch or config.patch))} voxels.",
            "Choose a smaller network, close other programs, or use a machine with more memory.",
        ) from error
    run.report.message(f"Not enough memory on {run.device}: on with {what}.", "warning")


def smaller_patch(patch: list[int], divisor) -> list[int] | None:
    """About three quarters of it per axis, in multiples of the divisor; None when no axis may shrink any more."""
    divisor = list(divisor)[-len(patch) :] or [1] * len(patch)
    least = [min(n, max(LEAST_PATCH, d)) for n, d in zip(patch, divisor, strict=True)]
    smaller = [max(low, n * 3 // 4 // d * d) for n, d, low in zip(patch, divisor, least, strict=True)]
    return smaller if smaller != list(patch) else None


def middle(images, labels, patch):
    """The middle of every patch; images (B, C, *grid), labels (B, *grid)."""
    if not patch:
        return images, labels
    box = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(labels.shape[1:], patch, strict=True))
    return images[(..., *box)], labels[(..., *box)]
