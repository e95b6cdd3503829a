"""Images for the tests of batches."""

import numpy as np
import SimpleITK as sitk


def make_images(folder, names, size=40):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        array = np.random.default_rng(seed).normal(100, 20, (size, size, size)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name))
    return folder
