"""The job "compare": how two or more segmentations of one image differ, in numbers and as an overlay. Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import metrics
from .bundle import Label
from .errors import UserError
from .image import read_labels, write_labels
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
Named = tuple[Volume, Sequence[Label]]  # labels, and what their numbers mean


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "segmentations" (two or more files on one grid); optional "names" (one per file), "structures" (one
            table [{value, name, color, terminology}] per file, or null for the file's own), "overlay" (file to write:
            how the first two differ).
        report, warm: as for every job; nothing is kept warm.

    Returns:
        {rows: [{first, second, structure, dice, hd95_mm, first_ml, second_ml, difference_ml}], overlay}; structures are
        matched by their names.

    Raises:
        UserError: fewer than two files, or other grids. Cancelled: by the report.
    """
    paths = [Path(path).expanduser() for path in request["segmentations"]]
    if len(paths) < 2:
        raise UserError(f"Two or more segmentations were expected, but {len(paths)} came.", "Choose another one too.")
    names = request.get("names") or [path.name for path in paths]
    tables = request.get("structures") or [None] * len(paths)
    overlay = check_output(Path(request["overlay"]).expanduser()) if request.get("overlay") else None
    named: list[Named] = []
    for path, table in zip(paths, tables, strict=True):
        labels = read_labels(path)
        named.append((labels, from_json(table) if table else table_of(path, labels.array)))
    pairs = list(itertools.combinations(range(len(paths)), 2))
    rows = []
    for done, (i, j) in enumerate(pairs):
        report.progress(done, len(pairs), f"{names[i]} and {names[j]}")
        rows += [{"first": names[i], "second": names[j], **row} for row in compare(named[i], named[j], report)]
    if overlay:
        write_labels(overlay, difference(*named[:2]), OVERLAY)
    return {"rows": rows, "overlay": overlay and str(overlay)}


def compare(first: Named, second: Named, report: Report | None = None) -> list[dict]:
    """One row per structure that either of the two names; measures that do not exist are NaN.

    Raises:
        UserError: the grids differ.
    """
    _check(first[0], second[0])
    spacing = first[0].spacing_mm
    rows = []
    for name, a, b in _matched(first, second):
        if report:
            report.check_cancelled()
        volumes = metrics.volume_ml(a, spacing), metrics.volume_ml(b, spacing)
        row = {"structure": name, "dice": metrics.dice(a, b), "hd95_mm": metrics.hd95(a, b, spacing)}
        rows.append(row | {"first_ml": volumes[0], "second_ml": volumes[1], "difference_ml": volumes[1] - volumes[0]})
    return rows


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
            f"Segmentations on the same voxels were expected, but '{first.name}' has {first.shape} and '{second.name}' "
            f"has {second.shape} (Z, Y, X), or they lie elsewhere.",
            "Export both with the image as reference geometry.",
        )
