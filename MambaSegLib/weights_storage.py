"""Weights in a safetensors file: as float32, as float16, or as float16 with the large ones in 8 bits.

"int8" is for networks that would be too large to ship. Every tensor of at least 65,536 numbers becomes whole numbers
from -127 to 127 and one float32 scale per output channel, its first axis, kept beside it under its name with
``.int8_scale``; an error is at most half a scale. The others (norms, biases, the scan's own) stay float16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import numpy as np  # and only where arrays are: a bundle is opened without it

DTYPES = ("float16", "float32", "int8")
BYTES = {"float16": 2, "float32": 4, "int8": 1}  # of most numbers
_SCALE = ".int8_scale"
_LARGE = 65536
_MAX_HEADER_BYTES = 64 << 20
_TYPES = {"F16": "float16", "F32": "float32", "I8": "int8"}


def save_arrays(path: Path, weights: Mapping, dtype: str) -> None:
    """Write a safetensors file.

    Args:
        weights: name -> array (numpy, or torch on the CPU); those that are no floats are kept as they are.
        dtype: of ``DTYPES``.

    Raises:
        UserError: an unknown dtype; numbers that are not finite in it.
    """
    import numpy as np
    from safetensors.numpy import save_file

    if dtype not in DTYPES:
        raise UserError(
            f"Weights are stored as {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not {dtype!r}.",
            "Set weights.dtype accordingly.",
        )
    arrays = {}
    for name, array in weights.items():
        array = np.asarray(array)
        if not np.issubdtype(array.dtype, np.floating):
            arrays[name] = np.array(array, order="C")
        elif dtype == "int8" and array.ndim > 1 and array.size >= _LARGE:
            arrays[name], arrays[name + _SCALE] = _in_8_bits(_finite(name, array, "float32"))
        else:
            arrays[name] = _finite(name, array, "float16" if dtype == "int8" else dtype)
    save_file(arrays, path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """name -> array, floats as float32, whatever they are stored as.

    Raises:
        SafetensorError: no such file.
    """
    import numpy as np
    from safetensors.numpy import load_file

    stored = load_file(path)
    arrays = {}
    for name, array in stored.items():
        if name.endswith(_SCALE):
            continue
        scale = stored.get(name + _SCALE)
        if scale is not None:
            array = array * _beside(scale, array)
        arrays[name] = array.astype(np.float32, copy=False) if np.issubdtype(array.dtype, np.floating) else array
    return arrays


def dtype_of(path: Path) -> str:
    """The type that most numbers of a safetensors file have; reads its header only.

    Raises:
        UserError: not such a file, or of other types.
    """
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _MAX_HEADER_BYTES)))
        count = {}
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in _TYPES:
                dtype = _TYPES[tensor["dtype"]]
                count[dtype] = count.get(dtype, 0) + math.prod(tensor["shape"])
        return max(count, key=count.get)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            "The weights are not a safetensors file with float16, float32 or int8 numbers.", "Give such a file."
        ) from error


def _finite(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    import numpy as np

    with np.errstate(over="ignore"):
        array = np.array(array, dtype, order="C")
    if not np.isfinite(array).all():
        raise UserError(f"The weights {name!r} are not finite as {dtype}.", "Store float32, or look at the training.")
    return array


def _in_8_bits(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(whole numbers, scale per first index)."""
    import numpy as np

    rows = np.abs(array.reshape(len(array), -1)).max(1)
    scale = np.where(rows > 0, rows / 127, 1).astype(np.float32)
    return np.rint(array / _beside(scale, array)).astype(np.int8), scale


def _beside(scale: np.ndarray, array: np.ndarray) -> np.ndarray:
    """The scales in the shape that meets the first axis of the array."""
    return scale.reshape(-1, *[1] * (array.ndim - 1))
