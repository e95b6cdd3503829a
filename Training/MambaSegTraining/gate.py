"""The gate: a new model replaces the one in use only when cases that neither has seen show that nothing got worse.

Both models predict the same held-out cases; `gate_rule` says what must hold. With fewer than three held-out patients
there is no independent hold-out. Then either the models of a cross-validation stand for the candidate, each on the
patients that it was not trained on (`compare_folds`, protocol "leave-one-out"), or the candidate is `unproven`: not
accepted, kept, and the user decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from MambaSegLib import catalogue
from MambaSegLib.bundle import Label, ModelBundle
from MambaSegLib.errors import UserError
from MambaSegLib.inference import resolve_device
from MambaSegLib.metrics import dice
from MambaSegLib.wording import counted

from .cases import TRAINING, Case
from .evaluate import Predictor, only_cancel, scores
from .gate_rule import MARGIN, Decision, Pair, decide, unproven
from .sources import open_source

__all__ = ["MARGIN", "Decision", "compare", "compare_folds", "run", "unproven"]


def run(request: dict, report, warm=None) -> dict:
    """The job ``gate``.

    Args:
        request: "parent" and "candidate" (names or folders of models), "corrections" or "data" (folder with labelled
            cases); optional "margin" (of Dice), "device". Cases that a model was trained on, and cases set aside for
            training, are left out.

    Returns:
        The `Decision` as JSON data.

    Raises:
        UserError: anything the user can put right. Cancelled: by the report.
    """
    source = request.get("corrections") or request.get("data")
    if not source or not request.get("parent") or not request.get("candidate"):
        raise UserError("A gate needs 'parent', 'candidate' and 'corrections' or 'data'.", "Name all three.")
    parent, candidate = catalogue.find(request["parent"]), catalogue.find(request["candidate"])
    margin = float(request.get("margin", MARGIN))
    seen = {*parent.data["provenance"]["cases"], *candidate.data["provenance"]["cases"]}
    every = open_source(source)
    unseen = [case for case in every if case.name not in seen and case.part != TRAINING]
    if len(unseen) < len(every):
        report.message(
            f"Left out, as they are for training: {len(every) - len(unseen)} of {counted(len(every), 'case')}."
        )
    return compare(parent, candidate, unseen, report, resolve_device(request.get("device") or "auto"), margin).as_json()


def compare(
    parent: ModelBundle,
    candidate: ModelBundle,
    cases: Sequence[Case],
    report,
    device: torch.device,
    margin: float = MARGIN,
) -> Decision:
    """Let both models predict `cases`, which neither was trained on, and decide by the rule above.

    Raises:
        Cancelled: by the report. UserError: a model or case cannot be read.
    """
    return _compare(parent, [(Predictor.of(candidate, device), cases)], "hold-out", report, device, margin)


def compare_folds(
    parent: ModelBundle,
    folds: Iterable[tuple[Predictor, Sequence[Case]]],
    report,
    device: torch.device,
    margin: float = MARGIN,
) -> Decision:
    """The same when the cases are too few for a hold-out: each fold is a model with the cases it was not trained on.

    The folds are trained as the candidate is (same method and steps), so they say what to expect of it; no patient may
    be in two folds.
    """
    return _compare(parent, list(folds), "leave-one-out", report, device, margin)


def _compare(parent, folds, protocol, report, device, margin) -> Decision:
    before = Predictor.of(parent, device)
    count = sum(len(cases) for _, cases in folds)
    if not count:
        return unproven("There is no labelled case that the models were not trained on.", margin)
    pairs: dict[str, list[Pair]] = {}
    done = 0
    for after, cases in folds:
        for case in cases:
            report.progress(done, count, f"Comparing the models on {case.name}")
            for structure, pair in _compare_case(before, after, case, report).items():
                pairs.setdefault(structure, []).append(pair)
            done += 1
    report.progress(count, count, "Comparing the models")
    return decide(pairs, protocol, margin)


def _compare_case(before: Predictor, after: Predictor, case: Case, report) -> dict[str, Pair]:
    """structure -> pair, for every structure that one of the models knows."""
    quiet, values = only_cancel(report), _all_values(before, after)
    read = after.read(case, values)
    new = after.label_map(read, quiet).array
    old = before.label_map(read if after.recipe == before.recipe else before.read(case, values), quiet).array
    pairs = {}
    for name, value in values.items():
        finds = tuple(name in model.values for model in (before, after))
        masks = [
            result == model.values[name] if name in model.values else np.zeros(result.shape, bool)
            for result, model in ((old, before), (new, after))
        ]
        measures = [scores(np.where(mask, value, 0), read, Label(value, name, (0, 0, 0), {})) for mask in masks]
        is_present = None if measures[0] is None else measures[0]["reference_volume_ml"] > 0
        measures = tuple(m if there else None for m, there in zip(measures, finds, strict=True))
        agreement = dice(*masks) if all(finds) else float("nan")
        pairs[name] = Pair(case.name, case.patient, is_present, finds, measures, agreement)
    return pairs


def _all_values(before: Predictor, after: Predictor) -> dict[str, int]:
    """name -> value of every structure that one of the models knows; the new model's numbers, where it has one."""
    values = after.values
    for name, value in before.values.items():
        values.setdefault(name, value if value not in values.values() else 1 + max(values.values()))
    return values
