"""Does the review score put the worst segmentations first?

    python Testing/benchmarks/review_score.py [--model hippocampus] [--cases 35]

Spearman correlation between a structure's score and its true Dice, over cases the model never saw: as they are, and
together with the same cases at another contrast (gamma 2.5) and with noise, where the model errs more. -1 is perfect.
Protocol: every second case is for choosing between the definitions below, by all looks; the others, which had no say,
are for the figures. Prints a table and writes ``Testing/benchmarks/results/review_score.json``.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from MambaSegLib import catalogue  # noqa: E402
from MambaSegLib.image import read_labels, read_volume  # noqa: E402
from MambaSegLib.metrics import dice  # noqa: E402
from MambaSegLib.segment import segment  # noqa: E402
from MambaSegLib.uncertainty import THRESHOLD  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "hippocampus_msd"
RESULTS = Path(__file__).parent / "results" / "review_score.json"


def gamma(array: np.ndarray, _) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    return (((array - low) / (high - low)) ** 2.5).astype(np.float32)


def noisy(array: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.6 * array.std(), array.shape)
    return (array + noise).astype(np.float32)


LOOKS = {"as it is": lambda array, _: array, "gamma 2.5": gamma, "noise": noisy}


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


def measured(model: str, cases: list[str]) -> list[dict]:
    """One row per case, look and structure: its Dice and its scores by every definition and threshold."""
    rows = []
    for number, case in enumerate(cases):
        volume = read_volume(DATA / "imagesTr" / f"{case}.nii.gz")
        truth = read_labels(DATA / "labelsTr" / f"{case}.nii.gz").array
        for look, change in LOOKS.items():
            found = segment(volume.with_array(change(volume.array, number)), model, device="cpu")
            best = found.doubt
            for index, label in enumerate(found.structures, start=1):
                own = best.winner == index
                doubt = np.where(own | (best.runner_up == index), 1 - best.margin, 0)
                row = {"case": number, "look": look, "structure": label.name}
                row["dice"] = dice(found.labels.array == label.value, truth == label.value)
                row["scores"] = {(n, t): v for t in (0.1, THRESHOLD, 0.5) for n, v in scores(doubt, own, t).items()}
                row["shipped"] = found.review[index - 1]["score"]
                rows.append(row)
    return rows


def correlation(rows: list[dict], score) -> float:
    """Mean of the structures' Spearman correlations."""
    values = []
    for structure in dict.fromkeys(row["structure"] for row in rows):
        some = [row for row in rows if row["structure"] == structure]
        values.append(spearmanr([score(row) for row in some], [row["dice"] for row in some]).statistic)
    return round(float(np.mean(values)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="hippocampus")
    parser.add_argument("--cases", type=int, default=35)
    options = parser.parse_args()
    cases = catalogue.find(options.model).data["provenance"]["validation_cases"][: options.cases]
    rows = measured(options.model, cases)
    halves = {"choosing": [r for r in rows if r["case"] % 2 == 0], "figures": [r for r in rows if r["case"] % 2]}
    table = []
    for name, threshold in rows[0]["scores"]:
        row = {"definition": name, "threshold": threshold}
        for half, some in halves.items():
            plain = [r for r in some if r["look"] == "as it is"]
            row[half] = correlation(plain, lambda r, key=(name, threshold): r["scores"][key])
            row[f"{half}, all looks"] = correlation(some, lambda r, key=(name, threshold): r["scores"][key])
        table.append(row)
    plain = [r for r in halves["figures"] if r["look"] == "as it is"]
    shipped = {"as it is": correlation(plain, lambda r: r["shipped"])}
    shipped["all looks"] = correlation(halves["figures"], lambda r: r["shipped"])
    result = {"model": options.model, "cases": len(cases), "spearman": table, "shipped score, figures": shipped}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print("| definition | threshold | choosing | all looks | figures | all looks |\n" + "|---" * 6 + "|")
    for row in table:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(f"shipped score on the figures' half: {shipped}")


if __name__ == "__main__":
    main()
