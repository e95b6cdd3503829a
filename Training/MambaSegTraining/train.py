"""Training from a configuration to a model bundle, top to bottom.

    learning rate -> batch -> loss -> step -> average -> report -> validate, keep the best -> checkpoint

The loop knows no file dialog and no GUI; it tells the world through ``report`` and stops when told. A stopped or killed
run goes on from its last checkpoint with the batches it would have had.
"""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import torch
from torch import nn

import MambaSegLib
from MambaSegLib.bundle import write_bundle
from MambaSegLib.bundle_schema import check_bundle_data
from MambaSegLib.errors import UserError
from MambaSegLib.inference import SliceWise, resolve_device
from MambaSegLib.networks import create

from . import checkpoint, evaluate
from .checkpoint import RunState
from .config import TrainConfig, read_config
from .data import load_data
from .losses import deep_supervision
from .patches import PatchSource

# Convolutions are about an eighth faster with channels last, and the scan wants its tokens that way anyway.
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def run(request: dict, report, warm=None) -> dict:
    """The job ``train``: {config: path, output: folder, resume: bool} -> {bundle, best_score, steps, time_s}."""
    config = read_config(request["config"])
    state, bundle = train(config, Path(request["output"]), report, bool(request.get("resume")))
    return {"bundle": str(bundle), "best_score": state.best_score, "steps": state.step, "time_s": state.time_s}


def train(config: TrainConfig, output: Path, report, resume: bool = False) -> tuple[RunState, Path]:
    """Train, validate and write ``output/<model id>`` as a bundle.

    Args:
        config: what to do.
        output: folder for checkpoint and bundle; made when missing.
        report: ``MambaSegLib.job.Report``.
        resume: go on from ``output/checkpoint.pt``.

    Raises:
        UserError: bad data or configuration, a loss that is no number, a bundle that stands there already.
    """
    bundle = output / config.model["id"]
    if bundle.exists():
        raise UserError(f"There is a model at {bundle} already.", "Choose another output folder.")
    output.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)

    source, validation, names = load_data(config, report)
    state = new_run(config, device)
    check_description(describe(config, state, names, []))
    if resume:
        checkpoint.load(state, output / "checkpoint.pt")
    loop(config, state, source, validation, device, report, output / "checkpoint.pt")

    state.model.load_state_dict(state.best_weights)
    network, labels = by_windows(config, state.model), config.model["labels"]
    table = evaluate.full_table(network, validation, len(validation), labels, config.recipe, device, report)
    write_bundle(bundle, describe(config, state, names, table), numpy_weights(state.best_weights))
    return state, bundle


def check_description(data: dict) -> None:
    """Refuse now what would be refused when the trained model is written, hours later."""
    weights = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1, "dtype": "float16"}
    check_bundle_data(data | {"weights": weights}, "the configuration")


def new_run(config: TrainConfig, device) -> RunState:
    """Fresh network, optimizer and average."""
    network = create(config.network, config.in_channels, config.classes, **config.hyper).to(device)
    network = network.to(memory_format=LAST[len(config.patch)])
    decayed = [p for n, p in network.named_parameters() if p.dim() > 1 and not n.endswith("A_log")]
    others = [p for n, p in network.named_parameters() if p.dim() <= 1 or n.endswith("A_log")]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    else:
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)
    average = torch.optim.swa_utils.AveragedModel(network, avg_fn=ema(config.ema_decay)) if config.ema_decay else None
    return RunState(network, optimizer, average)


def ema(decay: float):
    """Exponential moving average that follows fast at first: decay min(decay, (1 + n) / (10 + n)) after n updates."""

    def update(mean, current, count):
        return mean + (1 - min(decay, (1 + float(count)) / (10 + float(count)))) * (current - mean)

    return update


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then cosine to zero or nnU-Net's poly."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    part = step / config.steps
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
    return config.learning_rate * (1 - part) ** 0.9


def loop(config: TrainConfig, state: RunState, source: PatchSource, validation, device, report, path: Path) -> None:
    """Steps until ``config.steps``; leaves the best weights in ``state``."""
    started = time.monotonic() - state.time_s
    with ThreadPoolExecutor(1) as ahead:  # the next batch is made while this one is learned from
        upcoming = ahead.submit(source.batch, state.step, config.batch)
        while state.step < config.steps:
            images, labels = (t.to(device) for t in upcoming.result())
            images = images.contiguous(memory_format=LAST[len(config.patch)])
            upcoming = ahead.submit(source.batch, state.step + 1, config.batch)
            loss = learn(config, state, images, labels)
            state.step += 1
            state.time_s = time.monotonic() - started
            state.losses.append(loss)
            report.metric(state.step, "loss", loss)
            if state.step % config.validate_every == 0 or state.step == config.steps:
                validate(config, state, validation, device, report)
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                checkpoint.save(state, path)
            report.progress(state.step, config.steps, f"Step {state.step} of {config.steps}, loss {loss:.3f}")


def learn(config: TrainConfig, state: RunState, images, labels) -> float:
    """One optimizer step; the loss before it."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step)
    state.network.train()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        scales = state.network.forward_multiscale(images)
    loss = deep_supervision(scales, labels, config.scale_weights)
    if not torch.isfinite(loss):
        raise UserError(
            f"The loss became {loss.item()} at step {state.step}.",
            "Lower the learning rate and resume from the last checkpoint.",
        )
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.network)
    return loss.item()


def validate(config: TrainConfig, state: RunState, cases, device, report) -> None:
    """Mean Dice over the validation cases; keeps the weights when it is the best so far."""
    values = [label["value"] for label in config.model["labels"]]
    network = by_windows(config, state.model)
    scores = evaluate.mean_dice(network, cases, values, config.recipe, device, report)
    mean = sum(scores.values()) / len(scores)
    report.metric(state.step, "validation Dice", mean)
    row = {"step": state.step, "time_s": round(state.time_s), "loss": round(sum(state.losses) / len(state.losses), 4)}
    row |= {f"Dice {label['name']}": round(scores[label["value"]], 4) for label in config.model["labels"]}
    state.curve.append(row)
    state.losses = []
    report.message(f"Step {state.step}: validation Dice {mean:.4f}")
    if mean > state.best_score:
        state.best_score, state.best_step = mean, state.step
        state.best_weights = {k: v.detach().cpu().clone() for k, v in state.model.state_dict().items()}


def by_windows(config: TrainConfig, network: nn.Module) -> nn.Module:
    """The network in evaluation mode, taking windows (B, C, Z, Y, X) also where it is two-dimensional."""
    network = network.eval()
    return SliceWise(network) if len(config.patch) == 2 else network


def numpy_weights(weights: dict) -> dict:
    return {name: tensor.contiguous().numpy() for name, tensor in weights.items()}


def describe(config: TrainConfig, state: RunState, names: dict, table: list) -> dict:
    """The contents of bundle.json, without the weights' entry."""
    network = {"name": config.network, "in_channels": config.in_channels, "out_channels": config.classes}
    provenance = {
        "parent": None,
        "data": config.model.get("data_name", config.data),
        "cases": names["training"],
        "validation_cases": names["validation"],
        "context_cases": names["context"],
        "seed": config.seed,
        "date": date.today().isoformat(),
        "code_version": MambaSegLib.__version__,
        "config": {k: v for k, v in config.as_dict().items() if k not in ("model", "data", "context")},
        "train_time_s": round(state.time_s),
        "best_step": state.best_step,
        "curve": state.curve,
    }
    protocol = f"{len(names['validation'])} cases of patients never trained on; best step chosen on them"
    return {
        **{k: v for k, v in config.model.items() if k != "data_name"},
        "schema_version": 1,
        "network": {**network, "hyper": config.hyper},
        "preprocessing": config.preprocessing,
        "inference": config.inference,
        "metrics": {"protocol": protocol, "values": table},
        "provenance": provenance,
        "weights": {"dtype": "float16"},
    }
