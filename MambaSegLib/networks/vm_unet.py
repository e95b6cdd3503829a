"""VM-UNet: a U-Net of VSS blocks alone, skips by addition.

Jiacheng Ruan, Jincheng Li, Suncheng Xiang, "VM-UNet: Vision Mamba UNet for Medical Image Segmentation", arXiv
2402.02491 (2024). One-channel images are repeated to three, as the authors do, so that the encoder fits VMamba's.
"""

from torch import Tensor, nn

from ..blocks.any_size import AnySizeNetwork
from ..blocks.vss import PatchEmbed, PatchExpand, PatchMerging, VSSStage, drop_path_rates
from .registry import Figure, register_variants
from .vmamba_weights import start_from_vmamba, to_first_names
from .weights import fit_image_channels


class VMUNet(AnySizeNetwork):
    """VM-UNet, 2-D.

    Args:
        in_channels, out_channels: image channels; classes with background.
        width: of the finest level, doubled at each.
        depths, decoder_depths: VSS blocks per level, finest first; coarsest first.
        drop_path: highest probability of stochastic depth.
        states: of the scans.
    """

    divisor = (32, 32)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 96,
        depths=(2, 2, 2, 2),
        decoder_depths=(2, 2, 2, 1),
        drop_path: float = 0.2,
        states: int = 16,
    ):
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.patch_embed = PatchEmbed(3 if in_channels == 1 else in_channels, width, 4)
        rates = drop_path_rates(drop_path, depths)
        self.layers = nn.ModuleList(
            VSSStage(w, rates[i], downsample=PatchMerging(w) if i < 3 else None, states=states)
            for i, w in enumerate(widths)
        )
        rates = [stage[::-1] for stage in drop_path_rates(drop_path, decoder_depths[::-1])[::-1]]
        self.layers_up = nn.ModuleList(
            VSSStage(w, rates[i], upsample=PatchExpand(2 * w, w) if i else None, states=states)
            for i, w in enumerate(reversed(widths))
        )
        self.final_up = PatchExpand(width, width // 4, 4)
        self.final_conv = nn.Conv2d(width // 4, out_channels, 1)

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
        x = self.layers_up[0](x)
        for layer, skip in zip(self.layers_up[1:], reversed(skips[1:]), strict=True):
            x = layer(x + skip)
        return [self.final_conv(self.final_up(x).permute(0, 3, 1, 2))]


def rename_upstream_keys(state: dict) -> dict:
    """Authors' weights -> ours: they keep the network under ``vmunet``."""
    return {key.removeprefix("vmunet."): tensor for key, tensor in state.items()}


PAPER = "Ruan, Li, Xiang: VM-UNet: Vision Mamba UNet for Medical Image Segmentation, arXiv 2402.02491, 2024"
SYNAPSE = Figure("Synapse, 18/12 volumes, 224x224", "DSC %", 81.08, "own table; in MSVM-UNet's 82.38, users 75-80")
ACDC = Figure("ACDC, 70/10/20 patients", "DSC %", 92.24, "table of MSVM-UNet (arXiv 2408.13735)")
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "vm_unet": ({}, (3, 9, 27_427_761), (SYNAPSE, ACDC)),
    "vm_unet_s": ({"depths": (2, 2, 9, 2), "decoder_depths": (2, 9, 2, 2)}, (3, 9, 44_274_033), ()),
    "vm_unet_test": (
        {"width": 8, "depths": (1, 1, 1, 1), "decoder_depths": (1, 1, 1, 1), "states": 2},
        (1, 3, 120_629),
        (),
    ),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=VMUNet,
    dims=2,
    paper=PAPER,
    url="https://github.com/JCruan519/VM-UNet",
    licence="code: Apache-2.0; weights: published without a licence of their own",
    rename_upstream_keys=rename_upstream_keys,
)
