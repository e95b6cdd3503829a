"""What keeps a network that learns from a few cases from forgetting the rest: its parent's opinion.

Where the annotation does not say otherwise, the probabilities of the child shall be those of the parent (learning
without forgetting, Li and Hoiem 2016, arXiv 1606.09282, voxel by voxel). Added structures count as background in that
comparison, because that is what the parent calls them (Cermelli et al. 2020, arXiv 2002.00718).
"""

import torch
from torch import Tensor, nn

from .losses import UNKNOWN
from .structures import Table

WEIGHT = 1.0


class Anchored:
    """Objective of the loop: the loss plus the divergence from the parent.

    Args:
        loss: ``f(levels, labels, merged)``.
        parent: network in evaluation mode, on the device.
        table: how its classes became the child's.
        weight: of the divergence.
    """

    def __init__(self, loss, parent: nn.Module, table: Table, weight: float = WEIGHT):
        self.loss, self.parent, self.table, self.weight = loss, parent, table, weight

    def __call__(self, levels: list[Tensor], labels: Tensor, merged: Tensor | None, images: Tensor) -> Tensor:
        with torch.no_grad():
            opinion = self.table.aim(self.parent(images).float().softmax(1))
        divergence = divergence_from(opinion, levels[0].float(), labels, merged, self.added)
        return self.loss(levels, labels, merged) + self.weight * divergence

    @property
    def added(self) -> list[int]:
        return [k for k, origin in enumerate(self.table.origins) if not origin]


def divergence_from(opinion: Tensor, logits: Tensor, labels: Tensor, merged: Tensor | None, added: list[int]) -> Tensor:
    """Mean of KL(opinion || softmax(logits)) over the voxels where the annotation does not contradict the opinion.

    Args:
        opinion: (B, K, *grid), 0 for the classes ``added``.
        logits: (B, K, *grid).
        labels: (B, *grid), ``UNKNOWN`` where there is none.
        merged: (B, K) classes that label 0 may hide, or None.
        added: classes that the parent calls background.
    """
    kept = [k for k in range(opinion.shape[1]) if k not in added]
    log_all = logits.log_softmax(1)
    log_background = log_all[:, [0, *added]].logsumexp(1, keepdim=True)
    log_child = torch.cat([log_background, log_all[:, kept[1:]]], 1)
    target = opinion[:, kept]
    divergence = (torch.xlogy(target, target) - target * log_child).sum(1)
    agrees = ~contradicted(opinion.argmax(1), labels, merged, added)
    return (divergence * agrees).sum() / agrees.sum().clamp(min=1)


def contradicted(said: Tensor, labels: Tensor, merged: Tensor | None, added: list[int]) -> Tensor:
    """Where the annotation is known to be another class than the parent says; (B, *grid) bool."""
    known = labels != UNKNOWN
    other = known & (said != labels)
    for k in added:
        other &= ~((labels == k) & (said == 0))
    if merged is not None:
        hidden = merged.to(labels.device).gather(1, said.flatten(1)).view_as(said)  # may label 0 hide what it says?
        other &= ~((labels == 0) & hidden)
    return other
