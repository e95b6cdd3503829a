"""From the parent's bundle to the configuration of its fine-tuning, and from there to the child's ``bundle.json``."""

from dataclasses import fields
from datetime import date

from torch import nn

import MambaSegLib
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.catalogue import lineage_of
from MambaSegLib.inference import SliceWise, load_network, resolve_device

from .anchor import WEIGHT
from .config import TrainConfig
from .mirroring import side_pairs
from .structures import Table

# Taken over from the parent's own training, where its bundle tells it.
INHERITED = (
    "batch",
    "loss",
    "scale_weights",
    "mirror_axes",
    "mirror_swap",
    "foreground_share",
    "weight_decay",
    "clip_norm",
)
RATES = {"all": 3e-4, "decoder": 3e-4, "adapters": 1e-3}


def config_of(parent: ModelBundle, table: Table, method: str, seed: int) -> TrainConfig:
    """How to fine-tune a model: its own recipe with a small rate, a short warm-up and a moving average."""
    own = {key: value for key, value in parent.data["provenance"]["config"].items() if key in INHERITED}
    own = {key: value for key, value in own.items() if key in {f.name for f in fields(TrainConfig)}}
    if own.get("mirror_swap") is None and side_pairs(table.labels):
        own["mirror_axes"] = ()  # nobody said which labels change sides
    rate = min(RATES[method], parent.data["provenance"]["config"].get("learning_rate", RATES[method]))
    return TrainConfig(
        model={"id": parent.id, "labels": table.labels},
        network=parent.network["name"],
        hyper=parent.network["hyper"],
        in_channels=parent.network["in_channels"],
        preprocessing=parent.preprocessing,
        inference=parent.inference,
        optimizer="adamw",
        learning_rate=rate,
        schedule="cosine",
        warmup_steps=10,
        ema_decay=0.99,
        steps=100_000,  # until the budget is known in steps
        validate_every=100_000,
        checkpoint_every=20,
        seed=seed,
        **own,
    )


def plain_network(bundle: ModelBundle) -> nn.Module:
    """The bundle's network on the CPU, a 2-D one without what makes it take volumes."""
    network = load_network(bundle, resolve_device("cpu"))
    return network.network if isinstance(network, SliceWise) else network


def child_data(task, state) -> dict:
    """The child's ``bundle.json``, without the weights' entry."""
    parent, cases, table = task.parent, task.cases, task.table
    new = [case.name for case in cases.training]
    provenance = {
        "parent": parent.id,
        "parent_sha256": parent.sha256,
        "lineage": lineage_of(parent),
        "data": "; ".join(["the cases of its parent", f"{len(new)} corrected or added cases"]),
        "cases": [
            *parent.data["provenance"]["cases"],
            *(n for n in new if n not in parent.data["provenance"]["cases"]),
        ],
        "validation_cases": [case.name for case in cases.held_out] if cases.protocol == "hold-out" else [],
        "new_cases": new,
        "replayed_cases": [case.name for case in cases.replay],
        "seed": task.config.seed,
        "date": date.today().isoformat(),
        "code_version": MambaSegLib.__version__,
        "config": settings(task, state),
        "train_time_s": round(state.time_s),
        "curve": state.curve,
    }
    return parent.data | {
        "version": next_version(parent.version),
        "network": parent.network | {"out_channels": len(table.origins)},
        "labels": table.labels,
        "metrics": {"protocol": "compared with its parent: see the decision beside this file", "values": []},
        "provenance": provenance,
        "weights": {"dtype": parent.data["weights"]["dtype"]},
    }


def settings(task, state) -> dict:
    """The configuration as it was used, with what is particular to a fine-tuning."""
    plain = {k: v for k, v in task.config.as_dict().items() if k not in ("model", "data", "context")}
    anchor = f"L2-SP, weight {WEIGHT:g}"
    return plain | {"steps": state.step, "method": task.method, "anchor": anchor, "budget_s": task.budget_s}


def next_version(version: str) -> str:
    """'1.0.0' -> '1.1.0'; a version that is no such number gets '.1'."""
    parts = version.split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return f"{parts[0]}.{int(parts[1]) + 1}.0"
    return f"{version}.1"
