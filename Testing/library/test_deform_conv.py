"""Modulated deformable convolution: every backend against plain Python loops, its gradients, its memory."""

import math

import numpy as np
import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.ops import deform_conv, llvm_engine
from MambaSegLib.ops.deform_conv import LADDER, deform_conv2d

BACKENDS = [backend.name for backend in LADDER.backends]

# batch, channels, height, width, out channels, kernel, stride, padding, dilation, groups, offset groups, bias, mask
CASES = {
    "plain": (1, 3, 7, 9, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, True),
    "odd sizes": (2, 5, 11, 5, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, True),
    "stride 2": (2, 4, 9, 8, 2, (3, 3), (2, 2), (1, 1), (1, 1), 1, 1, False, True),
    "dilation": (1, 4, 9, 10, 2, (3, 3), (1, 2), (2, 3), (2, 3), 1, 1, False, True),
    "offset groups": (1, 6, 6, 7, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2, True, True),
    "weight groups": (2, 6, 5, 6, 6, (3, 3), (1, 1), (1, 1), (1, 1), 3, 1, True, True),
    "both groups": (1, 12, 5, 6, 6, (1, 2), (1, 1), (0, 1), (1, 1), 3, 2, True, True),
    "no mask": (1, 4, 6, 7, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, False),
    "5 x 5": (1, 2, 8, 8, 2, (5, 5), (1, 1), (2, 2), (1, 1), 1, 1, False, True),
    "one pixel": (1, 2, 1, 1, 2, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, False, True),
    "20 channels": (2, 20, 6, 21, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, True),
}


def draw(case, dtype=torch.float64, offset_px=2.0, seed=0):
    """x, offset, weight, bias, mask, and the keyword arguments."""
    batch, channels, height, width, out, kernel, stride, padding, dilation, groups, offset_groups, bias, mask = case
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    sizes = zip((height, width), kernel, stride, padding, dilation, strict=True)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
    taps = kernel[0] * kernel[1]
    tensors = [
        random(batch, channels, height, width),
        offset_px * random(batch, 2 * offset_groups * taps, *size),
        random(out, channels // groups, *kernel),
        random(out) if bias else None,
        random(batch, offset_groups * taps, *size).abs() if mask else None,
    ]
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation}


def call(tensors, options, backend):
    x, offset, weight, bias, mask = tensors
    return deform_conv2d(x, offset, weight, bias, mask=mask, backend=backend, **options)


def bilinear(image, y, x):
    """Value of a 2-D array at (y, x), zero outside."""
    low_y, low_x, value = math.floor(y), math.floor(x), 0.0
    for i in (low_y, low_y + 1):
        for j in (low_x, low_x + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                value += image[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return value


def loops(tensors, stride, padding, dilation):
    """The definition, one number at a time."""
    x, offset, weight, bias, mask = (None if t is None else t.numpy() for t in tensors)
    out_channels, per_group, rows, columns = weight.shape
    taps, groups = rows * columns, x.shape[1] // per_group
    per_offset_group = x.shape[1] // (offset.shape[1] // (2 * taps))
    out = np.zeros((x.shape[0], out_channels, *offset.shape[2:]))
    for b, o, i, j in np.ndindex(out.shape):
        out[b, o, i, j] = 0 if bias is None else bias[o]
        for c in range(per_group):
            channel = o // (out_channels // groups) * per_group + c
            for k in range(taps):
                plane = channel // per_offset_group * taps + k
                y = i * stride[0] - padding[0] + k // columns * dilation[0] + offset[b, 2 * plane, i, j]
                x_ = j * stride[1] - padding[1] + k % columns * dilation[1] + offset[b, 2 * plane + 1, i, j]
                modulation = 1 if mask is None else mask[b, plane, i, j]
                tap = weight[o, c, k // columns, k % columns]
                out[b, o, i, j] += tap * modulation * bilinear(x[b, channel], y, x_)
    return torch.from_numpy(out)


def skip_unless_available(backend):
    reason = next(b for b in LADDER.backends if b.name == backend).why_not()
    if reason:
        pytest.skip(f"{backend}: {reason}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_plain_loops(backend, case):
    skip_unless_available(backend)
    tensors, options = draw(CASES[case])
    expected = loops(tensors, **options)
    torch.testing.assert_close(call(tensors, options, backend), expected, rtol=0, atol=1e-11)
    single = [None if t is None else t.float() for t in tensors]
    scale = expected.abs().max().item()
    torch.testing.assert_close(call(single, options, backend).double(), expected, rtol=0, atol=5e-6 * scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_offsets_are_an_ordinary_convolution(backend):
    skip_unless_available(backend)
    (x, offset, weight, bias, _), options = draw(CASES["odd sizes"])
    found = deform_conv2d(x, torch.zeros_like(offset), weight, bias, backend=backend, **options)
    torch.testing.assert_close(found, torch.nn.functional.conv2d(x, weight, bias, **options), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["plain", "stride 2", "dilation", "both groups", "no mask", "one pixel"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_finite_differences(backend, case):
    skip_unless_available(backend)
    tensors, options = draw(CASES[case], seed=3)
    # Away from whole coordinates, where the derivative by an offset jumps.
    fraction = (tensors[1] - tensors[1].floor()).clamp(0.05, 0.95)
    tensors[1] = tensors[1].floor() + fraction
    present = [i for i, t in enumerate(tensors) if t is not None]

    def function(*given):
        filled = list(tensors)
        for i, t in zip(present, given, strict=True):
            filled[i] = t
        return call(filled, options, backend)

    inputs = [tensors[i].detach().requires_grad_() for i in present]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["jit", "torchvision", "torch"])
def test_single_precision_gradients_equal_the_reference_in_double(backend, case):
    skip_unless_available(backend)
    tensors, options = draw(CASES[case], torch.float32, seed=5)
    upstream = torch.randn(call(tensors, options, "reference").shape, generator=torch.Generator().manual_seed(1))

    def gradients(dtype, name):
        given = [None if t is None else t.to(dtype).requires_grad_() for t in tensors]
        y = call(given, options, name)
        return torch.autograd.grad(y, [t for t in given if t is not None], upstream.to(dtype))

    for found, expected in zip(gradients(torch.float32, backend), gradients(torch.float64, "reference"), strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_offsets_far_outside_sample_zero_and_have_no_gradient(backend):
    skip_unless_available(backend)
    tensors, options = draw(CASES["plain"], torch.float32)
    x, offset, weight, bias, mask = tensors
    far = torch.where(offset > 0, 1e9, -1e9).requires_grad_()
    x.requires_grad_()
    y = call([x, far, weight, bias, mask], options, backend)
    assert torch.equal(y, bias.view(-1, 1, 1).expand_as(y))
    assert all(g.abs().max() == 0 for g in torch.autograd.grad(y.sum(), [x, far]))
    for limit in (-1.0, 7.0):  # the row before the first and after the last: still nothing, and no step beside it
        edge = torch.zeros_like(offset)
        edge[:, 0::2] = limit - torch.arange(7).view(-1, 1) + 1 - (torch.arange(9) // 3).view(-1, 1, 1)
        assert torch.equal(call([x, edge, weight, bias, mask], options, backend), y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number_is_not_hidden(backend):
    skip_unless_available(backend)
    tensors, options = draw(CASES["plain"], torch.float32)
    tensors[1][0, 4, 2, 3] = math.nan
    y = call(tensors, options, backend)
    assert y[0, :, 2, 3].isnan().all()
    assert y.isnan().sum() == y.shape[1]


@pytest.mark.parametrize("backend", ["jit", "torch"])
def test_operands_may_be_views(backend):
    skip_unless_available(backend)
    tensors, options = draw(CASES["both groups"])
    expected = call(tensors, options, "reference")
    strided = [t if t.dim() < 4 else t.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1) for t in tensors]
    assert not strided[1].is_contiguous()
    torch.testing.assert_close(call(strided, options, backend), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_jit_on_several_threads_and_several_tiles(threads, monkeypatch):
    skip_unless_available("jit")
    from MambaSegLib.ops import llvm_deform_conv

    monkeypatch.setattr(llvm_deform_conv, "TILE_BYTES", 40_000)
    monkeypatch.setattr(llvm_engine, "WORK_PER_THREAD_S", 1e-9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    case = (3, 48, 13, 17, 8, (3, 3), (1, 1), (1, 1), (1, 1), 2, 3, True, True)
    tensors, options = draw(case)
    given = [t.requires_grad_() for t in tensors]
    found, expected = (call(given, options, name) for name in ("jit", "reference"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    upstream = torch.randn_like(expected)
    pairs = zip(*(torch.autograd.grad(y, given, upstream) for y in (found, expected)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * b.abs().max().item())


@pytest.mark.parametrize("backend", ["jit", "torch"])
def test_kernel_sized_copies_are_never_kept(backend):
    """Forward and backward of an image whose samples would take 9 x 16 MB: the peak above the operands stays small."""
    skip_unless_available(backend)
    x = torch.randn(1, 64, 256, 256, requires_grad=True)
    offset = torch.randn(1, 18, 256, 256, requires_grad=True)
    mask = torch.rand(1, 9, 256, 256, requires_grad=True)
    weight = torch.randn(16, 64, 3, 3, requires_grad=True)

    def run():
        deform_conv2d(x, offset, weight, mask=mask, padding=1, backend=backend).sum().backward()

    deform_conv2d(x[:, :, :16, :16], offset[:, :, :16, :16], weight, mask=mask[:, :, :16, :16], padding=1).sum()
    peak = peak_allocated_bytes(run)
    assert peak < 6 * x.numel() * 4, f"{peak / 1e6:.0f} MB"


def peak_allocated_bytes(run) -> int:
    """Largest sum of live tensor memory during `run`, from the profiler's record of allocations."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def test_half_precision_and_autocast_compute_in_single():
    tensors, options = draw(CASES["plain"], torch.float32)
    expected = call(tensors, options, "reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(call(tensors, options, "auto"), expected, rtol=0, atol=1e-5)
    half = call([t.bfloat16() for t in tensors], options, "auto")
    assert half.dtype == torch.bfloat16


def test_wrong_shapes_are_refused_by_name():
    (x, offset, weight, bias, mask), options = draw(CASES["offset groups"])
    with pytest.raises(ValueError, match="offset"):
        deform_conv2d(x, offset[:, :-1], weight, bias, mask=mask, **options)
    with pytest.raises(ValueError, match="mask"):
        deform_conv2d(x, offset, weight, bias, mask=mask[:, :9], **options)
    with pytest.raises(ValueError, match="offset"):
        deform_conv2d(x, offset[..., :-1], weight, bias, mask=mask, **options)
    with pytest.raises(ValueError, match="groups"):
        deform_conv2d(x[:, :5], offset, weight, bias, mask=mask, **options)
    with pytest.raises(ValueError, match="bias"):
        deform_conv2d(x, offset, weight, bias[:-1], mask=mask, **options)
    with pytest.raises(UserError, match="nonesuch"):
        deform_conv2d(x, offset, weight, bias, mask=mask, backend="nonesuch", **options)


def test_a_wrong_backend_is_found_out():
    def wrong(*args):
        return deform_conv.reference(*args) * 1.0001

    kind = {"device_type": "cpu", "dtype": "float32", "kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1)}
    kind |= {"groups": 1, "offset_groups": 2, "channels": 10, "bias": True, "mask": True, "gradients": True}
    assert deform_conv._disagreement(deform_conv.reference, **kind) == 0
    assert deform_conv._disagreement(wrong, **kind) > 2e-5
