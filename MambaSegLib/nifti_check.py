"""What ITK's NIfTI reader passes over in silence: missing data and NaN become 0, a missing voxel size 1 mm."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .errors import UserError
from .volume import not_finite

_HEADER_BYTES, _HEADER_BYTES_NIFTI2 = 348, 540
_FLOATS = {16: "f4", 64: "f8"}  # NIfTI datatype code -> numpy's
_BLOCK_BYTES = 1 << 22


class _Layout(NamedTuple):
    start: int  # offset of the voxels
    size: int  # bytes of voxels
    dtype: str | None  # of floating voxels


def check_nifti(path: Path) -> None:
    """Read a .nii or .nii.gz once through, checksum included. Raises UserError when it would be misread."""
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            layout = _layout(file.read(_HEADER_BYTES), path.name)
            file.read(layout.start - _HEADER_BYTES)
            complete = _check_voxels(file, layout, path.name)
    except PermissionError as error:
        raise UserError(f"'{path}' may not be read.", "Ask for the right to read it.") from error
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise damaged(path.name) from error
    if not complete:
        raise damaged(path.name)


def damaged(name: str) -> UserError:
    return UserError(
        f"An image was expected, but '{name}' is damaged, incomplete or not what its name says.",
        "Copy or export it again and check that other programs open it.",
    )


def no_voxel_size(name: str) -> UserError:
    return UserError(
        f"A voxel size above zero was expected, but '{name}' has a spacing of 0 mm.",
        "Correct the spacing in the file's header or export the image again.",
    )


def _layout(header: bytes, name: str) -> _Layout:
    order = next((o for o in "<>" if struct.unpack_from(o + "i", header)[0] == _HEADER_BYTES), None)
    if order is None:
        if _HEADER_BYTES_NIFTI2 in (struct.unpack_from(o + "i", header)[0] for o in "<>"):
            raise UserError(f"A NIfTI-1 file was expected, but '{name}' is NIfTI-2.", "Save it as .nrrd or NIfTI-1.")
        raise damaged(name)
    dim = struct.unpack_from(order + "8h", header, 40)
    datatype, bits = struct.unpack_from(order + "2h", header, 70)
    spacing = struct.unpack_from(order + "3f", header, 80)
    (start,) = struct.unpack_from(order + "f", header, 108)
    axes = max(0, min(7, dim[0]))
    size = math.prod(max(1, n) for n in dim[1 : 1 + axes]) * bits // 8
    dtype = order + _FLOATS[datatype] if datatype in _FLOATS else None
    if not all(math.isfinite(v) and v for v in spacing[: min(3, axes)]):
        raise no_voxel_size(name)
    return _Layout(max(_HEADER_BYTES, int(start)), size, dtype)


def _check_voxels(file: BinaryIO, layout: _Layout, name: str) -> bool:
    """Whether all voxels are there; to the end of the file, where gzip's checksum stands."""
    left, whole = layout.size, np.dtype(layout.dtype).itemsize
    while block := file.read(_BLOCK_BYTES):
        voxels = memoryview(block)[: max(0, left)]
        left -= len(block)
        if layout.dtype and voxels:
            values = np.frombuffer(voxels[: len(voxels) // whole * whole], layout.dtype)
            if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
                raise not_finite(f"'{name}'")
    return left <= 0
