"""The cases of a fine-tuning: the user's, of which some are held out, and the parent's own where they are at hand."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError

from .cases import Case
from .data import hold_out
from .patches import Batch, PatchSource, together
from .reading import TrainingCase, training_case
from .sources import open_source
from .structures import Table

REPLAY_SHARE = 0.5  # of the patches, where the parent's cases are at hand
MOST_REPLAYED = 24  # cases: reading more would take the time they are to save


@dataclass(frozen=True)
class Gathered:
    """What a fine-tuning learns from and is measured on.

    Attributes:
        training, held_out, protocol: see ``data.hold_out``.
        replay: the parent's training cases that are at hand, with the parent's label values.
    """

    training: list[Case]
    held_out: list[Case]
    protocol: str
    replay: list[Case]


def gather(request: dict, parent: ModelBundle, table: Table, seed: int) -> Gathered:
    """Open the sources of a request.

    Args:
        request: "corrections" (folder of the store) or "data" (list of sources); "replay" (list of sources).
        parent: whose own training cases are replayed; cases it was trained on are never held out.
        table: whose values the labels have, where a source does not name them itself.
        seed: of the choice among many cases to replay.

    Raises:
        UserError: no source, or no case in it.
    """
    sources = [request["corrections"]] if request.get("corrections") else list(request.get("data") or [])
    named = tuple((label["value"], label["name"]) for label in table.labels)
    cases = [case for source in sources for case in open_source(source)]
    cases = [case if case.structures else replace(case, structures=named) for case in cases]
    if not cases:
        raise UserError("There are no cases to learn from.", "Add corrected cases, or name a folder of labelled ones.")
    seen = set(parent.data["provenance"]["cases"])
    training, held_out, protocol = hold_out([c for c in cases if c.name not in seen])
    known = [case for case in cases if case.name in seen]
    names = {case.name for case in cases}
    replay = [case for case in _at_hand(request, parent) if case.name in seen and case.name not in names]
    chosen = np.random.default_rng(seed).permutation(len(replay))[:MOST_REPLAYED]
    return Gathered(training + known, held_out, protocol, [replay[i] for i in sorted(chosen)])


def _at_hand(request: dict, parent: ModelBundle) -> list[Case]:
    """The sources that the request names; else the place that the parent's provenance names, if it is here."""
    sources = request.get("replay")
    if sources is None:
        place = parent.data["provenance"]["data"]
        sources = [place] if len(place) < 1000 and Path(place).is_dir() else []
    return [case for source in sources for case in open_source(source)]


def read_training(cases: list[Case], preprocessing: dict, values: dict[str, int], report) -> list[TrainingCase]:
    """The cases on the network's grid; ``values``: name -> value of the model's structures."""
    read = []
    for case in cases:
        report.progress(len(read), len(cases), f"Reading {case.name}")
        read.append(training_case(case, preprocessing, values))
    return read


def told_anew(case: Case, labels: list[dict], table: Table) -> Case:
    """A case with the parent's structures, as one of the new table: names changed, added structures not looked for.

    Args:
        labels: the parent's.
    """
    name_of = {0: None} | {k: labels[k - 1]["name"] for k in range(1, len(labels) + 1)}
    new_name = {
        name_of[k]: table.labels[new - 1]["name"] for new, origin in enumerate(table.origins) if new for k in origin
    }
    own = dict(case.structures or {label["value"]: label["name"] for label in labels})
    looked_for = case.annotated["structures"] if case.annotated else None
    looked_for = list(own.values()) if looked_for is None else looked_for
    annotated = {"structures": sorted({new_name[n] for n in looked_for if n in new_name})}
    slices = case.annotated["slices"] if case.annotated else None
    structures = tuple((value, new_name.get(name, name)) for value, name in own.items())
    return replace(case, structures=structures, annotated=annotated | {"slices": slices})


class Mixture:
    """Batches in which every patch is an old one with a fixed chance: a function of seed and step alone."""

    def __init__(self, new: PatchSource, old: PatchSource, share: float, seed: int):
        self.new, self.old, self.share, self.seed = new, old, share, seed

    def batch(self, step: int, size: int) -> Batch:
        """As ``PatchSource.batch``."""
        random = np.random.default_rng((self.seed, step, 1))
        old = int((random.random(size) < self.share).sum())
        parts = [source.batch(step, n) for source, n in ((self.new, size - old), (self.old, old)) if n]
        return together(parts)
