"""The four-way scan of images: every backend against four plain scans, outputs and gradients; SS2D and its blocks."""

import pytest
import torch
from torch.nn import functional as F

from MambaSegLib.blocks.drop_path import DropPath
from MambaSegLib.blocks.vss import SS2D, PatchExpand, PatchMerging, VMambaBlock, VSSBlock, drop_path_rates
from MambaSegLib.ops.cross_scan import LADDER, cross_orders, cross_scan
from MambaSegLib.ops.selective_scan import reference

BACKENDS = [b.name for b in LADDER.backends if b.refuses("cpu", "float64") is None]


def by_hand(u, delta, A, B, C, D, bias, grid):
    """Rows, columns and both backwards as VMamba writes it: transpose, flip, scan, undo, add."""
    inner, total = u.shape[2], 0
    for k in range(4):
        own = slice(k * inner, (k + 1) * inner)

        def order(x, k=k):
            x = x.unflatten(1, grid)
            x = x.transpose(1, 2) if k % 2 else x
            x = x.flatten(1, 2)
            return x.flip(1) if k >= 2 else x

        y = reference(
            order(u), order(delta[..., own]), A[own], order(B[:, :, k])[:, :, None], order(C[:, :, k])[:, :, None],
            D[own], None, bias[own], True,
        )  # fmt: skip
        y = (y.flip(1) if k >= 2 else y).unflatten(1, grid[::-1] if k % 2 else grid)
        total = total + (y.transpose(1, 2) if k % 2 else y).flatten(1, 2)
    return total


def inputs(grid, inner=6, states=3, batch=2):
    generator = torch.Generator().manual_seed(5)
    length = grid[0] * grid[1]
    shapes = [(batch, length, inner), (batch, length, 4 * inner), (4 * inner, states)]
    shapes += [(batch, length, 4, states)] * 2 + [(4 * inner,)] * 2
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    tensors[2] = -tensors[2].abs() - 0.1
    return [t.requires_grad_() for t in tensors]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grid", [(4, 7), (1, 9), (1, 1), (16, 5)])
def test_equals_four_scans_by_hand(backend, grid):
    tensors = inputs(grid)
    results = [cross_scan(*tensors, cross_orders(grid), backend=backend), by_hand(*tensors, grid)]
    weight = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    gradients = [torch.autograd.grad(y, tensors, weight) for y in results]
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)
    for name, a, b in zip(["u", "delta", "A", "B", "C", "D", "bias"], *gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_wrong_shapes_are_named():
    tensors = inputs((4, 7))
    with pytest.raises(ValueError, match="orders"):
        cross_scan(*tensors, cross_orders((4, 6)))
    with pytest.raises(ValueError, match="delta"):
        cross_scan(tensors[0], tensors[1][..., 1:], *tensors[2:], cross_orders((4, 7)))


@pytest.mark.parametrize("width", [32, 48])
def test_parameters_of_ss2d_in_closed_form(width):
    rank = -(-width // 16)
    count = sum(p.numel() for p in SS2D(width).parameters())
    assert count == 6 * width**2 + 424 * width + 16 * width * rank
    for ratio in (1, 2):
        block = SS2D(width, states=1, expand=ratio, gate=False, conv_bias=False)
        inner = ratio * width
        assert sum(p.numel() for p in block.parameters()) == 2 * width * inner + inner * (31 + 8 * rank)


def test_ss2d_step_by_step():
    """The whole mixer against its formula, with the scan by hand."""
    torch.manual_seed(0)
    block, grid = SS2D(16, states=2).double(), (5, 3)
    x = torch.randn(1, *grid, 16, dtype=torch.float64)
    u, z = block.in_proj(x).chunk(2, dim=-1)
    u = F.silu(block.conv2d(u.permute(0, 3, 1, 2))).flatten(2).transpose(1, 2)
    parts = torch.einsum("ble,kre->blkr", u, block.x_proj_weight)
    delta = torch.cat([parts[:, :, k, :1] @ block.dt_projs_weight[k].T for k in range(4)], dim=2)
    B, C = parts[..., 1:3], parts[..., 3:5]
    y = by_hand(u, delta, -block.A_logs.exp(), B, C, block.Ds, block.dt_projs_bias.flatten(), grid)
    expected = block.out_proj(block.out_norm(y).unflatten(1, grid) * F.silu(z))
    torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("make", [VSSBlock, VMambaBlock])
def test_blocks_keep_the_shape_and_reach_every_parameter(make):
    block = make(16, drop_path=0.5)
    x = torch.randn(3, 4, 6, 16)
    y = block.eval()(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert all(p.grad is not None for p in block.parameters())


def test_samplers():
    merged = PatchMerging(4)(torch.randn(2, 6, 8, 4))
    assert merged.shape == (2, 3, 4, 8)
    expand = PatchExpand(4, 2, factor=2)
    x = torch.randn(1, 2, 3, 4)
    pixels = expand.expand(x)[0, 1, 2].view(2, 2, 2)  # (row, column, channel) of the last pixel
    torch.testing.assert_close(expand(x)[0, 2:4, 4:6], expand.norm(pixels))


def test_drop_path():
    rates = drop_path_rates(0.2, (2, 3))
    assert [len(stage) for stage in rates] == [2, 3]
    assert rates[0][0] == 0 and rates[1][-1] == pytest.approx(0.2)
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2)
    assert torch.equal(drop.eval()(x), x)
    y = drop.train()(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y[:, 0] == y[:, 1]).all()  # a sample as a whole
    assert y.mean().item() == pytest.approx(1, abs=0.05)
