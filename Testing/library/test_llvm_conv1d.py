"""The convolution kernels compiled by llvmlite against the plain reference in float64."""

import pytest
import torch
from scan_cases import everything, worst

from MambaSegLib.ops import llvm_conv1d, llvm_engine
from MambaSegLib.ops.causal_conv1d import reference

pytestmark = pytest.mark.skipif(llvm_engine.why_not() is not None, reason=str(llvm_engine.why_not()))


def operands(batch, length, channels, taps, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, channels), (channels, taps), (channels,)]
    x, weight, offset = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [x, weight, offset if bias else None]


def assert_equals_reference(tensors, *options):
    for dtype, limit in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        given = [None if t is None else t.to(dtype).double() for t in tensors]
        truth = everything(reference, given, torch.float64, *options)
        assert worst(everything(llvm_conv1d.conv, tensors, dtype, *options), truth) < limit


@pytest.mark.parametrize("taps", range(2, 9))
@pytest.mark.parametrize("silu,reverse", [(False, False), (True, True)], ids=["plain", "silu_reversed"])
def test_taps(taps, silu, reverse):
    assert_equals_reference(operands(2, 37, 16, taps), silu, reverse)


@pytest.mark.parametrize("channels", [1, 5, 8, 15, 24, 33])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_channels(channels, bias):
    assert_equals_reference(operands(3, 20, channels, 4, bias), True, False)


@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33, 100])
@pytest.mark.parametrize("reverse", [False, True], ids=["causal", "anticausal"])
def test_lengths(length, reverse):
    assert_equals_reference(operands(1, length, 9, 4), True, reverse)


def test_reverse_is_the_mirror_image():
    x, weight, bias = operands(1, 50, 8, 4)
    mirrored = llvm_conv1d.conv(x.flip(1), weight, bias, True).flip(1)
    assert torch.equal(llvm_conv1d.conv(x, weight, bias, True, True), mirrored)
    assert not torch.equal(llvm_conv1d.conv(x, weight, bias, True), mirrored)


def test_gradcheck():
    inputs = [t.requires_grad_() for t in operands(1, 6, 3, 3)]
    for reverse in (False, True):
        assert torch.autograd.gradcheck(lambda *t, r=reverse: llvm_conv1d.conv(*t, True, r), inputs)


def test_sums_over_long_sequences_keep_their_accuracy():
    """One million terms of one sign in the gradients of weight and bias."""
    x = torch.rand(1, 1_000_000, 2, generator=torch.Generator().manual_seed(0)) + 0.5
    weight, bias = torch.rand(2, 3).requires_grad_(), torch.rand(2).requires_grad_()
    ours = torch.autograd.grad(llvm_conv1d.conv(x, weight, bias, False).sum(), (weight, bias))
    wanted = torch.stack([x.double().sum(1)[0] - x[0, x.shape[1] - k :].double().sum(0) for k in (2, 1, 0)], 1)
    assert worst(ours, [wanted, torch.full((2,), 1e6, dtype=torch.float64)]) < 1e-6


@pytest.mark.parametrize("openmp", [True, False], ids=["openmp", "pool"])
def test_threads(monkeypatch, openmp):
    if not openmp:
        monkeypatch.setattr(llvm_engine, "_openmp", None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        x, weight, bias = operands(1, 40_000, 40, 4)
        assert llvm_engine.thread_count(x.numel() * llvm_conv1d.FORWARD_COST_S) == 3
        ours = everything(llvm_conv1d.conv, (x, weight, bias), torch.float64, True)
    finally:
        torch.set_num_threads(before)
    shifted = torch.nn.functional.conv1d(x.transpose(1, 2), weight[:, None], bias, padding=3, groups=40)
    assert torch.allclose(ours[0], torch.nn.functional.silu(shifted[..., :40_000]).transpose(1, 2))
    llvm = everything(llvm_conv1d.conv, (x, weight, bias), torch.float64, True)
    assert worst(ours, llvm) < 1e-12


def test_slices_are_read_in_place_and_types_are_kept():
    both = torch.randn(2, 30, 32, generator=torch.Generator().manual_seed(0))
    x, weight = both[..., 16:], torch.rand(16, 4)
    assert torch.equal(llvm_conv1d.conv(x, weight, None, True), llvm_conv1d.conv(x.contiguous(), weight, None, True))
    half = llvm_conv1d.conv(x.bfloat16(), weight, None, True)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, llvm_conv1d.conv(x.bfloat16().float(), weight, None, True).bfloat16())


def test_wrong_input_is_refused():
    x, weight, bias = operands(1, 10, 4, 4)
    with pytest.raises(ValueError, match="2 to 8 taps"):
        llvm_conv1d.conv(x, torch.rand(4, 9), bias)
    with pytest.raises(ValueError, match="should have 4 channels"):
        llvm_conv1d.conv(x, torch.rand(5, 4), bias)
    with pytest.raises(ValueError, match=r"bias should have shape \(4,\)"):
        llvm_conv1d.conv(x, weight, torch.rand(5))
