"""The job "export": a model for other programs, as ONNX, as torch.export's file or as a MONAI bundle.

ONNX and torch files hold the network for windows of the model's patch, in plain operations (``ops.plain``), and are
compared with the network before they appear; ``FILE.json`` beside them is the model's ``bundle.json``, which says how
an image becomes windows and what the classes are. A MONAI bundle takes and gives whole images.
"""

import copy
import importlib
import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import catalogue
from .bundle import ModelBundle
from .errors import UserError
from .inference import load_network
from .job import Report
from .monai_export import write_monai_bundle
from .networks import spec
from .ops.plain import PLAIN, operators_replaced

FORMATS = ("onnx", "torch", "monai")
TOLERANCE = 1e-3  # of the largest logit
OPSET = 17
SEED = 20260101


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "model" (id or folder), "output" (new file, or new folder for "monai"), "format" (of ``FORMATS``).
        report: messages.
        warm: not used.

    Returns:
        {output, format, input_shape, difference}: shape of the window (1, C, (Z,) Y, X) and the largest difference of
        the written network's logits from ours over the largest logit; None for "monai".

    Raises:
        UserError: no such model or format, the output exists, a package is missing, the network cannot be expressed.
    """
    bundle, output = (catalogue.find(request["model"]), Path(request["output"]).expanduser().absolute())
    if request.get("format") not in FORMATS:
        raise UserError(f"Unknown format {request.get('format')!r}.", f"Choose one of {', '.join(FORMATS)}.")
    if output.exists():
        raise UserError(f"{output} exists already.", "Choose another name; nothing is overwritten.")
    result = {"output": str(output), "format": request["format"], "input_shape": None, "difference": None}
    report.message(f"Exporting {bundle.title}")
    if request["format"] == "monai":
        write_monai_bundle(bundle, output)
        return result
    image = _window(bundle)
    difference = _write_network(bundle, image, output, request["format"])
    return result | {"input_shape": list(image.shape), "difference": difference}


def _window(bundle: ModelBundle) -> Tensor:
    """A random image of the model's patch, (1, C, (Z,) Y, X)."""
    patch = bundle.inference["patch"][-spec(bundle.network["name"]).dims :]
    return torch.randn(1, bundle.network["in_channels"], *patch, generator=torch.Generator().manual_seed(SEED))


def _write_network(bundle: ModelBundle, image: Tensor, output: Path, kind: str) -> float:
    """The file and its JSON, complete or not at all; returns the difference."""
    packages = _packages(kind)
    network = load_network(bundle, torch.device("cpu"))
    network = network if spec(bundle.network["name"]).dims == 3 else network.network
    write, read = (_write_onnx, _read_onnx) if kind == "onnx" else (_write_torch, _read_torch)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
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
        description = Path(folder) / f"{output.name}.json"
        description.write_text(json.dumps(bundle.data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(description, output.with_name(description.name))
        os.replace(file, output)
    return difference


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
        raise UserError(
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
