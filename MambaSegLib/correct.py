"""The job "correct": a few edited slices in, the rest of the volume updated in seconds.

The network runs once per image; its probabilities and the features before its head are kept warm. What the user decided
trains a small Gaussian-process head on them (see `edit_learning`), which then speaks about the voxels around the edits
where the network was wrong. Clicks, of which there are few, are learned from in a way of their own, after the strokes.
Whatever the user decided, and every voxel of a locked structure, comes back bit for bit.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

from . import catalogue
from . import request as fields
from .bundle import Label, ModelBundle
from .clicks import CLICKED, reach_mm
from .edit_learning import REACH_MM, Lessons, learn, learn_clicks, length_scales, voxels_of
from .errors import UserError
from .features import Features, extract
from .image import read_labels, write_labels
from .inference import resolve_device
from .job import Report
from .picture import for_model
from .segment import check_image_fits, loaded_network, prepared_image
from .steps import Steps
from .volume import Box, Volume

_FAR = 4.0  # length scales; an edit is not felt beyond
_NEAR = 2.0  # length scales around a wrong voxel within which confident voxels may change too
_DOUBT, _SLIGHT_DOUBT = 0.05, 0.02  # uncertainty above which a voxel may change, and above which it may teach


@dataclass(frozen=True, eq=False)
class Edits:
    """What the user did, label values on the image's grid, (Z, Y, X).

    Args:
        initial: the model's result, before.
        edited: the labels now.
        touched: bool, the voxels that the user decided: changed, or looked at and left.
        locked: bool, voxels that must not change for other reasons.
        forbidden: values that no voxel may get.
        clicked: bool, those of `touched` that clicks decided (see `clicks`); None for none.
    """

    initial: np.ndarray
    edited: np.ndarray
    touched: np.ndarray
    locked: np.ndarray
    forbidden: tuple[int, ...] = ()
    clicked: np.ndarray | None = None

    def inside(self, box: Box) -> Edits:
        """Of a part of the image; with `clicked`."""
        clicked = np.zeros(self.touched.shape, bool) if self.clicked is None else self.clicked
        parts = (array[box] for array in (self.initial, self.edited, self.touched, self.locked))
        return Edits(*parts, self.forbidden, clicked[box])


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "input", "model", "roi", "roi_ras", "roi_mask", "frame" and "device" as for "segment"; "initial" (label
            file that the model gave), "edited" (label file as it is now), "touched" (file, non-zero where the user
            decided, `clicks.CLICKED` where a click did), "output" (label file to write), optional "locked" (names of
            structures).
        report: progress, messages and cancellation.
        warm: kept by the caller between runs; holds networks, the image and its features.

    Returns:
        {output, changed: [{structure, added, removed}] in voxels, strength, model, device, time_s, seconds, warnings}

    Raises:
        UserError: anything the user can put right; nothing is written then. Cancelled: by the report.
    """
    start = time.perf_counter()
    job = Steps(report, {} if warm is None else warm)
    sources, output = fields.sources(request), fields.output({**request, "output": fields.needed(request, "output")})
    bundle = catalogue.find(fields.needed(request, "model"))
    locked = fields.structures(request, bundle, "locked") if request.get("locked") else ()
    with job.step("read", "Reading image and edits"):
        volume = for_model(fields.read_image(job, sources, request.get("frame")), bundle, job.warn)
        check_image_fits(bundle, volume)
        edits, drawn = _edits(request, volume, locked)
    features = _features(job, request, bundle, volume)
    with job.step("learn", "Learning from the edits"):
        result, strength = correct(features, edits, bundle.labels, volume, report)
    if strength is None:
        job.warn("The edits are what the model had found: there is nothing to learn from.")
    elif strength == 0:
        job.warn("Nothing was changed: what the edits tell of one place did not hold at the other edited places.")
    structures = [*bundle.labels, *_unknown(drawn.array, bundle)]
    with job.step("write", "Writing the result"):
        write_labels(output, drawn.with_array(result), structures)
    rows = [_difference(edits.edited, result, label) for label in structures]
    answer = {"output": str(output), "changed": rows, "strength": strength or 0.0, "model": bundle.id}
    answer |= {"device": request.get("device") or "auto", "time_s": time.perf_counter() - start}
    return answer | {"seconds": job.seconds, "warnings": job.warnings}


def correct(
    features: Features, edits: Edits, labels: tuple[Label, ...], volume: Volume, report: Report
) -> tuple[np.ndarray, float | None]:
    """The labels after learning from the edits.

    Args:
        features: of the image.
        edits: what the user did.
        labels: the model's; class i is ``labels[i - 1]``.
        volume: the image, for its voxel size.
        report: for cancellation.

    Returns:
        Label values (Z, Y, X), and the strength of `edit_learning.Lesson`, None when there was nothing to learn from.
    """
    known = np.isin(edits.edited, [0, *(label.value for label in labels)])
    wrong = edits.touched & (edits.edited != edits.initial) & known
    scales = _scales(edits, volume)
    box = _surroundings(wrong, features.prepared.region, volume, scales)
    if box is None:
        return edits.edited, None
    lookup = np.array([0, *(label.value for label in labels)])
    part, spacing = edits.inside(box), volume.spacing_mm
    probabilities, values = features.inside(box)
    reach = distance_transform_edt(~wrong[box], sampling=spacing[::-1] / scales)
    ordered = np.partition(probabilities, -2, axis=0)
    doubt = 1 - (ordered[-1] - ordered[-2])
    near, known = reach <= _NEAR, known[box] & (reach <= _FAR)
    teaches = part.touched & known & (part.clicked | near | (doubt > _SLIGHT_DOUBT))
    stretch, classes = scales / length_scales(spacing), _classes(part.edited, lookup)
    lessons = _lessons(part, teaches, wrong[box], classes, stretch, probabilities, values, spacing)
    free = ~part.touched & ~part.locked & known & _inside(features, box) & (near | (doubt > _DOUBT))
    result = edits.edited.copy()
    result[box] = _decided(part, free, lessons, lookup, probabilities, values, spacing, report)
    return result, lessons.strength


def _lessons(part: Edits, teaches, wrong, classes, stretch, probabilities, values, spacing) -> Lessons:
    """From the voxels that teach: strokes when one of them was wrong, and clicks."""
    drawn, clicked = teaches & ~part.clicked, teaches & part.clicked
    strokes = learn(drawn, classes, probabilities, values, spacing) if (drawn & wrong).any() else None
    lessons = Lessons(strokes, None, stretch)
    if not clicked.any():
        return lessons
    voxels = voxels_of(clicked, probabilities, values, spacing)
    said = lessons.scores(probabilities[:, clicked].T, voxels)
    return Lessons(strokes, learn_clicks(voxels.for_clicks(stretch), said, classes[clicked]), stretch)


def _scales(edits: Edits, volume: Volume) -> np.ndarray:
    """`length_scales`, larger where clicks on large structures are felt farther; the smallest clicked one counts."""
    reach = REACH_MM
    if edits.clicked is not None and edits.clicked.any():
        values = np.unique([edits.initial[edits.clicked], edits.edited[edits.clicked]])
        sizes = [np.count_nonzero(edits.edited == value) for value in values if value > 0]
        reach = max(reach, reach_mm(min(sizes, default=0), volume.spacing_mm))
    return length_scales(volume.spacing_mm, reach)


def _decided(part: Edits, free, lessons: Lessons, lookup, probabilities, values, spacing, report) -> np.ndarray:
    """Label values of the box: a free voxel changes where the lessons turn the network's own decision."""
    result = part.edited.copy()
    if not lessons.strength or not free.any():
        return result
    said = probabilities[:, free].T
    then = lessons.scores(said, voxels_of(free, probabilities, values, spacing), report.check_cancelled)
    before, after = said.argmax(axis=1), then.argmax(axis=1)
    turned = (before != after) & ~np.isin(lookup[after], part.forbidden)
    result[free] = np.where(turned, lookup[after], result[free])
    return result


def _classes(edited: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """(z, y, x) class indices of the edited labels; 0 for values that the model does not know."""
    order = np.argsort(lookup)
    found = np.clip(np.searchsorted(lookup[order], edited), 0, len(lookup) - 1)
    return np.where(lookup[order][found] == edited, order[found], 0)


def _surroundings(wrong: np.ndarray, region: Box, volume: Volume, scales: np.ndarray) -> Box | None:
    """The part of the region of interest that edits can reach; None without any."""
    found = find_objects(wrong.astype(np.uint8))
    if not found:
        return None
    reach = np.ceil(_FAR * scales / volume.spacing_mm[::-1]).astype(int)
    box = []
    for part, whole, far in zip(found[0], region, reach, strict=True):
        low, high = max(whole.start, part.start - far), min(whole.stop, part.stop + far)
        if low >= high:
            return None
        box.append(slice(int(low), int(high)))
    return tuple(box)


def _inside(features: Features, box: Box) -> np.ndarray | bool:
    """Which voxels of the box belong to the region of interest."""
    prepared = features.prepared
    if prepared.inside is None:
        return True
    return prepared.inside[
        tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(box, prepared.region, strict=True))
    ]


def _features(job: Steps, request: dict, bundle: ModelBundle, volume: Volume) -> Features:
    device = resolve_device(request.get("device") or "auto")
    recipe = fields.recipe(request, bundle)
    image_key = fields.image_key(request)
    with job.step("prepare", "Preparing the image"):
        roi = fields.region(request)
        prepared = prepared_image(job, volume, recipe, roi, image_key)
        network = loaded_network(job, bundle, device)
    key = json.dumps([image_key, str(bundle.folder), bundle.sha256, str(device), recipe])
    with job.step("features", "Looking at the image with the model"):
        return job.remembered("features", key, lambda: extract(network, prepared, recipe, device, job.report))


def _edits(request: dict, volume: Volume, locked: tuple[Label, ...]) -> tuple[Edits, Volume]:
    files = [read_labels(Path(fields.needed(request, name)).expanduser()) for name in ("initial", "edited", "touched")]
    for found, name in zip(files, ("initial", "edited", "touched"), strict=True):
        if not found.same_grid(volume):
            raise UserError(
                f"Labels on the grid of the image were expected as '{name}', but those of '{found.name}' lie on "
                "another one.",
                "Export the segmentation with the image as its reference geometry.",
            )
    initial, edited, marks = (found.array for found in files)
    values = tuple(label.value for label in locked)
    # What differs from the model's result was decided by the user, whether marked or not.
    touched = (marks > 0) | (edited != initial)
    return Edits(initial, edited, touched, np.isin(edited, values), values, marks == CLICKED), files[1]


def _unknown(edited: np.ndarray, bundle: ModelBundle) -> list[Label]:
    """Segments of the user's own that the model does not know."""
    known = {label.value for label in bundle.labels}
    values = [int(v) for v in np.unique(edited) if v > 0 and int(v) not in known]
    return [Label(value, f"Segment {value}", (128, 128, 128), {}) for value in values]


def _difference(before: np.ndarray, after: np.ndarray, label: Label) -> dict:
    was, now = before == label.value, after == label.value
    added, removed = np.count_nonzero(now & ~was), np.count_nonzero(was & ~now)
    return {"structure": label.name, "added": int(added), "removed": int(removed)}
