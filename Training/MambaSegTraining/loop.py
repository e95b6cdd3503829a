"""Batch -> loss -> step, validate, checkpoint: the loop of training from scratch and of fine-tuning.

It knows no file dialog and no GUI; it tells the world through ``report`` and stops when told. A stopped or killed run
goes on from its last checkpoint with the batches it would have had.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from MambaSegLib.errors import UserError
from MambaSegLib.inference import SliceWise

from . import checkpoint, evaluate, recovery
from .checkpoint import RunState
from .config import TrainConfig
from .distributed import Ranks
from .optimisation import learning_rate
from .pace import Pace, in_words
from .preview import Preview
from .recovery import NotANumber
from .run_folder import RunFolder

# Convolutions are about an eighth faster with channels last, and the scan wants its tokens that way anyway.
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass
class Run:
    """Everything that one run works with.

    Attributes:
        source: ``batch(step, size)`` -> (images (B, C, *patch), labels (B, *patch), merged: see ``losses_partial``).
        validation: prepared cases; none: nothing is measured.
        objective: ``f(levels, labels, merged, images)`` -> scalar; levels are the network's logits, finest first.
        validate_times: validations over the run, where its length is not known yet; 0: as the configuration says.
        title: of this training in progress labels.
        afterwards_s: what the job still has to do behind this training.
        preview: draws a case of the validation; None: no pictures.
        keeps_best: the weights of the best validation are the result; else the last ones.
    """

    config: TrainConfig
    state: RunState
    source: object
    validation: list
    objective: Callable[[list[Tensor], Tensor, Tensor | None, Tensor], Tensor]
    device: torch.device
    report: object
    folder: RunFolder
    keeps_best: bool = True
    ranks: Ranks = field(default_factory=Ranks)
    pace: Pace = field(default_factory=Pace)
    validate_times: int = 0
    title: str = ""
    afterwards_s: float = 0.0
    preview: Preview | None = None

    @property
    def steps(self) -> int:
        return self.state.steps or self.config.steps

    @property
    def validate_every(self) -> int:
        return -(-self.steps // self.validate_times) if self.validate_times else self.config.validate_every

    def validations_after(self, step: int) -> int:
        """How many are still to come."""
        return -(-self.steps // self.validate_every) - step // self.validate_every


class Ahead:
    """Makes the next batch in a thread while this one is learned from."""

    def __init__(self, source, size: int, thread: ThreadPoolExecutor):
        self.source, self.size, self.thread = source, size, thread
        self.step, self.upcoming = -1, None

    def batch(self, step: int) -> tuple:
        """The batch of a step; another one than expected is made now."""
        if step != self.step:
            self.upcoming = self.thread.submit(self.source.batch, step, self.size)
        batch = self.upcoming.result()
        self.step, self.upcoming = step + 1, self.thread.submit(self.source.batch, step + 1, self.size)
        return batch


def loop(run: Run) -> None:
    """Steps until ``run.steps``; leaves the weights that count in ``run.state.best_weights``."""
    state, config = run.state, run.config
    forward = run.ranks.forward_of(state.network)
    if state.step == 0:
        keep(run)  # from here on there is always a checkpoint to go back to
    started = time.monotonic() - state.time_s
    with ThreadPoolExecutor(1) as thread:
        ahead = Ahead(run.source, config.batch, thread)
        while state.step < run.steps:
            begun = time.monotonic()
            loss = learn_safely(run, forward, my_part(run, ahead.batch(state.step)))
            if loss is None:
                continue
            state.step += 1
            state.losses.append(loss)
            run.pace.step_took(time.monotonic() - begun)
            state.time_s = time.monotonic() - started
            run.report.metric(state.step, "loss", loss)
            fit_to_budget(run)
            at_end = state.step == run.steps
            if state.step % run.validate_every == 0 or at_end:
                validate(run)
            state.time_s = time.monotonic() - started
            if state.step % config.checkpoint_every == 0 or at_end:
                keep(run)
            run.report.progress(state.step, run.steps, label(run, loss))


def my_part(run: Run, batch) -> list:
    """This process's share of a batch, on its device; ``merged`` may be None."""
    return [None if t is None else run.ranks.share(t).to(run.device) for t in batch]


def fit_to_budget(run: Run) -> None:
    """Choose the number of steps that ends within the time budget, where there is one."""
    if run.pace.shall_fit:
        validations = max(1, run.validations_after(run.state.step)) if run.validation else 0
        run.state.steps = run.pace.fitting_steps(run.state.step, run.state.time_s, validations)


def label(run: Run, loss: float) -> str:
    """What a user reads: also how long all of the job will still take."""
    step, text = run.state.step, f"{run.title}Step {run.state.step} of {run.steps}, loss {loss:.3f}"
    if not run.pace.is_known or step == run.steps:
        return text
    validations = run.validations_after(step) if run.validation else 0
    seconds = run.pace.remaining_s(run.steps - step, validations) + run.afterwards_s
    return f"{text}, about {in_words(seconds)} left"


def learn_safely(run: Run, forward, batch: list) -> float | None:
    """One step; after trouble on with the careful settings of ``recovery``. None: the run went back to a checkpoint."""
    while True:
        try:
            return learn(run, forward, batch)
        except NotANumber as trouble:
            recovery.calm(run, trouble)
            return None
        except (RuntimeError, MemoryError) as error:
            if not recovery.is_out_of_memory(error):
                raise
            if run.ranks.size > 1:  # the others wait for this one's gradients: there is no second try
                raise UserError(
                    f"Not enough memory on {run.device} for this process's share of the batch.",
                    "Make 'batch' or inference.patch smaller, or use more processes; then resume.",
                ) from error
            recovery.make_room(run, error)


def learn(run: Run, forward, batch: list) -> float:
    """One optimizer step; the loss before it.

    Raises:
        NotANumber: loss or gradient is none; the weights are as they were.
    """
    config, state = run.config, run.state
    rate = state.rate_factor * learning_rate(config, state.step, run.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(hash((config.seed, state.step, run.ranks.rank)) % 2**63)  # dropout of a resumed run
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    precision, total, count = state.precision or config.precision, 0.0, len(batch[0])
    at_once = state.micro_batch or count
    for start in range(0, count, at_once):
        images, labels, merged = (None if t is None else t[start : start + at_once] for t in batch)
        images, labels = recovery.middle(images, labels, state.patch)
        images = images.contiguous(memory_format=LAST[images.dim() - 2])
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            levels = forward(images)
        loss = run.objective(levels, labels, merged, images) * (len(images) / count)
        loss.backward()
        total += loss.item()
    total = run.ranks.mean(total)
    if not math.isfinite(total):
        raise NotANumber(f"The loss became {total}")
    norm = nn.utils.clip_grad_norm_(learning_parameters(state), config.clip_norm or float("inf"))
    if not torch.isfinite(norm):
        raise NotANumber(f"The gradient became {norm.item()}")
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.network)
    return total


def learning_parameters(state: RunState) -> list[nn.Parameter]:
    return [p for group in state.optimizer.param_groups for p in group["params"]]


def keep(run: Run) -> None:
    """Write the checkpoint; weights that are no numbers are never written over good ones."""
    if not all(torch.isfinite(p).all() for p in learning_parameters(run.state)):
        recovery.calm(run, NotANumber("A weight became infinite or no number"))
    elif run.ranks.is_first:
        checkpoint.save(run.state, run.folder.checkpoint)
        run.folder.update(step=run.state.step, steps=run.steps)


def validate(run: Run) -> None:
    """A row of the curve; on the first rank also Dice per structure over the validation cases."""
    state, labels = run.state, run.config.model["labels"]
    begun = time.monotonic()
    row = {"step": state.step, "time_s": round(state.time_s), "loss": round(sum(state.losses) / len(state.losses), 4)}
    score = 0.0
    if run.validation:
        scores = run.ranks.from_first(lambda: measured(run))
        row |= {f"Dice {item['name']}": _rounded(scores[item["value"]]) for item in labels}
        known = [value for value in scores.values() if value == value]
        score = sum(known) / len(known) if known else 0.0
        run.report.metric(state.step, "validation Dice", score)
        run.report.message(f"Step {state.step}: validation Dice {score:.4f}")
    state.curve.append(row)
    state.losses = []
    if not (run.keeps_best and run.validation) or score > state.best_score:
        state.best_score, state.best_step = score, state.step
        state.best_weights = {k: v.detach().cpu().clone() for k, v in state.model.state_dict().items()}
    run.pace.validation_took(time.monotonic() - begun)


def measured(run: Run) -> dict:
    """{label value: mean Dice} of the weights that count."""
    network = run.state.model.eval()
    if len(run.config.patch) == 2:
        network = SliceWise(network)
    labels = run.config.model["labels"]
    look = partial(run.preview.show, run.state.step) if run.preview else None
    return evaluate.mean_dice(network, run.validation, labels, run.config.recipe, run.device, run.report, look)


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None
