"""Measures as papers compute them, quirks included, so that our tables compare like with like. Torch-free.

They differ from `metrics` in what an absent structure counts, in units, and in what is averaged. Use them beside the
published number of the same data set, and nowhere else.

synapse  TransUNet (arXiv 2102.04306) and all that compare with it on the Synapse 8 organs: Dice and HD95 per volume,
         then the mean over volumes, then over organs. HD95 is in voxels of the label map, whatever the voxel size; its
         95th percentile is taken over the distances of both surfaces together (medpy). Empty rules: found but not there
         = Dice 1, HD95 0; missed, or absent in both = Dice 0, HD95 0.
acdc     The same papers on ACDC: Dice per volume with the same empty rules, mean over volumes, then over structures.
isic     VM-UNet, UltraLight VM-UNet and others on skin lesions: every picture brought to 256 x 256, the pixels of all
         pictures counted together, one confusion matrix per structure: F1 ("DSC"), IoU, accuracy, sensitivity,
         specificity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

ALL = "All structures"
_SIDE = 256


@dataclass(frozen=True)
class Mode:
    """A published way of measuring.

    Args:
        title: what a reader sees.
        measure: (found, truth), masks (Z, Y, X) of one structure in one case -> numbers for the table of cases.
        total: rows {"structure", ...} of all cases -> {structure: {(name, unit): [values]}}.
    """

    title: str
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    total: Callable[[list[dict]], dict[str, dict[tuple[str, str], list[float]]]]


def medpy_hd95(a: np.ndarray, b: np.ndarray) -> float:
    """``medpy.metric.binary.hd95`` without voxel spacing: in voxels; both masks hold something."""
    footprint = generate_binary_structure(a.ndim, 1)
    borders = [mask ^ binary_erosion(mask, footprint) for mask in (a, b)]
    to_a, to_b = (distance_transform_edt(~border) for border in borders)
    return float(np.percentile(np.hstack([to_b[borders[0]], to_a[borders[1]]]), 95))


def _transunet(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    if found.any() and truth.any():
        overlap = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
        return overlap, medpy_hd95(found, truth)
    return (1.0, 0.0) if found.any() else (0.0, 0.0)


def _synapse(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    dice, hd95 = _transunet(found, truth)
    return {"published_dice": dice, "published_hd95_voxels": hd95}


def _acdc(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"published_dice": _transunet(found, truth)[0]}


def _isic(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    found, truth = _squared(found), _squared(truth)
    return {
        "true_positives": int(np.count_nonzero(found & truth)),
        "false_positives": int(np.count_nonzero(found & ~truth)),
        "false_negatives": int(np.count_nonzero(~found & truth)),
        "true_negatives": int(np.count_nonzero(~found & ~truth)),
    }


def _squared(mask: np.ndarray) -> np.ndarray:
    """Every slice at 256 x 256, by the nearest pixel."""
    rows, columns = (((np.arange(_SIDE) + 0.5) * n / _SIDE).astype(int) for n in mask.shape[1:])
    return mask[:, rows][:, :, columns]


def _mean_over_cases(rows: list[dict]) -> dict:
    table = {}
    names = {"published_dice": ("Dice", ""), "published_hd95_voxels": ("HD95", "voxels")}
    for row in rows:
        for key, name in names.items():
            if key in row:
                table.setdefault(row["structure"], {}).setdefault(name, []).append(row[key])
    return table


def _pooled(rows: list[dict]) -> dict:
    return {
        structure: _from_counts([row for row in rows if row["structure"] == structure])
        for structure in dict.fromkeys(row["structure"] for row in rows)
    }


def _from_counts(rows: list[dict]) -> dict:
    tp, fp, fn, tn = (
        sum(row[f"{kind}s"] for row in rows)
        for kind in ("true_positive", "false_positive", "false_negative", "true_negative")
    )

    def share(part: int, whole: int) -> list[float]:
        return [part / whole if whole else float("nan")]

    return {
        ("F1 over all pixels", ""): share(2 * tp, 2 * tp + fp + fn),
        ("IoU over all pixels", ""): share(tp, tp + fp + fn),
        ("Accuracy", ""): share(tp + tn, tp + fp + fn + tn),
        ("Sensitivity", ""): share(tp, tp + fn),
        ("Specificity", ""): share(tn, tn + fp),
    }


MODES = {
    "synapse": Mode("as in TransUNet on Synapse: per volume, HD95 in voxels", _synapse, _mean_over_cases),
    "acdc": Mode("as in the TransUNet line on ACDC: Dice per volume", _acdc, _mean_over_cases),
    "isic": Mode("as in VM-UNet on ISIC: pixels of all pictures together, at 256 x 256", _isic, _pooled),
}


def published_summary(mode: str, rows: Sequence[dict]) -> list[dict]:
    """Rows of cases -> {structure, name, unit, mean, sd, n}, and the mean over structures under `ALL`."""
    table = MODES[mode].total(list(rows))
    count = len({row["case"] for row in rows})
    found, means = [], {}
    for structure, measures in table.items():
        for (name, unit), values in measures.items():
            mean = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            means.setdefault((name, unit), []).append(mean)
            found.append({"structure": structure, "name": name, "unit": unit, "mean": mean, "sd": sd, "n": count})
    if len(table) > 1:
        for (name, unit), values in means.items():
            row = {"structure": ALL, "name": name, "unit": unit, "mean": float(np.mean(values))}
            found.append(row | {"sd": 0.0, "n": count})
    return [row | {"mean": round(row["mean"], 4), "sd": round(row["sd"], 4)} for row in found]
