"""A model's network as one file in plain operations (``ops.plain``): ONNX, or what torch.export writes.

The network is that for windows of the model's patch. The file is compared with it before it appears.
"""

import copy
import importlib
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .bundle import ModelBundle
from .errors import MissingPackage, UserError
from .inference import load_network
from .networks import spec
from .ops.plain import PLAIN, operators_replaced
from .safe_file import put_in_place, refuse_existing, write_text

TOLERANCE = 1e-3  # of the largest logit
OPSET = 17
SEED = 20260101


def _window(bundle: ModelBundle) -> Tensor:
    """A random image of the model's patch, (1, C, (Z,) Y, X)."""
    patch = bundle.inference["patch"][-spec(bundle.network["name"]).dims :]
    return torch.randn(1, bundle.network["in_channels"], *patch, generator=torch.Generator().manual_seed(SEED))


def write_network(bundle: ModelBundle, output: Path, kind: str) -> dict:
    """Write the file and its JSON, complete or not at all.

    Args:
        bundle: the model.
        output: a new file.
        kind: "onnx" or "torch".

    Returns:
        {input_shape, difference}, see `export.run`.

    Raises:
        UserError: a package is missing, a file is there already, the network cannot be expressed.
    """
    image = _window(bundle)
    packages = _packages(kind)
    description = output.with_name(f"{output.name}.json")
    refuse_existing(description)
    network = load_network(bundle, torch.device("cpu"))
    network = network if spec(bundle.network["name"]).dims == 3 else network.network
    write, read = (_write_onnx, _read_onnx) if kind == "onnx" else (_write_torch, _read_torch)
    with tempfile.TemporaryDirectory(prefix="mambaseg-export-") as folder:  # far from where a killed job would leave it
        file = Path(folder) / output.name
        expected = export_network(network, image, file, write, bundle.network["name"], kind)
        found = read(file, image, packages)
        difference = float(np.abs(found - expected.numpy()).max() / expected.abs().max())
        if not difference <= TOLERANCE:  # also true for NaN
            raise UserError(
                f"The {kind} file of '{bundle.network['name']}' differs from the network by {difference:.1e} of its "
                f"largest logit (at most {TOLERANCE:.0e} is accepted).",
                "It was not written. Try another format or version of torch.",
            )
        put_in_place(file, output)
    write_text(description, json.dumps(bundle.data, indent=2, ensure_ascii=False) + "\n")
    return {"input_shape": list(image.shape), "difference": difference}


def export_network(network: nn.Module, image: Tensor, file: Path, write, name: str, kind: str) -> Tensor:
    """Write a network that takes images of exactly this shape; returns its logits for the image.

    Args:
        network: in evaluation mode.
        image: (1, C, *grid).
        file: where to.
        write: ``_write_onnx`` or ``_write_torch``.
        name, kind: for the message.

    Raises:
        UserError: an operation of the network has no counterpart there.
    """
    with torch.no_grad():
        expected = network(image)
        network = copy.deepcopy(network)
        with operators_replaced(PLAIN):
            network(image)  # orders of scans are made and kept here, not while tracing
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # fixed sizes are meant, and what was written is compared below
                    write(network, image, file)
            except Exception as error:  # the exporters raise all sorts of things
                raise UserError(
                    f"The network '{name}' cannot be written as {kind} with torch {torch.__version__}: "
                    f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                    "Use the other format, or 'monai', which needs no translation.",
                ) from error
    return expected


def _packages(kind: str):
    """onnxruntime, imported, where it is needed."""
    if kind != "onnx":
        return None
    try:
        importlib.import_module("onnx")
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingPackage(
            error.name or "onnx",
            f"Writing ONNX needs the Python package {error.name!r}, which is not installed.",
            "pip install onnx onnxruntime",
        ) from error


def _write_onnx(network: nn.Module, image: Tensor, file: Path) -> None:
    # The tracing exporter: the one built on torch.export takes minutes for scans and needs a further package.
    old = {"dynamo": False} if "dynamo" in torch.onnx.export.__kwdefaults__ else {}
    torch.onnx.export(
        network, (image,), str(file), input_names=["image"], output_names=["logits"], opset_version=OPSET, **old
    )


def _read_onnx(file: Path, image: Tensor, onnxruntime) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy()})[0]


def _write_torch(network: nn.Module, image: Tensor, file: Path) -> None:
    torch.export.save(torch.export.export(network, (image,), strict=False), file)


def _read_torch(file: Path, image: Tensor, _) -> np.ndarray:
    with torch.no_grad():
        return torch.export.load(file).module()(image).numpy()
