"""The job ``train``: a configuration and labelled cases -> a checkpoint while it runs, a bundle when it is done."""

import contextlib
import shutil
from datetime import date
from pathlib import Path

import torch

import MambaSegLib
from MambaSegLib.bundle import write_bundle
from MambaSegLib.bundle_schema import check_bundle_data
from MambaSegLib.errors import UserError
from MambaSegLib.inference import SliceWise, resolve_device
from MambaSegLib.job import Report
from MambaSegLib.networks import create
from MambaSegLib.networks.weights import load_encoder
from MambaSegLib.wording import counted

from . import checkpoint, evaluate
from .checkpoint import RunState
from .config import TrainConfig, read_config
from .data import load_data
from .distributed import Ranks, joined
from .loop import LAST, Run, loop
from .losses_partial import partial
from .optimisation import build_optimizer, moving_average
from .run_folder import RunFolder, Untold
from .supervision import check_levels, loss_function


def run(request: dict, report, warm=None) -> dict:
    """The job ``train``: {config: path, output: folder, resume, distributed} -> {bundle, best_score, steps, time_s}."""
    config = read_config(request["config"])
    where = joined(config.device, config.batch) if request.get("distributed") else alone(config.device)
    with where as (ranks, device):
        folder = Path(request["output"])
        folder = RunFolder(folder, "train", request) if ranks.is_first else Untold(folder)
        report = report if ranks.is_first else Report()
        state, bundle = train(config, folder, report, bool(request.get("resume")), ranks, device)
    return {"bundle": str(bundle), "best_score": state.best_score, "steps": state.step, "time_s": state.time_s}


def alone(device_name: str):
    """One process: (Ranks, device)."""
    return contextlib.nullcontext((Ranks(), resolve_device(device_name)))


def train(config: TrainConfig, folder, report, resume: bool, ranks: Ranks, device) -> tuple[RunState, Path]:
    """Train, validate and write ``folder.path/<model id>`` as a bundle.

    Args:
        config: what to do.
        folder: ``RunFolder`` for checkpoint and bundle; ``Untold`` on all ranks but the first.
        report: ``MambaSegLib.job.Report``.
        resume: go on from the folder's checkpoint.
        ranks, device: this process among those that train together.

    Raises:
        UserError: bad data or configuration, trouble that ``recovery`` found no way out of, a bundle that stands there
            already.
    """
    bundle = folder.checkpoint.parent / config.model["id"]
    if bundle.exists() and ranks.is_first:
        raise UserError(f"There is a model at {bundle} already.", "Choose another output folder.")
    if config.threads:
        torch.set_num_threads(config.threads)
    prepared = folder.checkpoint.parent / "prepared"
    with folder.working():
        source, validation, names = load_data(config, report, prepared)
        state = new_run(config, device, report)
        check_description(describe(config, state, names, []))
        check_levels(config, state.network, device)
        if resume:
            content = ranks.from_first(lambda: checkpoint.read(folder.checkpoint))
            checkpoint.put(state, content, folder.checkpoint)
        loss = partial(loss_function(config))
        work = Run(config, state, source, validation, objective(loss), device, report, folder, ranks=ranks)
        loop(work)
        if ranks.is_first:
            write_best(config, state, validation, names, bundle, device, report)
            folder.update(state="finished", result={"bundle": str(bundle)})
            shutil.rmtree(prepared, ignore_errors=True)  # large, and quickly made again
    return state, bundle


def objective(loss):
    """A loss of partly annotated labels in the form that the loop asks for, which also has the images."""
    return lambda levels, labels, merged, images: loss(levels, labels, merged)


def write_best(config: TrainConfig, state: RunState, validation, names: dict, bundle: Path, device, report) -> None:
    """Measure the best weights and write them as a bundle."""
    state.model.load_state_dict(state.best_weights)
    network, labels = state.model.eval(), config.model["labels"]
    network = SliceWise(network) if len(config.patch) == 2 else network
    table = evaluate.full_table(network, validation, len(validation), labels, config.recipe, device, report)
    write_bundle(bundle, describe(config, state, names, table), numpy_weights(state.best_weights))


def check_description(data: dict) -> None:
    """Refuse now what would be refused when the trained model is written, hours later."""
    weights = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1, "dtype": "float16"}
    check_bundle_data(data | {"weights": weights}, "the configuration")


def new_run(config: TrainConfig, device, report) -> RunState:
    """Fresh network, with a pretrained encoder where one is given, optimizer and average."""
    torch.manual_seed(config.seed)
    network = create(config.network, config.in_channels, config.classes, **config.hyper)
    if config.encoder_weights:
        for remark in load_encoder(network, config.encoder_weights):
            report.message(remark)
    network = network.to(device).to(memory_format=LAST[len(config.patch)])
    return RunState(network, build_optimizer(config, network), moving_average(network, config.ema_decay))


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
        "config": {k: v for k, v in config.as_dict().items() if k not in ("model", "data", "context")}
        | {"encoder_weights": Path(config.encoder_weights).name},
        "train_time_s": round(state.time_s),
        "best_step": state.best_step,
        "curve": state.curve,
    }
    protocol = f"{counted(len(names['validation']), 'case')} of patients never trained on; best step chosen on them"
    return {
        **{k: v for k, v in config.model.items() if k != "data_name"},
        "schema_version": 1,
        "network": {**network, "hyper": config.hyper},
        "preprocessing": config.preprocessing,
        "inference": config.inference,
        "metrics": {"protocol": protocol, "values": table},
        "provenance": provenance,
        "weights": {"dtype": config.weights_dtype},
    }
