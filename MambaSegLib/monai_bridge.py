"""The steps of a segmentation as MONAI's bundles want them: a transform before, an inferer, a transform after.

They do what `segment` does, by the same functions, so that a MONAI bundle gives the same labels. MONAI itself is not
needed here: a transform is anything that takes and returns a dictionary.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .inference import SliceWise, predict
from .postprocessing import remove_small_components
from .preprocessing import grid_of, prepare
from .volume import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def _volume(array: np.ndarray, affine: np.ndarray) -> Volume:
    """Voxels (C, Z, Y, X) and MONAI's affine, from (x, y, z) indices to RAS mm."""
    columns = RAS_TO_LPS @ affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    return Volume(array, tuple(spacing), tuple(RAS_TO_LPS @ affine[:3, 3]), columns / spacing)


class Prepare:
    """ "image" (C, X, Y, Z) with its affine -> (C, Z, Y, X) on the network's grid; remembers the geometry.

    Args:
        recipe: the bundle's preprocessing and inference in one, see `preprocessing.prepare`.
    """

    def __init__(self, recipe: dict):
        self.recipe = recipe

    def __call__(self, data: dict) -> dict:
        image = data["image"]
        affine = np.asarray(image.affine, dtype=float)
        array = np.asarray(image.as_tensor() if hasattr(image, "as_tensor") else image).transpose(0, 3, 2, 1)
        prepared = prepare(_volume(array, affine), self.recipe)
        geometry = {"image_affine": torch.from_numpy(affine), "image_size": torch.tensor(array.shape[1:])}
        return {**data, "image": torch.from_numpy(prepared.array), **geometry}


class Inferer:
    """Image (1, C, Z, Y, X) -> probabilities (1, K, Z, Y, X), by windows.

    Args:
        recipe: see ``Prepare``.
        dims: of the network, 2 or 3.
    """

    def __init__(self, recipe: dict, dims: int):
        self.recipe, self.dims = recipe, dims

    def __call__(self, inputs: Tensor, network: nn.Module, *_, **__) -> Tensor:
        network = network.eval() if self.dims == 3 else SliceWise(network).eval()
        found = [predict(network, image.cpu().numpy(), self.recipe, inputs.device) for image in inputs]
        return torch.from_numpy(np.stack(found)).to(inputs.device)


class Restore:
    """ "pred", probabilities (K, Z, Y, X) -> labels (1, X, Y, Z) on the grid of the image that was read.

    Args:
        recipe: see ``Prepare``.
    """

    def __init__(self, recipe: dict):
        self.recipe = recipe

    def __call__(self, data: dict) -> dict:
        size, affine = (tuple(int(n) for n in data["image_size"]), np.asarray(data["image_affine"], dtype=float))
        volume = _volume(np.broadcast_to(np.float32(0), size), affine)
        labels = grid_of(volume, self.recipe).restore_labels(np.asarray(data["pred"].cpu()))
        labels = remove_small_components(volume.with_array(labels, "labels"), self.recipe["min_component_mm3"]).array
        return {**data, "pred": _with_affine(torch.from_numpy(labels.transpose(2, 1, 0).copy())[None], affine)}


def _with_affine(labels: Tensor, affine: np.ndarray):
    from monai.data import MetaTensor

    return MetaTensor(labels, affine=torch.from_numpy(affine))
