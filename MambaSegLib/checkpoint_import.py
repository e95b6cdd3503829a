"""Authors' checkpoints into our networks: read by an allow-list, recognised, renamed, loaded completely or not at all.

A ``.pth`` file is a pickle, and a pickle is a program. Ours is run with a list of the few harmless things that weights
and nnU-Net's logs are made of (tensors, numpy numbers and arrays of numpy 1 and 2); any other name in it ends the
import. Because no such list is a proof, reading one also takes the word of the user, ``trust=True``, once per file:
what is imported is kept as safetensors in a model bundle. Files ``.safetensors`` need no trust.
"""

import _codecs
import collections
import pickle
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .blocks.unet import drop_aliases
from .checkpoint_fingerprint import recognise
from .errors import UserError
from .networks import create, spec
from .networks.weights import load_strictly, named_tensors

NUMPY_CORE = np._core if hasattr(np, "_core") else np.core
ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _codecs.encode,  # how bytes are written in pickles of protocol 2
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2
    for _name in ("scalar", "_reconstruct"):
        ALLOWED[_module, _name] = getattr(NUMPY_CORE.multiarray, _name)
for _name in ("Half", "BFloat16", "Float", "Double", "Char", "Byte", "Short", "Int", "Long", "Bool"):
    ALLOWED["torch", f"{_name}Storage"] = getattr(torch, f"{_name}Storage")


class _AllowListUnpickler(pickle.Unpickler):
    """Refuses every name that is not in ``ALLOWED``."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}'")
        return ALLOWED[module, name]


def _load(file, **options):
    return _AllowListUnpickler(file, **options).load()


# What torch.load takes in place of the module pickle, in every version of torch.
_SAFE_PICKLE = types.SimpleNamespace(
    __name__="allow_list", Unpickler=_AllowListUnpickler, load=_load, UnpicklingError=pickle.UnpicklingError
)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        weights: name -> tensor, in the authors' naming without wrappers' prefixes and nnU-Net's aliases.
        plans: nnU-Net's plan of the one configuration that was trained, or {}.
        dataset: nnU-Net's dataset.json, or {}.
        trainer: nnU-Net's trainer class, or "".
    """

    weights: dict[str, Tensor]
    plans: dict = field(default_factory=dict)
    dataset: dict = field(default_factory=dict)
    trainer: str = ""


@dataclass(frozen=True)
class Imported:
    """A network with its weights, and how to build it again: ``create(name, in_channels, out_channels, **hyper)``."""

    network: nn.Module
    name: str
    in_channels: int
    out_channels: int
    hyper: dict


def read_checkpoint(path, trust: bool = False) -> Checkpoint:
    """Read a ``.safetensors`` file, or a torch pickle with plain weights or in nnU-Net's form.

    Args:
        path: the file.
        trust: the user vouches for a pickle's origin.

    Raises:
        UserError: no file, a pickle without trust, objects that weights do not need, damaged, no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.", "Give the path of a .pth, .pt or .safetensors file.")
    if path.suffix == ".safetensors":
        try:
            return Checkpoint(drop_aliases(named_tensors(load_file(path), path.name)))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path.name} is not a readable safetensors file: {error}.", "Get it anew.") from error
    if not trust:
        raise UserError(
            f"{path.name} is a Python pickle, which could run code when it is read.",
            "Say that you trust its origin (trust=True), or ask for a .safetensors file.",
        )
    content = _unpickle(path)
    settings = content.get("init_args", {}) if isinstance(content, dict) else {}
    plans = settings.get("plans") or {}
    if plans:
        plans = _configuration(plans, settings.get("configuration", ""))
    weights = drop_aliases(named_tensors(content, path.name))
    return Checkpoint(weights, plans, settings.get("dataset_json") or {}, str(content.get("trainer_name", "")))


def _unpickle(path: Path):
    try:
        return torch.load(path, map_location="cpu", pickle_module=_SAFE_PICKLE, weights_only=False)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path.name} holds more than weights: {error}.",
            "It was not read. Ask its authors for a .safetensors file, or convert it where you trust it.",
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, OSError, MemoryError) as error:
        raise UserError(f"{path.name} is not a readable checkpoint: {error}.", "Get it anew.") from error


def _configuration(plans: dict, name: str) -> dict:
    """A configuration of nnU-Net's plans with what it inherits, in either dialect's spelling of strides and patch."""
    merged, seen = {}, set()
    while name:
        if name in seen or name not in plans.get("configurations", {}):
            raise UserError(f"The plans do not describe the configuration '{name}'.", "The checkpoint is damaged.")
        seen.add(name)
        merged = {**plans["configurations"][name], **merged}
        name = plans["configurations"][name].get("inherits_from", "")
    if "architecture" in merged:
        merged["strides"] = merged["architecture"]["arch_kwargs"]["strides"]
    elif "pool_op_kernel_sizes" in merged:
        merged["strides"] = merged["pool_op_kernel_sizes"]
    return merged


def import_checkpoint(
    path, name: str = "", in_channels: int = 0, out_channels: int = 0, hyper: dict | None = None, trust: bool = False
) -> Imported:
    """A network with the authors' weights, in evaluation mode.

    Args:
        path: see ``read_checkpoint``.
        name: a variant; empty: recognised by the names of the weights.
        in_channels, out_channels: 0: read from the shapes of the weights (of recognised networks).
        hyper: overrides of what the variant, the shapes and nnU-Net's plan say.
        trust: see ``read_checkpoint``.

    Raises:
        UserError: as ``read_checkpoint``; an unknown network; weights that are missing, left over or do not fit.
    """
    checkpoint = read_checkpoint(path, trust)
    if "SinNorm" in checkpoint.trainer:
        raise UserError(
            f"The trainer {checkpoint.trainer} changes the intensities inside its network.",
            "That transform is not part of this program; choose a checkpoint of another trainer.",
        )
    found = recognise(checkpoint.weights, checkpoint.plans)
    name = name or found.name
    settings = {**(found.hyper if name == found.name else {}), **(hyper or {})}
    channels = (in_channels or found.in_channels, out_channels or found.out_channels)
    unknown = [key for key, value in settings.items() if value is None]
    if not name or not all(channels) or unknown:
        what = ", ".join(unknown) or ("number of channels or classes" if name else "network")
        raise UserError(
            f"The {what} of {Path(path).name} cannot be read from its weights.", "Give it; see 'mambaseg networks'."
        )
    network = create(name, *channels, **settings)
    load_strictly(network, spec(name).rename_upstream_keys(checkpoint.weights), Path(path).name)
    return Imported(network.eval(), name, *channels, settings)
