"""How well a network does on prepared cases, in the numbers that cards and tables show."""

from collections.abc import Iterable

import numpy as np
from torch import nn

from MambaSegLib import catalogue
from MambaSegLib.errors import UserError
from MambaSegLib.inference import load_network, predict, resolve_device
from MambaSegLib.job import Report
from MambaSegLib.metrics import dice, hd95, surface_dice
from MambaSegLib.postprocessing import remove_small_components
from MambaSegLib.preprocessing import recipe_of

from .patches import HeldOutCase, held_out_case
from .sources import open_source


def run(request: dict, report, warm=None) -> dict:
    """The job ``evaluate``: {model: id or folder, data: folder with cases, device} -> {model, cases, values}.

    Cases that the model was trained on are left out and counted in a warning: their scores would say nothing.
    """
    bundle = catalogue.find(request["model"])
    device = resolve_device(request.get("device") or "auto")
    known = set(bundle.data["provenance"]["cases"])
    cases = open_source(request["data"])
    unseen = [case for case in cases if case.name not in known]
    if len(unseen) < len(cases):
        report.message(f"{len(cases) - len(unseen)} of {len(cases)} cases were trained on and are left out.", "warning")
    if not unseen:
        raise UserError("The model was trained on every one of these cases.", "Give cases it has not seen.")
    recipe = recipe_of(bundle)
    prepared, network = (held_out_case(case, recipe) for case in unseen), load_network(bundle, device)
    table = full_table(network, prepared, len(unseen), bundle.data["labels"], recipe, device, report)
    return {"model": bundle.id, "cases": [case.name for case in unseen], "values": table}


def predicted_labels(network: nn.Module, case: HeldOutCase, recipe: dict, device, report) -> np.ndarray:
    """(Z, Y, X) class indices on the image's own grid, cleaned up by the recipe, as ``mambaseg segment`` does."""
    labels = case.prepared.restore_labels(predict(network, case.prepared.array, recipe, device, report))
    return remove_small_components(case.truth.with_array(labels), recipe["min_component_mm3"]).array


def mean_dice(network: nn.Module, cases: list[HeldOutCase], values: list[int], recipe: dict, device, report) -> dict:
    """{label value: mean Dice over the cases that have it}; quick enough to run during training."""
    scores = {value: [] for value in values}
    for case in cases:
        labels = predicted_labels(network, case, recipe, device, only_cancel(report))
        for value in values:
            scores[value].append(dice(labels == value, case.truth.array == value))
    return {value: float(np.nanmean(found)) for value, found in scores.items()}


def full_table(
    network: nn.Module, cases: Iterable[HeldOutCase], count: int, labels: list[dict], recipe: dict, device, report
) -> list[dict]:
    """Dice, HD95 (mm) and surface Dice (1 mm) per structure: mean, standard deviation and number of cases.

    Args:
        cases: ``count`` of them; read one by one where a generator is given.

    Returns:
        Rows ``{structure, name, unit, mean, sd, n}`` as bundle.json keeps them.
    """
    found: dict = {}
    for done, case in enumerate(cases):
        report.progress(done, count, f"Evaluating {case.name}")
        predicted = predicted_labels(network, case, recipe, device, only_cancel(report))
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


def only_cancel(report) -> Report:
    """Passes the wish to stop through, and keeps a prediction's own progress out of the whole job's."""
    return Report(lambda event: report.check_cancelled())
