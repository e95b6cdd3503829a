"""Mamba mixers against the formulas of their papers, step by step in fp64; parameters in closed form."""

import pytest
import torch
from torch.nn import functional as F

from MambaSegLib.blocks.mixers import V2, V3, GatedRMSNorm, Mamba, Mamba2, MambaLayer


def one_direction(mixer, u, suffix=""):
    """Convolution, projections and recurrence of one direction in plain loops: u (L, E) -> (L, E) without the gate."""
    conv, x_proj, dt_proj = (getattr(mixer, n + suffix) for n in ("conv1d", "x_proj", "dt_proj"))
    A, D = -getattr(mixer, f"A{suffix}_log").exp(), getattr(mixer, f"D{suffix}")
    taps = conv.weight.shape[2]
    past = torch.cat([u.new_zeros(taps - 1, u.shape[1]), u])
    x = torch.stack([(past[t : t + taps] * conv.weight[:, 0].T).sum(0) + conv.bias for t in range(len(u))])
    x = F.silu(x)
    h, outputs = torch.zeros_like(A), []
    for x_t in x:
        low_rank, B, C = x_proj(x_t).split([mixer.rank, mixer.states, mixer.states])
        dt = F.softplus(dt_proj(low_rank))
        h = torch.exp(dt[:, None] * A) * h + (dt * x_t)[:, None] * B
        outputs.append(h @ C + D * x_t)
    return torch.stack(outputs)


@pytest.mark.parametrize("directions", [("",), V2, V3])
def test_mamba_by_hand(directions):
    torch.manual_seed(0)
    mixer = Mamba(20, states=3, directions=directions, slices=3).double()
    x = torch.randn(2, 12, 20, dtype=torch.float64)
    order = torch.arange(12).view(3, 4).T.flatten()  # tokens 0, 4, 8, then 1, 5, 9 ...
    back = torch.argsort(order)
    expected = []
    for item in x:
        u, z = mixer.in_proj(item).chunk(2, dim=-1)
        y = one_direction(mixer, u)
        if "_b" in directions:
            y = y + one_direction(mixer, u.flip(0), "_b").flip(0)
        if "_s" in directions:
            y = y + one_direction(mixer, u[order], "_s")[back]
        expected.append(mixer.out_proj(y * F.silu(z)))
    torch.testing.assert_close(mixer(x), torch.stack(expected), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("directions", [("",), V2, V3])
def test_parameters_of_mamba_in_closed_form(directions):
    width = 48
    count = sum(p.numel() for p in Mamba(width, directions=directions).parameters())
    assert count == 6 * width**2 + len(directions) * (110 * width + 4 * width * 3)


def test_mamba2_by_hand():
    torch.manual_seed(0)
    mixer = Mamba2(12, states=3, head_width=8).double()
    x = torch.randn(1, 9, 12, dtype=torch.float64)
    z, mixed, dt = mixer.in_proj(x[0]).split([24, 30, 3], dim=-1)
    past = torch.cat([mixed.new_zeros(3, 30), mixed])
    mixed = F.silu(
        torch.stack([(past[t : t + 4] * mixer.conv1d.weight[:, 0].T).sum(0) + mixer.conv1d.bias for t in range(9)])
    )
    dt, A = F.softplus(dt + mixer.dt_bias), -mixer.A_log.exp()
    h, outputs = torch.zeros(3, 8, 3, dtype=torch.float64), []  # (H, P, N)
    for row, dt_t in zip(mixed, dt, strict=True):
        u, B, C = row[:24].view(3, 8), row[24:27], row[27:]
        h = torch.exp(dt_t * A)[:, None, None] * h + dt_t[:, None, None] * u[..., None] * B
        outputs.append((h @ C + mixer.D[:, None] * u).flatten())
    g = torch.stack(outputs) * F.silu(z)
    g = g / torch.sqrt(g.square().mean(-1, keepdim=True) + 1e-5) * mixer.norm.weight
    torch.testing.assert_close(mixer(x)[0], mixer.out_proj(g), rtol=1e-9, atol=1e-10)


def test_parameters_of_mamba2():
    assert sum(p.numel() for p in Mamba2(320).parameters()) == 641_624
    with pytest.raises(ValueError, match="divides"):
        Mamba2(12, head_width=7)


def test_gated_norm_has_unit_power():
    norm = GatedRMSNorm(64)
    y = norm(torch.randn(5, 64), torch.randn(5, 64))
    torch.testing.assert_close(y.square().mean(-1), torch.ones(5), rtol=1e-3, atol=1e-3)


def test_layer_makes_tokens_of_voxels_or_channels():
    torch.manual_seed(0)
    x = torch.randn(2, 16, 2, 3, 2)
    voxels, channels = MambaLayer(16), MambaLayer(12, channel_tokens=True)
    assert voxels(x).shape == channels(x).shape == x.shape
    changed = x.clone()
    changed[:, -1] += 1  # the last channel: the last token, or a part of every token
    assert not torch.allclose(voxels(x)[:, :, 0, 0, 0], voxels(changed)[:, :, 0, 0, 0])
    assert torch.equal(channels(x)[:, :-1], channels(changed)[:, :-1])
