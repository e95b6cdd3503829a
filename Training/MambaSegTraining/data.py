"""What a training run learns from: the cases of a configuration's sources, split, read and prepared."""

from pathlib import Path

from MambaSegLib.corrections import HOLD_OUT_SHARE

from .cases import HELD_OUT, Case, in_validation, split
from .config import TrainConfig
from .mirroring import swap_of
from .patches import PatchSource
from .prepared import prepared_case
from .reading import HeldOutCases
from .sources import open_source

LEAST_HELD_OUT = 3  # patients


def load_data(config: TrainConfig, report, folder: Path):
    """What a run learns from and is measured on.

    Args:
        folder: for the prepared cases (see ``prepared``); made when missing.

    Returns:
        patch source of the training cases, validation cases (``reading.HeldOutCases``), {"training", "validation",
        "context": names}.

    Raises:
        UserError: no cases, or such as do not fit the configuration.
    """
    swap = swap_of(config)
    training, validation = split(open_source(config.data), config.validation_share)
    context = open_source(config.context) if config.context else []
    values = {label["name"]: label["value"] for label in config.model["labels"]}
    read = []
    for case in training + context:
        report.progress(len(read), len(training) + len(context), f"Reading {case.name}")
        read.append(prepared_case(case, config.preprocessing, values, folder))
    source = PatchSource(
        read[: len(training)],
        read[len(training) :],
        config.patch,
        config.foreground_share,
        config.context_share,
        config.mirror_axes,
        config.seed,
        swap,
    )
    groups = {"training": training, "validation": validation, "context": context}
    names = {name: [case.name for case in cases] for name, cases in groups.items()}
    return source, HeldOutCases(validation, config.recipe, values), names


def hold_out(cases: list[Case]) -> tuple[list[Case], list[Case], str]:
    """(training, held-out cases, protocol): as the cases say, else by the patient's hash.

    With fewer than ``LEAST_HELD_OUT`` held-out patients every case is in both lists and the protocol is
    "leave-one-out" instead of "hold-out": whoever measures trains again without the cases he measures on.
    """
    held_out = [c for c in cases if (c.part == HELD_OUT if c.part else in_validation(c.patient, HOLD_OUT_SHARE))]
    if len({case.patient for case in held_out}) < LEAST_HELD_OUT or len(held_out) == len(cases):
        return list(cases), list(cases), "leave-one-out"
    return [case for case in cases if case not in held_out], held_out, "hold-out"
