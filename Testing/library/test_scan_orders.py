"""Scan orders are permutations with exact inverses, and the named ones are what their papers say."""

import itertools

import pytest
import torch

from MambaSegLib.blocks.mamba import MetaSSM, reorder, undo_reorder
from MambaSegLib.ops.scan_orders import SETS, inverse_order, order_set, scan_order

GRIDS = [(3, 4, 5), (1, 7, 2), (6, 5, 8), (1, 1, 1), (4, 6), (5, 1)]


def orders_for(grid):
    base = ["".join(p) for p in itertools.permutations("DHW"[-len(grid) :])] + ["snake", "morton"]
    return base + ["-" + name for name in base]


@pytest.mark.parametrize("grid", GRIDS)
def test_every_order_is_a_permutation_with_its_inverse(grid):
    count = torch.tensor(grid).prod().item()
    everything = torch.arange(count)
    for name in orders_for(grid):
        order, inverse = scan_order(name, grid), inverse_order(name, grid)
        assert torch.equal(order.sort().values, everything), name
        assert torch.equal(order[inverse], everything) and torch.equal(inverse[order], everything), name
        tokens = torch.randn(2, count, 3)
        assert torch.equal(undo_reorder(reorder(tokens, name, grid), name, grid), tokens), name
        assert torch.equal(reorder(tokens, name, grid), tokens[:, order]), name


def test_axis_orders_by_their_digits():
    """HWD: h = t // (W D), w = (t // D) % W, d = t % D."""
    D, H, W = 3, 4, 5
    expected = []
    for t in range(D * H * W):
        h, w, d = t // (W * D), (t // D) % W, t % D
        expected.append((d * H + h) * W + w)
    assert scan_order("HWD", (D, H, W)).tolist() == expected


def test_hwd_is_segmambas_inter_slice_order():
    """SegMamba cuts the raster sequence into D slices and interleaves them."""
    D, H, W = 4, 3, 5
    interleaved = torch.stack(torch.arange(D * H * W).chunk(D), dim=-1).flatten()
    assert torch.equal(scan_order("HWD", (D, H, W)), interleaved)


@pytest.mark.parametrize("grid", [(3, 4, 5), (6, 5, 8), (4, 6)])
def test_snake_moves_one_voxel_per_step(grid):
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")).flatten(1)
    path = places[:, scan_order("snake", grid)]
    assert path.diff(dim=1).abs().sum(0).eq(1).all()


def test_morton_on_a_cube_interleaves_bits():
    assert scan_order("morton", (2, 2, 2)).tolist() == list(range(8))
    assert scan_order("morton", (4, 4))[:6].tolist() == [0, 1, 4, 5, 2, 3]


def test_unknown_orders_are_refused():
    with pytest.raises(ValueError, match="permutation of DHW"):
        scan_order("XYZ", (2, 2, 2))
    with pytest.raises(ValueError, match="permutation of HW"):
        scan_order("DHW", (2, 2))


def test_reversed_input_through_one_direction_is_the_other_direction():
    """With shared weights, flipping the grid swaps the two directions of the bi-directional scan: same sum."""
    torch.manual_seed(0)
    block = MetaSSM(8, "bi", states=4, shared=True).double().eval()
    x = torch.randn(1, 8, 3, 4, 5, dtype=torch.float64)
    flipped = block(x.flip(2, 3, 4)).flip(2, 3, 4)
    assert torch.allclose(block(x), flipped, atol=1e-12)


@pytest.mark.parametrize("name", ["bi", "segmamba", "bisnake"])
def test_without_gradients_it_is_the_same_piece_by_piece(name, monkeypatch):
    """60 tokens are one piece of at most 64, 120 are two."""
    torch.manual_seed(0)
    monkeypatch.setattr("MambaSegLib.blocks.mamba.PIECE_ELEMENTS", 1)
    block, sizes = MetaSSM(8, name, states=4), []
    block.out_proj.register_forward_hook(lambda layer, inputs, result: sizes.append(result.shape[1]))
    for grid, pieces in (((3, 4, 5), [60]), ((6, 4, 5), [64, 56])):
        x = torch.randn(2, 8, *grid)
        whole = block(x)
        sizes.clear()
        with torch.no_grad():
            torch.testing.assert_close(block(x), whole)
        assert sizes == pieces


def test_sets_in_two_dimensions_have_no_depth_and_no_doubles():
    assert order_set("bi", 2) == ("HW", "-HW")
    assert order_set("tri", 2) == ("HW", "WH")
    assert order_set("bisnake", 2) == ("snake", "-snake")


@pytest.mark.parametrize("name", sorted(SETS))
def test_every_set_runs_and_reaches_all_weights(name):
    block = MetaSSM(8, name, states=2)
    block(torch.randn(1, 8, 2, 3, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
