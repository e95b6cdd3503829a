"""The job "import": authors' weights, or a folder trained by nnU-Net, into a model of the user's."""

import colorsys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

from . import __version__, model_add
from .bundle import open_bundle, sha256_of, write_bundle
from .bundle_schema import SCHEMA_VERSION
from .catalogue import version_name
from .checkpoint_import import Checkpoint, Imported, build, configuration, read_checkpoint
from .errors import UserError
from .import_source import Source, find_source, read_json
from .job import Report
from .model_versions import models_folder
from .networks import spec
from .nnunet_plan import inference_of, inputs_of, labels_of, notes_of, preprocessing_of
from .wording import counted

SETTINGS = (  # what the user may say; each replaces what is known otherwise
    *("id", "title", "description", "keywords", "labels", "inputs", "preprocessing", "inference"),
    *("intended_use", "limitations", "licence"),
)
EXAMPLE = (
    '{"preprocessing": {"orientation": "RAS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}}, '
    '"inference": {"patch": [96, 96, 96]}}'
)


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "checkpoint" (file or trained folder); optional "trust" (true: the user vouches for a pickle's origin),
            "network" (variant; default: recognised), "in_channels", "out_channels" (where the weights do not tell),
            "hyper" (overrides), "labels" (names of the classes 1, 2, ...), "settings" (an object or the path of a JSON
            file with entries of ``SETTINGS``), "fold", "mirror" (true: average over mirrored images as nnU-Net does,
            several times slower), "output" (folder of models), "folders" (further ones, in which it may be already).
        report: messages.
        warm: not used.

    Returns:
        {bundle, id, network, parameters, channels, classes, notes}

    Raises:
        UserError: anything the user can put right; nothing is written then.
    """
    if not request.get("checkpoint"):
        raise UserError("The request must name 'checkpoint'.", "Give a file with weights, or a trained folder.")
    source = find_source(request["checkpoint"], str(request.get("fold") or ""))
    report.message(f"Reading {source.weights}")
    checkpoint = completed(read_checkpoint(source.weights, bool(request.get("trust"))), source)
    channels = [int(request.get(name) or 0) for name in ("in_channels", "out_channels")]
    name = request.get("network") or ""
    imported = build(checkpoint, source.weights.name, name, *channels, request.get("hyper"))
    data, notes = _bundle_data(imported, checkpoint, source, request)
    with tempfile.TemporaryDirectory(prefix="mambaseg-import-") as folder:
        weights = {name: tensor.numpy() for name, tensor in imported.network.state_dict().items()}
        bundle = write_bundle(Path(folder) / data["id"], data, weights)
        report.check_cancelled()
        folders = request.get("folders") or []
        placed = model_add.place(bundle, models_folder(request.get("output") or None), folders=folders)
    bundle = open_bundle(placed.folder, verify=False)
    for note in notes:
        report.message(note, "warning")
    result = {"bundle": str(bundle.folder), "id": version_name(bundle), "network": imported.name, "notes": notes}
    parameters = sum(p.numel() for p in imported.network.parameters())
    return result | {"parameters": parameters, "channels": imported.in_channels, "classes": imported.out_channels}


def completed(checkpoint: Checkpoint, source: Source) -> Checkpoint:
    """With the plans of the folder where the checkpoint has none of its own."""
    plans = checkpoint.plans
    if not plans and source.plans:
        plans = configuration(source.plans, source.configuration)
    return replace(
        checkpoint,
        plans=plans,
        dataset=checkpoint.dataset or source.dataset,
        trainer=checkpoint.trainer or source.trainer,
    )


def _bundle_data(imported: Imported, checkpoint: Checkpoint, source: Source, request: dict) -> tuple[dict, list[str]]:
    """Everything of ``bundle.json`` but the weights, and what the user should know."""
    settings, notes = _settings(request), list(source.notes)
    plan = checkpoint.plans
    data = _description(imported, checkpoint, source) | {"inputs": _inputs(imported, checkpoint)}
    if plan and "spacing" in plan:
        notes += notes_of(plan)
        mirrored = checkpoint.mirror_axes if request.get("mirror") else ()
        data |= {"preprocessing": preprocessing_of(plan), "inference": inference_of(plan, mirrored)}
    elif not {"preprocessing", "inference"} <= settings.keys():
        raise UserError(
            f"{source.weights.name} says nothing about voxel size, intensities and patch.",
            f"Give a file with --settings, such as {EXAMPLE}",
        )
    data["labels"] = _labels(imported, checkpoint, request.get("labels"))
    data |= settings
    data["inference"] = {"overlap": 0.5, "mirror_axes": [], "min_component_mm3": 0, "margin_mm": 0} | data["inference"]
    data["limitations"] = data.get("limitations") or " ".join(["Imported; not measured here.", *notes])
    licence = {"weights": f"not stated in the file; {spec(imported.name).licence}", "data": "not stated"}
    data["licence"] = licence | {"code": "Apache-2.0"} | settings.get("licence", {})
    return data, notes


def _description(imported: Imported, checkpoint: Checkpoint, source: Source) -> dict:
    """What the model is called and where it comes from."""
    plan = checkpoint.plans
    dataset = plan.get("dataset_name") or source.weights.stem
    title = f"{dataset} ({imported.name})"
    where = ", ".join(part for part in (checkpoint.trainer, plan.get("name", "")) if part)
    stated = {"file": source.weights.name, "trainer": checkpoint.trainer, "configuration": plan.get("name", "")}
    network = {"name": imported.name, "in_channels": imported.in_channels, "out_channels": imported.out_channels}
    return {
        "schema_version": SCHEMA_VERSION,
        "id": model_add.id_of(f"{dataset}-{imported.name}"),
        "version": "1.0.0",
        "title": title,
        "description": f"Imported from {source.weights.name}" + (f" ({where})." if where else "."),
        "keywords": ["imported", imported.name],
        "network": network | {"hyper": imported.hyper},
        "metrics": {"protocol": "not measured here", "values": []},
        "intended_use": "Research. Not a medical device; not for diagnosis or treatment.",
        "provenance": {
            "parent": None,
            "data": f"not stated in the file; data set {dataset}",
            "cases": [],
            "validation_cases": [],
            "seed": None,
            "date": date.today().isoformat(),
            "code_version": __version__,
            "config": {"imported_from": stated | {"sha256": sha256_of(source.weights)}},
            "train_time_s": 0,
            "curve": [],
        },
    }


def _inputs(imported: Imported, checkpoint: Checkpoint) -> list[dict]:
    inputs = inputs_of(checkpoint.dataset)
    if inputs and len(inputs) != imported.in_channels:
        raise UserError(
            f"dataset.json names {counted(len(inputs), 'channel')}, but the weights are of a network with "
            f"{imported.in_channels}.",
            "The folder is put together from different trainings; get the right one.",
        )
    if inputs:
        return inputs
    return [{"name": f"Channel {i + 1}", "modality": "", "description": ""} for i in range(imported.in_channels)]


def _labels(imported: Imported, checkpoint: Checkpoint, names) -> list[dict]:
    classes = imported.out_channels
    known = dict(enumerate(names, start=1)) if names else labels_of(checkpoint.dataset)
    known = known or {value: f"Structure {value}" for value in range(1, classes)}
    if len(known) != classes - 1 or max(known) != classes - 1:
        named = ", ".join(map(str, known.values()))
        raise UserError(
            f"Named {counted(len(known), 'structure')} ({named}), but the weights are of a network with {classes - 1}.",
            "Name every structure, in the order of the training.",
        )
    return [
        {"value": value, "name": name, "color": _color(index), "terminology": None}
        for index, (value, name) in enumerate(known.items())
    ]


def _color(index: int) -> list[int]:
    """Neighbours in the list are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1, 0.65, 0.9 - 0.15 * (index % 2))
    return [round(255 * part) for part in (red, green, blue)]


def _settings(request: dict) -> dict:
    given = request.get("settings") or {}
    settings = given if isinstance(given, dict) else read_json(Path(given).expanduser())
    unknown = [key for key in settings if key not in SETTINGS]
    if unknown:
        raise UserError(f"Unknown setting '{unknown[0]}' of an import.", f"Known ones are {', '.join(SETTINGS)}.")
    return settings
