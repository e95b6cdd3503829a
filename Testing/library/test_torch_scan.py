"""The pure torch scan: joined steps, slow decays, long sequences, memory, and autocast around its backward pass."""

import sys

import pytest
import torch
from scan_cases import constant_steps, everything, operands, worst

from MambaSegLib.ops import torch_recurrence, torch_scan, torch_threads
from MambaSegLib.ops.selective_scan import reference


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 31, 64, 127])
@pytest.mark.parametrize("levels", [0, 1, 3, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_joined_steps_are_the_recurrence(length, levels, reverse):
    generator = torch.Generator().manual_seed(length)
    decay, x = (torch.rand(length, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    expected, h = torch.empty_like(x), torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(length)) if reverse else range(length):
        follows = t + 1 if reverse else t
        h = expected[t] = x[t] + (decay[follows] * h if follows < length else 0)
    exponents = decay.log2()
    recurrence = torch_recurrence.Recurrence(exponents, x, levels, reverse)
    recurrence.join()
    torch.exp2(exponents, out=exponents)
    recurrence.run()
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("block", [5, 64, 1 << 18])
def test_blocks_of_any_length(monkeypatch, block):
    """Blocks that do not divide the sequence, of one step and of all, with rows too small for one call."""
    monkeypatch.setitem(torch_scan.BLOCK_ELEMENTS, "cpu", block)
    tensors = operands(2, 29, 2, 3, 2)
    truth = everything(lambda *x: reference(*x, True), tensors, torch.float64)
    assert worst(everything(lambda *x: torch_scan.scan(*x, True), tensors, torch.float64), truth) < 1e-12


@pytest.mark.parametrize("elements", [1, 1 << 12], ids=["single_steps", "joined_steps"])
@pytest.mark.parametrize("delta", [1e-4, 50.0])
def test_constant_extreme_steps(monkeypatch, elements, delta):
    """The same rounding error in every step must not add up: it did, to 1e-4 of the gradients."""
    monkeypatch.setitem(torch_scan.STEP_ELEMENTS, "cpu", elements)
    arguments = 30_011, 4, 16, delta
    truth = constant_steps(*arguments, torch_scan.scan, torch.float64)  # proved by the tests above
    assert worst(constant_steps(*arguments, torch_scan.scan, torch.float32), truth) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("delta", [1e-4, 50.0])
def test_two_million_steps(delta):
    arguments = 2_097_152, 2, 2, delta
    truth = constant_steps(*arguments, torch_scan.scan, torch.float64)
    assert worst(constant_steps(*arguments, torch_scan.scan, torch.float32), truth) < 1e-5


def test_autocast_around_the_backward_pass_changes_nothing():
    tensors = [t.float().requires_grad_() for t in operands(1, 50, 1, 8, 4)]
    plain = torch.autograd.grad(torch_scan.scan(*tensors, True).sum(), tensors)
    y = torch_scan.scan(*tensors, True).sum()
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(y, tensors)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


@pytest.mark.parametrize("pay", [True, False])
def test_threads_that_do_not_pay_are_left_alone(monkeypatch, pay):
    """Inside the scan, both ways; afterwards, and after an error, the number is what it was."""
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(torch_threads, "several_pay", lambda threads: pay)
    run = torch_recurrence.Recurrence.run
    monkeypatch.setattr(
        torch_recurrence.Recurrence, "run", lambda self: (seen.append(torch.get_num_threads()), run(self))
    )
    torch.set_num_threads(2)
    try:
        everything(lambda *x: torch_scan.scan(*x, True), operands(1, 20, 1, 4, 2), torch.float32)
        with pytest.raises(RuntimeError):
            torch_scan.scan(*operands(1, 20, 1, 4, 2)[:3], *operands(1, 20, 1, 4, 3)[3:], True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(seen) >= 3
    assert set(seen) == {2 if pay else 1}


@pytest.mark.parametrize("times,expected", [((1.0, 1.9), True), ((1.0, 0.6), False)])
def test_threads_are_tried_once(monkeypatch, times, expected):
    """(seconds on several threads, on one)"""
    left, threads = list(times), torch.get_num_threads()
    monkeypatch.setattr(torch_threads, "block_seconds", lambda: left.pop(0))
    torch_threads.several_pay.cache_clear()
    try:
        assert [torch_threads.several_pay(threads) for _ in range(2)] == [expected] * 2
    finally:
        torch_threads.several_pay.cache_clear()
    assert torch.get_num_threads() == threads


def test_a_block_takes_time():
    assert 0 < torch_threads.block_seconds() < 1


def test_gradients_can_be_changed_in_place():
    """As optimisers do: they must not be the inference tensors that the scan works with."""
    tensors = [t.float().requires_grad_() for t in operands(1, 30, 1, 4, 2)]
    torch_scan.scan(*tensors, True).mul_(2).sum().backward()
    assert not any(t.grad.mul_(0.5).is_inference() for t in tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_peak_memory():
    """N = 16, u of 8 MB: forward and backward take at most 9 times u; the public scans 110 to 200 times."""

    def kibibytes(key):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(key))

    tensors = [t.float().requires_grad_() for t in operands(1, 1 << 15, 1, 64, 16)]
    gy = torch.ones(tensors[0].shape)
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    before = kibibytes("VmRSS")
    torch.autograd.grad(torch_scan.scan(*tensors, True), tensors, gy)
    assert (kibibytes("VmHWM") - before) * 1024 < 9 * gy.numel() * 4
