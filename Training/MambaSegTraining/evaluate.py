"""How well a network does on prepared cases, in the numbers that cards and tables show."""

import numpy as np
from torch import nn

from MambaSegLib.inference import predict
from MambaSegLib.metrics import dice, hd95, surface_dice

from .patches import HeldOutCase


def predicted_labels(network: nn.Module, case: HeldOutCase, recipe: dict, device, report) -> np.ndarray:
    """(Z, Y, X) class indices on the image's own grid."""
    return case.prepared.restore_labels(predict(network, case.prepared.array, recipe, device, report))


def mean_dice(network: nn.Module, cases: list[HeldOutCase], values: list[int], recipe: dict, device, report) -> dict:
    """{label value: mean Dice over the cases that have it}; quick enough to run during training."""
    scores = {value: [] for value in values}
    for case in cases:
        labels = predicted_labels(network, case, recipe, device, report)
        for value in values:
            scores[value].append(dice(labels == value, case.truth.array == value))
    return {value: float(np.nanmean(found)) for value, found in scores.items()}


def full_table(network: nn.Module, cases: list[HeldOutCase], labels: list[dict], recipe: dict, device, report) -> list:
    """Dice, HD95 (mm) and surface Dice (1 mm) per structure: mean, standard deviation and number of cases.

    Returns:
        Rows ``{structure, name, unit, mean, sd, n}`` as bundle.json keeps them.
    """
    found: dict = {}
    for done, case in enumerate(cases):
        report.progress(done, len(cases), f"Evaluating {case.name}")
        predicted = predicted_labels(network, case, recipe, device, report)
        for label in labels:
            mine, truth = predicted == label["value"], case.truth.array == label["value"]
            row = {
                ("Dice", ""): dice(mine, truth),
                ("HD95", "mm"): hd95(mine, truth, case.truth.spacing_mm),
                ("Surface Dice at 1 mm", ""): surface_dice(mine, truth, case.truth.spacing_mm, 1.0),
            }
            for metric, value in row.items():
                found.setdefault((label["name"], *metric), []).append(value)
    return [
        {
            "structure": structure,
            "name": name,
            "unit": unit,
            "mean": round(float(np.nanmean(values)), 4),
            "sd": round(float(np.nanstd(values, ddof=1)), 4) if len(values) > 1 else 0.0,
            "n": int(np.isfinite(values).sum()),
        }
        for (structure, name, unit), values in found.items()
    ]
