"""nnU-Net's U-Nets in bricks (Isensee et al. 2021, Nature Methods 18, 203; ResEnc: Isensee et al. 2024, 2404.09556).

Parameter names are those of nnU-Net's networks, so that its checkpoints load; the second names under which they store
the same tensors (``all_modules``, ``decoder.encoder``) are removed by ``drop_aliases``.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, cat, nn

from ..errors import UserError
from .any_size import AnySizeNetwork
from .conv import CONV, TRANSPOSED_CONV, as_tuple, conv, instance_norm, pad_to_multiple

AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class ConvNormAct(nn.Sequential):
    """Convolution, instance norm and, where asked for, LeakyReLU."""

    def __init__(self, dims, in_channels, out_channels, kernel, stride=1, act=True, bias=True):
        kernel = as_tuple(kernel, dims)
        padding = tuple(k // 2 for k in kernel)
        parts = OrderedDict(
            conv=CONV[dims](in_channels, out_channels, kernel, as_tuple(stride, dims), padding, bias=bias),
            norm=instance_norm(dims, out_channels),
        )
        if act:
            parts["act"] = nn.LeakyReLU(0.01)
        super().__init__(parts)


class StackedConvs(nn.Module):
    """``count`` ConvNormActs, the first with the stride."""

    def __init__(self, dims, in_channels, out_channels, kernel, stride, count):
        super().__init__()
        self.convs = nn.Sequential(
            *(
                ConvNormAct(dims, out_channels if i else in_channels, out_channels, kernel, 1 if i else stride)
                for i in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class ResidualBlock(nn.Module):
    """Residual block "D": LeakyReLU(conv2 conv1 x + skip x); the skip averages, then changes the width without bias."""

    def __init__(self, dims, in_channels, out_channels, kernel, stride=1):
        super().__init__()
        stride = as_tuple(stride, dims)
        self.conv1 = ConvNormAct(dims, in_channels, out_channels, kernel, stride)
        self.conv2 = ConvNormAct(dims, out_channels, out_channels, kernel, act=False)
        skip = [AVERAGE_POOL[dims](stride, stride)] if set(stride) != {1} else []
        if in_channels != out_channels:
            skip.append(ConvNormAct(dims, in_channels, out_channels, 1, act=False, bias=False))
        self.skip = nn.Sequential(*skip)
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.conv1(x)) + self.skip(x))


class ResidualStage(nn.Module):
    """``count`` residual blocks, the first with the stride."""

    def __init__(self, dims, in_channels, out_channels, kernel, stride, count):
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(dims, in_channels, out_channels, kernel, stride),
            *(ResidualBlock(dims, out_channels, out_channels, kernel) for _ in range(count - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Encoder(nn.Module):
    """Image -> features of every level, finest first.

    Args:
        dims: 2 or 3.
        in_channels: of the image.
        features, kernels, strides, counts: width, kernel, stride and number of convolutions or blocks per level.
        residual: residual blocks behind a stem, else plain convolutions.
    """

    def __init__(self, dims, in_channels, features, kernels, strides, counts, residual):
        super().__init__()
        levels = list(zip(features, kernels, strides, counts, strict=True))
        widths = [features[0] if residual else in_channels, *features]
        if residual:
            self.stem = StackedConvs(dims, in_channels, features[0], kernels[0], 1, 1)
            stages = (ResidualStage(dims, widths[i], f, k, s, n) for i, (f, k, s, n) in enumerate(levels))
        else:
            self.stem = nn.Identity()
            stages = (nn.Sequential(StackedConvs(dims, widths[i], f, k, s, n)) for i, (f, k, s, n) in enumerate(levels))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, skips = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    """Transposed convolution, skip, convolutions; one head per level. Step j runs from level n-1-j to n-2-j.

    Args:
        dims, features, kernels, strides: as the encoder's.
        counts: convolutions per step, coarsest first.
        out_channels: classes.
    """

    def __init__(self, dims, features, kernels, strides, counts, out_channels):
        super().__init__()
        steps = list(zip(range(len(features) - 1, 0, -1), counts, strict=True))
        strides = [as_tuple(s, dims) for s in strides]
        up = TRANSPOSED_CONV[dims]
        self.transpconvs = nn.ModuleList(up(features[i], features[i - 1], strides[i], strides[i]) for i, _ in steps)
        self.stages = nn.ModuleList(
            StackedConvs(dims, 2 * features[i - 1], features[i - 1], kernels[i - 1], 1, n) for i, n in steps
        )
        self.seg_layers = nn.ModuleList(conv(dims, features[i - 1], out_channels, 1) for i, _ in steps)

    def forward(self, skips: list[Tensor], all_scales: bool) -> list[Tensor]:
        """Features, finest first -> logits, finest first (of the finest level alone unless ``all_scales``)."""
        x, outputs = skips[-1], []
        for j, (up, stage, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(cat((up(x), skips[-2 - j]), dim=1))
            if all_scales or j == len(self.stages) - 1:
                outputs.insert(0, head(x))
        return outputs


class UNet(AnySizeNetwork):
    """Encoder and decoder for images of any size; subclasses change the features between them in ``bridge``.

    Args:
        encoder: image -> features, finest first.
        decoder: (features, all_scales) -> logits, finest first.
        strides: of every level, one number per axis.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, strides: list[tuple[int, ...]]):
        super().__init__()
        self.encoder, self.decoder, self.strides = encoder, decoder, strides

    @property
    def divisor(self) -> tuple[int, ...]:
        """Grid sizes that are multiples of it need no padding."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))

    def bridge(self, skips: list[Tensor]) -> list[Tensor]:
        """What happens to the features between encoder and decoder: here nothing."""
        return skips

    def pad(self, x: Tensor) -> Tensor:
        return pad_to_multiple(x, self.divisor)  # leaves the coarsest instance norm two voxels

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        return self.decoder(self.bridge(self.encoder(padded)), all_scales)


def merge_copies(state: dict, rename: Callable[[str], str]) -> dict:
    """Rename tensors; those that get the same name must be equal, and are kept once.

    Raises:
        UserError: two copies of a tensor differ, which no network that shares it can have written.
    """
    merged = {}
    for key, tensor in state.items():
        name = rename(key)
        if name in merged and not torch.equal(merged[name], tensor):
            message = f"Two copies of '{name}' in the weights differ ({key})."
            raise UserError(message, "The file is damaged; get it anew.")
        merged[name] = tensor
    return merged


def drop_aliases(state: dict) -> dict:
    """nnU-Net checkpoint -> every tensor once, under its first name."""

    def rename(key: str) -> str:
        key = key.removeprefix("decoder.") if key.startswith("decoder.encoder.") else key
        return re.sub(r"\.all_modules\.(\d+)\.", lambda m: ".conv." if m[1] == "0" else ".norm.", key)

    return merge_copies(state, rename)
