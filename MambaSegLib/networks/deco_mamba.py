"""Deco-Mamba: a U-Net whose strength is its decoder of gates, four-way scans and deformable convolutions.

Bougourzi, Dornaika, Hadid, "Decoding Matters: Efficient Mamba-Based Decoder with Distribution-Aware Deep Supervision
for Medical Image Segmentation", arXiv 2603.12547 (2026). The authors published no code. Taken from the paper: PVTv2
encoder with a CNN branch for the two finest resolutions, Co-Attention Gate (CAG), visual state-space block (VSSMB) and
Deformable Residual Block (DRB) in six decoder stages, distribution heads. Widths, inner orders and the CNN branch are
those that reproduce all published parameter counts and FLOPs at once (9.67 M / 9.73 G, 46.93 M / 17.24 G, 70.12 M).

Shape letters: X skip feature of width x, D decoder feature of width d.
"""

import math

import torch.nn.functional as F
from torch import Tensor, cat, nn, sigmoid

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import pad_to_multiple
from ..blocks.vss import VSSBlock
from ..ops.deform_conv import deform_conv2d
from . import pvt_v2, swin
from .registry import Figure, register_variants
from .weights import fit_image_channels, load_strictly

STRIDE = 32  # of the coarsest feature
BACKBONES = {  # name: (class, its hyper-parameters, names of weight files -> ours)
    **{name: (pvt_v2.PVTv2, options, pvt_v2.rename_original_keys) for name, options in pvt_v2.VARIANTS.items()},
    "swin_t": (swin.SwinTransformer, {}, swin.rename_keys),
}


def conv_norm(in_channels: int, out_channels: int, kernel: int, bias: bool = False, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch norm."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias, groups=groups)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class AttentionGate(nn.Module):
    """AG (Attention U-Net, arXiv 1804.03999): x * psi, one weight per pixel from x and the gating feature g.

    psi = sigmoid(BN(w s)) with s = ReLU(BN(W_x x) + BN(W_g g)); all maps are 1x1 with bias, s has half of g's width.

    Args:
        width, gate_width: of x and g.
        kernel, groups: of W_x and W_g; EMCAD's LGAG (arXiv 2405.06880) takes grouped 3x3.
    """

    def __init__(self, width: int, gate_width: int, kernel: int = 1, groups: int = 1):
        super().__init__()
        inner = gate_width // 2
        self.from_x = conv_norm(width, inner, kernel, True, groups)
        self.from_gate = conv_norm(gate_width, inner, kernel, True, groups)
        self.psi = conv_norm(inner, 1, 1, True)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * sigmoid(self.psi(F.relu(self.from_gate(gate) + self.from_x(x))))


class ChannelAttention(nn.Module):
    """CA: y * sigmoid(MLP(mean y) + MLP(max y)), one weight per channel; the MLP narrows to C / 16."""

    def __init__(self, width: int):
        super().__init__()
        self.narrow = nn.Conv2d(width, max(width // 16, 1), 1, bias=False)
        self.widen = nn.Conv2d(max(width // 16, 1), width, 1, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        pooled = y.mean((2, 3), keepdim=True), y.amax((2, 3), keepdim=True)
        return y * sigmoid(sum(self.widen(F.relu(self.narrow(p))) for p in pooled))


class CoAttentionGate(nn.Module):
    """CAG: X and D gate each other, then channel attention over both; (X, D) -> width x + d. The paper's."""

    def __init__(self, skip_width: int, width: int):
        super().__init__()
        self.gate_skip = AttentionGate(skip_width, width)
        self.gate_decoder = AttentionGate(width, skip_width)
        self.channels = ChannelAttention(skip_width + width)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.channels(cat((self.gate_skip(skip, x), self.gate_decoder(x, skip)), dim=1))


class SkipGate(nn.Module):
    """The usual attention gate (ablation): only X is gated, then D beside it."""

    def __init__(self, skip_width: int, width: int, kernel: int = 1, groups: int = 1):
        super().__init__()
        self.gate_skip = AttentionGate(skip_width, width, kernel, groups)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return cat((self.gate_skip(skip, x), x), dim=1)


class LargeKernelGate(SkipGate):
    """LGAG of EMCAD (ablation): the same with 3x3 convolutions in as many groups as the widths allow."""

    def __init__(self, skip_width: int, width: int):
        super().__init__(skip_width, width, kernel=3, groups=math.gcd(skip_width, width, width // 2))


class CBAM(nn.Module):
    """CBAM (arXiv 1807.06521, ablation) on X and D side by side: channel attention, then one weight per pixel."""

    def __init__(self, skip_width: int, width: int):
        super().__init__()
        self.channels = ChannelAttention(skip_width + width)
        self.pixels = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        y = self.channels(cat((skip, x), dim=1))
        return y * sigmoid(self.pixels(cat((y.mean(1, keepdim=True), y.amax(1, keepdim=True)), dim=1)))


GATES = {"cag": CoAttentionGate, "ag": SkipGate, "cbam": CBAM, "lgag": LargeKernelGate}


class VSSMB(nn.Module):
    """Four-way scan of an image, x (B, C, H, W) -> same shape; residual inside, no MLP."""

    def __init__(self, width: int, drop_path: float, states: int):
        super().__init__()
        self.block = VSSBlock(width, drop_path, norm_eps=1e-6, states=states)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ModulatedDeformConv(nn.Module):
    """3x3 DCNv2 (arXiv 1811.11168) without bias; starts as an ordinary convolution: no offsets, modulation 1."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Conv2d(in_channels, out_channels, 3, bias=False).weight
        self.offset = nn.Conv2d(in_channels, 18, 3, padding=1)
        self.modulation = nn.Conv2d(in_channels, 9, 3, padding=1)
        for parameter in (*self.offset.parameters(), *self.modulation.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        mask = 2 * sigmoid(self.modulation(x))
        return deform_conv2d(x, self.offset(x), self.weight, padding=1, mask=mask)


class DRB(nn.Module):
    """Deformable Residual Block: ReLU BN conv3x3 ReLU BN deform3x3 x + S x, S a 1x1 layer where widths differ.

    Args:
        in_channels, out_channels: widths.
        deformable: False puts an ordinary 3x3 convolution in its place (ablation).
    """

    def __init__(self, in_channels: int, out_channels: int, deformable: bool = True):
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.deform = ModulatedDeformConv(in_channels, out_channels) if deformable else plain
        self.norm = nn.BatchNorm2d(out_channels)
        self.conv = conv_norm(out_channels, out_channels, 3)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Sequential(conv_norm(in_channels, out_channels, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.relu(self.norm(self.deform(x))))) + self.skip(x)


class CNNBranch(nn.Module):
    """Image -> features at full and half resolution: 7x7 layer; strided 2x2, then two 3x3 layers around a residual."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(in_channels, width, 7, True), nn.ReLU())
        self.halve = nn.Conv2d(width, width, 2, 2)
        layers = [layer for _ in range(2) for layer in (conv_norm(width, width, 3, True), nn.ReLU())]
        self.refine = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        full = self.stem(x)
        half = self.halve(full)
        return full, half + self.refine(half)


class DecoderStage(nn.Module):
    """Bilinear x2, gate with the skip, VSSMB on the joint width, DRB to ``out_width``.

    Args:
        width: d.
        skip_width: x; 0 where the CNN branch is left out: no gate then.
        out_width: of the result.
        gate: class of the gate.
        scan: width -> VSSMB or identity.
        deformable: see ``DRB``.
    """

    def __init__(self, width: int, skip_width: int, out_width: int, gate: type, scan, deformable: bool):
        super().__init__()
        self.gate = gate(skip_width, width) if skip_width else None
        self.scan = scan(skip_width + width)
        self.refine = DRB(skip_width + width, out_width, deformable)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.refine(self.scan(x if self.gate is None else self.gate(skip, x)))


class DecoMamba(AnySizeNetwork):
    """Deco-Mamba; the output of every decoder stage is as wide as the skip it fused.

    Args:
        in_channels: image channels; one is repeated to three, as the encoder's ImageNet weights expect.
        out_channels: classes with background.
        backbone: of ``BACKBONES``.
        cnn_width: of the CNN branch.
        gate: ``cag``, ``ag``, ``cbam`` or ``lgag``.
        cnn_branch: False: the two finest stages have no skip.
        mamba: False: no VSSMB.
        deformable: False: ordinary convolutions in the DRBs.
        distribution_heads: classifiers of the bottleneck and of stages 2 to 5 for ``forward_multiscale``.
        drop_path: stochastic depth of the VSSMBs.
        states: N of their scans.
    """

    divisor = (STRIDE, STRIDE)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        backbone: str = "pvt_v2_b0",
        cnn_width: int = 64,
        gate: str = "cag",
        cnn_branch: bool = True,
        mamba: bool = True,
        deformable: bool = True,
        distribution_heads: bool = False,
        drop_path: float = 0.2,
        states: int = 16,
    ):
        super().__init__()
        if gate not in GATES or backbone not in BACKBONES:
            raise ValueError(f"expected a gate of {[*GATES]} and a backbone of {[*BACKBONES]}; got {gate}, {backbone}")
        self.image_channels = 3 if in_channels == 1 else in_channels
        build, options, self._encoder_names = BACKBONES[backbone]
        self.encoder = build(self.image_channels, **options)
        self.cnn = CNNBranch(self.image_channels, cnn_width) if cnn_branch else None

        def scan(width):
            return VSSMB(width, drop_path, states) if mamba else nn.Identity()

        finest, *middle, deepest = self.encoder.widths
        self.bottleneck = nn.Sequential(scan(deepest), scan(deepest), DRB(deepest, deepest, deformable))
        widths = [deepest, *reversed(middle), finest, cnn_width, cnn_width]  # of the bottleneck and stages 2 to 6
        fine = cnn_width if cnn_branch else 0
        skips = [*widths[1:4], fine, fine]
        self.stages = nn.ModuleList(
            DecoderStage(
                widths[i], skips[i], widths[i + 1], GATES[gate], scan if i < 4 else lambda _: nn.Identity(), deformable
            )
            for i in range(5)
        )
        self.head = nn.Conv2d(cnn_width, out_channels, 1)
        supervised = reversed(widths[:5]) if distribution_heads else ()
        self.distribution_heads = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for width in supervised)

    def load_encoder(self, weights: dict, what: str) -> list[str]:
        """See ``weights.load_encoder``: ImageNet weights in timm's or the authors' naming."""
        weights = fit_image_channels(self._encoder_names(weights), "patch_embed.proj.weight", self.image_channels)
        load_strictly(self.encoder, weights, what)
        return []

    def _decode(self, x: Tensor) -> list[Tensor]:
        """Features of stages 6 to 2 and of the bottleneck, finest first; sizes are multiples of ``STRIDE``."""
        if x.shape[1] != self.image_channels:
            x = x.expand(-1, self.image_channels, -1, -1)
        *skips, deepest = self.encoder(x)
        fine = self.cnn(x) if self.cnn is not None else (None, None)
        features = [self.bottleneck(deepest)]
        for stage, skip in zip(self.stages, (*reversed(skips), fine[1], fine[0]), strict=True):
            features.insert(0, stage(features[0], skip))
        return features

    def pad(self, x: Tensor) -> Tensor:
        """To multiples of the divisor, with two pixels or more at the coarsest level for its batch norms."""
        return pad_to_multiple(x, self.divisor)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        """Logits, and with ``all_scales`` those of the distribution heads at 1/2, 1/4, ... 1/32."""
        heads = [self.head, *self.distribution_heads] if all_scales else [self.head]
        return [head(feature) for head, feature in zip(heads, self._decode(padded), strict=False)]


PAPER = (
    "Bougourzi, Dornaika, Hadid: Decoding Matters: Efficient Mamba-Based Decoder with Distribution-Aware Deep "
    "Supervision for Medical Image Segmentation, arXiv 2603.12547, 2026"
)
LICENCE = (
    "code: ours, Apache-2.0 (the authors published none); no published weights; ImageNet weights of PVTv2: Apache-2.0"
)
SYNAPSE = "Synapse CT, TransUNet split, 12 test volumes"
TABLE, ABLATION = "comparison with the state of the art", "ablation on Synapse"
FIGURES_V0 = (
    Figure(SYNAPSE, "mean Dice", 0.8316, TABLE),
    Figure(SYNAPSE, "mean HD95 (voxels)", 15.89, TABLE),
    Figure("ISIC17", "Dice", 0.8514, TABLE),
    Figure("MoNuSeg", "Dice", 0.8341, TABLE),
)
FIGURES_V1 = (
    Figure(SYNAPSE, "mean Dice", 0.8507, TABLE),
    Figure(SYNAPSE, "mean HD95 (voxels)", 14.72, TABLE),
    Figure("BTCV, 13 organs", "mean Dice", 0.7845, TABLE),
    Figure("BTCV, 13 organs", "mean HD95 (voxels)", 11.77, TABLE),
    Figure("ACDC", "mean Dice", 0.9235, TABLE),
    Figure("ISIC17", "Dice", 0.8601, TABLE),
    Figure("GlaS", "Dice", 0.9691, TABLE),
    Figure("MoNuSeg", "Dice", 0.8514, TABLE),
)
TOY = {"backbone": "pvt_v2_test", "cnn_width": 4, "states": 2, "distribution_heads": True}
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "deco_mamba_v0": ({"backbone": "pvt_v2_b0"}, (3, 9, 9_668_745), FIGURES_V0),
    "deco_mamba_v1": ({"backbone": "pvt_v2_b2"}, (3, 9, 46_940_521), FIGURES_V1),
    "deco_mamba_swin": (
        {"backbone": "swin_t"},
        (3, 9, 70_129_667),
        (Figure(SYNAPSE, "mean Dice", 0.8376, ABLATION + ", backbones"),),
    ),
    "deco_mamba_test": (TOY, (1, 3, 37_268), ()),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=DecoMamba,
    dims=2,
    divisor=(STRIDE, STRIDE),
    paper=PAPER,
    url="https://arxiv.org/abs/2603.12547",
    licence=LICENCE,
)
