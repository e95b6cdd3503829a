"""The fields that requests of several jobs share, checked: image files, output, region, structures. Torch-free."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from .bundle import Label, ModelBundle
from .errors import UserError
from .image import check_output, read_labels, read_volume
from .preprocessing import Roi, recipe_of
from .steps import Steps
from .volume import Volume


def needed(request: dict, name: str) -> str:
    """The path or id in the field `name`. Raises UserError when it is missing or empty."""
    if not isinstance(request.get(name), str | os.PathLike) or not os.fspath(request[name]):
        raise UserError(f"The request must name '{name}'.", "Give a path or a model's id.")
    return request[name]


def sources(request: dict) -> list[Path]:
    """The image files of "input": one, or one per channel in the model's order."""
    given = request.get("input")
    if not isinstance(given, list | tuple):
        given = [needed(request, "input")]
    if not given or not all(isinstance(path, str | os.PathLike) and os.fspath(path) for path in given):
        raise UserError(f"One image file per channel was expected as 'input', but {given!r} came.", "Give paths.")
    return [Path(path).expanduser() for path in given]


def read_image(job: Steps, paths: list[Path], frame: int | None = None) -> Volume:
    """The image, (Z, Y, X), or (C, Z, Y, X) for several files; read once while the files stay the same.

    Raises:
        UserError: as `image.read_volume`, and when the files' grids differ.
    """

    def read() -> tuple[Volume, list[str]]:
        warnings: list[str] = []
        return one_volume([read_volume(path, warnings.append, frame) for path in paths]), warnings

    volume, warnings = job.remembered("volume", json.dumps([file_key(paths), frame]), read)
    for text in warnings:
        job.warn(text)
    return volume


def one_volume(channels: list[Volume]) -> Volume:
    first = channels[0]
    for other in channels[1:]:
        if not first.same_grid(other):
            raise UserError(
                f"Input images with the same voxels in the same places were expected, but '{first.name}' "
                f"({_size(first)}) and '{other.name}' ({_size(other)}) differ.",
                f"Resample '{other.name}' onto '{first.name}', for example with Slicer's Resample Scalar/Vector/DWI.",
            )
    return first if len(channels) == 1 else first.with_array(np.stack([c.array for c in channels]))


def _size(volume: Volume) -> str:
    size, spacing = (" x ".join(f"{v:g}" for v in values) for values in (volume.shape[::-1], volume.spacing_mm))
    return f"{size} voxels of {spacing} mm"


def file_key(paths: list[Path]) -> str:
    """Changes whenever one of the files, or a file in one of the folders, changes."""
    states = []
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        states.append([str(path), [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]])
    return json.dumps(states)


def image_key(request: dict) -> str:
    """Changes whenever the image, or the region of interest in it, changes."""
    mask = request.get("roi_mask")
    region = [request.get("roi"), request.get("roi_ras"), file_key([Path(mask).expanduser()]) if mask else None]
    return json.dumps([file_key(sources(request)), request.get("frame"), region])


def region(request: dict) -> Roi | None:
    """The region of interest, from "roi" (six LPS mm), "roi_ras" (six RAS mm) or "roi_mask" (a file)."""
    given = {name: request.get(name) for name in ("roi", "roi_ras", "roi_mask")}
    given = {name: value for name, value in given.items() if value not in (None, "")}
    if len(given) > 1:
        raise UserError(
            f"One region of interest was expected, but {' and '.join(given)} came.", "Give only one of them."
        )
    if "roi_mask" in given:
        return Roi.from_mask(read_labels(Path(given["roi_mask"]).expanduser()))
    if not given:
        return None
    ((name, bounds),) = given.items()
    system = "RAS" if name == "roi_ras" else "LPS"
    if not isinstance(bounds, list | tuple) or len(bounds) != 6 or not all(isinstance(v, int | float) for v in bounds):
        raise UserError(
            f"Six numbers were expected as region of interest, but {bounds!r} came.",
            f"Give xmin xmax ymin ymax zmin zmax in {system} millimetres.",
        )
    return Roi.from_bounds_mm(*bounds, system=system)


def recipe(request: dict, bundle: ModelBundle) -> dict:
    """The bundle's recipe with the request's "overlap" and "mirror"."""
    made = recipe_of(bundle)
    if request.get("overlap") is not None:
        made["overlap"] = request["overlap"]
        if not isinstance(made["overlap"], int | float) or not 0 <= made["overlap"] < 1:
            raise UserError(f"An overlap of 0 to below 1 was expected, but {made['overlap']!r} came.", "Use 0.5.")
    if request.get("mirror") is False:
        made["mirror_axes"] = []
    return made


def structures(request: dict, bundle: ModelBundle, name: str = "labels") -> tuple[Label, ...]:
    """The bundle's labels that the field `name` lists; all of them without one."""
    names = request.get(name)
    known = {label.name: label for label in bundle.labels}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UserError(f"The model '{bundle.id}' has no structure '{unknown[0]}'.", f"It has: {', '.join(known)}.")
    return tuple(label for label in bundle.labels if not names or label.name in names)


def output(request: dict, name: str = "output") -> Path | None:
    """The file to write, which is none of the input images; None when the field is empty."""
    if not request.get(name):
        return None
    path = check_output(Path(request[name]).expanduser())
    for source in sources(request):
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"The output '{path}' is the input image itself.", "Choose another output name.")
    return path


def millimetres(request: dict, name: str) -> float:
    """A length of 0 or more in the field `name`; 0 when the field is empty."""
    value = request.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise UserError(f"A length of 0 to 100 mm was expected as '{name}', but {value!r} came.", "Use 0 for none.")
    return float(value)
