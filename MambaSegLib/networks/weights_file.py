"""What a file with weights holds, read without running anything in it.

A ``.pth`` file is a pickle, and a pickle is a program. Ours is run with a list of the few harmless things that weights
and nnU-Net's logs are made of (tensors, numpy numbers and arrays of numpy 1 and 2); any other name in it ends the
reading. This is the only place of the program that unpickles.
"""

import _codecs
import collections
import pickle
import types
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import UserError

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
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}', which could run code")
        return ALLOWED[module, name]


def _load(file, **options):
    return _AllowListUnpickler(file, **options).load()


# What torch.load takes in place of the module pickle, in every version of torch.
_SAFE_PICKLE = types.SimpleNamespace(
    __name__="allow_list", Unpickler=_AllowListUnpickler, load=_load, UnpicklingError=pickle.UnpicklingError
)


def is_pickle(path) -> bool:
    """Whether the file is anything but safetensors."""
    return Path(path).suffix != ".safetensors"


def read_file(path):
    """The content of a ``.safetensors`` file or a torch pickle: a dictionary of tensors, or what holds one.

    Raises:
        UserError: no such file, unreadable, or holding other things than weights, numbers and text.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no weights file {path}.", "Give the path of a .safetensors, .pth or .pt file.")
    try:
        if not is_pickle(path):
            return load_file(path)
        return torch.load(path, map_location="cpu", pickle_module=_SAFE_PICKLE, weights_only=False)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path.name} holds more than weights: {error}.",
            "It was not read. Ask its authors for a .safetensors file, or convert it where you trust it.",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError, OSError, MemoryError) as error:
        raise UserError(f"{path.name} is not a readable weights file: {error}.", "Get it anew.") from error
