"""From an image in the patient to the array a network was trained on, and its answer exactly back again.

Steps: crop to the region of interest with real surroundings, turn the axes, normalise, resample, pad. `Prepared`
holds the inverse of each. Torch-free; only the crop is ever copied, never the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .normalisation import normalise
from .regrid import Reorientation, Resampling, box_above
from .roi import Roi
from .volume import Box, Volume, axis_code

__all__ = ["Grid", "Prepared", "Roi", "TwoBest", "grid_of", "patch_of", "prepare", "recipe_of"]

_NEGLIGIBLE = 0.02  # probability


def recipe_of(bundle) -> dict:
    """The preprocessing and inference recipes of a `bundle.ModelBundle` as the one dict that `prepare` takes."""
    return {**bundle.preprocessing, **bundle.inference}


def patch_of(recipe: dict) -> tuple[int, int, int]:
    """The window (Z, Y, X) that a network sees at once; one slice thick for a 2-D one, 1 x 1 x 1 when not stated."""
    patch = tuple(recipe.get("patch") or ())
    return (1,) * (3 - len(patch)) + patch


@dataclass(frozen=True, eq=False)
class TwoBest:
    """The two most probable classes of every voxel of an image, (Z, Y, X): their indices, and how far they are apart.

    Args:
        winner, runner_up: class indices; both 0 outside the region of interest.
        margin: float32, probability of the winner minus that of the runner-up; 1 outside the region of interest.
    """

    winner: np.ndarray
    runner_up: np.ndarray
    margin: np.ndarray


@dataclass(frozen=True, eq=False)
class Grid:
    """The network's grid for an image, and the way back to the image's own.

    Args:
        shape: (Z, Y, X) voxels of the input image.
        crop: which part of the input image the network sees.
        region, inside: where labels may be set, as `Roi.locate` says.
        turn, resampling: from the crop to the network's axes and voxel size.
        pad: ((before, after), ...) along (Z, Y, X).
    """

    shape: tuple[int, int, int]
    crop: Box
    region: Box
    inside: np.ndarray | None
    turn: Reorientation
    resampling: Resampling
    pad: tuple[tuple[int, int], ...]

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """(Z, Y, X) voxels of what the network sees, padding included."""
        return tuple(n + sum(pad) for n, pad in zip(self.resampling.shape_to, self.pad, strict=True))

    def spacing_mm(self, volume: Volume) -> tuple[float, float, float]:
        """Voxel size of the network's grid for `volume`, along the network's (x, y, z)."""
        own = [volume.spacing_mm[axis] for axis in self.turn.source]
        return tuple(s * r for s, r in zip(own, self.resampling.ratio[::-1], strict=True))

    def labels_like(self, labels: Volume) -> np.ndarray:
        """A label map of the same image on the network's grid, (Z, Y, X); 0 in the padding."""
        if labels.shape != self.shape:
            raise ValueError(f"expected labels of {self.shape} voxels, got {labels.shape}")
        on_grid = self.resampling.apply_to_labels(self.turn.apply(labels.array[self.crop]))
        return np.pad(on_grid, self.pad)

    def restore_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """The most probable class of every voxel of the input image.

        Class by class, and each one only where it can win: of K probabilities that sum to 1 the largest is at least
        1 / K, and interpolation keeps both facts. So time and memory stay near those of a few classes.

        Args:
            probabilities: (K, Z, Y, X) on the network's grid, summing to 1 over K; class 0 is background.

        Returns:
            (Z, Y, X) uint8 (uint16 from 256 classes on); 0 outside the region of interest.
        """
        region = self._turned_region()
        best = np.zeros([part.stop - part.start for part in region], np.float32)
        winner = np.zeros(best.shape, np.min_scalar_type(len(probabilities) - 1))
        for index, values, place in self._restored(probabilities, 0.999 / len(probabilities)):
            better = values > best[place]
            winner[place][better] = index
            np.maximum(best[place], values, out=best[place])
        return self._on_input_grid(winner, 0, winner.dtype)

    def restore_two_best(self, probabilities: np.ndarray) -> TwoBest:
        """The two most probable classes of every voxel of the input image; arguments as in `restore_labels`.

        What is less probable than `_NEGLIGIBLE` is looked for no further than in the surroundings of what is not.
        """
        size = [part.stop - part.start for part in self._turned_region()]
        first, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
        winner = np.zeros(size, np.min_scalar_type(len(probabilities) - 1))
        runner_up = np.zeros_like(winner)
        for index, values, place in self._restored(probabilities, min(_NEGLIGIBLE, 0.999 / len(probabilities))):
            best, next_best = first[place], second[place]  # views, as all below
            wins = values > best
            follows = ~wins & (values > next_best)
            runner_up[place][wins] = winner[place][wins]
            next_best[wins] = best[wins]
            winner[place][wins] = index
            best[wins] = values[wins]
            runner_up[place][follows] = index
            next_best[follows] = values[follows]
        back = [self._on_input_grid(array, 0, array.dtype) for array in (winner, runner_up)]
        return TwoBest(*back, self._on_input_grid(first - second, 1, np.float32))

    def _restored(self, probabilities: np.ndarray, least: float):
        """(index, values, place) of each class that reaches `least`: `place` is the box of the turned region, slices
        along (Z, Y, X), that `values` fill."""
        region = self._turned_region()
        for index, channel in enumerate(probabilities):
            source = self._without_padding(channel)
            restored = self.resampling.undo_part(source, box_above(source, least), region)
            if restored is not None:
                values, place = restored
                yield (
                    index,
                    values,
                    tuple(slice(p.start - r.start, p.stop - r.start) for p, r in zip(place, region, strict=True)),
                )

    def restore_part(self, array: np.ndarray, box: Box) -> np.ndarray:
        """(M, Z, Y, X) on the network's grid -> (M, z, y, x) float32 on a box of the input image inside `region`."""
        inner = tuple(slice(b.start - c.start, b.stop - c.start) for b, c in zip(box, self.crop, strict=True))
        turned = self.turn.apply_to_box(inner, tuple(c.stop - c.start for c in self.crop))
        everywhere = tuple(slice(0, n) for n in self.resampling.shape_to)
        part = np.empty((len(array), *(b.stop - b.start for b in box)), np.float32)
        for index, channel in enumerate(array):
            values, _ = self.resampling.undo_part(self._without_padding(channel), everywhere, turned)
            part[index] = self.turn.undo(values)
        return part

    def restore_probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """(K, Z, Y, X) on the network's grid -> (K, Z, Y, X) float32 on the input image; background outside."""
        everywhere = tuple(slice(0, n) for n in self.resampling.shape_to)
        full = np.empty((len(probabilities), *self.shape), np.float32)
        for index, channel in enumerate(probabilities):
            source = self._without_padding(channel)
            values, _ = self.resampling.undo_part(source, everywhere, self._turned_region())
            full[index] = self._on_input_grid(values, float(index == 0), np.float32)
        return full

    def _without_padding(self, array: np.ndarray) -> np.ndarray:
        return array[tuple(slice(before, n - after) for (before, after), n in zip(self.pad, array.shape, strict=True))]

    def _turned_region(self) -> Box:
        """The region as a box of the turned crop."""
        box = tuple(slice(r.start - c.start, r.stop - c.start) for r, c in zip(self.region, self.crop, strict=True))
        return self.turn.apply_to_box(box, tuple(c.stop - c.start for c in self.crop))

    def _on_input_grid(self, values: np.ndarray, outside: float, dtype) -> np.ndarray:
        """Turned values of the region -> the whole input image, with `outside` around the region."""
        full = np.full(self.shape, outside, dtype)
        values = self.turn.undo(values)
        full[self.region] = values if self.inside is None else np.where(self.inside, values, outside)
        return full


@dataclass(frozen=True, eq=False)
class Prepared(Grid):
    """An image on the network's grid: `array`, (C, Z, Y, X) float32, is what the network sees."""

    array: np.ndarray


def prepare(volume: Volume, recipe: dict, roi: Roi | None = None) -> Prepared:
    """Bring an image onto the network's grid.

    Args:
        volume: the input image, scalar or several channels.
        recipe: "orientation" (None: the axes as they were acquired), "spacing_mm" (x, y, z; None for an axis that
            keeps its own), "normalisation" as in `normalisation`. Optional: "size" (x, y, z; voxels that the whole
            image shall have along an axis, whatever its spacing; None: by spacing); "slice_axis" (of Z, Y, X after
            turning: becomes the network's first, along which slices are counted; spacing, size and patch mean the axes
            after that); "neighbours" (slices on either side that become channels); "patch" ((z,) y, x), up to which
            surroundings are taken in and then mirrored; "margin_mm", the surroundings of a region of interest.
        roi: where labels are wanted; None is everywhere. Intensities are normalised over its bounding box (networks
            learn on boxes), so what lies around it does not matter.

    Raises:
        UserError: the region holds no voxel of the image, or the image is constant there.
    """
    grid = grid_of(volume, recipe, roi)
    channels = normalise(volume.channels, grid.region, grid.crop, recipe["normalisation"])
    array = _mirror_pad(grid.resampling.apply(grid.turn.apply(channels)), grid.pad)
    array = _with_neighbours(array, recipe.get("neighbours", 0))
    return Prepared(**vars(grid), array=np.ascontiguousarray(array, dtype=np.float32))


def grid_of(volume: Volume, recipe: dict, roi: Roi | None = None) -> Grid:
    """The network's grid for an image, from its geometry alone; arguments and errors as in `prepare`."""
    whole = tuple(slice(0, n) for n in volume.shape)
    region, inside = (whole, None) if roi is None else roi.locate(volume)
    turn = Reorientation.between(volume.direction, recipe["orientation"] or axis_code(volume.direction))
    turn = turn.with_first(recipe.get("slice_axis", 0))
    wanted = _voxel_size_mm(volume, turn, recipe)
    patch = patch_of(recipe)

    # Half a voxel less than the patch: the voxel count is rounded, and one too many would cost a second window.
    patch_mm = wanted * (np.array(patch[::-1]) - 0.5)
    crop = _with_surroundings(region, volume, turn, patch_mm, float(recipe.get("margin_mm", 0)))
    spacing = [volume.spacing_mm[axis] for axis in turn.source]
    turned = [crop[2 - axis].stop - crop[2 - axis].start for axis in turn.source[::-1]]
    resampling = Resampling.between(turned, spacing, wanted)
    lacking = [max(0, p - n) for p, n in zip(patch, resampling.shape_to, strict=True)]
    return Grid(volume.shape, crop, region, inside, turn, resampling, tuple((n // 2, n - n // 2) for n in lacking))


def _voxel_size_mm(volume: Volume, turn: Reorientation, recipe: dict) -> np.ndarray:
    """Of the network's grid along its own (x, y, z)."""
    sizes = recipe.get("size") or (None,) * 3
    wanted = []
    for old, spacing, size in zip(turn.source, recipe["spacing_mm"], sizes, strict=True):
        own = volume.spacing_mm[old]
        wanted.append(own * volume.shape[2 - old] / size if size else spacing or own)
    return np.array(wanted, float)


def _with_surroundings(region: Box, volume: Volume, turn: Reorientation, patch_mm: np.ndarray, margin_mm: float) -> Box:
    """`region` grown by the margin, then up to the patch, as far as there is image; `patch_mm` on the turned axes."""
    box = []
    for axis, (part, n) in enumerate(zip(region, volume.shape, strict=True)):
        spacing = volume.spacing_mm[2 - axis]
        margin = int(np.ceil(margin_mm / spacing - 1e-6))
        low, high = max(0, part.start - margin), min(n, part.stop + margin)
        needed = int(np.ceil(patch_mm[turn.source.index(2 - axis)] / spacing - 1e-6))
        if high - low < needed:
            low = max(0, min(low - (needed - (high - low)) // 2, n - needed))
            high = min(n, low + needed)
        box.append(slice(low, high))
    return tuple(box)


def _mirror_pad(array: np.ndarray, pad) -> np.ndarray:
    """(C, Z, Y, X) mirrored outwards: without repeating the edge, except where too little is left to mirror."""
    for axis, width in enumerate(pad, start=1):
        if max(width):
            widths = [(0, 0)] * 4
            widths[axis] = width
            array = np.pad(array, widths, mode="reflect" if max(width) < array.shape[axis] else "symmetric")
    return array


def _with_neighbours(array: np.ndarray, count: int) -> np.ndarray:
    """(C, Z, Y, X) -> ((2 count + 1) C, Z, Y, X): first the slices `count` below, last those `count` above.

    The outermost slice stands for those beyond it.
    """
    if not count:
        return array
    z = np.arange(array.shape[1])
    return np.concatenate([array[:, np.clip(z + n, 0, len(z) - 1)] for n in range(-count, count + 1)])
