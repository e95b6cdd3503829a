"""Losses of partly annotated cases: where only some structures were marked, the rest is not known to be background.

The marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ segmentation",
Medical Image Analysis 70 (2021): the classes that nobody looked for count as one with the background, with the sum of
their probabilities. Every loss of logits and labels can be had that way.
"""

from collections.abc import Callable

import torch
from torch import Tensor

NEVER = -1e4  # a logit whose probability is 0 also in single precision


def merge(logits: Tensor, merged: Tensor) -> Tensor:
    """Logits whose softmax has the merged classes' probability in channel 0.

    Args:
        logits: (B, K, *grid).
        merged: (B, K) bool; in each sample the classes that count as one. Class 0 is one of them where there are any.

    Returns:
        (B, K, *grid) float32.
    """
    logits = logits.float()
    shape = (*merged.shape, *(1,) * (logits.dim() - 2))
    together = merged.view(shape)
    background = torch.logsumexp(logits.masked_fill(~together, -torch.inf), dim=1, keepdim=True)
    apart = logits.masked_fill(together, NEVER)
    first = torch.where(merged.any(1).view(-1, *(1,) * (logits.dim() - 1)), background, logits[:, :1])
    return torch.cat([first, apart[:, 1:]], dim=1)


def partial(loss: Callable[[list[Tensor], Tensor], Tensor]) -> Callable[[list[Tensor], Tensor, Tensor | None], Tensor]:
    """``loss(levels, labels)`` as ``f(levels, labels, merged)``; ``merged`` None: everything was annotated."""

    def of_known(levels: list[Tensor], labels: Tensor, merged: Tensor | None) -> Tensor:
        return loss(levels if merged is None else [merge(level, merged) for level in levels], labels)

    return of_known
