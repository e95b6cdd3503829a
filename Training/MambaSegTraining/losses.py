"""Cross-entropy plus soft Dice over the supervised levels of a network (nnU-Net's loss; MM-UNet eq. 6).

Voxels labelled ``UNKNOWN`` take part in neither: unlabelled is not background.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from MambaSegLib.corrected_case import UNKNOWN

SMOOTH = 1e-5


def soft_dice(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """1 - mean soft Dice over foreground classes, each measured over the whole batch.

    Args:
        logits: (B, K, *grid).
        target: (B, *grid) class indices; where ``known`` is False the value does not matter.
        known: (B, *grid) bool.
    """
    classes = logits.shape[1]
    axes = (0, *range(2, logits.dim()))
    weight = known.unsqueeze(1)
    probability = logits.softmax(1) * weight
    truth = F.one_hot(target, classes).movedim(-1, 1).to(logits.dtype) * weight
    overlap = (probability * truth).sum(axes)[1:]
    size = (probability + truth).sum(axes)[1:]
    return 1 - ((2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def cross_entropy_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """CE + soft Dice of one level; labels (B, *grid) with ``UNKNOWN`` left out."""
    labels = labels.long()
    known = labels != UNKNOWN
    target = labels.masked_fill(~known, 0)
    per_voxel = F.cross_entropy(logits, target, reduction="none")
    return (per_voxel * known).sum() / known.sum().clamp(min=1) + soft_dice(logits, target, known)


def deep_supervision(levels: list[Tensor], labels: Tensor, weights) -> Tensor:
    """Weighted sum over levels, finest first; labels are thinned out to coarser grids by nearest neighbour.

    Args:
        levels: logits (B, K, *grid_i).
        labels: (B, *grid_0).
        weights: one per level; renormalised to sum 1 over the levels there are.
    """
    used = torch.tensor(list(weights[: len(levels)]))
    total = 0
    for logits, weight in zip(levels, (used / used.sum()).tolist(), strict=True):
        coarse = F.interpolate(labels.unsqueeze(1).float(), size=logits.shape[2:], mode="nearest-exact").squeeze(1)
        total = total + weight * cross_entropy_dice(logits.float(), coarse)
    return total
