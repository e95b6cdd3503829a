"""The job "segment": image files in, a segmentation file out. `segment` is the same for those who have arrays."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from . import catalogue
from . import request as fields
from .bundle import Label, ModelBundle
from .errors import UserError
from .estimate import remember_pass
from .image import write_labels
from .inference import load_network, predict, resolve_device, scan_backend
from .job import Report
from .picture import for_model
from .postprocessing import keep_largest_components, measure, remove_small_components, smooth, to_label_values
from .preprocessing import Prepared, Roi, TwoBest, prepare
from .steps import Steps
from .uncertainty import review, uncertainty_map
from .volume import Volume, check_slices, check_volume
from .wording import counted

_MUCH_COARSER = 3.0  # times the voxel size the model was trained on: from there on its structures are hardly resolved


@dataclass(frozen=True)
class Wishes:
    """What one may ask for beyond image and model.

    Args:
        structures: the labels wanted; None is all.
        smoothing_mm: standard deviation of the Gaussian that smooths the class probabilities; 0 is none.
        largest_component: keep only the largest part of each structure.
    """

    structures: tuple[Label, ...] | None = None
    smoothing_mm: float = 0.0
    largest_component: bool = False


@dataclass
class Segmentation:
    """What a model found.

    Attributes:
        labels: label values on the input image's grid, (Z, Y, X); 0 is background.
        structures: the labels that were asked for.
        segments: [{value, name, color, voxels, volume_ml, mean_intensity}] in the same order.
        review: [{structure, score, places}] in the same order; see `uncertainty.review`.
        doubt: the two most probable classes of every voxel, and how far they are apart.
        device, backend: what it was computed on and which selective-scan implementation did it.
        seconds: time by step.
        warnings: what the user should know, one sentence each.
    """

    labels: Volume
    structures: tuple[Label, ...]
    segments: list[dict]
    review: list[dict]
    doubt: TwoBest
    device: str
    backend: str
    seconds: dict[str, float]
    warnings: list[str]

    def write(self, path: str | Path) -> Path:
        """To .seg.nrrd, .nrrd or .nii.gz; see `image.write_labels`."""
        return write_labels(path, self.labels, self.structures)

    def write_uncertainty(self, path: str | Path) -> Path:
        """The map of `uncertainty.uncertainty_map`, 0..100, to .nrrd or .nii.gz."""
        return write_labels(path, self.labels.with_array(uncertainty_map(self.doubt)), ())


def segment(
    volume: Volume,
    bundle: ModelBundle | str | os.PathLike,
    roi: Roi | None = None,
    device: str = "auto",
    report: Report | None = None,
    wishes: Wishes | None = None,
) -> Segmentation:
    """Segment an image.

    Args:
        volume: the image, (Z, Y, X), or (C, Z, Y, X) for a model with several inputs.
        bundle: a model, its id, or its folder.
        roi: where to look; nothing is labelled outside.
        device: auto, cpu, cuda or mps.
        report: progress, messages and cancellation.
        wishes: what to change about the result.

    Raises:
        UserError: anything the user can put right. Cancelled: by the report.
    """
    if not isinstance(bundle, ModelBundle):
        bundle = catalogue.find(bundle)
    check_volume(volume)
    task = _Task(bundle, fields.recipe({}, bundle), resolve_device(device), wishes or Wishes())
    return _segment(Steps(report or Report(), {}), volume, task, roi)


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "input" (image file or DICOM folder, or a list of them, one per input of the model), "model" (id or
            folder), "output" (file) or None; optional "uncertainty" (file for the map of doubt), "frame" (time point
            of a sequence), "roi" (xmin xmax ymin ymax zmin zmax in LPS mm), "roi_ras" (the same in RAS) or "roi_mask"
            (file), "device", "overlap" (0 to below 1), "mirror" (False: without test-time mirroring), "labels" (names;
            the others are left out), "smoothing_mm", "largest_component".
        report: progress, messages and cancellation.
        warm: kept by the caller between runs; holds networks and the last image.

    Returns:
        {output, uncertainty, model, model_sha256, device, backend, time_s, seconds, segments, review, warnings,
        spacing_mm, size}

    Raises:
        UserError: anything the user can put right; nothing is written then. Cancelled: by the report.
    """
    start = time.perf_counter()
    job = Steps(report, {} if warm is None else warm)
    sources, output, doubt = fields.sources(request), fields.output(request), fields.output(request, "uncertainty")
    if output and output == doubt:
        raise UserError(f"Two output files were expected, but both are '{output}'.", "Give the map another name.")
    bundle = catalogue.find(fields.needed(request, "model"))
    recipe, device = fields.recipe(request, bundle), resolve_device(request.get("device") or "auto")
    task = _Task(bundle, recipe, device, _wishes(request, bundle), fields.image_key(request))

    with job.step("read", "Reading the image"):
        volume = fields.read_image(job, sources, request.get("frame"))
        roi = fields.region(request)
    found = _segment(job, volume, task, roi)
    with job.step("write", "Writing the result"):
        if output:
            found.write(output)
        if doubt:
            found.write_uncertainty(doubt)
    result = {"output": output and str(output), "uncertainty": doubt and str(doubt), "model": bundle.id}
    result |= {"model_sha256": bundle.sha256, "device": found.device, "backend": found.backend}
    result |= {"time_s": time.perf_counter() - start, "seconds": found.seconds, "segments": found.segments}
    result |= {"review": found.review, "warnings": found.warnings}
    return result | {"spacing_mm": list(volume.spacing_mm), "size": list(volume.shape[::-1])}


@dataclass(frozen=True)
class _Task:
    """A model and how to use it; `image_key` changes with the image and its region, None when that is unknown."""

    bundle: ModelBundle
    recipe: dict
    device: torch.device
    wishes: Wishes
    image_key: str | None = None


def _segment(job: Steps, volume: Volume, task: _Task, roi: Roi | None) -> Segmentation:
    bundle, recipe, device, wishes = task.bundle, task.recipe, task.device, task.wishes
    volume = for_model(volume, bundle, job.warn)
    check_image_fits(bundle, volume)
    _warn_if_coarse(job, volume, recipe)
    with job.step("prepare", "Preparing the image"):
        prepared = prepared_image(job, volume, recipe, roi, task.image_key)
    with job.step("load", f"Loading the model {bundle.title}"):
        network = loaded_network(job, bundle, device)
    with job.step("predict", f"Segmenting on {device}"):
        pass_times_s: list[float] = []
        probabilities = predict(network, prepared.array, recipe, device, job.report, pass_times_s)
        backend = scan_backend(network, device)
        remember_pass(bundle, device, pass_times_s)
    with job.step("restore", "Bringing the result onto the image"):
        wanted = bundle.labels if wishes.structures is None else wishes.structures
        best = prepared.restore_two_best(probabilities)
        labels = _labels(volume, prepared, probabilities, best, task)
        segments = measure(labels, wanted, volume.channels[0])
    with job.step("review", "Looking for doubtful places"):
        doubtful = review(best, volume, bundle.labels, wanted)
    absent = [item["name"] for item in segments if not item["voxels"]]
    if absent:
        job.warn(f"Nothing was found of: {', '.join(absent)}.")
    return Segmentation(labels, wanted, segments, doubtful, best, str(device), backend, job.seconds, job.warnings)


def _labels(volume: Volume, prepared: Prepared, probabilities, best: TwoBest, task: _Task) -> Volume:
    """The label values on the image's grid, after all that was asked for and that the model's recipe says."""
    classes, wishes = best.winner, task.wishes
    if wishes.smoothing_mm:
        classes = prepared.restore_labels(smooth(probabilities, prepared.spacing_mm(volume), wishes.smoothing_mm))
    wanted = task.bundle.labels if wishes.structures is None else wishes.structures
    values = to_label_values(classes, task.bundle.labels, wanted)
    labels = remove_small_components(volume.with_array(values, task.bundle.title), task.recipe["min_component_mm3"])
    return keep_largest_components(labels) if wishes.largest_component else labels


def check_image_fits(bundle: ModelBundle, volume: Volume) -> None:
    """Raise UserError when the image has not the channels, or not the slices, that the model needs."""
    expected = len(bundle.inputs)
    if len(volume.channels) != expected:
        names = ", ".join(item["name"] for item in bundle.inputs)
        raise UserError(
            f"The model '{bundle.id}' expects {counted(expected, 'input image')} ({names}), "
            f"but {len(volume.channels)} came.",
            "Choose a model that fits the image, or give one image per input in this order.",
        )
    if bundle.is_volumetric:
        check_slices(volume)


def prepared_image(job: Steps, volume: Volume, recipe: dict, roi: Roi | None, image_key: str | None) -> Prepared:
    """The image on the network's grid; kept warm under `image_key`, or made anew without one."""
    if image_key is None:
        return prepare(volume, recipe, roi)
    seen = {k: v for k, v in recipe.items() if k not in ("overlap", "mirror_axes")} | {"of": len(volume.channels)}
    key = image_key + json.dumps(seen)
    return job.remembered("prepared", key, lambda: prepare(volume, recipe, roi))


def loaded_network(job: Steps, bundle: ModelBundle, device: torch.device) -> torch.nn.Module:
    """The bundle's network on the device, kept warm."""
    networks = job.warm.setdefault("networks", {})
    key = (str(bundle.folder), bundle.sha256, str(device))
    if key not in networks:
        networks[key] = load_network(bundle, device)
    return networks[key]


def _wishes(request: dict, bundle: ModelBundle) -> Wishes:
    smoothing = fields.millimetres(request, "smoothing_mm")
    return Wishes(fields.structures(request, bundle), smoothing, bool(request.get("largest_component")))


def _warn_if_coarse(job: Steps, volume: Volume, recipe: dict) -> None:
    spacing = [mm for mm in recipe["spacing_mm"] if mm]  # without the axes that keep their own
    own = sorted(volume.spacing_mm)[: len(spacing)]  # a slice's own axis is its thickness
    if spacing and max(own) > _MUCH_COARSER * max(spacing):
        coarse, trained = (" x ".join(f"{v:g}" for v in s) for s in (own, spacing))
        job.warn(f"The image's voxels ({coarse} mm) are much coarser than those the model was trained on ({trained} "
                  "mm): expect less from the result.")  # fmt: skip
