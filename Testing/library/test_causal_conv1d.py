"""Every backend of the causal convolution against the reference, and the reference against torch's convolution."""

import pytest
import torch
import torch.nn.functional as F

from MambaSegLib.errors import UserError
from MambaSegLib.ops.causal_conv1d import LADDER, causal_conv1d, causal_conv1d_last

FAST = [b.name for b in LADDER.backends if b.name != "reference" and b.refuses("cpu", "float32") is None]


def random_inputs(batch, length, channels, taps, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, length, channels), (channels, taps), (channels,))
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def test_reference_is_a_padded_convolution():
    x, weight, bias = random_inputs(2, 20, 6, 4)
    expected = F.silu(F.conv1d(x.transpose(1, 2), weight[:, None], bias, padding=3, groups=6)[..., :20])
    assert torch.allclose(causal_conv1d(x.transpose(1, 2), weight, bias, "silu", "reference"), expected, atol=1e-12)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (2, 33, 9, 4), (1, 200, 32, 2), (2, 5, 16, 7)])
def test_backend_equals_reference(backend, reverse, activation, shape):
    inputs = random_inputs(*shape)
    results = []
    for name in (backend, "reference"):
        y = causal_conv1d_last(*inputs, activation, reverse, name)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        results.append([y, *torch.autograd.grad(y, inputs, weight)])
    for ours, truth in zip(*results, strict=True):
        assert torch.allclose(ours, truth, rtol=1e-10, atol=1e-11)


def test_no_bias_and_reverse_is_a_flip():
    x, weight, _ = random_inputs(1, 17, 8, 3)
    backward = causal_conv1d_last(x, weight, None, "silu", reverse=True)
    assert torch.allclose(backward, causal_conv1d_last(x.flip(1), weight, None, "silu").flip(1))


def test_mistakes_are_named():
    x, weight, bias = random_inputs(1, 5, 4, 3)
    with pytest.raises(ValueError, match="weight"):
        causal_conv1d_last(x, weight[:3], bias)
    with pytest.raises(ValueError, match="silu"):
        causal_conv1d_last(x, weight, bias, "relu")
    with pytest.raises(UserError, match="Unknown backend"):
        causal_conv1d_last(x, weight, bias, backend="fast")
