"""Does the review score put the worst segmentations first?

    python Testing/benchmarks/review_score.py

Spearman correlation between a structure's score and its true Dice, over the cases that the shipped models never saw:
as they are, and of the hippocampus together with the same cases at another contrast (gamma 2.5), with noise, and with
inverted contrast, where that model fails. -1 is perfect, 0 is chance. The definition was chosen with the first version
of the hippocampus model; the heart and the polyps had no say in it. Prints a table and writes
``Testing/benchmarks/results/review_score.json``.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Training")]

from MambaSegLib import catalogue  # noqa: E402
from MambaSegLib.metrics import dice  # noqa: E402
from MambaSegLib.segment import segment  # noqa: E402
from MambaSegLib.uncertainty import THRESHOLD  # noqa: E402
from MambaSegTraining.reading import read_case_labels, read_image  # noqa: E402
from MambaSegTraining.sources import open_source  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).parent / "results" / "review_score.json"


def gamma(array: np.ndarray, _) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    return (((array - low) / (high - low)) ** 2.5).astype(np.float32)


def noisy(array: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.6 * array.std(), array.shape)
    return (array + noise).astype(np.float32)


def inverted(array: np.ndarray, _) -> np.ndarray:
    return (array.max() - array).astype(np.float32)


THRESHOLDS = (0.1, THRESHOLD, 0.5)
PLAIN = "as it is"
LOOKS = {"gamma 2.5": gamma, "noise": noisy, "inverted": inverted}
SOURCES = {"hippocampus": ("hippocampus_msd", LOOKS), "cardiac": ("acdc", {}), "polyp": ("kvasir_seg_352", {})}


def scores(doubt: np.ndarray, own: np.ndarray, threshold: float) -> dict[str, float]:
    """Every definition, of one structure: `doubt` (Z, Y, X) is 0 outside what concerns it, `own` its voxels."""
    above = doubt >= threshold
    volume = max(1, np.count_nonzero(own))
    return {
        "mean of doubtful voxels": float(doubt[above].mean()) if above.any() else 0.0,
        "doubtful volume / (doubtful + own volume)": np.count_nonzero(above) / (np.count_nonzero(above) + volume),
        "sum of doubt / own volume": float(doubt[above].sum()) / volume,
        "mean doubt inside": float(doubt[own].mean()) if own.any() else 1.0,
    }


def measured(model: str, folder: str, looks: dict) -> list[dict]:
    """One row per case, look and structure: its Dice and its scores by every definition and threshold."""
    bundle = catalogue.find(model)
    unseen, values = set(bundle.data["provenance"]["validation_cases"]), {b.name: b.value for b in bundle.labels}
    rows = []
    for number, case in enumerate(case for case in open_source(DATA / folder) if case.name in unseen):
        volume, truth = read_image(case), read_case_labels(case, values).array
        for look, change in {PLAIN: None, **looks}.items():
            seen = volume.with_array(change(volume.array, number)) if change else volume
            found = segment(seen, bundle, device="cpu")
            for index, label in enumerate(found.structures, start=1):
                own = found.doubt.winner == index
                doubt = np.where(own | (found.doubt.runner_up == index), 1 - found.doubt.margin, 0)
                row = {"look": look, "structure": label.name, "shipped": found.review[index - 1]["score"]}
                row["dice"] = dice(found.labels.array == label.value, truth == label.value)
                row["scores"] = {f"{n}, {t}": v for t in THRESHOLDS for n, v in scores(doubt, own, t).items()}
                rows.append(row)
    return rows


def correlation(rows: list[dict], score) -> float:
    """Mean of the structures' Spearman correlations."""
    values = []
    for structure in dict.fromkeys(row["structure"] for row in rows):
        some = [row for row in rows if row["structure"] == structure]
        values.append(spearmanr([score(row) for row in some], [row["dice"] for row in some]).statistic)
    return round(float(np.mean(values)), 3)


def summary(rows: list[dict]) -> dict:
    """How far apart the Dice are, and how well the shipped score and every definition follow them."""
    found = [row["dice"] for row in rows]
    result = {"results": len(rows), "dice": round(float(np.mean(found)), 3), "sd": round(float(np.std(found)), 3)}
    result["shipped"] = correlation(rows, lambda row: row["shipped"])
    names = rows[0]["scores"]
    return result | {"definitions": {n: correlation(rows, lambda row, n=n: row["scores"][n]) for n in names}}


def main() -> None:
    result = {}
    for model, (folder, looks) in SOURCES.items():
        rows = measured(model, folder, looks)
        result[model] = {PLAIN: summary([row for row in rows if row["look"] == PLAIN])}
        if looks:
            usual = [row for row in rows if row["look"] != "inverted"]
            result[model] |= {"with other contrast and noise": summary(usual), "also inverted": summary(rows)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for model, looks in result.items():
        for look, row in looks.items():
            dice_text = f"Dice {row['dice']} +- {row['sd']}"
            print(f"{model}, {look}: {row['results']} results, {dice_text}, correlation {row['shipped']}")
            print("   ", ", ".join(f"{name}: {value}" for name, value in row["definitions"].items()))


if __name__ == "__main__":
    main()
