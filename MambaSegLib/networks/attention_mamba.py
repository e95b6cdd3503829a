"""Attention-Mamba: no U; four aligned scales, each with its own Mamba branch, fused by an attention made of Mamba.

Y. Zhang et al., "Attention-Mamba: A Mamba-Enhanced Multi-Scale Parallel Inference Network for Medical Image
Segmentation", arXiv 2402.02286 v4 (2025). The authors' code (Yanhua-Zhang/Attention-Mamba) bears no licence: it was
read, not copied. ResNet-18 with a deep stem, dual path, recursive alignment (RAM, from MFARANet, v1 of the same
number), SS2D branches, nine outputs. ``rename_upstream_keys`` takes the authors' files.

Shape letters: B batch, C width (128), K classes; level i = 1 ... 4 stands at stride 4, 8, 16, 32.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn, sigmoid

from ..blocks.any_size import AnySizeNetwork
from ..blocks.conv import pad_end
from ..blocks.mixers import Mamba
from ..blocks.vss import VSSBlock
from ..ops.backends import autocast_off
from .registry import Figure, register_variants
from .weights import fit_image_channels, load_strictly

SCALES = 4
SMALLEST = 33  # sides up to 32 leave one pixel at stride 32, which a batch norm cannot measure


def layer(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def resize(x: Tensor, size) -> Tensor:
    """Bilinear, corners on corners."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


class BasicBlock(nn.Module):
    """ResNet's: ReLU(BN conv3 ReLU BN conv3 x + shortcut x)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class DeepStemResNet(nn.Module):
    """ResNet-18 whose 7x7 stem is three 3x3 convolutions; image -> features of the four levels.

    Args:
        in_channels: image channels.
        widths: of the levels; the stem ends with twice the first.
    """

    def __init__(self, in_channels: int, widths=(64, 128, 256, 512)):
        super().__init__()
        stem = widths[0]
        last = nn.Conv2d(stem, 2 * stem, 3, padding=1, bias=False)
        self.conv1 = nn.Sequential(*layer(in_channels, stem, 3, 2), *layer(stem, stem, 3), last)
        self.bn1 = nn.BatchNorm2d(2 * stem)
        sources = (2 * stem, *widths)
        for i in range(SCALES):
            blocks = BasicBlock(sources[i], widths[i], 1 if i == 0 else 2), BasicBlock(widths[i], widths[i], 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


class FlowGrid(nn.Module):
    """Where to look in the coarser feature for every pixel of the finer one; RAM samples with it.

    grid = base + flow / (w, h), base from -1 to 1 along both axes: one unit of flow is about half a pixel. The result
    is (B, h, w, 2), x first, for ``grid_sample``.
    """

    def __init__(self, width: int):
        super().__init__()
        self.coarse = nn.Conv2d(width, width // 2, 1, bias=False)
        self.fine = nn.Conv2d(width, width // 2, 1, bias=False)
        self.flow = nn.Conv2d(2 * (width // 2), 2, 3, padding=1, bias=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        height, width = fine.shape[2:]
        flow = self.flow(cat((self.fine(fine), resize(self.coarse(coarse), (height, width))), dim=1))
        with autocast_off(fine.device.type):  # a half has too few digits for a place in an image
            x, y = (torch.linspace(-1, 1, n, device=fine.device) for n in (width, height))
            base = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=-1)
            return base + flow.float().permute(0, 2, 3, 1) / flow.new_tensor([width, height], dtype=torch.float32)


def align(features: list[Tensor], grids: list[Tensor]) -> list[Tensor]:
    """RAM: every level sampled onto the next finer one again and again, until it stands at level 1."""
    aligned = []
    for level, x in enumerate(features):
        for grid in reversed(grids[:level]):
            x = F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="zeros", align_corners=True)
        aligned.append(x)
    return aligned


class BidirectionalRelation(nn.Module):
    """x (B, L, d) -> mixer(x) + the mirror image of another mixer's answer to the mirror image of x."""

    def __init__(self, width: int, states: int):
        super().__init__()
        self.forwards = Mamba(width, states)
        self.backwards = Mamba(width, states)

    def forward(self, x: Tensor) -> Tensor:
        return self.forwards(x) + self.backwards(x.flip(1)).flip(1)


class MambaAttention(nn.Module):
    """How much each scale counts: (4 x (B, C, h, w)) -> per class (B, 4, K, 1, 1) and per pixel (B, 4, 1, h, w).

    Channels: the means plus maxima of all scales are one sequence of 4 C tokens of one number. Pixels: mean and maximum
    over channels, one sequence of 4 h w tokens of two numbers, scale by scale.

    Args:
        width: C.
        classes: K.
        states: N of the mixers.
        mamba: False leaves the mixers out.
    """

    def __init__(self, width: int, classes: int, states: int, mamba: bool):
        super().__init__()
        self.channel_relation = BidirectionalRelation(1, states) if mamba else nn.Identity()
        self.narrow = nn.Conv2d(SCALES * width, max(width // 16, 1), 1, bias=False)
        self.widen = nn.Conv2d(max(width // 16, 1), SCALES * classes, 1, bias=False)
        self.pixel_relation = BidirectionalRelation(2, states) if mamba else nn.Identity()
        self.weigh = nn.Linear(2, 1)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        channels = cat([f.mean((2, 3)) + f.amax((2, 3)) for f in features], dim=1)  # (B, 4 C)
        related = self.channel_relation(channels.unsqueeze(2)).unsqueeze(3)
        of_class = sigmoid(self.widen(F.relu(self.narrow(related)))).unflatten(1, (SCALES, -1))
        pixels = [torch.stack((f.mean(1), f.amax(1)), dim=-1).flatten(1, 2) for f in features]  # (B, h w, 2) each
        of_pixel = sigmoid(self.weigh(self.pixel_relation(cat(pixels, dim=1))))
        return of_class, of_pixel.view(-1, SCALES, 1, *features[0].shape[2:])


class AttentionMamba(AnySizeNetwork):
    """Attention-Mamba.

    Args:
        in_channels: image channels; one is repeated to three, as the ImageNet weights expect.
        out_channels: classes K with background, or 1 with a sigmoid after it.
        width: C.
        backbone_widths: of the four levels.
        depth: SS2D blocks per branch.
        states: N of all scans.
        mamba: False: branches pass their input on, the attention has no mixers.
    """

    divisor = (1, 1)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 128,
        backbone_widths=(64, 128, 256, 512),
        depth: int = 2,
        states: int = 16,
        mamba: bool = True,
    ):
        super().__init__()
        self.image_channels = 3 if in_channels == 1 else in_channels
        self.backbone = DeepStemResNet(self.image_channels, backbone_widths)
        self.reduce = nn.ModuleList(layer(w, width, 1) for w in backbone_widths)
        self.top_down = nn.ModuleList(layer(width, width, 3) for _ in range(3))  # levels 1, 2, 3
        self.bottom_up = nn.ModuleList(layer(width, width, 3) for _ in range(3))  # levels 2, 3, 4
        self.fuse = nn.ModuleList(layer(width, width, 3) for _ in range(2))  # levels 2, 3
        self.flows = nn.ModuleList(FlowGrid(width) for _ in range(3))
        self.early_heads = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for _ in range(SCALES))
        self.branches = nn.ModuleList(
            nn.Sequential(*(VSSBlock(width, states=states) for _ in range(depth if mamba else 0)))
            for _ in range(SCALES)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for _ in range(SCALES))
        self.attention = MambaAttention(width, out_channels, states, mamba)

    def load_encoder(self, weights: dict, what: str) -> list[str]:
        """See ``weights.load_encoder``: of this network's backbone, or of torchvision's ResNet-18, without its stem."""
        weights = {k: v for k, v in weights.items() if not k.startswith("fc.")}
        fresh = []
        if "conv1.weight" in weights:  # torchvision's single 7x7
            own = self.backbone.state_dict()
            stem = ("conv1.", "bn1.", "layer1.0.conv1.", "layer1.0.downsample.")
            fresh = [k for k in own if k.startswith(stem)]
            weights = {k: v for k, v in weights.items() if not k.startswith(stem)} | {k: own[k] for k in fresh}
        weights = fit_image_channels(weights, "conv1.0.weight", self.image_channels)
        load_strictly(self.backbone, weights, what)
        return [f"{name} starts fresh: {what} has another stem." for name in fresh]

    def _aligned(self, x: Tensor) -> list[Tensor]:
        """Image -> features of all levels at stride 4, (B, C, h, w) each."""
        if x.shape[1] != self.image_channels:
            x = x.expand(-1, self.image_channels, -1, -1)
        levels = [reduce(f) for reduce, f in zip(self.reduce, self.backbone(x), strict=True)]
        down, up = [levels[3]], [levels[0]]  # towards finer and towards coarser levels
        for i in (2, 1, 0):
            down.insert(0, self.top_down[i](resize(down[0], levels[i].shape[2:]) + levels[i]))
        for i in (1, 2, 3):
            up.append(self.bottom_up[i - 1](resize(up[-1], levels[i].shape[2:]) + levels[i]))
        fused = [down[0], self.fuse[0](down[1] + up[1]), self.fuse[1](down[2] + up[2]), up[3]]
        return align(fused, [flow(fused[i], fused[i + 1]) for i, flow in enumerate(self.flows)])

    def _outputs(self, aligned: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Fused logits and those of the branches, at stride 4."""
        features = [b(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for b, x in zip(self.branches, aligned, strict=True)]
        scores = [head(f) for head, f in zip(self.heads, features, strict=True)]
        of_class, of_pixel = self.attention(features)
        return (torch.stack(scores, dim=1) * of_class * of_pixel).sum(1), scores

    def pad(self, x: Tensor) -> Tensor:
        """Any size goes, but for tiny images, whose coarsest level would be a single pixel."""
        height, width = x.shape[2:]
        return x if max(height, width) >= SMALLEST else pad_end(x, (height, SMALLEST))

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        """Fused logits; with ``all_scales`` the nine outputs of training: fused, four branches, four before theirs."""
        aligned = self._aligned(padded)
        fused, scores = self._outputs(aligned)
        outputs = [fused]
        if all_scales:
            outputs += scores + [head(f) for head, f in zip(self.early_heads, aligned, strict=True)]
        return [resize(output, padded.shape[2:]) for output in outputs]


AUTHORS_NAMES = (
    (r"^layer0\.0\.", "backbone.conv1."),
    (r"^layer0\.1\.", "backbone.bn1."),
    (r"^layer([1-4])\.0\.", r"backbone.layer\1."),
    (r"^channel_changes\.", "reduce."),
    (r"^feature_fuses_up\.", "top_down."),
    (r"^feature_fuses_down\.", "bottom_up."),
    (r"^stage_fuses\.", "fuse."),
    (r"^stages_offset\.(\d)\.channel_change1\.", r"flows.\1.coarse."),
    (r"^stages_offset\.(\d)\.channel_change2\.", r"flows.\1.fine."),
    (r"^stages_offset\.(\d)\.offset_map\.", r"flows.\1.flow."),
    (r"^in_deep_sup_heads\.(\d)\.0\.", r"early_heads.\1."),
    (r"^mamba_branches\.(\d)\.blocks\.", r"branches.\1."),
    (r"^multi_loss_head\.(\d)\.0\.", r"heads.\1."),
    (r"^multi_scale_attentions\.channel_relation_reverse\.", "attention.channel_relation.backwards."),
    (r"^multi_scale_attentions\.channel_relation\.", "attention.channel_relation.forwards."),
    (r"^multi_scale_attentions\.spatial_relation_reverse\.", "attention.pixel_relation.backwards."),
    (r"^multi_scale_attentions\.spatial_relation\.", "attention.pixel_relation.forwards."),
    (r"^multi_scale_attentions\.fc1_channel\.", "attention.narrow."),
    (r"^multi_scale_attentions\.fc2_channel\.", "attention.widen."),
    (r"^multi_scale_attentions\.fc_spatial\.", "attention.weigh."),
)


def rename_upstream_keys(state: dict) -> dict:
    """Authors' names -> ours; thop's counters are left out."""
    renamed = {}
    for key, tensor in state.items():
        if key.rpartition(".")[2] in ("total_ops", "total_params"):
            continue
        for pattern, replacement in AUTHORS_NAMES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


README = "README of the authors' code"
FIGURES = (
    Figure("Synapse CT, own 12 test volumes, 4-flip test-time augmentation", "mean Dice", 0.8562, README),
    Figure("ACDC, 20 test patients, 4-flip test-time augmentation", "mean Dice", 0.9203, README),
    Figure("ISIC-2018, 808 test images, 4-flip test-time augmentation", "Dice", 0.9012, README),
    Figure("PH2, network of ISIC-2018", "Dice", 0.9156, README),
)
VARIANTS = {
    # name: (hyper, (in, out, parameters), figures)
    "attention_mamba": ({}, (3, 9, 14_054_803), FIGURES),
    "attention_mamba_test": (
        {"width": 8, "backbone_widths": (4, 4, 8, 8), "depth": 1, "states": 2},
        (1, 3, 17_619),
        (),
    ),
}
register_variants(
    "hyper parameters figures",
    VARIANTS,
    build=AttentionMamba,
    dims=2,
    divisor=(1, 1),
    paper="Zhang et al.: Attention-Mamba: A Mamba-Enhanced Multi-Scale Parallel Inference Network for Medical "
    "Image Segmentation, arXiv 2402.02286v4, 2025",
    url="https://github.com/Yanhua-Zhang/Attention-Mamba",
    licence="code: ours, Apache-2.0; the authors' code and weights state no licence and are not shipped",
    rename_upstream_keys=rename_upstream_keys,
)
