"""What runs the compiled kernels: threads, fork, memory, torch.compile, and machines where they cannot run."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from scan_cases import everything, operands, worst

from MambaSegLib.ops import llvm_engine, llvm_scan

pytestmark = pytest.mark.skipif(llvm_engine.why_not() is not None, reason=str(llvm_engine.why_not()))
ROOT = Path(__file__).resolve().parents[2]
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
