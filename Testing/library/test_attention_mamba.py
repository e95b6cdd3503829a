"""Attention-Mamba against its specification: counts, alignment, fusion."""

import math

import pytest
import torch
import torch.nn.functional as F

from MambaSegLib.networks import create
from MambaSegLib.networks.attention_mamba import FlowGrid, MambaAttention, align
from MambaSegLib.networks.macs import count_variant


def parameters(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def meta(classes=9, **hyper):
    with torch.device("meta"):
        return create("attention_mamba", 3, classes, **hyper)


@pytest.mark.parametrize("classes,count", [(1, 14_046_291), (2, 14_047_355), (4, 14_049_483), (9, 14_054_803)])
def test_parameters_at_every_number_of_classes(classes, count):
    assert parameters(meta(classes)) == count


def test_layer_table():
    network = meta(1)
    backbone = network.backbone
    assert parameters(backbone.conv1, backbone.bn1) == 112_832
    assert parameters(backbone) - 112_832 == 11_212_160
    assert parameters(network.reduce) == 123_904
    assert parameters(network.top_down) == parameters(network.bottom_up) == 443_136
    assert parameters(network.fuse) == 295_424
    assert [parameters(flow) for flow in network.flows] == [18_688] * 3
    assert parameters(network.branches) == 1_353_728
    assert parameters(network.attention) == 4_875 and parameters(meta(9).attention) == 5_131


@pytest.mark.parametrize(
    "classes,size,published,layers,projections",
    [(1, 256, 8.9399, 8.856, 1.611), (9, 224, 6.8703, 6.806, 1.233)],
)
def test_macs_are_the_published_flops(classes, size, published, layers, projections):
    """thop counts modules and norms, and the heads before the branches, which the authors run in evaluation too; it
    does not see products with raw parameters (SS2D's, and the mixers' step projection)."""
    macs = count_variant("attention_mamba", 3, classes, (size, size))
    tokens = (size // 4) ** 2
    early_heads, steps = 4 * 128 * classes * tokens, 2 * 4 * 4 * tokens
    assert (macs.modules + early_heads - steps) / 1e9 == pytest.approx(published, abs=1.5e-4)
    assert (macs.conv + macs.linear + early_heads) / 1e9 == pytest.approx(layers, abs=1e-3)
    assert macs.einsum / 1e9 == pytest.approx(projections, abs=1e-3)


def bilinear(image, y, x):
    """image (C, h, w) at a place in pixels, zero outside."""
    value = torch.zeros(image.shape[0])
    for row, column in ((math.floor(y) + i, math.floor(x) + j) for i in (0, 1) for j in (0, 1)):
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return value


def test_flow_grid_and_sampling_pixel_by_pixel():
    """One step of the alignment from the formula: the place in the coarse image is the fine one's share of the image,
    moved by half the flow's (w_coarse - 1) / w_fine pixels."""
    torch.manual_seed(0)
    grid_of = FlowGrid(4)
    fine, coarse = torch.randn(1, 4, 5, 7), torch.randn(1, 4, 3, 4)
    with torch.no_grad():
        aligned = align([fine, coarse], [grid_of(fine, coarse)])[1][0]
        narrow = F.conv2d(coarse, grid_of.coarse.weight)
        large = torch.empty(1, 2, 5, 7)
        for i in range(5):
            for j in range(7):
                large[0, :, i, j] = bilinear(narrow[0], i * 2 / 4, j * 3 / 6)
        flow = grid_of.flow(torch.cat((F.conv2d(fine, grid_of.fine.weight), large), dim=1))[0]
        for i in range(5):
            for j in range(7):
                y = (2 * i / 4 - 1 + flow[1, i, j].item() / 5 + 1) / 2 * 2
                x = (2 * j / 6 - 1 + flow[0, i, j].item() / 7 + 1) / 2 * 3
                assert torch.allclose(aligned[:, i, j], bilinear(coarse[0], y, x), atol=1e-5)


def test_alignment_is_recursive():
    """Level 4 passes through the grids of levels 3, 2 and 1, in this order."""
    torch.manual_seed(0)
    sizes = [(8, 8), (4, 4), (2, 2), (2, 1)]
    features = [torch.randn(1, 2, *size) for size in sizes]
    grids = [torch.rand(1, *size, 2) * 2 - 1 for size in sizes[:3]]
    aligned = align(features, grids)
    x = features[3]
    for grid in (grids[2], grids[1], grids[0]):
        x = F.grid_sample(x, grid, align_corners=True)
    assert torch.equal(aligned[3], x) and torch.equal(aligned[0], features[0])
    assert all(a.shape[2:] == (8, 8) for a in aligned)


class Ramp(torch.nn.Module):
    """Adds the token's number, so that the order of tokens shows."""

    def forward(self, x):
        return x + 0.01 * torch.arange(x.shape[1]).view(1, -1, 1)


def test_fusion_weights_follow_scales_channels_and_pixels():
    torch.manual_seed(0)
    attention = MambaAttention(16, 3, 2, mamba=True)
    attention.channel_relation = attention.pixel_relation = Ramp()
    features = [torch.randn(2, 16, 3, 5) for _ in range(4)]
    of_class, of_pixel = attention(features)
    assert of_class.shape == (2, 4, 3, 1, 1) and of_pixel.shape == (2, 4, 1, 3, 5)
    tokens = torch.stack([f[0, c].mean() + f[0, c].max() for f in features for c in range(16)])
    tokens = tokens + 0.01 * torch.arange(64)
    hidden = (attention.narrow.weight[:, :, 0, 0] @ tokens).clamp(min=0)
    expected = torch.sigmoid(attention.widen.weight[:, :, 0, 0] @ hidden).view(4, 3)
    assert torch.allclose(of_class[0, :, :, 0, 0], expected, atol=1e-6)
    scale, i, j = 2, 1, 3
    column = features[scale][0, :, i, j]
    pair = torch.stack((column.mean(), column.max())) + 0.01 * (scale * 15 + i * 5 + j)
    assert torch.allclose(of_pixel[0, scale, 0, i, j], torch.sigmoid(attention.weigh(pair))[0], atol=1e-6)


def test_relation_looks_both_ways():
    torch.manual_seed(0)
    relation = MambaAttention(16, 3, 4, mamba=True).pixel_relation
    x = torch.randn(1, 9, 2)
    with torch.no_grad():
        expected = relation.forwards(x) + relation.backwards(x.flip(1)).flip(1)
        assert torch.allclose(relation(x), expected)
        x[0, 4] += 1
        assert (relation(x) - expected)[0].abs().amax(1).min() > 0  # the change is seen before and after it


def test_logits_are_the_weighted_sum_of_the_branches():
    torch.manual_seed(0)
    network = create("attention_mamba_test", 1, 3).eval()
    x = torch.randn(1, 1, 48, 64)
    with torch.no_grad():
        aligned = network._aligned(x)
        features = [
            b(a.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for b, a in zip(network.branches, aligned, strict=True)
        ]
        of_class, of_pixel = network.attention(features)
        fused = sum(network.heads[i](features[i]) * of_class[:, i] * of_pixel[:, i] for i in range(4))
        expected = F.interpolate(fused, (48, 64), mode="bilinear", align_corners=True)
        outputs = network.forward_multiscale(x)
    assert torch.allclose(outputs[0], expected, atol=1e-6) and torch.allclose(network(x), expected, atol=1e-6)
    early = F.interpolate(network.early_heads[3](aligned[3]), (48, 64), mode="bilinear", align_corners=True)
    assert len(outputs) == 9 and torch.allclose(outputs[8], early, atol=1e-6)


@pytest.mark.parametrize("size", [(65, 97), (50, 38), (7, 3)])
def test_nine_outputs_at_the_size_of_any_image(size):
    network = create("attention_mamba_test", 1, 2)
    assert {tuple(o.shape) for o in network.forward_multiscale(torch.randn(2, 1, *size))} == {(2, 2, *size)}


def test_without_mamba_no_scan_is_left():
    names = [n for n, _ in create("attention_mamba_test", 1, 3, mamba=False).named_parameters()]
    assert not [n for n in names if "A_log" in n or "relation" in n or "branches" in n]
    assert "attention.weigh.weight" in names


def test_full_size_forward():
    torch.manual_seed(0)
    network = create("attention_mamba", 1, 9).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 224, 224))
    assert logits.shape == (1, 9, 224, 224) and torch.isfinite(logits).all()
