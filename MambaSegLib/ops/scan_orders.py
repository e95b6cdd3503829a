"""Orders in which a scan visits the voxels of a grid, each with its exact inverse.

A grid (D, H, W), or (H, W), is stored with its last axis fastest: flat position n = (d * H + h) * W + w. An order is a
permutation pi with ``sequence[t] = flat[pi[t]]``; its inverse q has ``q[pi[t]] = t``, so ``flat[n] = sequence[q[n]]``.

Names (MM-UNet's MetaScan, arXiv 2503.17540, plus SegMamba's inter-slice order, which is HWD):
    any permutation of the axis letters, slowest first (``DHW`` is raster order, ``HW`` in 2-D);
    ``snake``   raster with every second row and plane reversed, so that every step is one voxel;
    ``morton``  z-order, any grid size;
    a leading ``-`` visits the same positions from the end.
"""

import functools

import torch
from torch import Tensor

LETTERS = "DHW"

SETS = {  # MM-UNet table 1 and the sets of its relatives
    "uni": ("DHW",),
    "bi": ("DHW", "-DHW"),
    "segmamba": ("DHW", "-DHW", "HWD"),
    "tri": ("DHW", "HWD", "WDH"),
    "bi2": ("DHW", "-DHW", "HWD", "-HWD"),
    "bi3": ("DHW", "-DHW", "HWD", "-HWD", "WDH", "-WDH"),
    "snake": ("snake",),
    "bisnake": ("snake", "-snake"),
    "morton": ("morton",),
    "bimorton": ("morton", "-morton"),
}


def order_set(name: str, dims: int) -> tuple[str, ...]:
    """The orders of a named set for grids of 2 or 3 axes; in 2-D without the letter D, and each order once."""
    if name not in SETS:
        raise ValueError(f"expected a set of scan orders out of {sorted(SETS)}, got {name!r}")
    if dims == 3:
        return SETS[name]
    flat = [order if order.lstrip("-") in ("snake", "morton") else order.replace("D", "") for order in SETS[name]]
    return tuple(dict.fromkeys(flat))


@functools.lru_cache(maxsize=256)
def scan_order(name: str, shape: tuple[int, ...]) -> Tensor:
    """The permutation pi of an order.

    Args:
        name: see the module.
        shape: (D, H, W) or (H, W).

    Returns:
        (L,) int64, L the number of voxels. Shared: do not change it.

    Raises:
        ValueError: unknown name, or one of other dimensions than the grid.
    """
    if name.startswith("-"):
        return scan_order(name[1:], shape).flip(0)
    if name == "snake":
        return _snake(shape)
    if name == "morton":
        return _morton(shape)
    letters = LETTERS[-len(shape) :]
    if sorted(name) != sorted(letters):
        raise ValueError(f"expected a permutation of {letters}, snake, morton, or '-' and one of them, got {name!r}")
    positions = torch.arange(_size(shape)).view(shape)
    return positions.permute([letters.index(letter) for letter in name]).reshape(-1)


@functools.lru_cache(maxsize=256)
def inverse_order(name: str, shape: tuple[int, ...]) -> Tensor:
    """The inverse q of ``scan_order(name, shape)``: (L,) int64. Shared: do not change it."""
    order = scan_order(name, shape)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel())
    return inverse


def _size(shape) -> int:
    return int(torch.tensor(shape).prod())


def _snake(shape) -> Tensor:
    """Reverse every second visited slice along each axis, the slowest axis first, then flatten."""
    positions = torch.arange(_size(shape)).view(shape)
    for axis in range(1, len(shape)):
        rows = positions.flatten(0, axis - 1)  # lines along `axis`, in the order in which they are visited
        rows[1::2] = rows[1::2].flip(1)
        positions = rows.view(shape)
    return positions.reshape(-1)


def _morton(shape) -> Tensor:
    """Sort by the interleaved bits of the coordinates, the slowest axis highest."""
    bits = max(int(n - 1).bit_length() for n in shape)
    coordinates = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    code = torch.zeros(shape, dtype=torch.int64)
    for bit in range(bits):
        for place, axis in enumerate(coordinates):
            shift = bit * len(shape) + len(shape) - 1 - place
            code |= ((axis >> bit) & 1) << shift
    return torch.argsort(code.reshape(-1), stable=True)
