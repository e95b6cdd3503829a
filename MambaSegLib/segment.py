"""The job "segment": an image file in, a segmentation file out. `segment` is the same for those who have arrays."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import catalogue
from .bundle import Label, ModelBundle
from .errors import UserError
from .image import check_output, read_labels, read_volume, write_labels
from .inference import load_network, predict, resolve_device, scan_backend
from .job import Report
from .postprocessing import measure, remove_small_components, to_label_values
from .preprocessing import Prepared, Roi, prepare, recipe_of
from .volume import Volume, check_slices, check_volume

_MUCH_COARSER = 3.0  # times the voxel size the model was trained on: from there on its structures are hardly resolved


@dataclass
class Segmentation:
    """What a model found.

    Attributes:
        labels: label values on the input image's grid, (Z, Y, X); 0 is background.
        structures: the labels that were asked for.
        segments: [{value, name, color, voxels, volume_ml}] in the same order.
        device, backend: what it was computed on and which selective-scan implementation did it.
        seconds: time by step.
        warnings: what the user should know, one sentence each.
    """

    labels: Volume
    structures: tuple[Label, ...]
    segments: list[dict]
    device: str
    backend: str
    seconds: dict[str, float]
    warnings: list[str]

    def write(self, path: str | Path) -> Path:
        """To .seg.nrrd, .nrrd or .nii.gz; see `image.write_labels`."""
        return write_labels(path, self.labels, self.structures)


@dataclass
class _Run:
    """What the steps of one segmentation share; `warm` outlives it."""

    report: Report
    warm: dict
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.report.message(text, "warning")

    @contextmanager
    def step(self, name: str, label: str):
        self.report.message(label)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def remembered(self, slot: str, key: str, make):
        """The value of `make()`, or what it gave the last time if the key is still the same. One value per slot."""
        if self.warm.get(slot, (None,))[0] != key:
            self.warm.pop(slot, None)  # first let go of the old one: two large images may not fit
            self.warm[slot] = (key, make())
        return self.warm[slot][1]


def segment(
    volume: Volume,
    bundle: ModelBundle | str | os.PathLike,
    roi: Roi | None = None,
    device: str = "auto",
    report: Report | None = None,
) -> Segmentation:
    """Segment an image.

    Args:
        volume: the image, (Z, Y, X), or (C, Z, Y, X) for a model with several inputs.
        bundle: a model, its id, or its folder.
        roi: where to look; nothing is labelled outside.
        device: auto, cpu, cuda or mps.
        report: progress, messages and cancellation.

    Raises:
        UserError: anything the user can put right. Cancelled: by the report.
    """
    if not isinstance(bundle, ModelBundle):
        bundle = catalogue.find(bundle)
    check_volume(volume)
    job = _Run(report or Report(), {})
    return _segment(job, volume, bundle, recipe_of(bundle), roi, resolve_device(device), bundle.labels)


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "input" (image file or DICOM folder), "model" (id or folder), "output" (file) or None; optional "roi"
            (xmin xmax ymin ymax zmin zmax in LPS mm) or "roi_mask" (file), "device", "overlap" (0 to below 1),
            "mirror" (False: without test-time mirroring), "labels" (names; the others are left out).
        report: progress, messages and cancellation.
        warm: kept by the caller between runs; holds networks and the last image.

    Returns:
        {output, model, model_sha256, device, backend, time_s, seconds, segments, warnings, spacing_mm, size}

    Raises:
        UserError: anything the user can put right; nothing is written then. Cancelled: by the report.
    """
    start = time.perf_counter()
    job = _Run(report, {} if warm is None else warm)
    source, output = Path(_needed(request, "input")).expanduser(), _output(request)
    bundle = catalogue.find(_needed(request, "model"))
    device = resolve_device(request.get("device") or "auto")
    recipe, wanted = _recipe(request, bundle), _wanted(request, bundle)

    with job.step("read", "Reading the image"):
        volume = _read(job, source)
        roi = _roi(request)
    found = _segment(job, volume, bundle, recipe, roi, device, wanted, _image_key(source, request))
    if output:
        with job.step("write", "Writing the result"):
            found.write(output)
    result = {"output": str(output) if output else None, "model": bundle.id, "model_sha256": bundle.sha256}
    result |= {"device": found.device, "backend": found.backend, "time_s": time.perf_counter() - start}
    result |= {"seconds": found.seconds, "segments": found.segments, "warnings": found.warnings}
    return result | {"spacing_mm": list(volume.spacing_mm), "size": list(volume.shape[::-1])}


def _segment(job, volume, bundle, recipe, roi, device, wanted, image_key: str | None = None) -> Segmentation:
    expected = len(bundle.inputs)
    if len(volume.channels) != expected:
        names = ", ".join(item["name"] for item in bundle.inputs)
        raise UserError(
            f"The model '{bundle.id}' expects {expected} input image(s) ({names}), but {len(volume.channels)} came.",
            "Choose a model that fits the image.",
        )
    if len(recipe["patch"]) == 3:
        check_slices(volume)
    _warn_if_coarse(job, volume, recipe)
    with job.step("prepare", "Preparing the image"):
        prepared = _prepared(job, volume, recipe, roi, image_key)
    with job.step("load", f"Loading the model {bundle.title}"):
        networks = job.warm.setdefault("networks", {})
        key = (str(bundle.folder), bundle.sha256, str(device))
        if key not in networks:
            networks[key] = load_network(bundle, device)
    with job.step("predict", f"Segmenting on {device}"):
        probabilities = predict(networks[key], prepared.array, recipe, device, job.report)
        backend = scan_backend(networks[key], device)
    with job.step("restore", "Bringing the result onto the image"):
        values = to_label_values(prepared.restore_labels(probabilities), bundle.labels, wanted)
        labels = remove_small_components(volume.with_array(values, bundle.title), recipe["min_component_mm3"])
        segments = measure(labels, wanted)
    absent = [item["name"] for item in segments if not item["voxels"]]
    if absent:
        job.warn(f"Nothing was found of: {', '.join(absent)}.")
    return Segmentation(labels, wanted, segments, str(device), backend, job.seconds, job.warnings)


def _prepared(job: _Run, volume: Volume, recipe: dict, roi: Roi | None, image_key: str | None) -> Prepared:
    if image_key is None:
        return prepare(volume, recipe, roi)
    key = image_key + json.dumps({k: v for k, v in recipe.items() if k not in ("overlap", "mirror_axes")})
    return job.remembered("prepared", key, lambda: prepare(volume, recipe, roi))


def _read(job: _Run, source: Path) -> Volume:
    volume, warnings = job.remembered("volume", _file_key(source), lambda: _read_with_warnings(source))
    for text in warnings:
        job.warn(text)
    return volume


def _read_with_warnings(source: Path) -> tuple[Volume, list[str]]:
    warnings: list[str] = []
    return read_volume(source, warnings.append), warnings


def _file_key(path: Path) -> str:
    """Changes whenever the file, or a file in the folder, changes."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.exists()]
    return json.dumps([str(path), states])


def _image_key(source: Path, request: dict) -> str:
    mask = request.get("roi_mask")
    return json.dumps([_file_key(source), request.get("roi"), _file_key(Path(mask).expanduser()) if mask else None])


def _roi(request: dict) -> Roi | None:
    bounds, mask = request.get("roi"), request.get("roi_mask")
    if bounds is not None and mask:
        raise UserError("One region of interest was expected, but a box and a mask came.", "Give only one of them.")
    if mask:
        return Roi.from_mask(read_labels(Path(mask).expanduser()))
    if bounds is None:
        return None
    if not isinstance(bounds, list | tuple) or len(bounds) != 6 or not all(isinstance(v, int | float) for v in bounds):
        raise UserError(
            f"Six numbers were expected as region of interest, but {bounds!r} came.",
            "Give xmin xmax ymin ymax zmin zmax in LPS millimetres.",
        )
    return Roi.from_bounds_mm(*bounds)


def _recipe(request: dict, bundle: ModelBundle) -> dict:
    recipe = recipe_of(bundle)
    if request.get("overlap") is not None:
        recipe["overlap"] = request["overlap"]
        if not isinstance(recipe["overlap"], int | float) or not 0 <= recipe["overlap"] < 1:
            raise UserError(f"An overlap of 0 to below 1 was expected, but {recipe['overlap']!r} came.", "Use 0.5.")
    if request.get("mirror") is False:
        recipe["mirror_axes"] = []
    return recipe


def _wanted(request: dict, bundle: ModelBundle) -> tuple[Label, ...]:
    names = request.get("labels")
    known = {label.name: label for label in bundle.labels}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UserError(f"The model '{bundle.id}' has no structure '{unknown[0]}'.", f"It has: {', '.join(known)}.")
    return tuple(label for label in bundle.labels if not names or label.name in names)


def _warn_if_coarse(job: _Run, volume: Volume, recipe: dict) -> None:
    spacing = [mm for mm in recipe["spacing_mm"] if mm]  # without the axes that keep their own
    if spacing and max(volume.spacing_mm) > _MUCH_COARSER * max(spacing):
        coarse, trained = (" x ".join(f"{v:g}" for v in s) for s in (volume.spacing_mm, spacing))
        job.warn(f"The image's voxels ({coarse} mm) are much coarser than those the model was trained on ({trained} "
                  "mm): expect less from the result.")  # fmt: skip


def _output(request: dict) -> Path | None:
    if not request.get("output"):
        return None
    source, output = Path(request["input"]).expanduser(), check_output(Path(request["output"]).expanduser())
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"The output '{output}' is the input image itself.", "Choose another output name.")
    return output


def _needed(request: dict, name: str) -> str:
    if not isinstance(request.get(name), str | os.PathLike) or not os.fspath(request[name]):
        raise UserError(f"The request must name '{name}'.", "Give a path or a model's id.")
    return request[name]
