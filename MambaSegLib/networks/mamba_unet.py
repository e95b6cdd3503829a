"""Mamba-UNet: Swin-Unet's form with VSS blocks, skips by concatenation.

Ziyang Wang et al., "Mamba-UNet: UNet-Like Pure Visual Mamba for Medical Image Segmentation", arXiv 2402.05079 (2024).
One-channel images are repeated to three, as the authors do, so that the encoder fits VMamba's.
"""

from torch import Tensor, cat, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.vss import PatchEmbed, PatchExpand, PatchMerging, VSSStage, drop_path_rates
from .registry import Figure, register_variants
from .vmamba_weights import start_from_vmamba, to_first_names
from .weights import fit_image_channels


class DecoderStage(VSSStage):
    """VSS blocks, then enlarging."""

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(self.blocks(x))


class MambaUNet(AnySizeNetwork):
    """Mamba-UNet, 2-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        width: of the finest level, doubled at each.
        depths: VSS blocks per level, finest first; the decoder mirrors them (it has none at the coarsest).
        drop_path: highest probability of stochastic depth.
        states: of the scans.
    """

    divisor = (32, 32)

    def __init__(
        self, in_channels: int, out_channels: int, width=96, depths=(2, 2, 2, 2), drop_path=0.1, states: int = 16
    ):
        super().__init__()
        widths, rates = [width * 2**i for i in range(4)], drop_path_rates(drop_path, depths)
        self.patch_embed = PatchEmbed(3 if in_channels == 1 else in_channels, width, 4)
        self.layers = nn.ModuleList(
            VSSStage(w, rates[i], downsample=PatchMerging(w) if i < 3 else None, states=states)
            for i, w in enumerate(widths)
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.layers_up = nn.ModuleList([PatchExpand(widths[3], widths[2])])
        for i in (2, 1, 0):
            upsample = PatchExpand(widths[i], widths[i] // 2) if i else None
            self.layers_up.append(DecoderStage(widths[i], rates[i], upsample=upsample, states=states))
        self.concat_back_dim = nn.ModuleList([nn.Identity(), *(nn.Linear(2 * widths[i], widths[i]) for i in (2, 1, 0))])
        self.norm_up = nn.LayerNorm(width)
        self.up = PatchExpand(width, width, 4)
        self.output = nn.Conv2d(width, out_channels, 1, bias=False)

    def load_encoder(self, weights: dict, what: str) -> list[str]:
        """See ``weights.load_encoder``; the decoder's blocks start as the encoder's of the same level."""
        first = "patch_embed.proj.weight"
        named = fit_image_channels(to_first_names(weights), first, self.patch_embed.proj.in_channels)
        return start_from_vmamba(self, named, what, ("patch_embed.", "layers."))

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        x = self.patch_embed(padded.expand(-1, 3, -1, -1) if padded.shape[1] == 1 else padded)
        skips = []
        for layer in self.layers:
            skips.append(x)
            x = layer(x)
        x = self.layers_up[0](self.norm(x))
        for i in (1, 2, 3):
            x = self.layers_up[i](self.concat_back_dim[i](cat((x, skips[3 - i]), dim=-1)))
        return [self.output(self.up(self.norm_up(x)).permute(0, 3, 1, 2))]


def rename_upstream_keys(state: dict) -> dict:
    """Authors' weights -> ours: they keep the network under ``mamba_unet``."""
    return {key.removeprefix("mamba_unet."): tensor for key, tensor in state.items()}


PAPER = "Wang et al.: Mamba-UNet: UNet-Like Pure Visual Mamba for Medical Image Segmentation, arXiv 2402.05079, 2024"
ACDC = Figure("ACDC, authors' private protocol", "DSC", 0.9281, "own table; not comparable with other ACDC figures")
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "mamba_unet": ({}, (3, 4, 19_121_664), (ACDC,)),
    "mamba_unet_s": ({"depths": (2, 2, 9, 2)}, (3, 4, 35_862_528), ()),
    "mamba_unet_test": ({"width": 8, "depths": (1, 1, 1, 1), "states": 2}, (1, 3, 89_880), ()),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=MambaUNet,
    dims=2,
    paper=PAPER,
    url="https://github.com/ziyangwang007/Mamba-UNet",
    licence="code: Apache-2.0; weights: mirrored without a licence of their own",
    rename_upstream_keys=rename_upstream_keys,
)
