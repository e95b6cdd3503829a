"""The job ``plan``: from a data set and a time budget to a configuration that a person can read, change and train.

    fingerprint -> spacing, normalisation, dimensions -> patch -> the largest network that learns enough in the budget

Rules: a structure is learned on the median voxel size; slices more than ``FLAT`` times thicker than wide are looked at
one by one; a network is too large when the budget does not hold ``ENOUGH_STEPS`` of its steps, measured here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

from MambaSegLib import label_table
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.inference import resolve_device
from MambaSegLib.networks import spec
from MambaSegLib.safe_file import write_text
from MambaSegLib.wording import counted

from .cases import Case, least_share
from .config import TrainConfig
from .fingerprint import Fingerprint, described_by, fingerprint
from .mirroring import side_axis, side_pairs
from .pace import in_words
from .reading import read_case_labels
from .recovery import smaller_patch
from .sources import open_source
from .trial import Trial, try_out

FLAT = 3.5
ENOUGH_STEPS = 600
FOR_STEPS = 0.85  # of the budget; the rest is for reading and validation
MOST_VOXELS = 96**3  # of a patch of a volume
PICTURE = 256  # pixels per side that a picture is brought to, fewer where it has fewer
_ISOTROPIC = {"strides": [1, 2, 2, 2], "kernels": [3, 3, 3, 3]}
CANDIDATES = {  # largest first: (network, hyper, learning rate)
    3: [
        ("mm_unet", {"features": features, **_ISOTROPIC}, 1e-3)
        for features in ([32, 64, 128, 256], [24, 48, 96, 160], [16, 32, 64, 96], [8, 16, 32, 64])
    ],
    2: [("deco_mamba_v0", {}, 5e-4), ("ultralight_vm_unet", {}, 1e-3)],
}
BATCH = {3: 2, 2: 8}
TO_CHANGE = ("network", "validation_share", "foreground_share", "steps", "batch", "learning_rate", "mirror_axes")


def run(request: dict, report, warm=None) -> dict:
    """The job ``plan``.

    Args:
        request: "data" (folder or table), "budget_s"; optional "output" (JSON file to write), "device", "id".

    Returns:
        {"output" or None, "config", "fingerprint", "step_s", "memory_mb", "time_s" (of training, planned)}.
    """
    where, budget_s = Path(request["data"]).expanduser().resolve(), float(request["budget_s"])
    output = Path(request["output"]) if request.get("output") else None
    if output is not None and output.exists():
        raise UserError(f"There is a file at {output} already.", "Choose another name.")
    device = resolve_device(request.get("device") or "auto")
    cases, described = open_source(where), described_by(where)
    found = fingerprint(cases, names_of(cases, described), described["modality"], report)
    config = first_plan(where, found, described, request.get("id") or slug(where.stem))
    config.validation_share = least_share(cases, config.validation_share)
    config, trial = fitted(config, budget_s, device, report)
    config.about = about(found, config, trial, budget_s, str(device))
    plain = readable(config)
    if output is not None:
        write_text(output, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
    result = {"output": output and str(output), "config": plain, "fingerprint": found.as_dict()}
    return result | {"step_s": trial.step_s, "memory_mb": trial.memory_mb, "time_s": config.steps * trial.step_s}


def readable(config: TrainConfig) -> dict:
    """The configuration without what is as it always is, but with all that one may want to change first."""
    usual = {f.name: f.default for f in dataclasses.fields(config)}
    return {k: v for k, v in config.as_dict().items() if k in TO_CHANGE or (v != usual[k] and v != {})}


def names_of(cases: list[Case], described: dict) -> dict[int, str]:
    """{value: name} of the structures, numbered 1, 2, 3 ...: the cases' own names, those of the data set, or numbers.

    Raises:
        UserError: the values have gaps.
    """
    own = list(dict.fromkeys(name for case in cases for _, name in case.structures or ()))
    if own:
        return dict(enumerate(own, 1))
    names = described["names"]
    if not names:
        found = set()
        for case in cases[:20]:
            found |= set(int(v) for v in set(read_case_labels(case).array.ravel().tolist()) - {0, 255})
        names = {value: f"Label {value}" for value in sorted(found)}
    if sorted(names) != list(range(1, len(names) + 1)):
        raise UserError(
            f"Label values 1, 2, 3 ... were expected, but the data have {sorted(names) or 'none'}.",
            "Renumber them, or write the names of all structures into dataset.json.",
        )
    return dict(sorted(names.items()))


def first_plan(where: Path, found: Fingerprint, described: dict, name: str) -> TrainConfig:
    """Everything but what must be measured."""
    spacing = found.spacing_mm["median"]
    flat = found.modality == "picture" or spacing[2] > FLAT * max(spacing[:2]) or found.size["median"][2] < 8
    preprocessing = {"normalisation": normalisation(found)}
    if found.modality == "picture":
        side = min(PICTURE, max(32, int(min(found.size["median"][:2])) // 32 * 32))
        preprocessing |= {"orientation": None, "spacing_mm": [None] * 3, "size": [side, side, None]}
        patch = [side, side]
    elif flat:
        preprocessing |= {"orientation": None, "spacing_mm": [*spacing[:2], None]}
        patch = [fitting(found.size["median"][i], 32, 224) for i in (1, 0)]
    else:
        wanted = [f if s > 2 * min(spacing) else s for s, f in zip(spacing, found.fine_spacing_mm, strict=True)]
        preprocessing |= {"orientation": found.orientation, "spacing_mm": wanted}
        patch = patch_of([n * s / w for n, s, w in zip(found.size["median"], spacing, wanted, strict=True)][::-1])
    labels = label_rows(found)
    mirror, swap = mirroring(found, preprocessing, labels)
    dims = 2 if flat else 3
    network, hyper, rate = CANDIDATES[dims][0]
    return TrainConfig(
        model=description(name, found, described, labels, where),
        network=network,
        hyper=hyper,
        in_channels=found.channels,
        preprocessing=preprocessing,
        inference={"patch": patch, "overlap": 0.5, "mirror_axes": [], "min_component_mm3": 0, "margin_mm": 0},
        data=str(where),
        foreground_share=0.0 if found.modality == "picture" else 0.5,
        batch=BATCH[dims],
        learning_rate=rate,
        ema_decay=0.99,
        mirror_axes=mirror,
        mirror_swap=swap,
        seed=2026,
    )


def normalisation(found: Fingerprint) -> dict:
    """By modality: fixed numbers where values have a unit, each image's own where not."""
    if found.modality == "picture":
        return {"name": "ct_clip", "lo": 0, "hi": 255}
    if found.modality == "CT" and found.labelled:
        low, high = min(c["low"] for c in found.labelled), max(c["high"] for c in found.labelled)
        margin = 0.25 * (high - low)
        return {
            "name": "ct_clip",
            "lo": math.floor((low - margin) / 10) * 10,
            "hi": math.ceil((high + margin) / 10) * 10,
        }
    return {"name": "percentile_zscore"}


def fitting(size: float, divisor: int, most: int) -> int:
    """The multiple of the divisor that holds ``size`` voxels, not above ``most``."""
    return int(min(most, max(divisor, math.ceil(size / divisor - 0.25) * divisor)))


def patch_of(size) -> list[int]:
    """(Z, Y, X) for volumes of this median size: its shape, within ``MOST_VOXELS``, in multiples of 8."""
    patch = [fitting(n, 8, 256) for n in size]
    while math.prod(patch) > MOST_VOXELS:
        longest = patch.index(max(patch))
        patch[longest] -= 8
    return patch


def mirroring(found: Fingerprint, preprocessing: dict, labels: list[dict]) -> tuple[tuple[int, ...], list | None]:
    """(mirror_axes, mirror_swap): pictures have no up; bodies are mirrored from side to side only."""
    if found.modality == "picture":
        return (1, 2), [] if side_pairs(labels) else None
    axis = side_axis(preprocessing)
    if axis is None:
        return (), None
    pairs = side_pairs(labels)
    return (axis,), [list(pair) for pair in pairs] or None


def label_rows(found: Fingerprint) -> list[dict]:
    colours = [label.color for label in label_table.table_from_values(range(1, len(found.structures) + 1))]
    rows = zip(found.structures, colours, strict=True)
    return label_table.to_json([Label(s["value"], s["name"], colour, {}) for s, colour in rows])


def description(name: str, found: Fingerprint, described: dict, labels: list[dict], where: Path) -> dict:
    """What bundle.json says of the model; a person completes it."""
    channels = (
        ["Red", "Green", "Blue"] if found.modality == "picture" and found.channels == 3 else described["channels"]
    )
    channels = (channels + [f"Channel {i}" for i in range(found.channels)])[: found.channels]
    modality = {"picture": "XC", "CT": "CT", "MR": "MR"}[found.modality]
    return {
        "id": name,
        "version": "1.0.0",
        "title": where.stem.replace("_", " "),
        "description": f"{', '.join(label['name'] for label in labels)}; trained on {counted(found.cases, 'case')}.",
        "keywords": [found.modality],
        "labels": labels,
        "inputs": [{"name": channel, "modality": modality, "description": ""} for channel in channels],
        "intended_use": "Research. Not a medical device; not for diagnosis or treatment.",
        "limitations": "Not described: say here what the cases show and what they do not.",
        "licence": {
            "weights": described["licence"] or "not stated",
            "data": described["licence"] or "not stated",
            "code": "Apache-2.0",
        },
        "data_name": where.name,
    }


def fitted(config: TrainConfig, budget_s: float, device, report) -> tuple[TrainConfig, Trial]:
    """Network, patch and number of steps for the budget.

    Raises:
        UserError: not even the smallest network fits into the memory.
    """
    too_long_s = FOR_STEPS * budget_s / ENOUGH_STEPS
    candidates, last = CANDIDATES[spec(config.network).dims], None
    for network, hyper, rate in candidates:
        config.network, config.hyper, config.learning_rate = network, hyper, rate
        last = _measured(config, device, too_long_s, report) or last
        if last is not None and last.step_s <= too_long_s:
            break
    divisor = (8, 8, 8) if len(config.patch) == 3 else spec(config.network).divisor
    while last is None or last.step_s > too_long_s:
        smaller = None if "size" in config.preprocessing else smaller_patch(list(config.patch), divisor)
        if smaller is None or math.prod(smaller) < 32 ** len(smaller):
            break
        config.inference["patch"] = smaller
        last = _measured(config, device, too_long_s, report) or last
    if last is None:
        raise UserError(f"No network fits into the memory of {device}.", "Use another device, or close programs.")
    config.steps = max(1, int(FOR_STEPS * budget_s / last.step_s))
    if config.steps < ENOUGH_STEPS:
        report.message(
            f"The time, {in_words(budget_s)}, is enough for {counted(config.steps, 'step')} only: expect little.",
            "warning",
        )
    config.warmup_steps = min(100, config.steps // 20)
    config.ema_decay = 0.998 if config.steps >= 3000 else 0.99
    config.validate_every = max(1, math.ceil(config.steps / 8))
    return config, last


def _measured(config: TrainConfig, device, too_long_s: float, report) -> Trial | None:
    shown = " x ".join(map(str, config.patch))
    report.message(f"Measuring {config.network} {config.hyper.get('features', '')} with {config.batch} x {shown}")
    return try_out(config, device, too_long_s)


def about(found: Fingerprint, config: TrainConfig, trial: Trial, budget_s: float, device: str) -> str:
    size, spacing = (" x ".join(f"{v:g}" for v in part["median"]) for part in (found.size, found.spacing_mm))
    memory = "" if trial.memory_mb is None else f" and {trial.memory_mb} MB"
    return (
        f"Planned from {counted(found.cases, 'case')} of {counted(found.patients, 'patient')} ({found.modality}, "
        f"median {size} voxels of {spacing} mm, {counted(found.channels, 'channel')}). "
        f"A step took {trial.step_s:.2f} s{memory} on {device}; {config.steps} of them fit into {in_words(budget_s)}. "
        "Change what you know better."
    )


def slug(text: str) -> str:
    """An id for bundle.json."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "model"
