"""Does "Correct from my edits" help on the slices that nobody edited?

    python Testing/benchmarks/correct.py [--model hippocampus] [--cases 10] [--images FOLDER --labels FOLDER] [--name X]

A simulated annotator corrects the k slices with the most wrong voxels, for k = 1, 2, 3, 5 and along each of the three
axes, as the manual labels say. Dice, mean over the structures, is taken on all other slices, before and after. The
cases are those that the model never saw; each image is also shown at another contrast (gamma 2.5), where the model errs
more. Prints a table and adds it under its name to ``Testing/benchmarks/results/correct.json``.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from MambaSegLib import catalogue  # noqa: E402
from MambaSegLib.correct import Edits, correct  # noqa: E402
from MambaSegLib.features import extract  # noqa: E402
from MambaSegLib.image import read_labels, read_volume  # noqa: E402
from MambaSegLib.inference import load_network, resolve_device  # noqa: E402
from MambaSegLib.job import Report  # noqa: E402
from MambaSegLib.metrics import dice  # noqa: E402
from MambaSegLib.postprocessing import remove_small_components, to_label_values  # noqa: E402
from MambaSegLib.preprocessing import prepare, recipe_of  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "hippocampus_msd"
RESULTS = Path(__file__).parent / "results" / "correct.json"
EDITED_SLICES = (1, 2, 3, 5)
AXES = {"axial": 0, "coronal": 1, "sagittal": 2}  # of (Z, Y, X) in images stored in axial slices


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def other_contrast(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    return (((array - low) / (high - low)) ** 2.5).astype(np.float32)


def mean_dice(found: np.ndarray, truth: np.ndarray, values) -> float:
    return float(np.nanmean([dice(found == value, truth == value) for value in values]))


def worst_slices(initial: np.ndarray, truth: np.ndarray, axis: int, count: int) -> np.ndarray:
    """bool (Z, Y, X): the `count` slices along `axis` with the most wrong voxels."""
    wrong = np.count_nonzero(initial != truth, axis=tuple(a for a in range(3) if a != axis))
    touched = np.zeros(initial.shape, bool)
    np.moveaxis(touched, axis, 0)[np.argsort(-wrong, kind="stable")[:count]] = True
    return touched


def rows_of(case: str, image: Path, label: Path, look, network, bundle, axes) -> list[dict]:
    recipe, device = recipe_of(bundle), resolve_device("cpu")
    volume, truth = read_volume(image), read_labels(label).array
    volume = volume.with_array(look(volume.array))
    start = time.perf_counter()
    features = extract(network, prepare(volume, recipe), recipe, device, Report())
    extraction_s = time.perf_counter() - start
    classes = features.prepared.restore_labels(features.probabilities)
    values = to_label_values(classes, bundle.labels, bundle.labels)
    initial = remove_small_components(volume.with_array(values), recipe["min_component_mm3"]).array
    known = [label.value for label in bundle.labels]
    rows = []
    for plane, axis in axes.items():
        for count in EDITED_SLICES:
            touched = worst_slices(initial, truth, axis, count)
            edits = Edits(initial, np.where(touched, truth, initial), touched, np.zeros(truth.shape, bool))
            start = time.perf_counter()
            result, strength = correct(features, edits, bundle.labels, volume, Report())
            seconds = time.perf_counter() - start
            if not np.array_equal(result[touched], truth[touched]):
                raise SystemExit(f"{case}: an edited voxel was changed")
            others = ~touched
            before, after = (mean_dice(found[others], truth[others], known) for found in (initial, result))
            row = {"case": case, "plane": plane, "slices": count, "before": before, "after": after}
            rows.append(row | {"strength": strength, "seconds": seconds, "features_s": extraction_s})
    return rows


def summary(rows: list[dict]) -> list[dict]:
    table = []
    for plane in dict.fromkeys(row["plane"] for row in rows):
        for count in EDITED_SLICES:
            some = [row for row in rows if row["plane"] == plane and row["slices"] == count]
            change = [row["after"] - row["before"] for row in some]
            table.append({
                "plane": plane,
                "slices": count,
                "before": round(float(np.mean([row["before"] for row in some])), 4),
                "after": round(float(np.mean([row["after"] for row in some])), 4),
                "mean_change": round(float(np.mean(change)), 4),
                "worst_change": round(min(change), 4),
                "helped": sum(value > 0 for value in change),
                "cases": len(some),
                "seconds": round(float(np.median([row["seconds"] for row in some])), 2),
                "most_seconds": round(max(row["seconds"] for row in some), 2),
                "features_s": round(float(np.median([row["features_s"] for row in some])), 2),
            })  # fmt: skip
    return table


def parser_of(text: str) -> argparse.ArgumentParser:
    """What the benchmarks of corrections can be told."""
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("--model", default="hippocampus")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--images", type=Path, default=DATA / "imagesTr")
    parser.add_argument("--labels", type=Path, default=DATA / "labelsTr")
    parser.add_argument("--name", help="under which the table is kept (default: the model's id)")
    return parser


def unseen(options: argparse.Namespace, bundle) -> list[Path]:
    """The first images of those that the model was not trained on."""
    seen = set(bundle.data["provenance"]["cases"])
    images = [p for p in sorted(options.images.glob("*.nii.gz")) if p.name.split(".")[0] not in seen]
    return images[: options.cases]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--planes", nargs="+", default=list(AXES), choices=list(AXES))
    options = parser.parse_args()
    bundle = catalogue.find(options.model)
    network = load_network(bundle, resolve_device("cpu"))
    tables = {}
    for name, look in (("as it is", as_it_is), ("gamma 2.5", other_contrast)):
        rows = []
        for image in unseen(options, bundle):
            label = options.labels / image.name
            axes = {plane: AXES[plane] for plane in options.planes}
            rows += rows_of(image.name.split(".")[0], image, label, look, network, bundle, axes)
        tables[name] = summary(rows)
        print(
            f"\n{bundle.id}, {name}\n\n| plane | slices | before | after | mean | worst | helped | s |\n" + "|---" * 8
        )
        for row in tables[name]:
            print("| {plane} | {slices} | {before} | {after} | {mean_change:+} | {worst_change:+} | {helped}/{cases} | "
                  "{seconds} |".format(**row))  # fmt: skip
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept | {options.name or bundle.id: tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
