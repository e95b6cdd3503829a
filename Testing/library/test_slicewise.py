"""A 2-D network on a volume: slices along any axis, and their neighbours as channels, against a loop over slices."""

import numpy as np
import pytest
import torch

from MambaSegLib.bundle import write_bundle
from MambaSegLib.bundle_schema import check_bundle_data
from MambaSegLib.errors import UserError
from MambaSegLib.networks import create
from MambaSegLib.segment import segment
from MambaSegLib.volume import Volume


def bundle_data(data, axis, neighbours):
    data["network"] = {"name": "vm_unet_test", "in_channels": 2 * neighbours + 1, "out_channels": 3, "hyper": {}}
    data["preprocessing"] = {"orientation": None, "spacing_mm": [None] * 3, "normalisation": {"name": "none"}}
    data["inference"] |= {"patch": [32, 32], "slice_axis": axis, "neighbours": neighbours, "margin_mm": 0}
    return data


@pytest.mark.parametrize("axis,neighbours", [(0, 0), (1, 1), (2, 2)])
def test_slices_are_segmented_one_by_one(tiny_bundle_data, tmp_path, axis, neighbours):
    torch.manual_seed(0)
    network = create("vm_unet_test", 2 * neighbours + 1, 3).eval()
    with torch.no_grad():  # no class shall win everywhere
        network.final_conv.bias -= network(torch.randn(1, 2 * neighbours + 1, 32, 32)).mean((0, 2, 3))
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    bundle = write_bundle(tmp_path / "model", bundle_data(tiny_bundle_data, axis, neighbours), weights)
    shape = [32, 32, 32]
    shape[axis] = 5
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = segment(Volume(array, (1.0, 1.1, 1.2)), bundle, device="cpu").labels.array

    slices = torch.from_numpy(np.moveaxis(array, axis, 0).copy())
    expected = []
    for i in range(5):
        around = [min(max(i + n, 0), 4) for n in range(-neighbours, neighbours + 1)]
        with torch.inference_mode():
            expected.append(network(slices[around][None])[0].argmax(0).numpy())
    agreement = (found == np.moveaxis(np.stack(expected), 0, axis)).mean()
    assert len(np.unique(found)) > 1 and agreement > 0.999


def test_inputs_are_counted_without_their_neighbours(tiny_bundle_data):
    data = bundle_data(tiny_bundle_data, 0, 1)
    data["weights"] = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1, "dtype": "float32"}
    check_bundle_data(data, "bundle.json")
    data["network"]["in_channels"] = 2
    with pytest.raises(UserError, match="inputs"):
        check_bundle_data(data, "bundle.json")
    data["inference"]["slice_axis"] = 3
    with pytest.raises(UserError, match="slice_axis"):
        check_bundle_data(data, "bundle.json")
