"""What five labelled cases of data that a model has never seen do for it within a time budget.

    python Testing/benchmarks/finetune.py [--scenario contrast|heart] [--budget 10m] [--threads 2] [--held-out 12]

contrast  The hippocampus model on hippocampus images of its own validation part with inverted contrast and blur, as
          from another sequence and scanner. The images are real and unseen, the change of contrast is artificial.
heart     The polyp model (colonoscopy, RGB) learns three structures of the heart from short-axis cine MR: other
          modality, other structures, so everything that it finds afterwards comes from the five cases.

One case per patient; the held-out patients are measured before and after by the gate, as for a user. Prints a table and
adds to ``Testing/benchmarks/results/finetune.json``. Needs the labelled images in ``shared/`` beside the checkout.
"""

import argparse
import csv
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Training")]

from MambaSegLib import catalogue  # noqa: E402
from MambaSegLib.cli_train import budget as seconds  # noqa: E402
from MambaSegLib.job import Report, to_json_value  # noqa: E402
from MambaSegLib.terminal import table  # noqa: E402
from MambaSegTraining import finetune  # noqa: E402
from MambaSegTraining.cases import HELD_OUT, TRAINING  # noqa: E402
from MambaSegTraining.sources import open_source  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).parent / "results" / "finetune.json"
TAUGHT = 5  # cases


def other_contrast(image: sitk.Image) -> sitk.Image:
    """Dark becomes bright (with gamma 0.6), blurred by 0.8 mm."""
    scaled = sitk.RescaleIntensity(sitk.Cast(image, sitk.sitkFloat32), 0, 1)
    return sitk.SmoothingRecursiveGaussian(1 - sitk.Pow(scaled, 0.6), 0.8)


def contrast(folder: Path, held_out: int) -> dict:
    """The request of that scenario, and the table of its cases."""
    unseen = set(catalogue.find("hippocampus").data["provenance"]["validation_cases"])
    cases = [case for case in open_source(DATA / "hippocampus_msd") if case.name in unseen][: TAUGHT + held_out]
    rows = []
    for i, case in enumerate(cases):
        path = folder / f"{case.name}.nii.gz"
        sitk.WriteImage(other_contrast(sitk.ReadImage(str(case.images[0]))), str(path))
        rows.append([path, case.label, case.name, TRAINING if i < TAUGHT else HELD_OUT])
    return {"model": "hippocampus", "data": [write_table(folder, rows)]}


def heart(folder: Path, held_out: int) -> dict:
    """Grey slices as the three colours that the polyp model takes; one volume per patient."""
    rows = []
    for part, count in ((TRAINING, TAUGHT), (HELD_OUT, held_out)):
        first = {case.patient: case for case in reversed(open_source(DATA / "acdc")) if case.part == part}
        for patient in sorted(first)[:count]:
            image, path = first[patient].images[0], folder / f"{patient}_labels.nii.gz"
            labels = sitk.ReadImage(str(first[patient].label))  # 1, 2, 3; the model's 1 is the polyp
            sitk.WriteImage(sitk.Cast(labels + sitk.Cast(labels > 0, labels.GetPixelID()), sitk.sitkUInt8), str(path))
            rows.append([";".join([str(image)] * 3), path, patient, part])
    added = ["Right ventricle", "Myocardium", "Left ventricle"]
    return {"model": "polyp", "data": [write_table(folder, rows)], "structures_added": added}


def write_table(folder: Path, rows: list) -> str:
    path = folder / "cases.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "patient", "part"])
        writer.writerows(rows)
    return str(path)


SCENARIOS = {"contrast": contrast, "heart": heart}


class Told(Report):
    """Messages and the latest progress on stderr."""

    def __init__(self):
        super().__init__(lambda event: print(event.get("text") or event.get("label") or "", file=sys.stderr, end="\r"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default="contrast")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument("--method", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        request = SCENARIOS[given.scenario](Path(name), given.held_out)
        request |= {"output": str(Path(name) / "models"), "budget_s": seconds(given.budget), "method": given.method}
        result = finetune.run(request | {"device": "cpu"}, Told())
        curve = json.loads((Path(result["candidate"]) / "bundle.json").read_text())["provenance"]["curve"]
    rows = result["decision"]["rows"]
    keys = ("structure", "cases", "dice_before", "dice_after", "difference", "low", "high")
    print(
        table(
            ["Structure", "Cases", "Before", "After", "Difference", "95 % from", "to"],
            [[r[k] for k in keys] for r in rows],
        )
    )
    means = {key: round(float(np.mean([row[key] for row in rows if row["cases"]])), 4) for key in keys[2:5]}
    print(f"Mean {means['dice_before']} -> {means['dice_after']} in {result['time_s']} s, {result['steps']} steps")
    there = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    there[given.scenario] = {
        "command": f"python Testing/benchmarks/finetune.py --scenario {given.scenario} --budget {given.budget} "
        f"--threads {given.threads}",
        "machine": f"{platform.machine()}, {given.threads} thread(s), torch {torch.__version__}",
        "taught_cases": TAUGHT,
        "mean_dice": means,
        "accepted": result["decision"]["accepted"],
        **{key: result[key] for key in ("steps", "time_s", "method", "protocol")},
        "rows": [{key: row[key] for key in keys} for row in rows],
        "curve": curve,
    }
    RESULTS.write_text(json.dumps(to_json_value(there), indent=1) + "\n")


if __name__ == "__main__":
    main()
