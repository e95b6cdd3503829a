"""Region of interest: where in the patient structures may be labelled. A box in LPS millimetres, or a mask image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .errors import UserError
from .volume import Box, Volume

# A voxel belongs to a region when its centre does; this much (mm or voxels) forgives a bound exactly on a centre.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Roi:
    """Either `bounds_mm` (xmin, xmax, ymin, ymax, zmin, zmax) in LPS, or `mask` (voxels above 0 belong to it).

    `system` is "LPS" or "RAS": that in which the user thinks, hence that of the errors.
    """

    bounds_mm: tuple[float, ...] | None = None
    mask: Volume | None = None
    system: str = "LPS"

    @classmethod
    def from_bounds_mm(cls, *bounds: float, system: str = "LPS") -> Roi:
        """A box along the patient's axes: xmin, xmax, ymin, ymax, zmin, zmax in mm of the `system`, LPS or RAS.

        Raises UserError when it has no extent.
        """
        bounds = tuple(float(v) for v in bounds)
        text = " ".join(f"{v:g}" for v in bounds)
        if not np.isfinite(bounds).all() or not all(
            low < high for low, high in zip(bounds[::2], bounds[1::2], strict=True)
        ):
            raise UserError(
                f"A region of interest with minimum below maximum on each axis was expected, but '{text}' came.",
                f"Give xmin xmax ymin ymax zmin zmax in {system} millimetres.",
            )
        return cls(bounds_mm=bounds if system == "LPS" else _other_system(bounds), system=system)

    @classmethod
    def from_mask(cls, mask: Volume) -> Roi:
        """The voxels above 0 of an image, on whatever grid. Raises UserError when there are none."""
        if not (mask.array > 0).any():
            raise UserError(
                f"A region of interest with marked voxels was expected, but the mask '{mask.name}' is empty.",
                "Mark the region in it.",
            )
        return cls(mask=mask)

    def locate(self, volume: Volume) -> tuple[Box, np.ndarray | None]:
        """The region on the grid of `volume`.

        Returns:
            box: the smallest box of voxels, slices along (Z, Y, X), that holds the region.
            inside: bool, (Z, Y, X) of the box; None when the region fills the box.

        Raises:
            UserError: the region holds no voxel centre of `volume`.
        """
        if self.mask is None:
            box = _clip(_box_of_corners(_corners(self.bounds_mm), volume), volume)
            inside = None if box is None else self._inside_bounds(volume.cropped(box))
        else:
            box, inside = self._sample_mask(volume)
        if box is None or not inside.any():
            raise UserError(
                f"A region of interest inside the image was expected, but it lies outside: {self._where()}, while the "
                f"image covers {self._text(_bounds_of(volume))} mm ({self.system}).",
                "Move the region onto the image; mind that LPS has the opposite x and y signs of RAS.",
            )
        return _shrink(box, inside)

    def _where(self) -> str:
        bounds = self.bounds_mm if self.mask is None else _bounds_of(self.mask)
        text = f"{self._text(bounds)} mm"
        return text if self.mask is None else f"the mask '{self.mask.name}' covers {text}"

    def _text(self, bounds_mm) -> str:
        """Bounds (LPS) as the user would write them."""
        bounds_mm = bounds_mm if self.system == "LPS" else _other_system(bounds_mm)
        return " ".join(f"{v:.1f}" for v in bounds_mm)

    def _inside_bounds(self, part: Volume) -> np.ndarray:
        matrix = part.world_from_index()
        axes = [np.arange(n) for n in part.shape]
        inside = np.ones(part.shape, bool)
        for world, (low, high) in enumerate(zip(self.bounds_mm[::2], self.bounds_mm[1::2], strict=True)):
            x, y, z = (matrix[world, i] * axes[2 - i] for i in range(3))
            place = z[:, None, None] + y[:, None] + (x + matrix[world, 3])
            inside &= (place >= low - _ROUNDING) & (place <= high + _ROUNDING)
        return inside

    def _sample_mask(self, volume: Volume) -> tuple[Box | None, np.ndarray | None]:
        own = _shrink(_whole(self.mask), self.mask.array > 0)[0]
        part = self.mask.cropped(own)
        if self.mask.same_grid(volume):
            return own, part.array > 0
        box = _clip(_box_of_corners(_corners_of(part), volume), volume)
        if box is None:
            return None, None
        source = part.with_array((part.array > 0).astype(np.uint8)).to_sitk()
        grid = volume.cropped(box)
        sampled = sitk.Resample(
            source, grid.shape[::-1], sitk.Transform(), sitk.sitkNearestNeighbor, grid.origin_mm, grid.spacing_mm,
            grid.direction.ravel().tolist(), 0, sitk.sitkUInt8,
        )  # fmt: skip
        return box, sitk.GetArrayFromImage(sampled) > 0


def _other_system(bounds) -> tuple[float, ...]:
    """LPS bounds as RAS ones, and the other way round."""
    x0, x1, y0, y1, z0, z1 = bounds
    return -x1, -x0, -y1, -y0, z0, z1


def _whole(volume: Volume) -> Box:
    return tuple(slice(0, n) for n in volume.shape)


def _corners(bounds) -> np.ndarray:
    """(3, 8) corners of (xmin, xmax, ymin, ymax, zmin, zmax)."""
    return np.array(np.meshgrid(bounds[0:2], bounds[2:4], bounds[4:6])).reshape(3, -1)


def _corners_of(volume: Volume) -> np.ndarray:
    """(3, 8) outer corners of the voxels in LPS mm."""
    last = [n - 0.5 for n in volume.shape[::-1]]
    index = _corners([-0.5, last[0], -0.5, last[1], -0.5, last[2]])
    matrix = volume.world_from_index()
    return matrix[:3, :3] @ index + matrix[:3, 3:]


def _bounds_of(volume: Volume) -> np.ndarray:
    corners = _corners_of(volume)
    return np.stack([corners.min(1), corners.max(1)], axis=1).ravel()


def _box_of_corners(corners: np.ndarray, volume: Volume) -> Box:
    matrix = volume.index_from_world()
    index = matrix[:3, :3] @ corners + matrix[:3, 3:]
    low, high = np.ceil(index.min(1) - _ROUNDING), np.floor(index.max(1) + _ROUNDING)
    return tuple(slice(int(low[a]), int(high[a]) + 1) for a in (2, 1, 0))


def _clip(box: Box, volume: Volume) -> Box | None:
    clipped = tuple(slice(max(0, s.start), min(n, s.stop)) for s, n in zip(box, volume.shape, strict=True))
    return clipped if all(s.start < s.stop for s in clipped) else None


def _shrink(box: Box, inside: np.ndarray) -> tuple[Box, np.ndarray | None]:
    """The tight box around the True voxels of `inside`, and `inside` within it (None when it is all True)."""
    tight = []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        tight.append(slice(int(hit[0]), int(hit[-1]) + 1))
    inside = inside[tuple(tight)]
    box = tuple(slice(b.start + t.start, b.start + t.stop) for b, t in zip(box, tight, strict=True))
    return box, None if inside.all() else inside
