"""The scan kernels compiled by llvmlite: variants against the plain reference in float64, threads, fork, memory."""

import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from MambaSegLib.ops import llvm_engine, llvm_scan
from MambaSegLib.ops.selective_scan import reference

pytestmark = pytest.mark.skipif(llvm_engine.why_not() is not None, reason=str(llvm_engine.why_not()))
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def operands(batch, length, groups, channels, states, shared=False, missing=(), seed=0):
    """Random float64 operands of `scan`, in its order; those named in `missing` are None."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width = channels if shared else groups * channels
    tensors = {
        "u": random(batch, length, width),
        "delta": random(batch, length, groups * channels) * 0.5,
        "A": -random(groups * channels, states).abs() * 2,
        "B": random(batch, length, groups, states),
        "C": random(batch, length, groups, states),
        "D": random(groups * channels),
        "z": random(batch, length, width),
        "delta_bias": random(groups * channels) - 1,
    }
    return [None if name in missing else tensors[name] for name in NAMES]


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


def everything(function, tensors, dtype, *options):
    """[y, gradients of all operands that are there] for a fixed random weighting of y."""
    inputs = [None if t is None else t.detach().to(dtype, copy=True).requires_grad_() for t in tensors]
    y = function(*inputs, *options)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(dtype)
    return [y.detach(), *torch.autograd.grad(y, [t for t in inputs if t is not None], weight)]


def worst(ours, truth):
    """Largest difference relative to the largest true value of the same tensor; infinite if ours is not finite."""
    errors = [
        (a.double() - b).abs().max() / b.abs().max().clamp(min=1e-300) if a.isfinite().all() else torch.tensor(math.inf)
        for a, b in zip(ours, truth, strict=True)
    ]
    return torch.stack(errors).max().item()


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


# ---- threads

BIG = (1, 10_000, 2, 40, 8)  # several milliseconds of work


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("driver", ["openmp", "pool"])
@pytest.mark.parametrize("shared", [False, True], ids=["own_u", "shared_u"])
def test_thread_drivers(four_threads, monkeypatch, driver, shared):
    if driver == "pool":
        monkeypatch.setattr(llvm_engine, "_openmp", None)
    elif llvm_engine._openmp is None:
        pytest.skip("torch does not run on an OpenMP library with GOMP_parallel here")
    tensors = operands(*BIG, shared=shared)
    ours = everything(llvm_scan.scan, tensors, torch.float64, True, None, shared)
    monkeypatch.setattr(llvm_engine, "thread_count", lambda work_s: 1)
    assert worst(ours, everything(llvm_scan.scan, tensors, torch.float64, True, None, shared)) < 1e-12


def test_little_work_gets_one_thread(four_threads):
    assert llvm_engine.thread_count(1e-4) == 1
    assert 1 < llvm_engine.thread_count(1.6e-3) < 4
    assert llvm_engine.thread_count(10.0) == 4


@pytest.mark.parametrize("driver", ["openmp", "pool"])
def test_two_python_threads_at_once(four_threads, monkeypatch, driver):
    if driver == "pool":
        monkeypatch.setattr(llvm_engine, "_openmp", None)
    tensors = operands(*BIG)
    truth = everything(llvm_scan.scan, tensors, torch.float32, True)
    monkeypatch.setattr(llvm_engine, "_kernels", {})  # so that they also compile at once
    errors = []

    def work():
        for _ in range(3):
            errors.append(worst(everything(llvm_scan.scan, tensors, torch.float32, True), [t.double() for t in truth]))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(errors) == 6 and max(errors) < 1e-6


def run_script(script, timeout=120):
    """Runs Python code in a fresh process at the repository's root; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PREPARE = """
import os, torch
torch.set_num_threads(2)
from MambaSegLib.ops import llvm_scan
torch.manual_seed(0)
def make(length, channels, states):
    u, delta, z = (torch.randn(1, length, channels) for _ in range(3))
    B, C = (torch.randn(1, length, 1, states) for _ in range(2))
    return [u, delta, -torch.rand(channels, states), B, C, torch.randn(channels), z]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_child_after_fork():
    """GNU's OpenMP hangs in a child whose parent had a team (so does torch); we must compute, and compile, there."""
    script = """
tensors = make(4000, 64, 8)
expected = llvm_scan.scan(*tensors, None, True).numpy()
child = os.fork()
if child == 0:
    same = (llvm_scan.scan(*tensors, None, True).numpy() == expected).all()
    fresh = llvm_scan.scan(*make(50, 16, 3), None, True).isfinite().all()
    os._exit(0 if same and fresh else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), (llvm_scan.scan(*tensors, None, True).numpy() == expected).all())
"""
    assert run_script(PREPARE + script).split() == ["0", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_peak_memory():
    """48^3 x 64, N = 16: forward and backward take at most 11 times u, inference at most 3 times (y, and slack)."""
    script = """
def peak(work):
    kib = lambda key: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key))
    open("/proc/self/clear_refs", "w").write("5")
    before = kib("VmRSS")
    work()
    return (kib("VmHWM") - before) * 1024
def train():
    wanted = [t.requires_grad_() for t in tensors]
    y = llvm_scan.scan(*wanted, None, True)
    return torch.autograd.grad(y, wanted, torch.ones_like(y))
small = [t.requires_grad_() for t in make(100, 64, 16)]
llvm_scan.scan(*small, None, True).sum().backward()  # compiles
tensors = make(48**3, 64, 16)
size = tensors[0].numel() * 4
llvm_scan.scan(*make(100, 64, 16), None, True)
print(peak(lambda: llvm_scan.scan(*tensors, None, True)) / size, peak(train) / size)
"""
    inference, training = map(float, run_script(PREPARE + script).split())
    assert inference < 3
    assert training < 11


# ---- machinery


def test_import_leaves_the_compiler_of_torch_alone():
    """torch._dynamo takes seconds to import; nobody needs it to run a scan."""
    script = "llvm_scan.scan(*make(50, 16, 4), None, True)\nimport sys\nprint('torch._dynamo' in sys.modules)"
    assert run_script(PREPARE + script).strip() == "False"


def test_under_torch_compile():
    tensors = [t.float() for t in operands(1, 20, 1, 8, 2)]

    def function(*x):
        return llvm_scan.scan(*x, True).tanh()

    compiled = torch.compile(function, backend="eager")
    assert worst(everything(compiled, tensors, torch.float32), everything(function, tensors, torch.float32)) == 0


def test_why_not(monkeypatch):
    assert llvm_engine.why_not() is None
    ask = llvm_engine.why_not.__wrapped__
    monkeypatch.setattr("llvmlite.__version__", "0.43.0")
    assert "0.43.0 is too old" in ask()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert "cannot be imported" in ask()
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in ask()
