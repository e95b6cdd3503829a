"""Loss of Attention-Mamba (arXiv 2402.02286v4): its nine outputs, all at the size of the image.

Fused and branch outputs weigh 1, those before the branches 1/4; the sum is not normalised. Several classes: half
cross-entropy, half Dice. One class (lesion or not, sigmoid): binary cross-entropy plus Dice per image, against targets
that may be soft, as resized masks are.
"""

import torch.nn.functional as F
from torch import Tensor

from .losses import UNKNOWN
from .losses_dice import squared_dice

WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25)  # fused, four branches, four before their branches


def cross_entropy_squared_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """0.5 CE + 0.5 Dice; logits (B, K, H, W), labels (B, H, W) with ``UNKNOWN`` left out."""
    known = (labels != UNKNOWN).sum().clamp(min=1)
    cross_entropy = F.cross_entropy(logits.float(), labels.long(), ignore_index=UNKNOWN, reduction="sum") / known
    return 0.5 * cross_entropy + 0.5 * squared_dice(logits, labels)


def binary_cross_entropy_dice(logits: Tensor, target: Tensor) -> Tensor:
    """BCE + Dice per image, smoothed by 1.

    Args:
        logits: (B, 1, H, W).
        target: (B, H, W) between 0 and 1, or ``UNKNOWN``.
    """
    logits, target = logits.float().flatten(1), target.float().flatten(1)
    known = (target != UNKNOWN).float()
    target = target * known
    per_pixel = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid() * known
    overlap = (probability * target).sum(1)
    dice = (2 * overlap + 1) / (probability.sum(1) + target.sum(1) + 1)
    return (per_pixel * known).sum() / known.sum().clamp(min=1) + 1 - dice.mean()


def nine_outputs(outputs: list[Tensor], target: Tensor) -> Tensor:
    """Weighted sum over the outputs of ``AttentionMamba.forward_multiscale``.

    Args:
        outputs: nine of (B, K, H, W).
        target: (B, H, W), classes where K > 1, else see ``binary_cross_entropy_dice``.
    """
    loss = binary_cross_entropy_dice if outputs[0].shape[1] == 1 else cross_entropy_squared_dice
    return sum(weight * loss(output, target) for weight, output in zip(WEIGHTS, outputs, strict=True))
