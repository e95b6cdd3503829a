"""The job "compare": one segmentation of an image in numbers, or how several of them differ, also as an overlay.

Torch-free.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import metrics
from .bundle import Label
from .errors import UserError
from .image import read_labels, read_volume, write_labels
from .job import Report
from .label_file import check_output
from .label_table import from_json, table_of
from .volume import Volume

# What the overlay's numbers say of a voxel.
OVERLAY = (
    Label(1, "Only in the first", (213, 94, 0), {}),
    Label(2, "Only in the second", (0, 114, 178), {}),
    Label(3, "Different structures", (204, 121, 167), {}),
)
_MOMENTS = {"mean": np.mean, "sd": np.std}
Named = tuple[Volume, Sequence[Label]]  # labels, and what their numbers mean


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "segmentations" (files on one grid); optional "image" (file on that grid, of one channel), "names" (one
            per file), "structures" (one table [{value, name, color, terminology}] per file, or null for the file's
            own), "overlay" (file to write: how the first two differ).
        report, warm: as for every job; nothing is kept warm.

    Returns:
        {rows, overlay}. Of one file: a row {first, structure, first_ml} per structure. Of several: for every pair a row
        {first, second, structure, dice, hd95_mm, assd_mm, first_ml, second_ml, difference_ml} per structure, matched by
        name. With an image also first_mean, first_sd, second_mean, second_sd: its values in the structure.

    Raises:
        UserError: no file, no second one for the overlay, or other grids. Cancelled: by the report.
    """
    paths = [Path(path).expanduser() for path in request["segmentations"]]
    if len(paths) < (2 if request.get("overlay") else 1):
        raise UserError(f"Other segmentations were expected, too, but {len(paths)} came.", "Choose another one too.")
    names = request.get("names") or [path.name for path in paths]
    tables = request.get("structures") or [None] * len(paths)
    overlay = check_output(Path(request["overlay"]).expanduser()) if request.get("overlay") else None
    named: list[Named] = []
    for path, table in zip(paths, tables, strict=True):
        labels = read_labels(path)
        named.append((labels, from_json(table) if table else table_of(path, labels.array)))
    image = read_volume(request["image"]) if request.get("image") else None
    if len(named) == 1:
        rows = [{"first": names[0], **row} for row in measure(named[0], image, report)]
    else:
        rows = _pairs(named, names, image, report)
    if overlay:
        write_labels(overlay, difference(*named[:2]), OVERLAY)
    return {"rows": rows, "overlay": overlay and str(overlay)}


def _pairs(named: list[Named], names: Sequence[str], image: Volume | None, report: Report) -> list[dict]:
    pairs, rows = list(itertools.combinations(range(len(named)), 2)), []
    for done, (i, j) in enumerate(pairs):
        report.progress(done, len(pairs), f"{names[i]} and {names[j]}")
        found = compare(named[i], named[j], image, report)
        rows += [{"first": names[i], "second": names[j], **row} for row in found]
    return rows


def measure(named: Named, image: Volume | None = None, report: Report | None = None) -> list[dict]:
    """A row {structure, first_ml} per structure, with an image also first_mean and first_sd.

    Raises:
        UserError: the image has another grid.
    """
    labels, table = named
    if image:
        _check(labels, image)
    rows = []
    for number, label in enumerate(table):
        if report:
            report.progress(number, len(table), label.name)
        found = _values(labels.array == label.value, labels, image)
        rows.append({"structure": label.name} | {f"first_{name}": value for name, value in found.items()})
    return rows


def compare(first: Named, second: Named, image: Volume | None = None, report: Report | None = None) -> list[dict]:
    """One row per structure that either of the two names; measures that do not exist are NaN.

    Raises:
        UserError: the grids differ.
    """
    _check(first[0], second[0])
    if image:
        _check(first[0], image)
    rows = []
    for name, a, b in _matched(first, second):
        if report:
            report.check_cancelled()
        row = {"structure": name, "dice": metrics.dice(a, b)}
        row |= metrics.surface_distances_mm(a, b, first[0].spacing_mm)
        for place, mask in (("first", a), ("second", b)):
            row |= {f"{place}_{key}": value for key, value in _values(mask, first[0], image).items()}
        rows.append(row | {"difference_ml": row["second_ml"] - row["first_ml"]})
    return rows


def _values(mask: np.ndarray, labels: Volume, image: Volume | None) -> dict[str, float]:
    """Volume of a mask, and mean and standard deviation of the image in it, NaN for an empty one."""
    size = {"ml": metrics.volume_ml(mask, labels.spacing_mm)}
    if image is None:
        return size
    inside = image.array[mask].astype(np.float64)
    return size | {name: float(f(inside)) if inside.size else float("nan") for name, f in _MOMENTS.items()}


def difference(first: Named, second: Named) -> Volume:
    """uint8, (Z, Y, X): 0 where both say the same, else a number of `OVERLAY`."""
    _check(first[0], second[0])
    a, b = np.zeros(first[0].shape, np.uint16), np.zeros(first[0].shape, np.uint16)
    for number, (_, in_a, in_b) in enumerate(_matched(first, second), start=1):
        a[in_a], b[in_b] = number, number
    result = np.select([a == b, b == 0, a == 0], [0, 1, 2], 3)
    return first[0].with_array(result.astype(np.uint8), "difference")


def _matched(first: Named, second: Named):
    """(name, mask in first, mask in second) of every structure, by name without regard to case."""
    tables = [{label.name.casefold(): label for label in table} for _, table in (first, second)]
    for key in dict.fromkeys([*tables[0], *tables[1]]):
        found = [table.get(key) for table in tables]
        masks = [
            labels.array == label.value if label else np.zeros(labels.shape, bool)
            for (labels, _), label in zip((first, second), found, strict=True)
        ]
        yield (found[0] or found[1]).name, *masks


def _check(first: Volume, second: Volume) -> None:
    if not first.same_grid(second):
        raise UserError(
            f"Images and segmentations on the same voxels were expected, but '{first.name}' has {first.shape} and "
            f"'{second.name}' has {second.shape} (Z, Y, X), or they lie elsewhere.",
            "Export both with the image as reference geometry.",
        )
