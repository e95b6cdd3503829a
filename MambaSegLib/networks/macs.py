"""Multiply-accumulate operations (MAC) of a network, counted on the meta device: no weights, no arithmetic, any size.

Papers count differently, so the parts are kept apart and the usual sums are properties of ``MacCount``:

    layers      conv + linear + einsum + bias: what ptflops (aten back end) and most papers print as "FLOPs"
    modules     conv + linear + 4 per normalised element: what thop prints, which misses products with raw parameters
    everything  layers + attention + deformable + scan: what the network costs

The scan is counted by VMamba's rule, 9 B L D N + B L D (+ B L D with a gate), exponentials and softplus included.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..ops.plain import operators_replaced
from .registry import create, spec

CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d}
TRANSPOSED = {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
WITH_BIAS = {*CONVOLUTIONS, *TRANSPOSED, F.linear}
PRODUCTS = {torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm}
NORMS = {F.batch_norm, F.instance_norm, F.layer_norm, F.group_norm, torch.layer_norm, torch.group_norm}


@dataclass
class MacCount:
    """MACs of one forward pass, by kind.

    Attributes:
        conv: convolutions, ordinary and transposed, and the causal filters of Mamba.
        linear: matrices owned by ``nn.Linear``.
        einsum: other matrix products, such as the projections of SS2D.
        bias: one per output of a convolution or linear layer with bias.
        attention: the two products of softmax attention.
        deformable: the products of deformable convolutions (their offset branches are ``conv``).
        scan: selective scans by VMamba's rule.
        scan_states: B L D N summed over the scans, for rules with another factor.
        norm_elements: elements that pass through a norm.
    """

    conv: int = 0
    linear: int = 0
    einsum: int = 0
    bias: int = 0
    attention: int = 0
    deformable: int = 0
    scan: int = 0
    scan_states: int = 0
    norm_elements: int = 0

    @property
    def layers(self) -> int:
        """conv + linear + einsum + bias."""
        return self.conv + self.linear + self.einsum + self.bias

    @property
    def modules(self) -> int:
        """thop's rule, but for its pooling terms (below 0.1 %)."""
        return self.conv + self.linear + 4 * self.norm_elements

    @property
    def everything(self) -> int:
        """layers + attention + deformable + scan."""
        return self.layers + self.attention + self.deformable + self.scan


def count_variant(name: str, in_channels: int, out_channels: int, size: tuple[int, ...], **hyper) -> MacCount:
    """MACs of a registered variant for one image.

    Args:
        name: see ``registry.names()``.
        in_channels, out_channels: image channels, classes.
        size: grid of the image.
        **hyper: overrides of the variant's hyper-parameters.

    Raises:
        ValueError: the size has not as many axes as the network.
    """
    if len(size) != spec(name).dims:
        raise ValueError(f"'{name}' takes {spec(name).dims} grid axes, got the size {tuple(size)}")
    with torch.device("meta"):
        network = create(name, in_channels, out_channels, **hyper)
    return count(network, (1, in_channels, *size))  # outside: scan orders are kept and must not be meta tensors


def count(network: nn.Module, shape: tuple[int, ...]) -> MacCount:
    """MACs of one forward pass in evaluation mode.

    Args:
        network: built under ``torch.device("meta")``; its mode is restored afterwards.
        shape: (B, C, *grid).
    """
    total, training = MacCount(), network.training
    network.eval()
    try:
        with torch.no_grad(), _operators(total), _Counter(total, network):
            network(torch.empty(shape, device="meta"))
    finally:
        network.train(training)
    return total


class _Counter(TorchFunctionMode):
    """Adds up what goes through torch's own layers and products."""

    def __init__(self, total: MacCount, network: nn.Module):
        super().__init__()
        self.total = total
        self.owned = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function in CONVOLUTIONS:
            self.total.conv += result.numel() * args[1][0].numel()
        elif function in TRANSPOSED:
            self.total.conv += args[0].numel() * args[1][0].numel()
        elif function is F.linear:
            self._linear(args[0], args[1])
        elif function is torch.einsum:
            self.total.einsum += _einsum_macs(args[0], *args[1:])
        elif function in PRODUCTS:
            self.total.einsum += result.numel() * args[0].shape[-1]
        elif function is F.scaled_dot_product_attention:
            query, key = args[:2]
            self.total.attention += (query.numel() + result.numel()) * key.shape[-2]
        elif function in NORMS:
            self.total.norm_elements += result.numel()
        if function in WITH_BIAS and (args[2] if len(args) > 2 else kwargs.get("bias")) is not None:
            self.total.bias += result.numel()
        return result

    def _linear(self, x: Tensor, weight: Tensor) -> None:
        macs = x.numel() * weight.shape[0]
        owner = weight if weight._base is None else weight._base  # half of a matrix is owned, too
        if id(owner) in self.owned:
            self.total.linear += macs
        else:
            self.total.einsum += macs


def _einsum_macs(equation: str, *operands) -> int:
    """One MAC per combination of all letters (two operands)."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if isinstance(operands[0], (list, tuple)):
        operands = operands[0]
    sizes = {}
    for term, operand in zip(terms, operands, strict=True):
        sizes |= dict(zip(term, operand.shape, strict=True))
    return math.prod(sizes.values())


def _operators(total: MacCount):
    """Our own operators count themselves and return an empty result of the right shape."""

    def scan(u, delta, A, B, C, D=None, z=None, *_):
        steps = delta.numel()
        total.scan_states += steps * A.shape[1]
        total.scan += 9 * steps * A.shape[1] + steps + (0 if z is None else steps)
        return torch.empty_like(u)

    def cross_scan(u, delta, A, B, C, D, *_):
        return scan(u, delta, A, B, C)

    def causal_conv1d(x, weight, *_):
        total.conv += x.numel() * weight.shape[1]
        return torch.empty_like(x)

    def deform_conv2d(x, offset, weight, *_):
        result = x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])
        total.deformable += result.numel() * weight[0].numel()
        return result

    counted = {"selective_scan": scan, "cross_scan": cross_scan}
    counted |= {"causal_conv1d": causal_conv1d, "deform_conv2d": deform_conv2d}

    # The meta device knows no autocast, which our operators switch off around themselves.
    return operators_replaced(counted)
