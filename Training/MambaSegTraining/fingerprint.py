"""What a data set looks like: sizes, spacings, intensities, structures. Read case by case: memory stays small."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MambaSegLib.picture import is_picture_file
from MambaSegLib.volume import axis_code

from .cases import Case
from .losses import UNKNOWN
from .reading import read_case_labels, read_image

MOST_CASES = 100  # that are looked at, evenly drawn
SAMPLE = 20_000  # voxels of a case
AIR_HU = -500  # whatever has 0.5 % of its voxels below is a CT


@dataclass(frozen=True)
class Fingerprint:
    """Lengths and sizes are along (x, y, z) of the files.

    Attributes:
        cases, patients: in all.
        looked_at: cases that the rest comes from.
        modality: "picture", "CT" or "MR" (anything without fixed units).
        channels: per image.
        size, spacing_mm: {"least", "median", "largest"}: [x, y, z].
        fine_spacing_mm: [x, y, z], the tenth percentile.
        orientation: the most frequent axis code.
        labelled: per channel {"low", "high" (0.5 and 99.5 percentile), "mean", "sd"} of the labelled voxels.
        structures: [{"value", "name", "cases", "share" (of the voxels of those cases)}].
    """

    cases: int
    patients: int
    looked_at: int
    modality: str
    channels: int
    size: dict
    spacing_mm: dict
    fine_spacing_mm: list
    orientation: str
    labelled: list
    structures: list

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)


def fingerprint(cases: list[Case], names: dict[int, str], described: str, report) -> Fingerprint:
    """Look at the cases.

    Args:
        names: of the structures, by their values.
        described: the modality that the data set itself states; "" where it does not.

    Raises:
        UserError: a case that cannot be read, or with a value that has no name.
    """
    values = {name: value for value, name in names.items()}
    chosen = cases if len(cases) <= MOST_CASES else [cases[i * len(cases) // MOST_CASES] for i in range(MOST_CASES)]
    rows, codes, inside, lows = [], [], [], []
    found = {value: [0, 0, 0] for value in names}  # cases, voxels, voxels of those cases
    for number, case in enumerate(chosen):
        report.progress(number, len(chosen), f"Looking at {case.name}")
        image, label = read_image(case), read_case_labels(case, values).array
        rows.append((*image.shape[::-1], *image.spacing_mm))
        codes.append(axis_code(image.direction))
        lows.append(float(np.percentile(_drawn(image.channels[0].ravel(), number), 0.5)))
        known = (label > 0) & (label != UNKNOWN)
        if known.any():
            inside.append(np.stack([_drawn(channel[known], number) for channel in image.channels]))
        _count(label, found)
    table = np.array(rows, float)
    return Fingerprint(
        cases=len(cases),
        patients=len({case.patient for case in cases}),
        looked_at=len(chosen),
        modality=_modality(cases[0], described, float(np.median(lows))),
        channels=len(image.channels),
        size=_spread(table[:, :3]),
        spacing_mm=_spread(table[:, 3:]),
        fine_spacing_mm=np.percentile(table[:, 3:], 10, axis=0).round(4).tolist(),
        orientation=max(set(codes), key=codes.count),
        labelled=_intensities(inside),
        structures=[
            {"value": v, "name": names[v], "cases": n, "share": round(voxels / max(size, 1), 6)}
            for v, (n, voxels, size) in found.items()
        ],
    )


def _count(label: np.ndarray, found: dict[int, list[int]]) -> None:
    """Add one case to {value: [cases, voxels, voxels of those cases]}."""
    voxels = np.bincount(label.ravel(), minlength=256)
    for value, sums in found.items():
        if voxels[value]:
            sums[:] = sums[0] + 1, sums[1] + int(voxels[value]), sums[2] + label.size


def _drawn(values: np.ndarray, seed: int) -> np.ndarray:
    """At most ``SAMPLE`` of them."""
    if len(values) <= SAMPLE:
        return values
    return values[np.random.default_rng(seed).integers(len(values), size=SAMPLE)]


def _spread(table: np.ndarray) -> dict:
    rows = {"least": table.min(0), "median": np.median(table, axis=0), "largest": table.max(0)}
    return {name: row.round(4).tolist() for name, row in rows.items()}


def _intensities(inside: list[np.ndarray]) -> list[dict]:
    if not inside:
        return []
    channels = np.concatenate(inside, axis=1)
    rows = [(*np.percentile(c, (0.5, 99.5)), c.mean(), c.std()) for c in channels.astype(np.float64)]
    return [dict(zip(("low", "high", "mean", "sd"), (round(float(v), 3) for v in row), strict=True)) for row in rows]


def _modality(case: Case, described: str, low: float) -> str:
    if is_picture_file(case.images[0]):
        return "picture"
    if described:
        return "CT" if described.upper().startswith("CT") else "MR"
    return "CT" if low <= AIR_HU else "MR"


def described_by(where: Path) -> dict:
    """{"names": {value: name}, "modality", "channels": [names], "licence"} as ``dataset.json`` says it, each possibly
    empty."""
    path = where / "dataset.json"
    data = json.loads(path.read_text(encoding="utf-8")) if where.is_dir() and path.is_file() else {}
    names = {}
    for key, value in (data.get("labels") or {}).items():
        number, name = (int(key), value) if str(key).isdigit() else (value, key)
        if isinstance(number, int) and number > 0:
            names[number] = str(name)
    channels = data.get("channel_names") or data.get("modality") or {}
    channels = [str(channels[key]) for key in sorted(channels, key=int)] if isinstance(channels, dict) else []
    licence = str(data.get("licence") or data.get("license") or "")
    return {"names": names, "channels": channels, "modality": channels[0] if channels else "", "licence": licence}
