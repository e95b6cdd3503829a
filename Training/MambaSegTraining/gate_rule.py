"""The gate's rule: what must hold before a new model may replace the one in use.

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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from MambaSegLib.job import to_json_value
from MambaSegLib.wording import counted

from .evaluate import mean

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
class Pair:
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


def unproven(why: str, margin: float = MARGIN) -> Decision:
    """The decision when there is nothing to measure on; `why` is a sentence."""
    reasons = (why, "Nothing shows whether the new model is better or worse. It is kept; you decide whether to use it.")
    return Decision(False, reasons, (), "none", margin)


def decide(pairs: dict[str, list[Pair]], protocol: str, margin: float) -> Decision:
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


def _row(structure: str, pairs: list[Pair]) -> dict:
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
        found.append(f"{name}: it is found where it is not: in {counted(after, 'case')}, before in {before}.")
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
