"""The job "estimate": how long a segmentation will take and how much memory, before it starts.

Time is the number of passes through the network times the time of one pass. That time was measured on this machine by
the last segmentation with the same model; before the first one it is guessed from the network's multiply-accumulates.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import statistics
from pathlib import Path

import torch

from . import catalogue
from . import request as fields
from .bundle import ModelBundle
from .errors import UserError
from .image import read_geometry
from .inference import resolve_device, window_count
from .job import Report
from .networks.macs import count_variant
from .networks.registry import spec
from .preprocessing import Grid, grid_of, patch_of
from .safe_file import write_text
from .steps import Steps
from .volume import Volume
from .weights_storage import BYTES

# Multiply-accumulates per second and processor core, and of a GPU: what the hippocampus model reached on two cores of a
# server and the order of magnitude of a GPU of the middle class. A guess until there is a measurement.
_MACS_PER_S_AND_CORE, _MACS_PER_S_GPU = 2e10, 1.5e12
_START_S = 3.0  # torch, the model and the kernels; once per worker
_PROCESS_MB = 500.0  # Python with torch, the model and the kernels, before any image (measured)
_ACTIVATION_BYTES_PER_MAC = 0.02  # of a pass at its peak: of the hippocampus model, measured


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "input", "model", "roi", "roi_ras", "roi_mask", "device", "overlap", "mirror" and "frame" as for
            "segment".

    Returns:
        {seconds, memory_mb, windows, how}: `how` says in a sentence where the numbers come from. `memory_mb` is the
        program's largest size in main memory, or for a GPU what the model needs on it.

    Raises:
        UserError: as "segment", as far as that can be known from headers.
    """
    job = Steps(report, {} if warm is None else warm)
    bundle, device = catalogue.find(fields.needed(request, "model")), resolve_device(request.get("device") or "auto")
    recipe = fields.recipe(request, bundle)
    volume = _geometry(job, request)
    grid = grid_of(volume, recipe, fields.region(request))
    windows = window_count(grid.network_shape, patch_of(recipe), recipe["overlap"])
    macs = macs_of_a_pass(bundle)
    passes = windows * _flips(recipe)
    measured = measured_pass_s(bundle, device)
    if measured is None:
        rate = _MACS_PER_S_GPU if device.type != "cpu" else _MACS_PER_S_AND_CORE * torch.get_num_threads()
        how = f"guessed from the network's {macs / 1e9:.1f} billion multiplications per pass; not yet measured here"
    else:
        how = "measured with this model on this machine"
    pass_s = macs / rate if measured is None else measured
    is_warm = any(key[1] == bundle.sha256 for key in job.warm.get("networks", {}))
    seconds = passes * pass_s + grid_seconds(grid, bundle) + (0 if is_warm else _START_S)
    memory = _memory_mb(volume, grid, bundle, macs, device)
    return {"seconds": seconds, "memory_mb": memory, "windows": windows, "how": how}


def _geometry(job: Steps, request: dict) -> Volume:
    """The first input's geometry; what has no simple header is read, and kept for the segmentation."""
    paths = fields.sources(request)
    found = read_geometry(paths[0]) if request.get("frame") is None else None
    return fields.read_image(job, paths, request.get("frame")) if found is None else found


def macs_of_a_pass(bundle: ModelBundle) -> int:
    """Multiply-accumulates of one window through the bundle's network."""
    network = bundle.network
    size = tuple(bundle.inference["patch"])[-spec(network["name"]).dims :]
    channels = network["in_channels"], network["out_channels"]
    return count_variant(network["name"], *channels, size, **network.get("hyper", {})).everything


def _flips(recipe: dict) -> int:
    return 2 ** len(recipe["mirror_axes"])


def grid_seconds(grid: Grid, bundle: ModelBundle) -> float:
    """Preparing the image and bringing the result back: about a tenth of a microsecond per voxel and class."""
    return 1e-7 * math.prod(grid.network_shape) * bundle.network["out_channels"]


def _memory_mb(volume: Volume, grid: Grid, bundle: ModelBundle, macs: int, device: torch.device) -> float:
    activations = macs * _ACTIVATION_BYTES_PER_MAC
    stored = bundle.data["weights"]
    weights = 4 * stored["bytes"] / BYTES[stored["dtype"]]
    if device.type != "cpu":
        return (activations + weights) / 2**20
    voxels = math.prod(grid.network_shape)
    region = math.prod(part.stop - part.start for part in grid.crop)
    image = 8 * math.prod(volume.array.shape)
    work = 4 * (region + 2 * voxels) * bundle.network["in_channels"] + 4 * voxels * (bundle.network["out_channels"] + 2)
    back = 16 * region
    return _PROCESS_MB + (image + work + back + activations + weights) / 2**20


def remember_pass(bundle: ModelBundle, device: torch.device, pass_times_s: list[float]) -> None:
    """Note what a pass took, for the next estimate. The median: the first passes load and compile."""
    path = _rates_file()
    rates = _rates()
    rates[_key(bundle, device)] = {"pass_s": round(statistics.median(pass_times_s), 5)}
    with contextlib.suppress(OSError, UserError):  # only estimates get worse where nothing may be written
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(rates, indent=1))


def measured_pass_s(bundle: ModelBundle, device: torch.device) -> float | None:
    """Seconds of a pass, as `remember_pass` noted them; None when there is no note."""
    noted = _rates().get(_key(bundle, device))
    return noted["pass_s"] if isinstance(noted, dict) and isinstance(noted.get("pass_s"), float) else None


def _rates() -> dict:
    try:
        found = json.loads(_rates_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: estimates start anew
        return {}
    return found if isinstance(found, dict) else {}


def _rates_file() -> Path:
    return catalogue.user_folder().parent / "measured_rates.json"


def _key(bundle: ModelBundle, device: torch.device) -> str:
    """A model on a processor: other weights of the same shape take the same time, so the network is what counts."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.node()}"
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return json.dumps([bundle.network, list(bundle.inference["patch"]), name, threads])
