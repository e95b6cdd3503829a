"""What a training run learns from: the cases of a configuration's sources, split, read and prepared."""

from .cases import split
from .config import TrainConfig
from .patches import PatchSource, held_out_case, training_case
from .sources import open_source


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
