"""Pictures of the cases that went worst: truth and result side by side, on the slice where they differ most."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from MambaSegLib.corrected_case import UNKNOWN
from MambaSegLib.thumbnail import acquisition_axis, thumbnail
from MambaSegLib.volume import Box, Volume

from .evaluate import mean

COUNT = 6
_SIDE = 200  # pixels; more would make the outlines too thin to see
_MARGIN_MM = 12.0


@dataclass(frozen=True)
class Picture:
    """A case to look at: its rows of the table, and the two pictures as PNG."""

    name: str
    score: float
    rows: list[dict]
    where: str
    truth_png: bytes
    found_png: bytes


class WorstCases:
    """Keeps the `COUNT` cases with the lowest mean Dice that were looked at, worst first."""

    def __init__(self):
        self.pictures: list[Picture] = []

    def look_at(self, case, rows: list[dict], read_image: Callable[[], Volume]) -> None:
        """Draw the case if it belongs to the worst so far.

        Args:
            case: `evaluation.Compared`.
            rows: its measures per structure.
            read_image: gives the image on the truth's grid; asked only when it is drawn.
        """
        score = mean([row["dice"] for row in rows])
        full = len(self.pictures) == COUNT
        if not np.isfinite(score) or (full and score >= self.pictures[-1].score):
            return
        where, truth, found = _drawn(case, read_image())
        self.pictures.append(Picture(case.name, score, rows, where, truth, found))
        self.pictures = sorted(self.pictures, key=lambda picture: picture.score)[:COUNT]


def _drawn(case, image: Volume) -> tuple[str, bytes, bytes]:
    """(which slice, PNG of the truth, PNG of the result)."""
    known = case.truth.array != UNKNOWN
    truth, found = case.truth.array * known, case.found.array * known
    axis = acquisition_axis(image) if image.shape[0] > 1 else 0
    across = tuple(other for other in range(3) if other != axis)
    differs = np.count_nonzero(truth != found, axis=across)
    labelled = np.count_nonzero(truth, axis=across)
    index = int((differs if differs.any() else labelled).argmax())
    box = surroundings(truth.take([index], axis) | found.take([index], axis), axis, image)
    pictures = [png(outlined(image, labels, case.labels, box, axis, index)) for labels in (truth, found)]
    count = image.shape[axis]
    return (f"slice {index + 1} of {count}" if count > 1 else ""), *pictures


def outlined(image: Volume, labels: np.ndarray, structures, box: Box, axis: int, index: int) -> np.ndarray:
    """(rows, columns, 3) uint8: slice `index` across `axis` within the box, with the outlines of the structures."""
    return thumbnail(image.cropped(box), image.with_array(labels).cropped(box), structures, axis, index, _SIDE)


def surroundings(mask: np.ndarray, axis: int, image: Volume) -> Box:
    """All slices across `axis`; within them a box around what is labelled in one of them.

    Args:
        mask: (Z, Y, X), one slice along `axis`.
    """
    box = [slice(0, size) for size in image.shape]
    if image.shape[0] == 1 or not mask.any():
        return tuple(box)
    steps_mm = image.spacing_mm[::-1]
    across = [other for other in range(3) if other != axis]
    there = {other: np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != other))) for other in across}
    longest_mm = max((there[other][-1] - there[other][0]) * steps_mm[other] for other in across)
    # Half of what is seen is surroundings, so that one knows where one is; as much on all sides, or flat structures
    # would be seen in a strip.
    margin_mm = max(_MARGIN_MM, 0.5 * longest_mm)
    for other in across:
        first, last, margin = there[other][0], there[other][-1], margin_mm / steps_mm[other]
        box[other] = slice(max(0, int(first - margin)), min(image.shape[other], int(last + margin) + 1))
    return tuple(box)


def png(pixels: np.ndarray) -> bytes:
    """(rows, columns, 3) uint8 as a PNG file."""
    rows, columns, _ = pixels.shape
    lines = np.zeros((rows, 1 + 3 * columns), np.uint8)  # every line begins with 0: no filter
    lines[:, 1:] = pixels.reshape(rows, -1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
