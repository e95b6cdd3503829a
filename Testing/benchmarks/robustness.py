"""Does the hippocampus model keep its Dice when the same image comes in another way?

    python Testing/benchmarks/robustness.py [--cases 8]

Validation cases as they are, with other axes, intensities, voxel sizes, and mirrored to the other side. Prints a table
and writes ``Testing/benchmarks/results/robustness.json``. Needs the labelled images in ``shared/`` beside the checkout.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from MambaSegLib import catalogue  # noqa: E402
from MambaSegLib.metrics import dice  # noqa: E402
from MambaSegLib.segment import segment  # noqa: E402
from MambaSegLib.volume import Volume  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "hippocampus_msd"
RESULTS = Path(__file__).parent / "results" / "robustness.json"


def gamma(image: sitk.Image, exponent: float) -> sitk.Image:
    return sitk.Pow(sitk.RescaleIntensity(image, 0, 1), exponent)


def resampled(image: sitk.Image, spacing_mm: float, interpolator) -> sitk.Image:
    """The same extent with other cubic voxels (the images are at 1 mm, along the axes)."""
    size = [round(n / spacing_mm) for n in image.GetSize()]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(image.GetOrigin()) + direction @ np.full(3, (spacing_mm - 1) / 2)
    grid = (origin.tolist(), [spacing_mm] * 3, image.GetDirection())
    return sitk.Resample(image, size, sitk.Transform(), interpolator, *grid)


def mirrored(image: sitk.Image) -> sitk.Image:
    flipped = sitk.Flip(image, [True, False, False])
    flipped.CopyInformation(image)
    return flipped


def same(image: sitk.Image) -> sitk.Image:
    return image


# name: (what happens to the image, what happens to the labels)
VARIATIONS = {
    "as it is": (same, same),
    "axes PIL": (lambda i: sitk.DICOMOrient(i, "PIL"), lambda lab: sitk.DICOMOrient(lab, "PIL")),
    "intensity x 0.01 + 7": (lambda i: i * 0.01 + 7, same),
    "gamma 0.6": (lambda i: gamma(i, 0.6), same),
    "gamma 1.6": (lambda i: gamma(i, 1.6), same),
    "0.8 mm voxels": (
        lambda i: resampled(i, 0.8, sitk.sitkLinear),
        lambda lab: resampled(lab, 0.8, sitk.sitkNearestNeighbor),
    ),
    "1.5 mm voxels": (
        lambda i: resampled(i, 1.5, sitk.sitkLinear),
        lambda lab: resampled(lab, 1.5, sitk.sitkNearestNeighbor),
    ),
    "other side": (mirrored, mirrored),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=8)
    cases = catalogue.find("hippocampus").data["provenance"]["validation_cases"][: parser.parse_args().cases]
    rows = {}
    for case in cases:
        image = sitk.Cast(sitk.ReadImage(str(DATA / "imagesTr" / f"{case}.nii.gz")), sitk.sitkFloat32)
        labels = sitk.ReadImage(str(DATA / "labelsTr" / f"{case}.nii.gz"))
        for name, (change_image, change_labels) in VARIATIONS.items():
            found = segment(Volume.from_sitk(change_image(image)), "hippocampus").labels.array
            truth = sitk.GetArrayFromImage(change_labels(labels))
            rows.setdefault(name, []).append([dice(found == value, truth == value) for value in (1, 2)])
    means = {name: np.mean(values, axis=0).round(3).tolist() for name, values in rows.items()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cases": cases, "mean_dice_anterior_posterior": means}, indent=1) + "\n")
    print("| image | Dice anterior | Dice posterior |\n|---|---|---|")
    for name, (anterior, posterior) in means.items():
        print(f"| {name} | {anterior:.3f} | {posterior:.3f} |")


if __name__ == "__main__":
    main()
