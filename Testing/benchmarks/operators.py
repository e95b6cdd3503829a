"""Speed, memory and accuracy of the selective scan's backends on the CPU, side by side in one run.

    python Testing/benchmarks/operators.py                      all shapes, 1 and 2 threads
    python Testing/benchmarks/operators.py --rows 24^3x256 --threads 1

Compared, all in float32: the sequential scan as published, the log-step scan of the pure-Python packages, our reference
(sequential too, but lean), our pure torch backend, our JIT kernels, and C++ compiled here with -O3 -march=native (where
there is a g++). Writes results/operators.json and prints a Markdown table. Times are the fastest of several calls,
taken in turns so that a busy machine troubles all alike.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from scan_baselines import compile_cpp, cpp_scan, log_step_scan, sequential_scan  # noqa: E402

from MambaSegLib.ops import llvm_engine, llvm_scan, torch_scan  # noqa: E402
from MambaSegLib.ops.selective_scan import reference  # noqa: E402

# name: batch, length, groups, channels of a group, states, with a gate z
ROWS = {
    "56x56x192x4": (1, 56 * 56, 4, 192, 16, False),
    "56x56x192x4 N=1": (1, 56 * 56, 4, 192, 1, False),
    "28x28x384x4": (1, 28 * 28, 4, 384, 16, False),
    "28x28x384x4 N=1": (1, 28 * 28, 4, 384, 1, False),
    "112x112x96x4": (1, 112 * 112, 4, 96, 16, False),
    "112x112x96": (1, 112 * 112, 1, 96, 16, True),
    "24^3x256": (1, 24**3, 1, 256, 16, True),
    "48^3x64": (1, 48**3, 1, 64, 16, True),
}
SLOW = ("sequential", "log-step", "reference")  # seconds a call: timed once, after the call that shows memory and error


def operands(batch, length, groups, channels, states, gated):
    """Operands as Mamba's layers produce them: steps of 0.001 to 0.1 around their initial bias."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    width = groups * channels
    step = torch.exp(torch.rand(width, generator=generator) * math.log(100.0) + math.log(0.001))
    return [
        random(batch, length, width),
        random(batch, length, width) * 0.5,
        -torch.arange(1, states + 1).float() * torch.exp(0.3 * random(width, states)),
        random(batch, length, groups, states),
        random(batch, length, groups, states),
        1 + 0.1 * random(width),
        random(batch, length, width) if gated else None,
        step + torch.log(-torch.expm1(-step)),
    ]


def with_gradients(function, tensors, gy):
    """[y, gradients of all operands that are there]."""
    inputs = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = function(*inputs, True)
    return [y.detach(), *torch.autograd.grad(y, [t for t in inputs if t is not None], gy)]


def peak_bytes(work) -> int | None:
    """Growth of the resident memory while `work` runs; None where the system does not tell (not Linux)."""

    def kibibytes(key):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(key))

    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
        before = kibibytes("VmRSS")
    except OSError:
        return None
    work()
    return (kibibytes("VmHWM") - before) * 1024


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class OtherLoad:
    """Cores that other processes kept busy since construction; None where the system does not tell (not Linux)."""

    def __init__(self):
        self.start = self._now()

    @staticmethod
    def _now():
        if not os.path.exists("/proc/stat"):
            return None
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, soft_irq, steal = map(int, stat.readline().split()[1:9])
        busy = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
        return busy - time.process_time(), time.perf_counter()

    def cores(self) -> float | None:
        if self.start is None:
            return None
        busy, clock = self._now()
        return max(0.0, busy - self.start[0]) / (clock - self.start[1])


def measure_row(name, threads, functions, budget_s) -> list[dict]:
    """One result per implementation: fastest times, peak memory, and the distance from float64."""
    torch.set_num_threads(threads)
    others = OtherLoad()
    tensors = operands(*ROWS[name])
    gy = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    short = [t if t is None or t.dim() < 3 else t[:, :64].contiguous() for t in tensors]
    doubles = [None if t is None else t.double() for t in tensors]
    truth = with_gradients(torch_scan.scan, doubles, gy.double())
    results = {}
    for label, function in functions.items():
        with_gradients(function, short, gy[:, :64])  # compiles
        ours = []
        memory = peak_bytes(lambda f=function, kept=ours: kept.extend(with_gradients(f, tensors, gy)))
        error = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, truth, strict=True))
        results[label] = {
            "row": name,
            "threads": threads,
            "implementation": label,
            "forward_s": math.inf,
            "forward_backward_s": math.inf,
            "peak_memory_of_u": None if memory is None else memory / (tensors[0].numel() * 4),
            "max_relative_error": error,
        }
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < budget_s:
        for label, function in functions.items():
            if label in SLOW and rounds >= 1:
                continue
            time_round(results[label], function, tensors, gy)
        rounds += 1
    busy = others.cores()
    return [result | {"cores_busy_with_other_work": busy} for result in results.values()]


def time_round(result, function, tensors, gy) -> None:
    with torch.no_grad():
        forward = seconds(lambda: function(*tensors, True))
    both = seconds(lambda: with_gradients(function, tensors, gy))
    result["forward_s"] = min(result["forward_s"], forward)
    result["forward_backward_s"] = min(result["forward_backward_s"], both)


FIRST_CALL = """
import sys, time, torch
sys.path.insert(0, sys.argv[1])
from MambaSegLib.ops import llvm_scan
torch.manual_seed(0)
x = torch.randn(1, 1000, 64).requires_grad_()
B = torch.randn(1, 1000, 1, 16)
for _ in range(2):
    start = time.perf_counter()
    llvm_scan.scan(x, x, -torch.ones(64, 16), B, B, torch.ones(64), x, None, True).sum().backward()
    print(time.perf_counter() - start)
"""


def first_call_s() -> float:
    """Forward and backward of a small scan in a fresh process: compiling both kernels, once."""
    command = [sys.executable, "-c", FIRST_CALL, str(ROOT)]
    first, second = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return first - second


def machine() -> dict:
    import llvmlite

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as info:
            name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), name)
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "vector_width_float32": llvm_engine.vector_width(torch.float32),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "llvmlite": llvmlite.__version__,
        "threads_run_on": llvm_engine.driver_name(),
    }


def table(results) -> str:
    """Milliseconds, and in brackets how many times faster than the published sequential scan of the same row."""
    lines = [
        "| shape | threads | implementation | forward ms | forward+backward ms | peak memory / u | max. error |",
        "|---|---|---|---|---|---|---|",
    ]
    base = {(r["row"], r["threads"]): r for r in results if r["implementation"] == "sequential"}
    for r in results:
        slowest = base.get((r["row"], r["threads"]), r)
        cells = [f"{1e3 * r[key]:.1f} ({slowest[key] / r[key]:.1f}x)" for key in ("forward_s", "forward_backward_s")]
        memory = "" if r["peak_memory_of_u"] is None else f"{r['peak_memory_of_u']:.1f}"
        cells = [r["row"], str(r["threads"]), r["implementation"], *cells, memory, f"{r['max_relative_error']:.0e}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="shapes to measure")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="time for repetitions of each row")
    parser.add_argument("--note", default="", help="kept in the results, for example what else ran meanwhile")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "operators.json")
    options = parser.parse_args()
    functions = {"sequential": sequential_scan, "log-step": log_step_scan, "reference": reference}
    functions |= {"torch": torch_scan.scan, "jit": llvm_scan.scan}
    library = compile_cpp()
    if library is not None:
        functions["C++"] = cpp_scan(library)
    report = {"machine": machine(), "note": options.note, "first_call_s": first_call_s(), "results": []}
    for row in options.rows:
        for threads in options.threads:
            measured = measure_row(row, threads, functions, options.seconds)
            report["results"] += measured
            print(f"{row}, {threads} threads, others: {measured[0]['cores_busy_with_other_work']}", file=sys.stderr)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report["results"]))
    print(f"\nFirst call of a fresh process, compiling two kernels: {report['first_call_s']:.2f} s")


if __name__ == "__main__":
    main()
