"""Soft Dice with squared sums over all classes, background included: TransUNet's, Deco-Mamba's, Attention-Mamba's."""

import torch.nn.functional as F
from torch import Tensor

from .losses import SMOOTH, UNKNOWN


def squared_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over classes of 1 - (2 sum(p t) + s) / (sum(p^2) + sum(t^2) + s), each sum over the whole batch.

    Args:
        logits: (B, K, *grid); p is their softmax.
        labels: (B, *grid) class indices; voxels of ``UNKNOWN`` take no part.
    """
    truth, known = one_hot(labels, logits.shape[1])
    probability = logits.float().softmax(1) * known
    axes = (0, *range(2, logits.dim()))
    overlap = (probability * truth).sum(axes)
    size = (probability.square() + truth).sum(axes)  # t^2 = t
    return (1 - (2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def one_hot(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(B, *grid) -> truth (B, K, *grid), zero where unknown, and known (B, 1, *grid), both float."""
    labels = labels.long()
    known = (labels != UNKNOWN).unsqueeze(1)
    truth = F.one_hot(labels.masked_fill(~known[:, 0], 0), classes).movedim(-1, 1)
    return (truth * known).float(), known.float()
