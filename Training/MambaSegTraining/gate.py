"""The gate: a new model replaces the one in use only when cases that neither has seen show that nothing got worse.

Both models predict the same held-out cases. The rule, by Dice, structure by structure; the other measures are shown
with it. A candidate is accepted when all of these hold:

1. it finds every structure that the parent finds (by name);
2. no structure lost more than `margin` Dice: the mean of the paired differences (after - before) is >= -margin;
3. no structure is clearly worse: the 95 % interval of that mean does not lie below -margin / 2 altogether;
4. the mean over all structures did not fall by more than `LEAST_GAIN`, so that many small losses, each within the
   margin, cannot add up over generations; a structure that only the candidate knows counts with 0 before;
5. no structure is put into more cases that do not have it than before (specks below 1 % of its usual volume aside);
6. a structure that no held-out case was labelled with has not changed much: on those images the candidate agrees with
   the parent by a mean Dice of at least `LEAST_AGREEMENT`.

The interval is a percentile bootstrap over patients (cases of one patient stay together), with a fixed seed. A measure
that does not exist, because a structure is absent, is NaN and counts in no mean; a structure that was missed has Dice
0 and counts.

With fewer than three held-out patients there is no independent hold-out. Then either the models of a cross-validation
stand for the candidate, each on the patients that it was not trained on (`compare_folds`, protocol "leave-one-out"), or
the candidate is `unproven`: not accepted, kept, and the user decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from MambaSegLib import catalogue
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError
from MambaSegLib.inference import resolve_device
from MambaSegLib.job import to_json_value
from MambaSegLib.metrics import dice

from .cases import TRAINING, Case
from .evaluate import Predictor, mean, only_cancel, scores
from .sources import open_source

MARGIN = 0.01  # Dice
LEAST_GAIN = -0.001
LEAST_AGREEMENT = 0.8
_SPECK = 0.01  # of the usual volume
_RESAMPLES, _SEED = 2000, 20260101
_FEW_PATIENTS = 5
_LOOK_AT_IT = -0.1  # Dice of a single case
_SHOWN = {"hd95": "hd95_mm", "surface_dice": "surface_dice", "volume_error": "volume_error_percent"}


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Args:
        accepted: the candidate may replace its parent.
        reasons: why, one sentence each; the ones that refuse come first.
        rows: one per structure: {structure, finds_before, finds_after (whether the models know it), cases, patients,
            dice_before, dice_after, difference, low, high (95 % interval of the mean paired difference), hd95_before,
            hd95_after (mm), surface_dice_before, surface_dice_after, volume_error_before, volume_error_after (mean
            size of the error, %), agreement (Dice of the two results), false_alarms_before, false_alarms_after,
            worst_case, worst_difference}.
        protocol: "hold-out", "leave-one-out", or "none" when nothing could be measured.
        margin: of Dice.
    """

    accepted: bool
    reasons: tuple[str, ...]
    rows: tuple[dict, ...]
    protocol: str
    margin: float

    def as_json(self) -> dict:
        """As ``decision.json`` keeps it; NaN becomes null."""
        return to_json_value(asdict(self))


@dataclass(frozen=True)
class _Pair:
    """What the two models, before and after, did with one structure of one case.

    Args:
        is_present: the structure is in this case; None when it was not annotated, so nobody knows.
        finds: whether each model knows the structure.
        measures: of each model as `evaluate.scores` gives them; None where there is nothing to measure.
        agreement: Dice of the two results.
    """

    case: str
    patient: str
    is_present: bool | None
    finds: tuple[bool, bool]
    measures: tuple[dict | None, dict | None]
    agreement: float

    def get(self, index: int, measure: str) -> float:
        """NaN where it does not exist; a model that does not know the structure has Dice 0."""
        found = self.measures[index]
        missing = 0.0 if measure == "dice" and not self.finds[index] else float("nan")
        return missing if found is None else found[measure]


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
        report.message(f"{len(every) - len(unseen)} of {len(every)} cases are for training and are left out.")
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


def unproven(why: str, margin: float = MARGIN) -> Decision:
    """The decision when there is nothing to measure on; `why` is a sentence."""
    reasons = (why, "Nothing shows whether the new model is better or worse. It is kept; you decide whether to use it.")
    return Decision(False, reasons, (), "none", margin)


def _compare(parent, folds, protocol, report, device, margin) -> Decision:
    before = Predictor.of(parent, device)
    count = sum(len(cases) for _, cases in folds)
    if not count:
        return unproven("There is no labelled case that the models were not trained on.", margin)
    pairs: dict[str, list[_Pair]] = {}
    done = 0
    for after, cases in folds:
        for case in cases:
            report.progress(done, count, f"Comparing the models on {case.name}")
            for structure, pair in _compare_case(before, after, case, report).items():
                pairs.setdefault(structure, []).append(pair)
            done += 1
    report.progress(count, count, "Comparing the models")
    return decide(pairs, protocol, margin)


def _compare_case(before: Predictor, after: Predictor, case: Case, report) -> dict[str, _Pair]:
    """structure -> pair, for every structure that one of the models knows."""
    quiet = only_cancel(report)
    read = after.read(case)
    new = after.label_map(read, quiet)
    old = before.label_map(read if after.recipe == before.recipe else before.read(case), quiet)
    models = [{label.name: label for label in model.labels} for model in (before, after)]
    pairs = {}
    for name in dict.fromkeys([*models[0], *models[1]]):
        label = models[1].get(name) or models[0][name]  # labels of cases are numbered as the new model numbers them
        finds = tuple(name in known for known in models)
        masks = [
            result.array == known[name].value if name in known else np.zeros(read.truth.shape, bool)
            for result, known in zip((old, new), models, strict=True)
        ]
        measures = [scores(np.where(mask, label.value, 0), read, label) for mask in masks]
        is_present = None if measures[0] is None else measures[0]["reference_volume_ml"] > 0
        measures = tuple(m if there else None for m, there in zip(measures, finds, strict=True))
        agreement = dice(*masks) if all(finds) else float("nan")
        pairs[name] = _Pair(case.name, case.patient, is_present, finds, measures, agreement)
    return pairs


def decide(pairs: dict[str, list[_Pair]], protocol: str, margin: float) -> Decision:
    """The rule at the top of this file, applied to what was measured."""
    rows = [_row(structure, found) for structure, found in pairs.items()]
    against = [reason for row in rows for reason in _against(row, margin)]
    differences = [row["difference"] for row in rows if row["cases"]]
    if not differences:
        return unproven("No held-out case is labelled with a structure of the models.", margin)
    gain = mean(differences)
    if gain < LEAST_GAIN and not against:
        against.append(f"Over all structures Dice fell by {-gain:.3f}; a new model must not be worse on the whole.")
    verdict = [*against, "It is kept as rejected; the model in use stays."] if against else [_for(rows, gain, margin)]
    patients = max(row["patients"] for row in rows)
    notes = [note for row in rows for note in _notes(row)]
    if patients < _FEW_PATIENTS:
        notes.append(f"Patients that could be compared: {patients}. With so few, small changes may be chance.")
    return Decision(not against, (*verdict, *notes), tuple(rows), protocol, margin)


def _row(structure: str, pairs: list[_Pair]) -> dict:
    there = [pair for pair in pairs if pair.is_present]
    differences = [pair.get(1, "dice") - pair.get(0, "dice") for pair in there]
    low, high = interval(differences, [pair.patient for pair in there])
    row = {"structure": structure, "finds_before": pairs[0].finds[0], "finds_after": pairs[0].finds[1]}
    row |= {"cases": len(there), "patients": len({pair.patient for pair in there})}
    row |= {
        "dice_before": mean([p.get(0, "dice") for p in there]),
        "dice_after": mean([p.get(1, "dice") for p in there]),
    }
    row |= {"difference": mean(differences), "low": low, "high": high}
    for name, measure in _SHOWN.items():
        for index, when in enumerate(("before", "after")):
            row[f"{name}_{when}"] = mean([abs(pair.get(index, measure)) for pair in there])
    row["agreement"] = mean([pair.agreement for pair in pairs])
    limit = _SPECK * mean([m["reference_volume_ml"] for p in there for m in p.measures if m]) if there else 0.0
    for index, when in enumerate(("before", "after")):
        alarms = [p for p in pairs if p.is_present is False and p.get(index, "volume_ml") > limit]
        row[f"false_alarms_{when}"] = len(alarms)
    worst = int(np.argmin(differences)) if differences else None
    row["worst_case"] = None if worst is None else there[worst].case
    row["worst_difference"] = None if worst is None else differences[worst]
    return row


def interval(differences: Sequence[float], patients: Sequence[str]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `differences`; patients are drawn, with all of their cases."""
    if not differences:
        return float("nan"), float("nan")
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    total, count = np.bincount(index, differences), np.bincount(index)
    drawn = np.random.default_rng(_SEED).integers(len(names), size=(_RESAMPLES, len(names)))
    means = total[drawn].sum(1) / count[drawn].sum(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def _against(row: dict, margin: float) -> list[str]:
    """Why this structure alone refuses the candidate."""
    name = row["structure"]
    if not row["finds_after"]:
        return [f"{name}: the new model does not find this structure any more."]
    if not row["finds_before"]:
        return []
    found = []
    if not row["cases"] and row["agreement"] < LEAST_AGREEMENT:
        found.append(
            f"{name}: no held-out case is labelled with it, and the new model changed it much (agreement with the "
            f"model in use: Dice {row['agreement']:.2f}; at least {LEAST_AGREEMENT:g} is asked for)."
        )
    if row["difference"] < -margin:
        found.append(f"{name}: Dice fell by {-row['difference']:.3f} on average; at most {margin:g} is allowed.")
    elif row["high"] < -margin / 2:
        interval_text = f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
        found.append(f"{name}: Dice fell in nearly every case, which is no chance ({interval_text}).")
    before, after = row["false_alarms_before"], row["false_alarms_after"]
    if after > before:
        found.append(f"{name}: it is found in {after} cases that do not have it, before in {before}.")
    return found


def _for(rows: list[dict], gain: float, margin: float) -> str:
    if all(row["difference"] == 0 for row in rows if row["cases"]):
        return "There is no difference: both models do equally well on every held-out case."
    better = [row["structure"] for row in rows if row["low"] > 0]
    proven = f" Clearly better: {', '.join(better)}." if better else ""
    return f"No structure lost more than {margin:g} Dice; over all structures it changed by {gain:+.3f}.{proven}"


def _notes(row: dict) -> list[str]:
    """What does not decide but should be known."""
    name, notes = row["structure"], []
    if not row["cases"]:
        notes.append(f"{name}: not judged, no held-out case is labelled with it.")
    elif row["worst_difference"] < _LOOK_AT_IT:
        notes.append(f"{name}: in case {row['worst_case']} Dice fell by {-row['worst_difference']:.2f}; look at it.")
    return notes
