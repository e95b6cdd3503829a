"""How well a network does on labelled cases: the one place where predictions are made and measured.

Training validates with it, cards are filled with it, the gate decides by it, ``mambaseg evaluate`` reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from MambaSegLib import label_table
from MambaSegLib.bundle import Label, ModelBundle
from MambaSegLib.inference import load_network, predict
from MambaSegLib.job import Report
from MambaSegLib.metrics import dice, per_label
from MambaSegLib.postprocessing import remove_small_components, to_label_values
from MambaSegLib.preprocessing import recipe_of
from MambaSegLib.volume import Volume

from .cases import Case
from .losses import UNKNOWN
from .reading import HeldOutCase, held_out_case

TOLERANCE_MM = 1.0
# measure of `metrics.per_label` -> (name on cards, unit)
MEASURES = {
    "dice": ("Dice", ""),
    "iou": ("IoU", ""),
    "hd95_mm": ("HD95", "mm"),
    "assd_mm": ("ASSD", "mm"),
    "surface_dice": (f"Surface Dice at {TOLERANCE_MM:g} mm", ""),
    "volume_error_percent": ("Volume error", "%"),
}
_ON_CARDS = ("dice", "hd95_mm", "surface_dice")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network with what it takes to make a label map of a case.

    Args:
        network: (1, C, Z, Y, X) -> logits (1, K, Z, Y, X), in evaluation mode on `device`.
        labels: class i of the network is ``labels[i - 1]``.
        recipe: preprocessing and inference together.
    """

    network: nn.Module
    labels: Sequence[Label]
    recipe: dict
    device: torch.device

    @classmethod
    def of(cls, bundle: ModelBundle, device: torch.device) -> Predictor:
        return cls(load_network(bundle, device), bundle.labels, recipe_of(bundle), device)

    @property
    def values(self) -> dict[str, int]:
        """name -> label value of the structures."""
        return {label.name: label.value for label in self.labels}

    def read(self, case: Case, values: dict[str, int] | None = None) -> HeldOutCase:
        """The case as this network wants to see it; the truth in `values`, or in the network's own."""
        return held_out_case(case, self.recipe, values or self.values)

    def label_map(self, case: HeldOutCase, report: Report) -> Volume:
        """Label values on the image's own grid, cleaned up by the recipe, as ``mambaseg segment`` does."""
        classes = predicted_classes(self.network, case, self.recipe, self.device, report)
        return case.truth.with_array(to_label_values(classes, self.labels, self.labels))


def predicted_classes(network: nn.Module, case: HeldOutCase, recipe: dict, device, report) -> np.ndarray:
    """(Z, Y, X) class indices on the image's own grid, without small components."""
    classes = case.prepared.restore_labels(predict(network, case.prepared.array, recipe, device, report))
    return remove_small_components(case.truth.with_array(classes), recipe["min_component_mm3"]).array


def scores(predicted: np.ndarray, case: HeldOutCase, label: Label) -> dict[str, float] | None:
    """Every measure of `metrics.per_label` of one structure, where its truth is known.

    Args:
        predicted: label values, (Z, Y, X).
        case: its `truth` and `annotated` are looked at.

    Returns:
        None when the structure was not annotated in this case. Distances and surface Dice are NaN when only some
        slices were: there is no surface between them.
    """
    known = known_voxels(case, label.name)
    if known is None:
        return None
    truth = (case.truth.array == label.value) & known
    mine = (predicted == label.value) & known
    found = per_label(mine, truth, case.truth.spacing_mm, [True], TOLERANCE_MM)[True]
    if case.annotated and case.annotated["slices"] is not None:
        found |= dict.fromkeys(("hd95_mm", "assd_mm", "surface_dice"), float("nan"))
    return found


def known_voxels(case: HeldOutCase, structure: str) -> np.ndarray | None:
    """(Z, Y, X) bool: where the truth says whether a voxel is this structure; None when nowhere."""
    annotated = case.annotated or {"structures": None, "slices": None}
    if annotated["structures"] is not None and structure not in annotated["structures"]:
        return None
    known = np.ones(case.truth.shape, bool)
    if annotated["slices"] is not None:
        slices = annotated["slices"]
        known[:] = False
        np.moveaxis(known, slices["axis"], 0)[slices["indices"]] = True
    # Within a structure that was annotated by name, UNKNOWN is some other thing, and certainly not this one.
    return known & (case.truth.array != UNKNOWN) if annotated["structures"] is None else known


def mean_dice(
    network: nn.Module, cases: list[HeldOutCase], labels: list[dict], recipe: dict, device, report, look=None
) -> dict:
    """{label value: mean Dice over the cases that have it, NaN without one}; quick enough to run during training.

    Args:
        look: called with every case and its predicted label values, (Z, Y, X); None: nobody looks.
    """
    predictor = Predictor(network, label_table.from_json(labels), recipe, device)
    found = {label.value: [] for label in predictor.labels}
    for case in cases:
        predicted = predictor.label_map(case, only_cancel(report)).array
        if look:
            look(case, predicted)
        for label in predictor.labels:
            known = known_voxels(case, label.name)
            if known is not None:
                truth = (case.truth.array == label.value) & known
                found[label.value].append(dice((predicted == label.value) & known, truth))
    return {value: mean(values) for value, values in found.items()}


def full_table(
    network: nn.Module, cases: Iterable[HeldOutCase], count: int, labels: list[dict], recipe: dict, device, report
) -> list[dict]:
    """Dice, HD95 and surface Dice per structure: mean, standard deviation and number of cases.

    In mm and at 1 mm; in pixels and at 1 pixel where the recipe says that pixels have no size.

    Args:
        cases: ``count`` of them; read one by one where a generator is given.
        labels: class i of the network is ``labels[i - 1]``.

    Returns:
        Rows ``{structure, name, unit, mean, sd, n}`` as bundle.json keeps them.
    """
    predictor = Predictor(network, label_table.from_json(labels), recipe, device)
    rows = []
    for done, case in enumerate(cases):
        report.progress(done, count, f"Evaluating {case.name}")
        rows += case_rows(predictor.label_map(case, only_cancel(report)).array, case, predictor.labels)
    table = summary(rows, _ON_CARDS)
    return table if any(recipe["spacing_mm"]) else [_in_pixels(row) for row in table]


def _in_pixels(row: dict) -> dict:
    """A row of pictures, which are read as if a pixel were 1 mm."""
    return row | {"name": row["name"].replace("1 mm", "1 pixel"), "unit": row["unit"].replace("mm", "pixels")}


def case_rows(predicted: np.ndarray, case: HeldOutCase, labels: Sequence[Label]) -> list[dict]:
    """One row {case, structure, dice, ...} per structure that was annotated; `predicted` are label values (Z, Y, X)."""
    rows = [(label.name, scores(predicted, case, label)) for label in labels]
    return [{"case": case.name, "structure": name, **found} for name, found in rows if found is not None]


def summary(rows: list[dict], measures: Iterable[str] = tuple(MEASURES)) -> list[dict]:
    """Rows of cases -> rows {structure, name, unit, mean, sd, n} as bundle.json keeps them."""
    table = []
    for structure in dict.fromkeys(row["structure"] for row in rows):
        for measure in measures:
            values = [row[measure] for row in rows if row["structure"] == structure]
            table.append(
                {
                    "structure": structure,
                    "name": MEASURES[measure][0],
                    "unit": MEASURES[measure][1],
                    "mean": round(mean(values), 4),
                    "sd": round(spread(values), 4),
                    "n": int(np.isfinite(values).sum()),
                }
            )
    return table


def mean(values: Sequence[float]) -> float:
    """Of those that exist; NaN when none does."""
    there = [value for value in values if np.isfinite(value)]
    return float(np.mean(there)) if there else float("nan")


def spread(values: Sequence[float]) -> float:
    """Standard deviation (n - 1) of those that exist; 0 for fewer than two."""
    there = [value for value in values if np.isfinite(value)]
    return float(np.std(there, ddof=1)) if len(there) > 1 else 0.0


def only_cancel(report) -> Report:
    """Passes the wish to stop through, and keeps a prediction's own progress out of the whole job's."""
    return Report(lambda event: report.check_cancelled())
