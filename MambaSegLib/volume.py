"""Volume: voxels together with where they lie in the patient. The one image type that crosses module borders."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from .errors import UserError

Box = tuple[slice, slice, slice]  # a part of a grid: slices along Z, Y, X, with start and stop

_TOWARDS = ("LR", "PA", "SI")  # world axis x, y, z in LPS: letter of the positive and of the negative direction


@dataclass(frozen=True, eq=False)
class Volume:
    """An image in patient space (LPS, millimetres).

    Args:
        array: voxels, (Z, Y, X), or (C, Z, Y, X) for several channels.
        spacing_mm: voxel size along (x, y, z).
        origin_mm: position of the centre of voxel (0, 0, 0).
        direction: (3, 3); column i is the direction in which index axis i (x, y, z) grows. Same rows as SimpleITK's.
        name: what to call it in messages.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: np.ndarray = field(default_factory=lambda: np.eye(3))
    name: str = ""

    def __post_init__(self):
        if self.array.ndim not in (3, 4):
            raise ValueError(f"array must be (Z, Y, X) or (C, Z, Y, X), got shape {self.array.shape}")
        object.__setattr__(self, "spacing_mm", tuple(float(v) for v in self.spacing_mm))
        object.__setattr__(self, "origin_mm", tuple(float(v) for v in self.origin_mm))
        object.__setattr__(self, "direction", np.asarray(self.direction, dtype=float).reshape(3, 3))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (Z, Y, X), without channels."""
        return self.array.shape[-3:]

    @property
    def channels(self) -> np.ndarray:
        """The voxels as (C, Z, Y, X); a view."""
        return self.array if self.array.ndim == 4 else self.array[None]

    @property
    def voxel_volume_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    def world_from_index(self) -> np.ndarray:
        """(4, 4) matrix that takes a voxel index (i, j, k, 1), i along x, to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    def index_from_world(self) -> np.ndarray:
        """(4, 4) inverse of `world_from_index`."""
        return np.linalg.inv(self.world_from_index())

    def with_array(self, array: np.ndarray, name: str | None = None) -> Volume:
        """Other voxels on the same grid. Raises ValueError when the grids differ in size."""
        if array.shape[-3:] != self.shape:
            raise ValueError(f"expected {self.shape} voxels, got {array.shape[-3:]}")
        return Volume(array, self.spacing_mm, self.origin_mm, self.direction, self.name if name is None else name)

    def cropped(self, box: tuple[slice, slice, slice]) -> Volume:
        """The part inside `box` (slices along Z, Y, X) at its place in the world; a view."""
        start = [box[2].start, box[1].start, box[0].start, 1]
        origin = (self.world_from_index() @ start)[:3]
        return Volume(self.array[(..., *box)], self.spacing_mm, origin, self.direction, self.name)

    def same_grid(self, other: Volume, tolerance: float = 1e-3) -> bool:
        """True when both have the same voxels in the same places, to `tolerance` of a voxel."""
        if self.shape != other.shape:
            return False
        far = np.array([[0, 0, 0, 1], [*self.shape[::-1], 1]]).T
        apart = np.abs((self.world_from_index() - other.world_from_index()) @ far).max()
        return bool(apart <= tolerance * min(self.spacing_mm) * max(self.shape) ** 0.5)

    def to_sitk(self) -> sitk.Image:
        """A copy as a SimpleITK image; channels become vector components."""
        vector = self.array.ndim == 4
        image = sitk.GetImageFromArray(np.moveaxis(self.array, 0, -1) if vector else self.array, isVector=vector)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction.ravel().tolist())
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image, name: str = "") -> Volume:
        """A copy of a 3-D SimpleITK image; vector components become channels."""
        array = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            array = np.moveaxis(array, -1, 0)
        return cls(array, image.GetSpacing(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)), name)


def axis_code(direction: np.ndarray) -> str:
    """Where the index axes x, y, z point to, to the nearest patient axis: identity is 'LPS', as SimpleITK names it.

    All three axes are assigned together, so an image turned by nearly 45 degrees never names one patient axis twice.
    """
    direction = np.asarray(direction).reshape(3, 3)
    world = max(
        itertools.permutations(range(3)), key=lambda order: sum(abs(direction[w, i]) for i, w in enumerate(order))
    )
    return "".join(_TOWARDS[w][int(direction[w, i] < 0)] for i, w in enumerate(world))


def parse_axis_code(code: str) -> list[tuple[int, int]]:
    """'RAS' -> [(0, -1), (1, -1), (2, 1)]: for each index axis the LPS world axis and the sign."""
    axes = [(w, 1 - 2 * pair.index(letter)) for letter in code for w, pair in enumerate(_TOWARDS) if letter in pair]
    if len(code) != 3 or sorted(w for w, _ in axes) != [0, 1, 2]:
        raise UserError(
            f"An orientation is three letters, one of each pair L/R, P/A, S/I, but '{code}' came.",
            "Write for example RAS or LPS in the model's preprocessing.",
        )
    return axes


def check_slices(volume: Volume) -> None:
    """Raise UserError when the image is a single slice."""
    if min(volume.shape) < 2:
        size = " x ".join(str(n) for n in volume.shape[::-1])
        raise UserError(
            f"A volume of several slices was expected, but {_shown_name(volume)} has {size} voxels.",
            "Choose the whole 3-D series.",
        )


def check_volume(volume: Volume) -> None:
    """Raise UserError when nothing sensible can be computed from the image: NaN, broken geometry."""
    name = _shown_name(volume)
    spacing, direction = np.array(volume.spacing_mm), volume.direction
    if not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise UserError(
            f"A voxel size above zero was expected, but {name} says {_triple(spacing)} mm.",
            "Correct the spacing in the file's header or export the image again.",
        )
    if not np.isfinite(volume.origin_mm).all() or not np.isfinite(direction).all():
        raise UserError(
            f"A position in space was expected, but {name} has an origin or direction that is no number.",
            "Export the image again.",
        )
    if np.abs(direction.T @ direction - np.eye(3)).max() > 1e-3:
        raise UserError(
            f"Axes at right angles were expected, but {name} is sheared (for example by a tilted gantry).",
            "Resample it onto a regular grid first, for example with Slicer's Resample modules.",
        )
    if np.iscomplexobj(volume.array) or volume.array.dtype.kind not in "biuf":
        raise UserError(
            f"Numbers were expected as voxels, but {name} holds {volume.array.dtype}.", "Export a magnitude image."
        )
    # A NaN makes min and max NaN: two passes over the voxels and no copy.
    if volume.array.dtype.kind == "f" and not np.isfinite([volume.array.min(), volume.array.max()]).all():
        raise not_finite(name)


def _shown_name(volume: Volume) -> str:
    return f"'{volume.name}'" if volume.name else "The image"


def not_finite(subject: str) -> UserError:
    """The error for an image with NaN or infinite voxels."""
    return UserError(
        f"Finite intensities were expected, but {subject} contains NaN or infinite voxels.",
        "Replace them (for example by the background value) and save the image again.",
    )


def _triple(values) -> str:
    return " x ".join(f"{v:g}" for v in values)
