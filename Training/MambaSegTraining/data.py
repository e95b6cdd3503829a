"""What a training run learns from: the cases of a configuration's sources, split, read and prepared."""

from .cases import HELD_OUT, Case, in_validation, split
from .config import TrainConfig
from .patches import PatchSource, held_out_case, training_case
from .sources import open_source

LEAST_HELD_OUT = 3  # patients
HOLD_OUT_SHARE = 0.25  # of the patients of a source that does not say itself


def load_data(config: TrainConfig, report):
    """(patch source of the training cases, prepared validation cases, {training, validation, context: names})."""
    training, validation = split(open_source(config.data), config.validation_share)
    context = open_source(config.context) if config.context else []
    groups = {"training": training, "validation": validation, "context": context}
    total, prepared = sum(len(g) for g in groups.values()), {}
    for name, cases in groups.items():
        prepared[name] = []
        for case in cases:
            report.progress(sum(len(p) for p in prepared.values()), total, f"Reading {case.name}")
            held_out = name == "validation"
            read = held_out_case(case, config.recipe) if held_out else training_case(case, config.preprocessing)
            prepared[name].append(read)
    source = PatchSource(
        prepared["training"],
        prepared["context"],
        config.patch,
        config.foreground_share,
        config.context_share,
        config.mirror_axes,
        config.seed,
    )
    return source, prepared["validation"], {name: [c.name for c in cases] for name, cases in groups.items()}


def hold_out(cases: list[Case]) -> tuple[list[Case], list[Case], str]:
    """(training, held-out cases, protocol): as the cases say, else by the patient's hash.

    With fewer than ``LEAST_HELD_OUT`` held-out patients every case is in both lists and the protocol is
    "leave-one-out" instead of "hold-out": whoever measures trains again without the cases he measures on.
    """
    held_out = [c for c in cases if (c.part == HELD_OUT if c.part else in_validation(c.patient, HOLD_OUT_SHARE))]
    if len({case.patient for case in held_out}) < LEAST_HELD_OUT:
        return list(cases), list(cases), "leave-one-out"
    return [case for case in cases if case not in held_out], held_out, "hold-out"
