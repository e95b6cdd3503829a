"""Writes a model of grey pictures with random weights: python make_picture_model.py FOLDER. It needs torch."""

import sys
from pathlib import Path

import torch
from make_models import bundle_data

from MambaSegLib.bundle import write_bundle
from MambaSegLib.networks import create


def main(folder: Path) -> None:
    torch.manual_seed(0)
    network = create("vm_unet_test", 1, 3).eval()
    with torch.no_grad():  # no class shall win everywhere
        network.final_conv.bias -= network(torch.randn(1, 1, 64, 64)).mean((0, 2, 3))
    data = bundle_data("radiograph", "Radiograph", 64, 0.25)
    data["network"]["name"] = "vm_unet_test"
    data["inputs"] = [{"name": "Radiograph", "modality": "DX", "description": ""}]
    clip = {"name": "ct_clip", "lo": 0, "hi": 255}
    data["preprocessing"] = {"orientation": None, "spacing_mm": [None] * 3, "normalisation": clip}
    data["inference"] |= {"patch": [64, 64], "margin_mm": 0}
    write_bundle(folder / "radiograph", data, {k: v.numpy() for k, v in network.state_dict().items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
