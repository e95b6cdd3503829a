"""Which part of a network learns: all of it, its decoder, or low-rank adapters that are merged in the end.

Adapters are LoRA (Hu et al. 2021, arXiv 2106.09685): a weight W, as a matrix of its output channels, becomes
W + B A with A of rank r drawn at random and B zero, for every linear layer and convolution. W stays, A and B learn;
so do biases, norms and the other small parameters, and the heads, which are small too. Merged, W + B A is a plain
weight again: the network and its file are those of the parent.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

METHODS = ("all", "decoder", "adapters")
RANK = 4
# First names of the parts before and at the skips, over all networks of the registry.
ENCODER = re.compile(
    r"(encoder\d*|vssm_encoder|backbone|stem|patch_embed|layers|norm|vit|convInit|down_layers|in_conv|att\d|layer\d"
    r"|ebn\d|cnn|reduce)\."
)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """W -> W + B A, W of shape (out, in, *kernel) taken as a matrix (out, in * kernel)."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, columns, device=weight.device) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def choose(network: nn.Module, method: str, class_keys=()) -> nn.Module:
    """Leave only what the method teaches with ``requires_grad``; puts adapters in where it asks for them.

    Args:
        network: changed in place.
        method: of ``METHODS``.
        class_keys: names of the parameters that depend on the classes; they always learn directly.
    """
    class_keys = set(class_keys)
    for name, parameter in network.named_parameters():
        is_small = parameter.dim() <= 1
        frozen = bool(ENCODER.match(name)) if method == "decoder" else method == "adapters" and not is_small
        parameter.requires_grad_(name in class_keys or not frozen)
    if method == "adapters":
        for name, layer in list(network.named_modules()):
            if isinstance(layer, _LAYERS) and f"{name}.weight" not in class_keys and _is_worth_it(layer.weight):
                parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, RANK))
    return network


def _is_worth_it(weight: Tensor) -> bool:
    """Whether the two factors are smaller than the weight."""
    rows, columns = weight.shape[0], weight[0].numel()
    return RANK * (rows + columns) < rows * columns


def merge(network: nn.Module) -> nn.Module:
    """Write the adapters into the weights and remove them, in place."""
    for layer in list(network.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return network
