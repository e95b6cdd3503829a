"""How far do clicks bring a segmentation? "Correct from my edits" after each of up to ten clicks.

    python Testing/benchmarks/clicks.py [--model hippocampus] [--cases 10] [--images FOLDER --labels FOLDER] [--name X]

The usual protocol for interactive segmentation: the simulated user clicks at the centre of the largest region that is
wrong in one way (a structure is missing there, or should not be there), with what the manual labels say; after each
click the correction is made anew from all clicks. Each click decides a small ball, as in the panel. Dice per structure
is taken over the whole image. The cases are those that the model never saw; each image is also shown at another
contrast (gamma 2.5), where the model errs more. Prints a table and adds it under its name to
``Testing/benchmarks/results/clicks.json``.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as components

sys.path.insert(0, str(Path(__file__).resolve().parent))

from correct import as_it_is, other_contrast, parser_of, unseen

from MambaSegLib import catalogue
from MambaSegLib.clicks import Click, decide
from MambaSegLib.correct import Edits, correct
from MambaSegLib.features import extract
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.inference import load_network, resolve_device
from MambaSegLib.job import Report
from MambaSegLib.metrics import dice
from MambaSegLib.postprocessing import remove_small_components, to_label_values
from MambaSegLib.preprocessing import prepare, recipe_of

RESULTS = Path(__file__).parent / "results" / "clicks.json"
MOST = 10
SHOWN = (0, 1, 3, 5, 10)
GOOD = 0.9


def next_click(now: np.ndarray, truth: np.ndarray, values, spacing_mm) -> Click | None:
    """At the centre of the largest wrong region; None when nothing is wrong."""
    largest, size, meant = None, 0, (0, True)
    for value in values:
        for belongs, wrong in ((True, (truth == value) & (now != value)), (False, (now == value) & (truth != value))):
            parts, count = components(wrong)
            sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
            if count and sizes.max() > size:
                largest, size, meant = parts == sizes.argmax() + 1, sizes.max(), (value, belongs)
    if largest is None:
        return None
    depth = distance_transform_edt(np.pad(largest, 1), sampling=spacing_mm[::-1])[1:-1, 1:-1, 1:-1]
    return Click(tuple(int(v) for v in np.unravel_index(depth.argmax(), depth.shape)), *meant)


def case_of(image: Path, label: Path, look, network, bundle) -> dict:
    """{"dice": (clicks, structures), "seconds": one for each click}; after the last needed click Dice stays."""
    recipe, device = recipe_of(bundle), resolve_device("cpu")
    volume, truth = read_volume(image), read_labels(label).array
    volume = volume.with_array(look(volume.array))
    features = extract(network, prepare(volume, recipe), recipe, device, Report())
    values = to_label_values(features.prepared.restore_labels(features.probabilities), bundle.labels, bundle.labels)
    initial = remove_small_components(volume.with_array(values), recipe["min_component_mm3"]).array
    known, locked = [label.value for label in bundle.labels], np.zeros(truth.shape, bool)
    now, clicks, seconds = initial, [], []
    scores = [[dice(initial == value, truth == value) for value in known]]
    for _count in range(MOST):
        click = next_click(now, truth, known, volume.spacing_mm)
        if click is not None:
            clicks.append(click)
            edited, clicked = decide(clicks, initial, volume.spacing_mm)
            edits = Edits(initial, edited, clicked, locked, clicked=clicked)
            start = time.perf_counter()
            now, _strength = correct(features, edits, bundle.labels, volume, Report())
            seconds.append(time.perf_counter() - start)
            if not np.array_equal(now[clicked], edited[clicked]):
                raise SystemExit(f"{image.name}: a clicked voxel was changed")
        scores.append([dice(now == value, truth == value) for value in known])
    return {"dice": np.array(scores), "seconds": seconds}


def summary(cases: list[dict], bundle) -> dict:
    scores = np.array([case["dice"] for case in cases])  # (cases, clicks, structures)
    mean = np.nanmean(scores, axis=2)
    needed = [int(np.argmax(row >= GOOD)) if (row >= GOOD).any() else None for row in mean]
    step = np.diff(mean, axis=1)
    seconds = [value for case in cases for value in case["seconds"]]
    rows = {label.name: np.nanmean(scores[:, :, i], axis=0) for i, label in enumerate(bundle.labels)}
    return {
        "dice": {
            name: [round(float(row[n]), 4) for n in SHOWN] for name, row in (rows | {"mean": mean.mean(0)}).items()
        },
        "worst_change": [round(float((mean[:, n] - mean[:, 0]).min()), 4) for n in SHOWN],
        "worst_single_click": round(float(step.min()), 4),
        "clicks_that_harmed": f"{int((step < 0).sum())}/{len(seconds)}",
        f"clicks_to_{GOOD}": needed,
        "seconds": round(float(np.median(seconds)), 3),
        "most_seconds": round(max(seconds), 3),
        "cases": len(cases),
    }


def show(title: str, table: dict) -> None:
    print(
        f"\n{title}\n\n| structure | "
        + " | ".join(f"{n} clicks" for n in SHOWN)
        + " |\n"
        + "|---" * (len(SHOWN) + 1)
        + "|"
    )
    for name, row in table["dice"].items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    needed = table[f"clicks_to_{GOOD}"]
    reached = [count for count in needed if count is not None]
    average = float(np.mean(reached)) if reached else float("nan")
    print(
        f"\nDice {GOOD} reached in {len(reached)} of {len(needed)} cases, with {average:.1f} clicks on average; "
        f"worst case {table['worst_change']}, worst click {table['worst_single_click']}, harmful "
        f"{table['clicks_that_harmed']}; {table['seconds']} s per click, at most {table['most_seconds']} s."
    )


def main() -> None:
    options = parser_of(__doc__).parse_args()
    bundle = catalogue.find(options.model)
    network = load_network(bundle, resolve_device("cpu"))
    tables = {}
    for name, look in (("as it is", as_it_is), ("gamma 2.5", other_contrast)):
        cases = [
            case_of(image, options.labels / image.name, look, network, bundle) for image in unseen(options, bundle)
        ]
        tables[name] = summary(cases, bundle)
        show(f"{bundle.id}, {name}", tables[name])
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept | {options.name or bundle.id: tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
