"""MM-UNet: a U-Net of exchangeable blocks whose scan order is exchangeable too.

Bin Xie, Yan Yan, Gady Agam, "MM-UNet: Meta Mamba UNet for Medical Image Segmentation", arXiv 2503.17540 (2025).
The authors published no code and no layer widths. Taken from the paper: the meta block (two convolutions, then Mamba,
all inside one residual connection), Mamba in encoder and bottleneck, the bi-directional raster scan, three supervised
decoder levels. Widths, state size and the order norm / activation follow nnU-Net and U-Mamba, on which it builds.
"""

from functools import partial

from torch import Tensor, cat, nn

from ..blocks.conv import TRANSPOSED_CONV, as_tuple, conv, crop_end, instance_norm, pad_to_multiple
from ..blocks.mamba import MetaSSM
from .registry import Figure, register_variants

MODES = ("hybrid_inside", "hybrid_outside", "hybrid_parallel", "cnn", "ssm")


class MetaBlock(nn.Module):
    """Two convolutions and a MetaSSM around one residual connection; the mode says where the MetaSSM stands.

    With F = norm2 conv2 act norm1 conv1 and S the skip (1x1 convolution where the shape changes)::

        cnn              act( F x + S x )
        hybrid_inside    act( MetaSSM(F x) + S x )          the paper's
        hybrid_outside   MetaSSM( act(F x + S x) )          U-Mamba's
        hybrid_parallel  act( F x + MetaSSM(S x) + S x )    nnMamba's
        ssm              S x + MetaSSM(S x)                 VM-UNet's

    Args:
        dims: 2 or 3.
        in_channels, out_channels: widths.
        kernel, stride: of the first convolution (the second has stride 1).
        mode: see above.
        make_ssm: width -> MetaSSM.
    """

    def __init__(self, dims, in_channels, out_channels, kernel, stride, mode, make_ssm):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"expected a block mode of {MODES}, got {mode!r}")
        self.mode = mode
        stride = as_tuple(stride, dims)
        if mode != "ssm":
            self.conv1 = conv(dims, in_channels, out_channels, kernel, stride)
            self.norm1 = instance_norm(dims, out_channels)
            self.conv2 = conv(dims, out_channels, out_channels, kernel)
            self.norm2 = instance_norm(dims, out_channels)
        self.act = nn.LeakyReLU(0.01)
        same = in_channels == out_channels and set(stride) == {1}
        self.skip = nn.Identity() if same else conv(dims, in_channels, out_channels, 1, stride)
        self.ssm = None if mode == "cnn" else make_ssm(out_channels)

    def _convolve(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(x)
        if self.mode == "ssm":
            return skip + self.ssm(skip)
        features = self._convolve(x)
        if self.mode == "cnn":
            return self.act(features + skip)
        if self.mode == "hybrid_inside":
            return self.act(self.ssm(features) + skip)
        if self.mode == "hybrid_outside":
            return self.ssm(self.act(features + skip))
        return self.act(features + self.ssm(skip) + skip)


class MMUNet(nn.Module):
    """MM-UNet in 2-D or 3-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        dims: 2 or 3.
        features: width per level, finest first.
        strides: of the first convolution of each level (the first is 1).
        kernels: per level.
        block_mode: mode of the levels that hold a MetaSSM; all others are ``cnn``.
        mamba_levels: encoder levels with a MetaSSM (the last is the bottleneck); None: all but the finest.
        mamba_decoder: also in the decoder.
        mamba: False builds the same network without its SSM parts.
        orders: scan orders, see ``ops.scan_orders``.
        states, taps, expand, shared, merge: see ``MetaSSM``.
        heads: supervised decoder levels, finest first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 3,
        features=(32, 64, 128, 256, 320, 320),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        block_mode: str = "hybrid_inside",
        mamba_levels=None,
        mamba_decoder: bool = False,
        mamba: bool = True,
        orders="bi",
        states: int = 16,
        taps: int = 4,
        expand: int = 2,
        shared: bool = False,
        merge: str = "sum",
        heads: int = 3,
    ):
        super().__init__()
        levels = len(features)
        if not len(strides) == len(kernels) == levels:
            raise ValueError(f"expected strides and kernels for {levels} levels, got {len(strides)} and {len(kernels)}")
        self.strides = [as_tuple(s, dims) for s in strides]
        mamba_levels = range(1, levels) if mamba_levels is None else mamba_levels
        ssm = partial(
            MetaSSM, orders=orders, dims=dims, states=states, taps=taps, expand=expand, shared=shared, merge=merge
        )
        encoder_modes = [block_mode if mamba and i in mamba_levels else "cnn" for i in range(levels)]
        decoder_mode = block_mode if mamba and mamba_decoder else "cnn"
        widths = [in_channels, *features]
        self.encoder = nn.ModuleList(
            MetaBlock(dims, widths[i], widths[i + 1], kernels[i], strides[i], encoder_modes[i], ssm)
            for i in range(levels)
        )
        up = TRANSPOSED_CONV[dims]
        self.upsample = nn.ModuleList(
            up(features[i + 1], features[i], self.strides[i + 1], self.strides[i + 1]) for i in range(levels - 1)
        )
        self.decoder = nn.ModuleList(
            MetaBlock(dims, 2 * features[i], features[i], kernels[i], 1, decoder_mode, ssm) for i in range(levels - 1)
        )
        self.heads = nn.ModuleList(conv(dims, features[i], out_channels, 1) for i in range(min(heads, levels - 1)))

    @property
    def divisor(self) -> tuple[int, ...]:
        """Grid sizes that are multiples of it need no padding."""
        product = [1] * len(self.strides[0])
        for stride in self.strides:
            product = [p * s for p, s in zip(product, stride, strict=True)]
        return tuple(product)

    def _decode(self, x: Tensor, last_level: int) -> list[Tensor]:
        """Decoder features of levels ``last_level`` to 0, finest first."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        outputs = []
        for i in range(len(self.decoder) - 1, -1, -1):
            x = self.decoder[i](cat((self.upsample[i](x), skips[i]), dim=1))
            if i <= last_level:
                outputs.insert(0, x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *grid) of any size -> logits (B, K, *grid)."""
        padded = pad_to_multiple(x, self.divisor)
        return crop_end(self.heads[0](self._decode(padded, 0)[0]), x.shape[2:])

    def forward_multiscale(self, x: Tensor) -> list[Tensor]:
        """Logits of every supervised level, finest first; coarse ones at their own size.

        Level i covers ``ceil(grid / stride_i)`` voxels per axis, stride_i being the product of the strides up to it.
        """
        padded = pad_to_multiple(x, self.divisor)
        outputs = [head(f) for head, f in zip(self.heads, self._decode(padded, len(self.heads) - 1), strict=True)]
        sizes, size = [], list(x.shape[2:])
        for i in range(len(outputs)):
            size = [-(-n // s) for n, s in zip(size, self.strides[i], strict=True)]
            sizes.append(size)
        return [crop_end(o, s) for o, s in zip(outputs, sizes, strict=True)]


PAPER = "Xie, Yan, Agam: MM-UNet: Meta Mamba UNet for Medical Image Segmentation, arXiv 2503.17540, 2025"
LICENCE = "code: ours, Apache-2.0 (the authors published none); no published weights"
FIGURES = (
    Figure("AMOS22 CT, five-fold, 8-flip test-time augmentation", "mean Dice", 0.910, "abstract"),
    Figure("Synapse CT, 8-flip test-time augmentation", "mean Dice", 0.871, "abstract"),
)
ISOTROPIC = {"strides": (1, 2, 2, 2, 2, 2), "kernels": (3,) * 6}
VARIANTS = {
    # name: (hyper, divisor, (in, out, parameters), figures)
    "mm_unet": ({}, (16, 32, 32), (1, 16, 33_855_120), FIGURES),
    "mm_unet_synapse": (
        {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))},
        (8, 32, 32),
        (1, 14, 33_445_066),
        FIGURES[1:],
    ),
    "mm_unet_isotropic": (ISOTROPIC, (32, 32, 32), (1, 16, 33_937_616), ()),
    "mm_unet_2d": ({"dims": 2, **ISOTROPIC}, (32, 32), (1, 4, 13_450_220), ()),
    "mm_unet_test": (
        {"features": (4, 8, 8), "strides": (1, 2, 2), "kernels": (3, 3, 3), "states": 4},
        (4, 4, 4),
        (1, 3, 16_518),
        (),
    ),
}
register_variants(
    "hyper divisor parameters figures",
    VARIANTS,
    build=MMUNet,
    paper=PAPER,
    url="https://arxiv.org/abs/2503.17540",
    licence=LICENCE,
)
