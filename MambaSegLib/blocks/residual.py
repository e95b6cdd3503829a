"""Residual convolution bricks in the manner of MONAI's UNETR blocks, as Swin-UMamba and SegMamba use them.

Convolutions without bias, instance norms without parameters; names are MONAI's (``conv1.conv.weight`` ...).
"""

from collections import OrderedDict

from torch import Tensor, cat, nn

from .conv import CONV, INSTANCE_NORM, TRANSPOSED_CONV


def named_conv(dims: int, in_channels: int, out_channels: int, kernel: int, bias: bool = False) -> nn.Sequential:
    """A convolution that keeps the size, under the name ``conv``."""
    layer = CONV[dims](in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(OrderedDict(conv=layer))


class ResBlock(nn.Module):
    """LeakyReLU(norm conv2 LeakyReLU(norm conv1 x) + skip x), the skip a normed 1x1 where the width changes."""

    def __init__(self, dims: int, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = named_conv(dims, in_channels, out_channels, 3)
        self.conv2 = named_conv(dims, out_channels, out_channels, 3)
        self.conv3 = named_conv(dims, in_channels, out_channels, 1) if in_channels != out_channels else None
        self.norm = INSTANCE_NORM[dims](out_channels)
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv2(self.act(self.norm(self.conv1(x)))))
        return self.act(y + (x if self.conv3 is None else self.norm(self.conv3(x))))


class EncoderBlock(nn.Module):
    """A ResBlock under the name ``layer``."""

    def __init__(self, dims: int, in_channels: int, out_channels: int):
        super().__init__()
        self.layer = ResBlock(dims, in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class UpBlock(nn.Module):
    """Transposed convolution x2, skip of the same width, ResBlock."""

    def __init__(self, dims: int, in_channels: int, out_channels: int):
        super().__init__()
        up = TRANSPOSED_CONV[dims](in_channels, out_channels, 2, 2, bias=False)
        self.transp_conv = nn.Sequential(OrderedDict(conv=up))
        self.conv_block = ResBlock(dims, 2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_block(cat((self.transp_conv(x), skip), dim=1))


class OutBlock(nn.Module):
    """1x1 convolution with bias to the classes."""

    def __init__(self, dims: int, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = named_conv(dims, in_channels, out_channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
