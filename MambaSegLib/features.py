"""What a network knows about every voxel: its probabilities, and the features that its head makes them from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inference import Window, blended, memory_errors
from .job import Report
from .preprocessing import Prepared
from .volume import Box

KEPT = 8  # principal directions: more of them did not help the corrections that are learned from them
_MOST = 32  # features per window before that; wider heads are turned and cut by a fixed random projection


@dataclass(frozen=True, eq=False)
class Features:
    """Of an image on the network's grid.

    Args:
        prepared: the image, and the way back.
        probabilities: (K, Z, Y, X) float32, summing to 1 over K.
        values: (M, Z, Y, X) float16, whitened principal components of the head's input; M may be 0.
    """

    prepared: Prepared
    probabilities: np.ndarray
    values: np.ndarray

    def inside(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """(K, z, y, x) probabilities and (M, z, y, x) features, float32, of a part of the input image's region."""
        found = [self.prepared.restore_part(array, box) for array in (self.probabilities, self.values)]
        return found[0], found[1]


def extract(network: nn.Module, prepared: Prepared, recipe: dict, device: torch.device, report: Report) -> Features:
    """One pass over the image like `inference.predict`, keeping the features too.

    Raises:
        Cancelled: by the report.
        UserError: not enough memory.
    """
    window = _FeatureWindow(network, recipe["mirror_axes"], device)
    with torch.inference_mode(), memory_errors(device), window.hooks():
        both = blended(window, prepared.array, recipe, report)
    probabilities, raw = both[: window.classes], both[window.classes :]
    return Features(prepared, probabilities, _whitened(raw, probabilities))


class _FeatureWindow(Window):
    """A window's softmax, and behind it the features of the pass that was not mirrored: (1, K + M, *patch)."""

    def __init__(self, network: nn.Module, mirror_axes, device: torch.device):
        super().__init__(network, mirror_axes, device)
        self.classes = 0
        self._seen: list[tuple[Tensor, int]] = []

    def hooks(self) -> _Hooks:
        return _Hooks(self.network, self._seen)

    def __call__(self, window: Tensor, report: Report) -> Tensor:
        self._seen.clear()
        softmax = super().__call__(window, report)
        self.classes = softmax.shape[1]
        count = len(self._seen) // len(self.flips)  # the first pass is the one without a flip
        heads = [x for x, channels in self._seen[:count] if channels == self.classes]
        self._seen.clear()
        return torch.cat([softmax, *_at_size(heads, window.shape[2:])], dim=1)


class _Hooks:
    """Notes the input and the number of outputs of every convolution while it is open."""

    def __init__(self, network: nn.Module, seen: list):
        self.network, self.seen, self.handles = network, seen, []

    def __enter__(self):
        def note(module, inputs, output):
            self.seen.append((inputs[0], module.out_channels))

        kinds = (nn.Conv2d, nn.Conv3d)
        self.handles = [m.register_forward_hook(note) for m in self.network.modules() if isinstance(m, kinds)]

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def _at_size(heads: list[Tensor], size) -> list[Tensor]:
    """The finest heads' inputs as (1, M, *size) on the CPU, at most `_MOST` channels together; [] without heads."""
    heads = [x.unsqueeze(2) if x.dim() == 4 else x for x in heads if len(x) == 1]  # U-Mamba Enc cuts windows
    if not heads:
        return []
    finest = max(reversed(heads), key=lambda x: x[0, 0].numel()).shape[2:]  # the last of equals: heads stand at the end
    joined = torch.cat([x.float() for x in heads if x.shape[2:] == finest], dim=1)
    if joined.shape[1] > _MOST:
        generator = torch.Generator().manual_seed(0)
        turned = torch.linalg.qr(torch.randn(joined.shape[1], _MOST, generator=generator))[0]
        joined = torch.einsum("bczyx,cm->bmzyx", joined, turned.to(joined.device))
    if all(have >= want for have, want in zip(joined.shape[2:], size, strict=True)):  # padded at its end by the network
        joined = joined[(..., *(slice(0, n) for n in size))]
    else:
        joined = F.interpolate(joined, tuple(size), mode="trilinear", align_corners=False)
    return [joined.cpu()]


def _whitened(raw: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(M, Z, Y, X) -> at most `KEPT` principal components of unit variance, judged where the network has doubts."""
    if not len(raw):
        return np.zeros((0, *probabilities.shape[1:]), np.float16)
    doubtful = probabilities.max(axis=0) < 0.975
    sample = raw[:, doubtful] if np.count_nonzero(doubtful) > 10 * len(raw) else raw.reshape(len(raw), -1)
    middle = sample.mean(axis=1, keepdims=True)
    variances, directions = np.linalg.eigh(np.cov(sample).reshape(len(raw), -1))
    kept = slice(-min(KEPT, len(raw)), None)
    scale = np.sqrt(variances[kept] + 1e-2 * max(variances[-1], 1e-12))
    turned = (directions[:, kept] / scale).T.astype(np.float32)
    flat = turned @ raw.reshape(len(raw), -1) - turned @ middle
    return np.clip(flat, -1e3, 1e3).reshape(-1, *raw.shape[1:]).astype(np.float16)
