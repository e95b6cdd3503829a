"""Every backend of the selective scan against the reference: outputs and all gradients."""

import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.ops import backends
from MambaSegLib.ops.selective_scan import LADDER, reference, selective_scan, selective_scan_last

FAST = [b.name for b in LADDER.backends if b.name != "reference" and b.refuses("cpu", "float32") is None]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# batch, channels, length, states, groups
SHAPES = [(1, 8, 1, 1, 1), (2, 12, 2, 3, 2), (1, 24, 37, 5, 4), (2, 32, 300, 16, 1), (1, 7, 131, 16, 1)]


def random_inputs(batch, channels, length, states, groups, dtype, gate=True, skip=True, bias=True, seed=0):
    """Arguments of ``selective_scan`` in the official layout, requiring gradients."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = [
        random(batch, channels, length),
        random(batch, channels, length) * 0.5,
        -random(channels, states).abs() - 0.1,
        random(batch, groups, states, length),
        random(batch, groups, states, length),
        random(channels) if skip else None,
        random(batch, channels, length) if gate else None,
        random(channels) if bias else None,
    ]
    return [None if x is None else x.requires_grad_() for x in inputs]


def everything(inputs, softplus, backend):
    """[y, gradient of every input that is there] for a fixed random weighting of y."""
    y = selective_scan(*inputs, softplus, backend)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y, *torch.autograd.grad(y, [x for x in inputs if x is not None], weight)]


def truth_for(inputs, softplus):
    """``everything`` by the reference in fp64."""
    doubles = [None if x is None else x.detach().double().requires_grad_() for x in inputs]
    return everything(doubles, softplus, "reference")


def worst(ours, truth):
    """Largest difference, relative to the largest true value of the same tensor."""
    pairs = zip(ours, truth, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item() for a, b in pairs)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_backend_equals_reference(backend, dtype, tolerance, shape):
    inputs = random_inputs(*shape, dtype)
    assert worst([t.double() for t in everything(inputs, True, backend)], truth_for(inputs, True)) < tolerance


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("gate,skip,bias,softplus", [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 1)])
def test_optional_arguments(backend, gate, skip, bias, softplus):
    inputs = random_inputs(2, 16, 50, 4, 2, torch.float64, gate, skip, bias)
    if not softplus:
        inputs[1] = inputs[1].detach().abs().requires_grad_()
    assert worst(everything(inputs, softplus, backend), everything(inputs, softplus, "reference")) < 1e-12


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("delta", [1e-4, 50.0])
def test_extreme_steps_neither_overflow_nor_drift(backend, delta):
    """At delta 50 every decay underflows to zero; at 1e-4 it is one, to four digits."""
    inputs = random_inputs(1, 16, 257, 16, 1, torch.float32)
    inputs[1] = torch.full((1, 16, 257), delta).requires_grad_()
    inputs[7] = None
    assert worst([t.double() for t in everything(inputs, False, backend)], truth_for(inputs, False)) < 1e-5


def test_reference_is_the_recurrence():
    """One channel, one state, by hand: h = 2, then 0.5 h + ...; no code shared with any backend."""
    u, delta = torch.tensor([[[2.0, 3.0, 4.0]]]), torch.ones(1, 1, 3)
    A = torch.log(torch.tensor([[0.5]]))
    B, C = torch.ones(1, 1, 1, 3), torch.tensor([[[[1.0, 10.0, 100.0]]]])
    y = selective_scan(u, delta, A, B, C, torch.tensor([0.25]), backend="reference")
    assert torch.allclose(y, torch.tensor([[[2.5, 40.75, 601.0]]]))


def test_half_precision_and_autocast_scan_in_fp32():
    inputs = [x.detach() for x in random_inputs(1, 16, 400, 16, 1, torch.float32)]
    halves = [x.bfloat16() for x in inputs]
    truth = selective_scan(*[x.float() for x in halves], True, backend="reference")
    y = selective_scan(*halves, True)
    assert y.dtype == torch.bfloat16
    assert (y.float() - truth).abs().max() / truth.abs().max() < 5e-3  # the rounding of the result, no more
    with torch.autocast("cpu", torch.bfloat16):
        again = selective_scan(*inputs, True)
    assert again.dtype == torch.float32
    assert worst([again], [selective_scan(*inputs, True, backend="reference")]) < 1e-5


def test_layouts_agree():
    inputs = random_inputs(2, 8, 21, 4, 2, torch.float64)
    u, delta, A, B, C, D, z, bias = inputs
    u_last, delta_last, z_last = (x.transpose(1, 2) for x in (u, delta, z))
    B_last, C_last = (x.permute(0, 3, 1, 2) for x in (B, C))
    last = selective_scan_last(u_last, delta_last, A, B_last, C_last, D, z_last, bias)
    assert torch.equal(last.transpose(1, 2), selective_scan(*inputs))
    assert torch.equal(selective_scan(u, delta, A, B[:, 0], C[:, 0]), selective_scan(u, delta, A, B[:, :1], C[:, :1]))


def test_gradcheck():
    inputs = random_inputs(1, 4, 6, 3, 2, torch.float64)
    for backend in FAST:
        assert torch.autograd.gradcheck(lambda *x, b=backend: selective_scan(*x, True, b), inputs)


def test_wrong_shapes_and_backends_are_named():
    inputs = random_inputs(1, 8, 10, 4, 1, torch.float32)
    with pytest.raises(ValueError, match="delta: expected"):
        selective_scan(inputs[0], inputs[1][:, :, :9], *inputs[2:])
    with pytest.raises(UserError, match="Unknown backend 'cuda'"):
        selective_scan(*inputs, backend="cuda")
    with pytest.raises(UserError, match="mamba_ssm.*not available"):
        selective_scan(*inputs, backend="mamba_ssm")


def test_a_backend_with_wrong_numbers_is_switched_off():
    def wrong(*arguments):
        return reference(*arguments) * 1.001

    ladder = backends.Ladder(
        "selective_scan",
        (backends.Backend("wrong", wrong), backends.Backend("reference", reference)),
        LADDER._disagreement,
        LADDER._tolerance,
    )
    kind = {"device_type": "cpu", "dtype": "float32", "channels": 5, "states": 4, "gate": False, "softplus": True}
    kind["gradients"] = True
    with pytest.warns(UserWarning, match="'wrong' is off: self-check differs"):
        assert ladder.choose("auto", kind).name == "reference"
    with pytest.raises(UserError, match="self-check differs"):
        ladder.choose("wrong", kind)


def test_environment_forces_a_backend(monkeypatch):
    monkeypatch.setenv(backends.BACKEND_VARIABLE, "no-such")
    with pytest.raises(UserError, match="no-such"):
        selective_scan(*random_inputs(1, 8, 10, 4, 1, torch.float32))


def test_pure_torch_memory_is_bounded():
    """The backward of (1, 64, 32768), N = 16 keeps no tensor of size L x D x N (128 MB)."""
    inputs = random_inputs(1, 64, 32768, 16, 1, torch.float32)
    largest = []

    def pack(tensor):
        largest.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        selective_scan(*inputs, True, backend="torch")
    assert max(largest) <= 2 * inputs[0].numel() * 4
