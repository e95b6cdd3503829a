"""Two exactly invertible steps between grids: turning the axes, and changing the voxel size axis by axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from .volume import Box, axis_code, parse_axis_code

_SAME_SPACING = 1e-3  # relative; below it an axis is left alone, bit by bit


@dataclass(frozen=True)
class Reorientation:
    """Permutation and flips of the index axes that bring an image nearest to an axis code.

    Index arithmetic only: an oblique image stays exactly as oblique as it is.

    Args:
        source: for each new index axis (x, y, z) the old one.
        flipped: for each new index axis (x, y, z) whether it runs backwards.
    """

    source: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def between(cls, direction: np.ndarray, code: str) -> Reorientation:
        """From an image with this (3, 3) direction to the orientation `code`, such as 'RAS'."""
        have, want = parse_axis_code(axis_code(direction)), parse_axis_code(code)
        worlds = [world for world, _ in have]
        source = tuple(worlds.index(world) for world, _ in want)
        return cls(source, tuple(sign != have[old][1] for (_, sign), old in zip(want, source, strict=True)))

    def with_first(self, axis: int) -> Reorientation:
        """The same, and then this axis of (Z', Y', X') before the others, which keep their order."""
        order = [axis, *(other for other in range(3) if other != axis)]  # of Z', Y', X'
        order = [2 - old for old in reversed(order)]  # of x', y', z'
        return Reorientation(tuple(self.source[i] for i in order), tuple(self.flipped[i] for i in order))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """(..., Z, Y, X) -> (..., Z', Y', X'); a view."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self._array_axes()))
        return turned[(..., *self._steps())]

    def undo(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `apply`; a view."""
        lead = array.ndim - 3
        back = np.argsort(self._array_axes())
        return array[(..., *self._steps())].transpose(*range(lead), *(lead + int(axis) for axis in back))

    def apply_to_box(self, box: Box, shape: tuple[int, int, int]) -> Box:
        """Where a box of an array of this (Z, Y, X) shape lies after `apply`."""
        turned = []
        for axis, old in enumerate(self._array_axes()):
            part, n = box[old], shape[old]
            turned.append(slice(n - part.stop, n - part.start) if self.flipped[2 - axis] else part)
        return tuple(turned)

    def _array_axes(self) -> list[int]:
        return [2 - self.source[2 - axis] for axis in range(3)]

    def _steps(self) -> list[slice]:
        return [slice(None, None, -1 if self.flipped[2 - axis] else None) for axis in range(3)]


@dataclass(frozen=True)
class Resampling:
    """Change of the voxel size; both grids share their centre.

    Linear, separable. Going to larger voxels the weights widen with the ratio (a triangle filter), so that every voxel
    of the finer grid counts and noise does not alias; going to smaller ones it is plain linear interpolation. Beyond
    the outermost voxel centres the value of the edge continues.

    Args:
        shape_from, shape_to: (Z, Y, X) voxels of both grids.
        ratio: new voxel size over old one, along (Z, Y, X).
    """

    shape_from: tuple[int, int, int]
    shape_to: tuple[int, int, int]
    ratio: tuple[float, float, float]

    @classmethod
    def between(cls, shape, spacing_mm, wanted_mm) -> Resampling:
        """From (Z, Y, X) voxels of `spacing_mm` (x, y, z) to voxels of `wanted_mm` (x, y, z)."""
        ratio = [float(w) / float(s) for w, s in zip(wanted_mm, spacing_mm, strict=True)][::-1]
        ratio = tuple(1.0 if abs(r - 1) < _SAME_SPACING else r for r in ratio)
        new = tuple(n if r == 1 else max(1, round(n / r)) for n, r in zip(shape, ratio, strict=True))
        return cls(tuple(shape), new, ratio)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """(..., Z, Y, X) float32 -> (..., Z', Y', X') float32; the very same array where no axis changes."""
        for axis, (n, m, ratio) in enumerate(zip(self.shape_from, self.shape_to, self.ratio, strict=True)):
            if ratio != 1:
                array = _along(array, axis - 3, _weights(n, m, ratio))
        return array

    def undo_part(self, array: np.ndarray, source: Box, wanted: Box) -> tuple[np.ndarray, Box] | None:
        """The way back, only where it matters: voxels of `wanted` (old grid) that draw on `source` (new grid).

        Args:
            array: (Z', Y', X') on the new grid.

        Returns:
            The values (z, y, x) float32, the same as in a complete way back, and their box on the old grid, slices
            along (Z, Y, X); None when nothing in `wanted` draws on `source`.
        """
        where = []
        for axis, (n, m, ratio) in enumerate(zip(self.shape_from, self.shape_to, self.ratio, strict=True)):
            weights = None if ratio == 1 else _weights(m, n, 1 / ratio)
            rows = source[axis] if ratio == 1 else _span(np.diff(weights[:, source[axis]].tocsr().indptr))
            rows = slice(max(rows.start, wanted[axis].start), min(rows.stop, wanted[axis].stop))
            if rows.start >= rows.stop:
                return None
            where.append(rows)
            lead = (slice(None),) * axis
            if ratio == 1:
                array = array[(*lead, rows)]
                continue
            drawn = weights[rows].indices
            columns = slice(int(drawn.min()), int(drawn.max()) + 1)
            array = _along(array[(*lead, columns)], axis - 3, weights[rows, columns])
        return array, tuple(where)

    def apply_to_labels(self, labels: np.ndarray) -> np.ndarray:
        """(Z, Y, X) label map -> (Z', Y', X'): the label with the largest share of each new voxel.

        Picking the nearest voxel instead would shift structures by half an old voxel at whole-number ratios.
        """
        if all(ratio == 1 for ratio in self.ratio):
            return labels
        result = np.zeros(self.shape_to, labels.dtype)
        best = np.zeros(self.shape_to, np.float32)
        for value in np.unique(labels):
            share = self.apply((labels == value).astype(np.float32))
            larger = share > best
            result[larger] = value
            best[larger] = share[larger]
        return result


def _centres(n: int, m: int, ratio: float) -> np.ndarray:
    """Centres of m voxels, `ratio` old voxels wide, in old index units, with the middles of both rows together."""
    return (np.arange(m) - (m - 1) / 2) * ratio + (n - 1) / 2


def _weights(n: int, m: int, ratio: float) -> csr_matrix:
    """(m, n) matrix of linear interpolation, rows summing to 1."""
    radius = max(1.0, ratio)
    centres = _centres(n, m, ratio)
    reach = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 1)
    columns = np.rint(centres)[:, None].astype(int) + reach
    values = np.clip(1 - np.abs(columns - centres[:, None]) / radius, 0, None)
    rows = np.broadcast_to(np.arange(m)[:, None], columns.shape)
    matrix = csr_matrix((values.ravel(), (rows.ravel(), np.clip(columns, 0, n - 1).ravel())), shape=(m, n))
    matrix.eliminate_zeros()
    return csr_matrix(matrix.multiply(1 / matrix.sum(axis=1))).astype(np.float32)


def _span(flags: np.ndarray) -> slice:
    """From the first to the last element that is not zero; empty when all are."""
    hit = np.flatnonzero(flags)
    return slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0)


def box_above(array: np.ndarray, threshold: float) -> Box:
    """The smallest box, slices along (Z, Y, X), around the voxels of at least `threshold`; empty without any."""
    over_x = array.max(axis=2)
    reach = over_x.max(axis=1), over_x.max(axis=0), array.max(axis=(0, 1))
    return tuple(_span(values >= threshold) for values in reach)


def _along(array: np.ndarray, axis: int, weights: csr_matrix) -> np.ndarray:
    moved = np.moveaxis(array, axis, 0)
    result = weights @ np.ascontiguousarray(moved, dtype=np.float32).reshape(moved.shape[0], -1)
    return np.moveaxis(result.reshape(-1, *moved.shape[1:]), 0, axis)
