"""Deco-Mamba against the layer table and the published figures, its blocks against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from MambaSegLib.networks import create, spec
from MambaSegLib.networks.deco_mamba import DRB, GATES, AttentionGate, ChannelAttention, CoAttentionGate
from MambaSegLib.networks.macs import count_variant

# Parameters of gate, VSSMB and DRB of stages 2 to 6; then (two VSSMBs, DRB) of the bottleneck and the encoder.
TABLE = {
    "deco_mamba_v0": (
        [
            (109_622, 1_388_608, 998_075),
            (32_150, 446_656, 235_067),
            (6_102, 105_408, 63_483),
            (6_102, 105_408, 122_043),
            (10_694, 0, 150_299),
        ],
        (2 * 567_808, 1_242_907, 3_409_760),
    ),
    "deco_mamba_v1": (
        [
            (435_558, 5_200_000, 3_788_123),
            (127_014, 1_595_776, 830_555),
            (23_718, 339_840, 206_811),
            (10_694, 169_216, 150_299),
            (10_694, 0, 150_299),
        ],
        (2 * 2_053_120, 4_845_083, 24_849_856),
    ),
}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def meta(name, **hyper):
    with torch.device("meta"):
        return create(name, 3, 9, **hyper)


def shake(module):
    """Norms as after training, so that a formula is put to the test everywhere."""
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            for t, low in ((m.weight, 0.5), (m.running_var, 0.5), (m.bias, -0.5), (m.running_mean, -0.5)):
                torch.nn.init.uniform_(t, low, low + 1)
    return module.eval()


@pytest.mark.parametrize("name", TABLE)
def test_layer_table(name):
    network = meta(name)
    stages, (scans, deform, encoder) = TABLE[name]
    assert [tuple(parameters(m) for m in (s.gate, s.scan, s.refine)) for s in network.stages] == stages
    assert parameters(network.bottleneck[:2]) == scans and parameters(network.bottleneck[2]) == deform
    assert parameters(network.encoder) == encoder
    assert parameters(network.cnn) == 9_600 + 90_560 and parameters(network.head) == 585


@pytest.mark.parametrize(
    "name,published,deformable,scan", [("deco_mamba_v0", 9.73, 4.727, 2.074), ("deco_mamba_v1", 17.24, 5.961, 3.216)]
)
def test_macs_are_the_published_flops(name, published, deformable, scan):
    """Published are the MACs of layers, biases included, without deformable products and scans (ptflops)."""
    macs = count_variant(name, 3, 9, (224, 224))
    assert round(macs.layers / 1e9, 2) == published
    assert round(macs.deformable / 1e9, 3) == deformable and round(macs.scan / 1e9, 3) == scan


def test_published_sizes():
    millions = [parameters(meta(n)) / 1e6 for n in ("deco_mamba_v0", "deco_mamba_v1", "deco_mamba_swin")]
    assert millions == pytest.approx([9.67, 46.93, 70.12], rel=3e-4)
    assert parameters(meta("deco_mamba_v0", distribution_heads=True)) == 9_668_745 + 5_229
    assert parameters(meta("deco_mamba_v1", distribution_heads=True)) == 46_940_521 + 9_837
    with torch.device("meta"):
        assert parameters(create("deco_mamba_v0", 3, 14)) == 9_668_745 + 325


def test_attention_gate_is_its_formula():
    torch.manual_seed(0)
    gate = shake(AttentionGate(6, 8))
    x, g = torch.randn(2, 6, 5, 7), torch.randn(2, 8, 5, 7)

    def layer(pair, t):
        conv, norm = pair
        t = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], t) + conv.bias.view(-1, 1, 1)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return (t - norm.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)

    s = (layer(gate.from_x, x) + layer(gate.from_gate, g)).clamp(min=0)
    assert s.shape[1] == 4  # half of the gating feature
    assert torch.allclose(gate(x, g), x * torch.sigmoid(layer(gate.psi, s)), atol=1e-5)


def test_co_attention_gates_both_ways_skip_first():
    torch.manual_seed(0)
    gate = shake(CoAttentionGate(6, 10))
    skip, x = torch.randn(1, 6, 4, 5), torch.randn(1, 10, 4, 5)
    both = torch.cat((gate.gate_skip(skip, x), gate.gate_decoder(x, skip)), dim=1)
    assert torch.allclose(gate(skip, x), gate.channels(both))
    assert gate.gate_skip.psi[0].in_channels == 5 and gate.gate_decoder.psi[0].in_channels == 3


def test_channel_attention_is_its_formula():
    torch.manual_seed(0)
    attention = ChannelAttention(32)
    y = torch.randn(2, 32, 3, 4)
    w1, w2 = attention.narrow.weight[:, :, 0, 0], attention.widen.weight[:, :, 0, 0]
    assert w1.shape == (2, 32)
    pooled = (y.flatten(2).mean(2), y.flatten(2).max(2).values)
    weight = torch.sigmoid(sum((p @ w1.T).clamp(min=0) @ w2.T for p in pooled))
    assert torch.allclose(attention(y), y * weight[:, :, None, None], atol=1e-6)


@pytest.mark.parametrize("out", [4, 6])
def test_residual_block_starts_as_an_ordinary_one(out):
    """Offsets and modulation begin at zero, where the deformable convolution is the ordinary one."""
    torch.manual_seed(0)
    block = shake(DRB(4, out))
    x = torch.randn(1, 4, 9, 8)
    y = F.relu(block.norm(F.conv2d(x, block.deform.weight, padding=1)))
    y = F.relu(block.conv(y)) + (x if out == 4 else F.relu(block.skip[0](x)))
    assert isinstance(block.skip, torch.nn.Identity) == (out == 4)
    assert torch.allclose(block(x), y, atol=1e-5)


def test_offsets_move_the_samples():
    """A constant offset of one pixel down and two to the right is a shift of the image."""
    torch.manual_seed(0)
    block = DRB(2, 2).deform
    with torch.no_grad():
        block.offset.bias.copy_(torch.tensor([1.0, 2.0]).repeat(9))
        block.modulation.bias.fill_(100.0)  # 2 * sigmoid = 2
    x = torch.randn(1, 2, 9, 8)
    shifted = F.pad(x, (0, 2, 0, 1))[:, :, 1:, 2:]
    expected = 2 * F.conv2d(shifted, block.weight, padding=1)
    assert torch.allclose(block(x)[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-5)


ABLATIONS = [
    {"gate": "ag"},
    {"gate": "cbam"},
    {"gate": "lgag"},
    {"cnn_branch": False},
    {"mamba": False},
    {"deformable": False},
]


@pytest.mark.parametrize("hyper", ABLATIONS, ids=str)
def test_ablations_run_and_learn(hyper):
    torch.manual_seed(0)
    network = create("deco_mamba_test", 2, 3, **hyper)
    levels = network.forward_multiscale(torch.randn(2, 2, 40, 70))
    assert [tuple(level.shape[2:]) for level in levels] == [(40, 70), (20, 35), (10, 18), (5, 9), (3, 5), (2, 3)]
    sum(level.square().mean() for level in levels).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_ablations_leave_out_what_they_say():
    full = parameters(meta("deco_mamba_v0"))
    scans = sum(row[1] for row in TABLE["deco_mamba_v0"][0]) + 2 * 567_808
    assert parameters(meta("deco_mamba_v0", mamba=False)) == full - scans
    widths = [256, 416, 224, 96, 96, 128]
    offsets = sum(27 * (9 * w + 1) for w in widths)
    assert parameters(meta("deco_mamba_v0", deformable=False)) == full - offsets
    names = [n for n, _ in meta("deco_mamba_v0", cnn_branch=False).named_parameters()]
    assert not [n for n in names if n.startswith(("cnn.", "stages.3.gate", "stages.4.gate"))]


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="cbam"):
        create("deco_mamba_test", 1, 3, gate="none")
    with pytest.raises(ValueError, match="swin_t"):
        create("deco_mamba_test", 1, 3, backbone="resnet")


def test_multiscale_and_forward_agree_and_heads_are_optional():
    torch.manual_seed(0)
    network = create("deco_mamba_test", 1, 3).eval()
    x = torch.randn(2, 1, 33, 50)
    with torch.no_grad():
        levels = network.forward_multiscale(x)
        assert len(levels) == 6 and torch.allclose(levels[0], network(x), atol=1e-6)
        assert len(create("deco_mamba_test", 1, 3, distribution_heads=False).forward_multiscale(x)) == 1


def test_grey_images_are_repeated():
    torch.manual_seed(0)
    network = create("deco_mamba_test", 1, 3).eval()
    x = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        assert torch.equal(network(x), network(x.expand(-1, 3, -1, -1)))


def test_swin_takes_any_multiple_of_32():
    torch.manual_seed(0)
    network = create("deco_mamba_test", 1, 3, backbone="swin_t").eval()
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 1, 40, 70))).all()


def test_half_precision_stays_close():
    """Under autocast everything but the scan goes to bfloat16; logits follow within its three digits."""
    torch.manual_seed(0)
    network = create("deco_mamba_test", 1, 3).eval()
    x = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network(x)
    assert (rounded.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_gates_keep_both_widths():
    for gate in GATES.values():
        assert gate(6, 8).eval()(torch.randn(1, 6, 4, 4), torch.randn(1, 8, 4, 4)).shape == (1, 14, 4, 4)


def test_registry_says_what_the_papers_say():
    figures = {(f.dataset.split()[0], f.metric): f.value for f in spec("deco_mamba_v1").figures}
    assert figures["Synapse", "mean Dice"] == 0.8507 and figures["ACDC", "mean Dice"] == 0.9235


@pytest.mark.parametrize("name", ["deco_mamba_v0", "deco_mamba_v1", "deco_mamba_swin"])
def test_full_size_forward(name):
    torch.manual_seed(0)
    network = create(name, 1, 9).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 224, 224))
    assert logits.shape == (1, 9, 224, 224) and torch.isfinite(logits).all()
