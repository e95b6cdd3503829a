"""nnU-Net's own networks, the honest baselines: a plain U-Net and one with a residual encoder.

Fabian Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
Nature Methods 18, 203-211 (2021); "nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image
Segmentation", arXiv 2404.09556 (2024), which brought the residual encoder presets and found that under one protocol the
Mamba layer adds about nothing to the residual U-Net around it.
"""

from torch import nn

from ..blocks.conv import as_tuple
from ..blocks.unet import Decoder, Encoder, UNet, drop_aliases
from .registry import Figure, register_variants


class PlainUNet(UNet):
    """nnU-Net in 2-D or 3-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        dims: 2 or 3.
        features, strides, kernels: per level, finest first; the first stride is 1.
        residual: residual blocks in the encoder (ResEncUNet), else convolutions (PlainConvUNet).
        blocks: residual blocks or convolutions per encoder level.
        decoder_convs: convolutions per decoder level.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 3,
        features=(32, 64, 128, 256, 320, 320),
        strides=(1, 2, 2, 2, 2, 2),
        kernels=(3, 3, 3, 3, 3, 3),
        residual: bool = False,
        blocks=(2, 2, 2, 2, 2, 2),
        decoder_convs: int = 2,
    ):
        super().__init__(
            Encoder(dims, in_channels, features, kernels, strides, blocks, residual),
            Decoder(dims, features, kernels, strides, (decoder_convs,) * (len(features) - 1), out_channels),
            [as_tuple(s, dims) for s in strides],
        )
        self.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    """He initialisation with the slope of the LeakyReLU, biases zero, as nnU-Net."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=1e-2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


PLAIN = ("Isensee et al.: nnU-Net, Nature Methods 18, 203, 2021", "https://github.com/MIC-DKFZ/nnUNet")
RESENC = ("Isensee et al.: nnU-Net Revisited, arXiv 2404.09556, 2024", "https://arxiv.org/abs/2404.09556")
LICENCE = "code: Apache-2.0; weights: by their trainers"
REVISITED = "nnU-Net Revisited, arXiv 2404.09556, main table, five-fold"
DATASETS = ("BTCV", "ACDC", "LiTS", "BraTS", "KiTS", "AMOS")


def _figures(*values):
    return tuple(Figure(d, "DSC", value, REVISITED) for d, value in zip(DATASETS, values, strict=True))


ORIGINAL = _figures(83.08, 91.54, 80.09, 91.24, 86.04, 88.64)
RESENC_M = _figures(83.31, 91.99, 80.75, 91.26, 86.79, 88.77)
RESIDUAL = {"residual": True, "blocks": (1, 3, 4, 6, 6, 6), "decoder_convs": 1}
PLAN_2D = {
    "dims": 2,
    "features": (32, 64, 128, 256, 512, 512, 512),
    "strides": (1, 2, 2, 2, 2, 2, 2),
    "kernels": (3,) * 7,
    "blocks": (2,) * 7,
}
TOY = {"features": (4, 8, 8), "strides": (1, 2, 2), "kernels": (3, 3, 3), "blocks": (1, 1, 1), "decoder_convs": 1}

VARIANTS = {
    # name: (hyper, divisor, (in, out, parameters), (paper, url), figures)
    "plain_unet": ({}, (32, 32, 32), (1, 14, 31_205_254), PLAIN, ORIGINAL),
    "plain_unet_2d": (PLAN_2D, (64, 64), (1, 14, 33_489_940), PLAIN, ()),
    "plain_unet_test": (TOY, (4, 4, 4), (1, 3, 7_938), PLAIN, ()),
    "resenc_unet": (RESIDUAL, (32, 32, 32), (4, 4, 102_353_972), RESENC, RESENC_M),
    "resenc_unet_test": ({**TOY, "residual": True}, (4, 4, 4), (1, 3, 12_378), RESENC, ()),
}
register_variants(
    "hyper divisor parameters reference figures",
    VARIANTS,
    build=PlainUNet,
    licence=LICENCE,
    rename_upstream_keys=drop_aliases,
)
