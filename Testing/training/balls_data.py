"""Synthetic cases in Decathlon layout."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_balls(folder: Path, count: int) -> None:
    """Decathlon layout: images of 20 x 22 x 18 voxels with a bright and a dark ball each."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    z, y, x = np.meshgrid(*(np.arange(n) for n in (20, 22, 18)), indexing="ij")
    for i in range(count):
        random = np.random.default_rng(i)
        image, label = random.normal(0, 0.3, z.shape), np.zeros(z.shape, np.uint8)
        for value, brightness, low in ((1, 2.0, 5), (2, -2.0, 13)):
            centre = random.uniform((low - 1, 6, 6), (low + 2, 15, 12))
            ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 4**2
            image[ball], label[ball] = image[ball] + brightness, value
        for kind, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", label)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / kind / f"case_{i:02d}.nii.gz"))
