"""The scan kernels compiled by llvmlite: variants, extreme steps and long sequences against float64."""

import math

import pytest
import torch
from scan_cases import constant_steps, everything, operands, worst

from MambaSegLib.ops import llvm_engine, llvm_scan
from MambaSegLib.ops.selective_scan import reference

pytestmark = pytest.mark.skipif(llvm_engine.why_not() is not None, reason=str(llvm_engine.why_not()))


def by_reference(u, delta, A, B, C, D, z, delta_bias, softplus=True, orders=None, shared=False):
    """The reference, group by group, with the sequence gathered into the group's order and its result put back."""
    groups, channels = B.shape[2], A.shape[0] // B.shape[2]
    total = []
    for k in range(groups):
        part = slice(k * channels, (k + 1) * channels)
        order = torch.arange(u.shape[1]) if orders is None else orders[k].long()
        outer = slice(None) if shared else part
        y = reference(
            u[:, order][..., outer],
            delta[:, order][..., part],
            A[part],
            B[:, order, k : k + 1],
            C[:, order, k : k + 1],
            None if D is None else D[part],
            None if z is None else z[:, order][..., outer],
            None if delta_bias is None else delta_bias[part],
            softplus,
        )
        total.append(y[:, torch.argsort(order)])
    return sum(total) if shared else torch.cat(total, -1)


def random_orders(groups, length):
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randperm(length, generator=generator) for _ in range(groups)]).int()


def assert_equals_reference(tensors, *options, double=False):
    """In float32, and in float64 too if `double` (the same code, so not everywhere: each variant is compiled)."""
    if double:
        truth = everything(by_reference, tensors, torch.float64, *options)
        assert worst(everything(llvm_scan.scan, tensors, torch.float64, *options), truth) < 1e-12
    rounded = [None if t is None else t.float().double() for t in tensors]  # what float32 is given
    truth = everything(by_reference, rounded, torch.float64, *options)
    assert worst(everything(llvm_scan.scan, tensors, torch.float32, *options), truth) < 1e-5


@pytest.mark.parametrize("states", [1, 2, 3, 5, 7, 16, 64])
def test_state_sizes(states):
    assert_equals_reference(operands(2, 41, 1, 16, states), True, double=states in (3, 16))


@pytest.mark.parametrize("channels", [1, 3, 8, 13, 17, 24, 40])
def test_channel_counts_that_do_not_fill_vectors(channels):
    assert_equals_reference(operands(2, 35, 2, channels, 4), True, double=True)


@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33, 127])
def test_lengths_around_tiles(length):
    assert_equals_reference(operands(1, length, 1, 9, 4), True, double=True)


@pytest.mark.parametrize(
    "missing", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")], ids=lambda names: "-".join(names)
)
@pytest.mark.parametrize("softplus", [True, False])
def test_missing_operands(missing, softplus):
    tensors = operands(1, 50, 2, 12, 4, missing=missing)
    if not softplus:
        tensors[1] = tensors[1].abs()
        tensors[7] = None if tensors[7] is None else tensors[7].abs()
    assert_equals_reference(tensors, softplus)


@pytest.mark.parametrize(
    "groups,channels,states,missing", [(4, 8, 16, ("z",)), (3, 5, 1, ()), (2, 20, 4, ())], ids=["ss2d", "odd", "two"]
)
@pytest.mark.parametrize("shared", [False, True], ids=["own_u", "shared_u"])
@pytest.mark.parametrize("ordered", [False, True], ids=["in_sequence", "ordered"])
def test_directions(groups, channels, states, missing, shared, ordered):
    tensors = operands(2, 49, groups, channels, states, shared, missing)
    orders = random_orders(groups, 49) if ordered else None
    assert_equals_reference(tensors, True, orders, shared)


def test_reversed_order_is_a_flipped_scan():
    tensors = operands(1, 60, 1, 8, 4)
    flipped = [t.flip(1) if t.dim() > 2 else t for t in tensors]
    backwards = torch.arange(59, -1, -1, dtype=torch.int32)[None]
    assert torch.allclose(llvm_scan.scan(*tensors, True, backwards), llvm_scan.scan(*flipped, True).flip(1))


def test_gradcheck():
    for shared in (False, True):
        tensors = operands(1, 5, 2, 3, 2, shared)
        inputs = [t.requires_grad_() for t in tensors]
        orders = random_orders(2, 5)
        assert torch.autograd.gradcheck(lambda *x, o=orders, s=shared: llvm_scan.scan(*x, True, o, s), inputs)


@pytest.mark.parametrize("length", [1, 2, 3, 257, 1009])
def test_extreme_steps(length):
    """Steps of 1e-4 to 50: decays from 0.9999 to an underflow, both ends in every tile."""
    tensors = operands(1, length, 1, 12, 16, missing=("delta_bias",))
    generator = torch.Generator().manual_seed(1)
    exponent = torch.rand(tensors[1].shape, generator=generator, dtype=torch.float64)
    tensors[1] = 1e-4 * 5e5**exponent
    tensors[2] = -torch.arange(1, 17, dtype=torch.float64).repeat(12, 1)
    assert_equals_reference(tensors, False)


@pytest.mark.parametrize("delta", [1e-4, 1e-3, 50.0])
def test_constant_extreme_steps(delta):
    """The same rounding error in every step must not add up (it did: 5e-5, when 1 - 1e-4 was rounded once per step)."""
    tensors = operands(1, 3001, 1, 8, 16, missing=("delta_bias",))
    tensors[1] = torch.full_like(tensors[1], delta)
    assert_equals_reference(tensors, False)


@pytest.mark.parametrize("order", ["slow_first", "fast_first"])
def test_tiles_of_slow_and_of_fast_decays_in_turn(order):
    """What a tile of slow decays could not add to its state goes to the next one, of whatever kind."""
    tensors = operands(1, 300, 1, 12, 16, missing=("delta_bias",))
    sizes = torch.tensor([1e-4, 1e-2, 2e-1, 3.0, 60.0], dtype=torch.float64)
    sizes = sizes if order == "slow_first" else sizes.flip(0)
    steps = sizes.repeat_interleave(33).repeat(2)[:300, None]
    tensors[1] = (steps * torch.linspace(0.5, 1.5, 12, dtype=torch.float64))[None]
    assert_equals_reference(tensors, False, double=True)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_decays_give_no_nan(size):
    tensors = operands(1, 70, 1, 8, 4, missing=("delta_bias", "z"))
    tensors[1] = tensors[1].abs() * size
    tensors[2] = tensors[2] - 0.1
    if size > 1e10:
        tensors[0] = tensors[0] / size
        assert all(t.isfinite().all() for t in everything(llvm_scan.scan, tensors, torch.float32, False)[:2])
    else:
        assert_equals_reference(tensors, False)


def test_negative_steps_without_softplus():
    tensors = operands(1, 30, 1, 10, 4, missing=("delta_bias",))
    tensors[1] = tensors[1] * 0.2
    assert (tensors[1] < 0).any()
    assert_equals_reference(tensors, False)


def test_nan_in_gives_nan_out():
    tensors = [t.float() for t in operands(1, 20, 1, 8, 2)]
    for index in (0, 1, 3, 4, 6):
        spoiled = [t.clone() for t in tensors]
        spoiled[index].view(-1)[0] = math.nan
        assert llvm_scan.scan(*spoiled, True).isnan().any()


def recur(decay, x):
    """h_t = decay_t h_{t-1} + x_t in Python's own numbers."""
    h, states = 0.0, []
    for a, value in zip(decay.tolist(), x.tolist(), strict=True):
        h = a * h + value
        states.append(h)
    return torch.tensor(states, dtype=torch.float64)


def long_reference(u, delta, a, b, c, gy):
    """One channel and one state, all (L,) float64: y and the gradients of u, delta, A, B, C for the weights gy."""
    decay = torch.exp(delta * a)
    h = recur(decay, delta * b * u)
    following = torch.cat([decay[1:], torch.zeros(1, dtype=torch.float64)])
    g = recur(following.flip(0), (c * gy).flip(0)).flip(0)
    slope = g * decay * torch.cat([torch.zeros(1, dtype=torch.float64), h[:-1]])
    return [c * h, g * delta * b, g * b * u + slope * a, (slope * delta).sum()[None], g * delta * u, gy * h]


def test_two_million_steps():
    length, a = 2_097_152, -1.0
    generator = torch.Generator().manual_seed(0)
    u, b, c, gy = (torch.randn(length, generator=generator) for _ in range(4))
    delta = torch.exp(torch.randn(length, generator=generator) - 5)
    truth = long_reference(u.double(), delta.double(), a, b.double(), c.double(), gy.double())
    inputs = [u.view(1, -1, 1), delta.view(1, -1, 1), torch.tensor([[a]]), b.view(1, -1, 1, 1), c.view(1, -1, 1, 1)]
    inputs = [t.clone().requires_grad_() for t in inputs]
    y = llvm_scan.scan(*inputs)
    ours = [y.detach(), *torch.autograd.grad(y, inputs, gy.view(1, -1, 1))]
    assert worst([t.flatten() for t in ours], truth) < 1e-5


@pytest.mark.parametrize("channels,delta", [(1, 1e-3), (2, 1e-4), pytest.param(8, 1e-4, marks=pytest.mark.slow)])
def test_two_million_tiny_steps(channels, delta):
    """Sums over all steps, dA and dbias, too, that cancel a hundredfold: states must not be rounded in every step."""
    arguments = 2_097_152, channels, 1, delta
    truth = constant_steps(*arguments, llvm_scan.scan, torch.float64)  # proved by the tests above
    assert worst(constant_steps(*arguments, llvm_scan.scan, torch.float32), truth) < 2e-6


def test_strided_operands_are_read_in_place():
    """Slices of one projection, as the blocks cut them, and a gradient that is a broadcast scalar."""
    tensors = operands(2, 30, 2, 8, 4)
    packed = torch.cat([t.reshape(2, 30, -1) for t in (tensors[0], tensors[1], tensors[6], tensors[3], tensors[4])], -1)
    u, delta, z, b, c = packed.split([16, 16, 16, 8, 8], -1)
    assert not u.is_contiguous()
    strided = [u, delta, tensors[2], b.unflatten(-1, (2, 4)), c.unflatten(-1, (2, 4)), tensors[5], z, tensors[7]]
    assert torch.equal(llvm_scan.scan(*strided, True), llvm_scan.scan(*tensors, True))
    packed.requires_grad_()
    u = packed.split([16, 16, 16, 8, 8], -1)[0]
    (gradient,) = torch.autograd.grad(llvm_scan.scan(u, *strided[1:], True).sum(), packed)
    truth = everything(lambda *x: by_reference(*x), tensors, torch.float64)[0]
    assert torch.allclose(llvm_scan.scan(*strided, True), truth)
    weights = torch.autograd.grad(by_reference(*[t.requires_grad_() for t in tensors]).sum(), tensors[0])[0]
    assert torch.allclose(gradient[..., :16], weights)


def test_without_gradients():
    tensors = [t.float() for t in operands(1, 40, 1, 8, 4)]
    wanted = llvm_scan.scan(*[t.clone().requires_grad_() for t in tensors], True)
    assert torch.equal(llvm_scan.scan(*tensors, True), wanted)
    with torch.inference_mode():
        assert torch.equal(llvm_scan.scan(*[t.clone() for t in tensors], True), wanted)
    with torch.no_grad():
        assert llvm_scan.scan(*[t.requires_grad_() for t in tensors], True).grad_fn is None


def test_half_precision_is_scanned_in_float32():
    tensors = [t.bfloat16() for t in operands(1, 40, 1, 8, 4)]
    y = llvm_scan.scan(*tensors, True)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, llvm_scan.scan(*[t.float() for t in tensors], True).bfloat16())


def test_wrong_input_is_refused():
    tensors = operands(1, 10, 2, 4, 2)
    with pytest.raises(ValueError, match=r"delta should have shape \(1, 10, 8\)"):
        llvm_scan.scan(tensors[0], tensors[1][:, :9], *tensors[2:])
    for bad in (torch.zeros(2, 10), torch.full((2, 10), 99), torch.arange(10).repeat(2, 1) - 1):
        with pytest.raises(ValueError, match=r"each position 0 \.\.\. 9 once"):
            llvm_scan.scan(*tensors, True, bad.int())
    good = torch.arange(10, dtype=torch.int32).repeat(2, 1)
    llvm_scan.scan(*tensors, True, good)
    good[0, 0] = 10**9  # tables are checked once, but not if they changed since
    with pytest.raises(ValueError, match="orders"):
        llvm_scan.scan(*tensors, True, good)
