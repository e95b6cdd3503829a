"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training, leave out a residual branch per sample."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """x (B, ...) -> x, or in training each sample 0 with the given probability and scaled up otherwise."""

    def __init__(self, probability: float = 0.0):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if self.probability == 0.0 or not self.training:
            return x
        keep = 1 - self.probability
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / keep
