"""Teaching a network what is *not* a structure, from whole heads with an atlas.

Crops around a structure show little of its surroundings, so a network trained on them alone finds structures in tissue
it has never seen. From a whole head whose atlas tells roughly where the structure is, this makes crops in which the
structure and a margin around it are unknown (and left out of the loss) and the rest is background.

    python -m MambaSegTraining.context head.nii.gz atlas.nii.gz --values 37 38 --output crops --count 40
"""

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .losses import UNKNOWN

MARGIN_MM = 5.0  # atlas and image agree to about this


def unknown_around(atlas: sitk.Image, values) -> sitk.Image:
    """uint8 image: UNKNOWN within ``MARGIN_MM`` of the atlas structures, 0 elsewhere."""
    array = sitk.GetArrayViewFromImage(atlas)
    inside = sitk.GetImageFromArray(np.isin(array, list(values)).astype(np.uint8))
    inside.CopyInformation(atlas)
    distance = sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True)
    return sitk.Cast(distance <= MARGIN_MM, sitk.sitkUInt8) * UNKNOWN


def write_crops(head: sitk.Image, labels: sitk.Image, output: Path, count: int, size_mm, seed: int) -> None:
    """Random boxes that touch the unknown region, in Decathlon layout; one patient for the whole head."""
    random = np.random.default_rng(seed)
    points = np.argwhere(sitk.GetArrayViewFromImage(labels) == UNKNOWN)[:, ::-1]  # x, y, z
    for folder in ("imagesTr", "labelsTr"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    spacing, shape = np.array(head.GetSpacing()), np.array(head.GetSize())
    for i in range(count):
        size = np.minimum((random.uniform(*size_mm, size=3) / spacing).astype(int), shape)
        centre = points[random.integers(len(points))] + random.uniform(-0.5, 0.5, 3) * size
        start = np.clip((centre - size / 2).astype(int), 0, shape - size)
        box = (size.tolist(), start.tolist())
        sitk.WriteImage(sitk.RegionOfInterest(head, *box), str(output / "imagesTr" / f"context_{i:03d}.nii.gz"))
        sitk.WriteImage(sitk.RegionOfInterest(labels, *box), str(output / "labelsTr" / f"context_{i:03d}.nii.gz"))


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(prog="MambaSegTraining.context", description=__doc__.split("\n")[0])
    parser.add_argument("head")
    parser.add_argument("atlas", help="label map on the same grid")
    parser.add_argument("--values", type=int, nargs="+", required=True, help="atlas values of the structure")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--size-mm", type=float, nargs=2, default=(45.0, 100.0))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    head, atlas = sitk.ReadImage(given.head), sitk.ReadImage(given.atlas)
    write_crops(head, unknown_around(atlas, given.values), given.output, given.count, given.size_mm, given.seed)


if __name__ == "__main__":
    main()
