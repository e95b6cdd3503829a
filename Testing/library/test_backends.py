"""The ladder's rules beyond those that every operator's own tests show, and the report on all backends."""

import functools

import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.ops import backends, causal_conv1d, cross_scan, deform_conv, llvm_engine, report, selective_scan

MODULES = (selective_scan, cross_scan, causal_conv1d, deform_conv)


@functools.cache
def findings() -> list[report.Finding]:
    return report.backends(("cpu",))


def found(operator, backend):
    return next(f for f in findings() if (f.operator, f.backend) == (operator, backend))


@pytest.mark.parametrize("module", MODULES)
def test_report_names_every_backend(module):
    names = [f.backend for f in findings() if f.operator == module.LADDER.operator]
    assert names == [backend.name for backend in module.LADDER.backends]
    assert set(names) <= set(backends.NAMES)


@pytest.mark.parametrize("module", MODULES)
def test_report_says_that_it_agrees_and_how_fast_it_is(module):
    for name, words in (("torch", "agrees with the reference"), ("reference", "is the reference")):
        finding = found(module.LADDER.operator, name)
        assert finding.why_not is None
        assert words in finding.self_check
        assert "ms forward" in finding.self_check
        assert ("ms with gradients" in finding.self_check) == (name == "torch")
        milliseconds = float(finding.self_check.split(": ")[1].split(" ms")[0])
        assert 0.001 < milliseconds < 60_000


def test_report_says_why_not():
    finding = found("selective_scan", "mamba_ssm")
    assert finding.device == "cuda" and finding.self_check == ""
    assert finding.why_not


def test_report_tells_of_wrong_numbers(monkeypatch):
    def wrong(*arguments):
        return deform_conv.reference(*arguments) * 1.01

    ladder = deform_conv.LADDER
    rungs = (backends.Backend("wrong", wrong), ladder.backends[-1])
    probe = report.PROBES[-1]._replace(
        ladder=backends.Ladder("deform_conv2d", rungs, ladder._disagreement, ladder._tolerance)
    )
    monkeypatch.setattr(report, "PROBES", (probe,))
    monkeypatch.setattr(deform_conv, "LADDER", probe.ladder)
    with pytest.warns(UserWarning, match="'wrong' is off"):
        wrong_finding, reference_finding = report.backends(("cpu",))
    assert "differs from the reference" in wrong_finding.why_not
    assert reference_finding.why_not is None


def test_environment_forces_only_operators_that_have_the_backend(monkeypatch):
    x, weight = torch.randn(1, 9, 4), torch.randn(4, 3)
    monkeypatch.setenv(backends.BACKEND_VARIABLE, "mamba_ssm")  # no such backend of the convolution
    expected = causal_conv1d.causal_conv1d_last(x, weight, backend="reference")
    torch.testing.assert_close(causal_conv1d.causal_conv1d_last(x, weight), expected)
    with pytest.raises(UserError, match="not available"):
        selective_scan.selective_scan_last(x, x, -torch.ones(4, 2), *[torch.randn(1, 9, 1, 2)] * 2)
    monkeypatch.setenv(backends.BACKEND_VARIABLE, "reference")
    kind = {"device_type": "cpu", "dtype": "float32", "channels": 4, "taps": 3, "bias": False, "silu": False}
    assert causal_conv1d.LADDER.choose("auto", kind | {"reverse": False, "gradients": False}).name == "reference"


def test_verdicts_are_kept():
    calls = []

    def disagreement(function, **kind):
        calls.append(kind)
        return float("nan")

    ladder = backends.Ladder("probe", (backends.Backend("b", max),), disagreement, {"float32": 1.0})
    kind = {"device_type": "cpu", "dtype": "float32"}
    with pytest.warns(UserWarning, match="'b' is off"):
        messages = {ladder.verdict(ladder.backends[0], kind) for _ in range(3)}
    assert len(calls) == 1
    assert len(messages) == 1 and "differs from the reference by nan" in messages.pop()


def calls(channels):
    """A call of each operator with that many channels, on fresh random operands without gradients."""
    shape = (1, 20, channels)
    u, A, bias = torch.randn(shape), -torch.ones(channels, 3), torch.zeros(4 * channels)
    image, delta = torch.randn(1, channels, 4, 5), torch.randn(1, 20, 4 * channels)
    B = torch.randn(1, 20, 4, 3)
    return {
        "selective_scan": lambda: selective_scan.selective_scan_last(u, u, A, B[:, :, :1], B[:, :, :1]),
        "cross_scan": lambda: cross_scan.cross_scan(
            u, delta, A.repeat(4, 1), B, B, bias, bias, cross_scan.cross_orders((4, 5))
        ),
        "causal_conv1d": lambda: causal_conv1d.causal_conv1d_last(u, torch.randn(channels, 5)),
        "deform_conv2d": lambda: deform_conv.deform_conv2d(
            image, torch.zeros(1, 18, 4, 5), torch.randn(4, channels, 3, 3), padding=1
        ),
    }


@pytest.mark.skipif(llvm_engine.why_not() is not None, reason=str(llvm_engine.why_not()))
@pytest.mark.parametrize("operator", calls(1))
@pytest.mark.parametrize("channels", [5, 64, 100])
def test_the_self_check_compiles_the_kernel_of_the_call_and_no_other(monkeypatch, operator, channels):
    monkeypatch.setattr(llvm_engine, "_kernels", {})
    for module in MODULES:
        monkeypatch.setattr(module.LADDER, "_verdicts", {})
    told = []
    with backends.telling_of_preparation(lambda: told.append(len(llvm_engine._kernels))):
        calls(channels)[operator]()
        assert len(llvm_engine._kernels) == 1
        calls(channels)[operator]()
    assert told == [0]  # once, and before


def test_autocast_is_off_inside_and_devices_without_it_do_not_matter(monkeypatch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with backends.autocast_off("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        with backends.autocast_off("meta"):
            assert torch.ones(2, device="meta").dtype == torch.float32
    monkeypatch.delattr(torch.amp, "is_autocast_available", raising=False)  # as in torch 2.2, which has none for MPS
    with backends.autocast_off("mps"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("probe", report.PROBES, ids=lambda probe: probe.ladder.operator)
def test_under_torch_compile(probe, backend):
    torch._dynamo.reset()
    inputs = [t.requires_grad_() for t in probe.operands()]

    def function(*tensors):
        return probe.call(tensors, backend).tanh()

    compiled = torch.compile(function, backend="eager")
    found, expected = (f(*inputs) for f in (compiled, function))
    assert torch.equal(found, expected)
    for a, b in zip(*(torch.autograd.grad(y.sum(), inputs) for y in (found, expected)), strict=True):
        assert torch.equal(a, b)
