"""Networks at work: which device, a bundle's weights into its network, an image through it window by window."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from safetensors import SafetensorError
from torch import Tensor, nn

from .bundle import ModelBundle, open_bundle
from .errors import UserError
from .job import Report
from .networks import create, spec
from .ops.backends import telling_of_preparation
from .ops.cross_scan import LADDER as CROSS_SCAN
from .ops.selective_scan import LADDER as SCAN
from .preprocessing import patch_of
from .weights_storage import read_arrays
from .wording import counted

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str = "auto") -> torch.device:
    """'auto' is what the variable MAMBASEG_DEVICE says, else cuda where there is one, else cpu.

    Never mps by itself: its Conv3D is missing or slow in many torch versions.

    Raises:
        UserError: no such device, or not on this machine.
    """
    name = (os.environ.get("MAMBASEG_DEVICE") or name) if name == "auto" else name
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not index.isdigit()):
        raise UserError(f"A device ({', '.join(DEVICES)}) was expected, but '{name}' came.", "Use 'auto'.")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= there:
        raise UserError(
            f"The device '{name}' was asked for, but torch {torch.__version__} finds "
            f"{'only ' if there else ''}{counted(there, 'such device')} on this machine.",
            "Use 'auto' or 'cpu', or install a torch build and driver for it.",
        )
    return torch.device(name)


def load_network(bundle: ModelBundle, device: torch.device) -> nn.Module:
    """The bundle's network with its weights in fp32, in evaluation mode, on `device`; (B, C, Z, Y, X) also if 2-D.

    The weights' checksum is compared first (again: the bundle may have been opened some time ago).

    Raises:
        UserError: weights tampered with, unreadable, or not those of the network that the bundle names.
    """
    bundle = open_bundle(bundle.folder)
    described = bundle.network
    try:
        network = create(
            described["name"], described["in_channels"], described["out_channels"], **described.get("hyper", {})
        )
        network.load_state_dict(weights_of(bundle))
    except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"The model '{bundle.id}' should hold weights of the network '{described['name']}', but they do not fit "
            f"({str(error).splitlines()[0]}).",
            "Update this program, or copy the model again from where it came.",
        ) from error
    if spec(described["name"]).dims == 2:
        network = SliceWise(network)
    return network.eval().requires_grad_(False).to(device)


def weights_of(bundle: ModelBundle) -> dict[str, torch.Tensor]:
    """The bundle's weights in fp32, on the CPU, by the names of its network."""
    return {name: torch.from_numpy(array) for name, array in read_arrays(bundle.weights_path).items()}


class SliceWise(nn.Module):
    """A 2-D network that takes windows one slice thick: (B, C, 1, Y, X) -> (B, K, 1, Y, X)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        return self.network(window.squeeze(2)).unsqueeze(2)


def scan_backend(network: nn.Module, device: torch.device) -> str:
    """Name of the selective-scan backend that the network ran on; 'torch' for one without scans or before its run."""
    names = [name.rpartition(".")[2] for name, _ in network.named_parameters()]
    ladders = [ladder for name, ladder in (("A_log", SCAN), ("A_logs", CROSS_SCAN)) if name in names]
    return next((ladder.taken[device.type] for ladder in ladders if device.type in ladder.taken), "torch")


def window_count(shape, patch, overlap: float) -> int:
    """How many windows MONAI's sliding window makes of a (Z, Y, X) grid."""
    count = 1
    for n, p in zip(shape, patch, strict=True):
        step = p if p >= n else max(1, int(p * (1 - overlap)))
        count *= max(0, math.ceil((n - p) / step)) + 1
    return count


def predict(
    network: nn.Module,
    array: np.ndarray,
    recipe: dict,
    device: torch.device,
    report: Report | None = None,
    pass_times_s: list[float] | None = None,
) -> np.ndarray:
    """Class probabilities of an image, by overlapping windows that are blended with Gaussian weights.

    Args:
        network: (1, C, Z, Y, X) -> logits (1, K, Z, Y, X).
        array: (C, Z, Y, X) float32, as `preprocessing.prepare` makes it; where it is smaller than the patch, zeros are
            put around it.
        recipe: "patch" ((z,) y, x), "overlap" 0..1, "mirror_axes" (axes 0..2 of Z, Y, X): the softmax is averaged over
            all their flips.
        device: where the network is.
        report: told about each window; its cancellation stops the work within one pass through the network.
        pass_times_s: takes the time of each pass through the network, of which a window needs one per flip.

    Returns:
        (K, Z, Y, X) float32, sums to 1 over K.

    Raises:
        Cancelled: by the report.
        UserError: not enough memory.
    """
    half = torch.autocast("cuda") if device.type == "cuda" else contextlib.nullcontext()
    report = report or Report()

    def tell() -> None:
        report.message("Preparing the fast kernels for this computer (once per start, about a second).")

    with torch.inference_mode(), half, memory_errors(device), telling_of_preparation(tell):
        return blended(Window(network, recipe["mirror_axes"], device, pass_times_s), array, recipe, report)


def blended(window: Callable[[Tensor, Report], Tensor], array: np.ndarray, recipe: dict, report: Report) -> np.ndarray:
    """What `window` says about overlapping parts of an image, blended with Gaussian weights.

    Args:
        window: (1, C, *patch), report -> (1, M, *patch) on the CPU.
        array, recipe, report: as in `predict`.

    Returns:
        (M, Z, Y, X) float32, kept on the CPU: many classes of a large image do not fit beside the network on a GPU.
    """
    patch, overlap = patch_of(recipe), float(recipe["overlap"])
    total, done = window_count(array.shape[1:], patch, overlap), itertools.count()

    def one_window(part: Tensor) -> Tensor:
        number = next(done)
        report.progress(number, total, f"Window {number + 1} of {total}")
        return window(part, report)

    result = sliding_window_inference(
        torch.from_numpy(array)[None],
        patch,
        sw_batch_size=1,
        predictor=one_window,
        overlap=overlap,
        mode="gaussian",
        device=torch.device("cpu"),
    )
    report.progress(total, total, "Putting the windows together")
    return result[0].float().numpy()


class Window:
    """One window -> softmax, averaged over flips, on the CPU; stops where the report says so."""

    def __init__(self, network: nn.Module, mirror_axes, device: torch.device, pass_times_s: list[float] | None = None):
        axes = [2 + axis for axis in mirror_axes]
        self.flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]
        self.network, self.device = network, device
        self.pass_times_s = [] if pass_times_s is None else pass_times_s

    def __call__(self, window: Tensor, report: Report) -> Tensor:
        window = window.to(self.device)
        mean = torch.zeros(())
        for flip in self.flips:
            report.check_cancelled()
            start = time.perf_counter()
            logits = self.network(window.flip(flip)).flip(flip)
            mean = mean + torch.softmax(logits.float(), dim=1).cpu() / len(self.flips)
            self.pass_times_s.append(time.perf_counter() - start)
        return mean


@contextlib.contextmanager
def memory_errors(device: torch.device):
    """Turns the device's own complaints about memory into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch's allocator on the CPU raises a plain RuntimeError, known by its text alone.
        exhausted = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)
        if not exhausted:
            raise
        raise UserError(
            f"More memory was needed than the device '{device}' has left.",
            "Choose a smaller region of interest, close other programs, or use another device.",
        ) from error
