"""Distribution-aware deep supervision (MSDA), and the traditional kind that it is compared with.

Bougourzi, Dornaika, Hadid, arXiv 2603.12547 (Deco-Mamba). A coarse level does not predict the class of its pixels, it
predicts how the classes are mixed within the window each of its pixels covers; so nothing is resized, and small
structures are not lost to a nearest neighbour. Usable with any network that has ``forward_multiscale``.

Shape letters: B batch, K classes, S coarse levels; a level's grid is (h, w), or (d, h, w) in 3-D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses_dice import one_hot, squared_dice

AVERAGE_POOL = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


def class_distribution(labels: Tensor, classes: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """How often each class occurs within each window.

    Args:
        labels: (B, *grid) class indices, ``UNKNOWN`` where there is none.
        classes: K.
        size: windows per axis.

    Returns:
        P (B, K, *size), of sum 1 over the known voxels of a window, and whether it has any (B, *size).
    """
    truth, known = one_hot(labels, classes)
    pool = AVERAGE_POOL[labels.dim() - 1]
    share = pool(known, size)
    return pool(truth, size) / share.clamp(min=1e-12), share[:, 0] > 0


def distribution_loss(logits: Tensor, labels: Tensor, alpha: float = 1.0, floor: float = 1.0) -> Tensor:
    """Mean of KL(P || softmax(logits)) over windows, weighted by ``floor + (1 - max P)^alpha``.

    Args:
        logits: (B, K, *size) of one level, at its own size.
        labels: (B, *grid).
        alpha: exponent of the boundary weight.
        floor: weight of windows of one class; 0 is the paper's formula to the letter, which passes over them.
    """
    truth, known = class_distribution(labels, logits.shape[1], tuple(logits.shape[2:]))
    divergence = (torch.xlogy(truth, truth) - truth * logits.float().log_softmax(1)).sum(1)  # (B, *size)
    weight = (floor + (1 - truth.amax(1)).clamp(min=0) ** alpha) * known
    return (weight * divergence).sum() / weight.sum().clamp(min=1e-6)


def stage_weights(stages: int) -> list[float]:
    """The finest of the S coarse levels weighs 1, the coarsest 1/S."""
    return [1 - i / stages for i in range(stages)]


def msda(levels: list[Tensor], labels: Tensor, weights=None, alpha: float = 1.0, floor: float = 1.0) -> Tensor:
    """Dice of the full-size logits plus the weighted distribution losses of the coarse levels.

    Args:
        levels: logits, finest first, as ``forward_multiscale`` gives them.
        labels: (B, *grid_0).
        weights: of levels 1 to S; None: ``stage_weights``.
        alpha, floor: see ``distribution_loss``.
    """
    weights = _checked_weights(weights, levels)
    coarse = zip(weights, levels[1:], strict=True)
    return squared_dice(levels[0], labels) + sum(w * distribution_loss(o, labels, alpha, floor) for w, o in coarse)


def resized_supervision(levels: list[Tensor], labels: Tensor, weights=None, loss=squared_dice) -> Tensor:
    """Traditional deep supervision: every level is enlarged to the labels' size, the same loss there.

    Args:
        levels, labels, weights: as in ``msda``.
        loss: ``f(logits, labels)``.
    """
    weights = _checked_weights(weights, levels)
    total = loss(levels[0], labels)
    for weight, logits in zip(weights, levels[1:], strict=True):
        full = F.interpolate(logits, labels.shape[1:], mode=LINEAR[labels.dim() - 1], align_corners=False)
        total = total + weight * loss(full, labels)
    return total


def _checked_weights(weights, levels: list[Tensor]) -> list[float]:
    stages = len(levels) - 1
    if stages < 1:
        raise ValueError("expected logits of two levels or more; does the network have its supervised heads?")
    weights = stage_weights(stages) if weights is None else list(weights)
    if len(weights) != stages:
        raise ValueError(f"expected {stages} weights, one per level but the finest, got {len(weights)}")
    return weights
