"""Speed, memory and accuracy of the selective scan's backends on the CPU, side by side in one run.

    python Testing/benchmarks/operators.py                      all shapes, 1 and 2 threads: 5 to 10 minutes
    python Testing/benchmarks/operators.py --rows 24^3x256 --threads 1
    python Testing/benchmarks/operators.py --rows 24^3x256 --keep      this row anew, the others as they are

Compared, all in float32: the sequential scan as published, the log-step scan of the pure-Python packages, our reference
(sequential too, but lean), our pure torch backend, our JIT kernels, and C++ compiled here with -O3 -march=native (where
there is a g++). Writes results/operators.json after each row and prints a Markdown table. Times are the fastest of
several calls, taken in turns so that a busy machine troubles all alike. Calls of more than QUICK_S of the slow ones are
timed once, on the first SLOW_STEPS steps of longer sequences, and multiplied up (they cost so much a step; the table
says where).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
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
from scan_problems import ROWS, Problem, operands, with_gradients  # noqa: E402

from MambaSegLib.ops import llvm_engine, llvm_scan, torch_scan  # noqa: E402
from MambaSegLib.ops.selective_scan import reference  # noqa: E402

SLOW = ("sequential", "log-step", "reference")  # seconds a call
SLOW_STEPS = 1 << 14
QUICK_S = 0.5  # they, too, are timed again and again where they take less than this
REST_S = (
    0.01  # OpenMP threads of one implementation spin for some milliseconds, which must not be in the next one's way
)


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
        before = None
    work()
    return None if before is None else (kibibytes("VmHWM") - before) * 1024


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


def measure_first(function, problem) -> dict:
    """Peak memory and distance from float64 of one call with gradients, and its time and that of one without."""
    short = problem.start(64)
    with_gradients(function, short, problem.gy[:, :64])  # compiles
    ours, taken = [], []
    memory = peak_bytes(lambda: taken.append(seconds(lambda: ours.extend(problem.both(function)))))
    return {
        "forward_s": seconds(lambda: problem.forward(function)),
        "forward_backward_s": taken[0],
        "peak_memory_of_u": None if memory is None else memory / (problem.tensors[0].numel() * 4),
        "max_relative_error": max(
            ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, problem.truth, strict=True)
        ),
    }


def measure_row(name, threads, functions, budget_s) -> list[dict]:
    """One result per implementation: fastest times, peak memory, and the distance from float64."""
    torch.set_num_threads(threads)
    others = OtherLoad()
    whole = Problem(operands(*ROWS[name]))
    part = whole if whole.steps <= SLOW_STEPS else Problem(whole.start(SLOW_STEPS))
    results = {}
    for label, function in functions.items():
        problem = part if label in SLOW else whole
        found = measure_first(function, problem)
        for key in ("forward_s", "forward_backward_s"):
            found[key] *= whole.steps / problem.steps
        timed_on = "" if problem is whole else f" (timed on {problem.steps:,} steps)"
        results[label] = {"row": name, "threads": threads, "implementation": label, "timed_on": timed_on} | found
    quick = [label for label in functions if label not in SLOW or results[label]["forward_backward_s"] < QUICK_S]
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < budget_s:
        for label in quick:
            time_round(results[label], functions[label], whole)
        rounds += 1
    busy = others.cores()
    return [result | {"cores_busy_with_other_work": busy} for result in results.values()]


def time_round(result, function, problem) -> None:
    for key, work in (("forward_s", problem.forward), ("forward_backward_s", problem.both)):
        time.sleep(REST_S)
        result[key] = min(result[key], seconds(lambda work=work: work(function)))


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


def write(report, path) -> None:
    """In the order of the rows, at once or not at all."""
    order = list(ROWS)
    report["results"].sort(key=lambda r: (order.index(r["row"]), r["threads"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.replace(path)


def kept(path, machine_now, rows, threads) -> list[dict]:
    """Results of an earlier run on this machine that this one does not measure."""
    if not path.exists():
        return []
    earlier = json.loads(path.read_text())
    if earlier["machine"] != machine_now:
        sys.exit(f"{path} was measured on another machine or with other versions; run without --keep.")
    return [r for r in earlier["results"] if r["row"] not in rows or r["threads"] not in threads]


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
        cells = [
            r["row"],
            str(r["threads"]),
            r["implementation"] + r["timed_on"],
            *cells,
            memory,
            f"{r['max_relative_error']:.0e}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="shapes to measure")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="time for repetitions of each row")
    parser.add_argument("--keep", action="store_true", help="keep other rows' results that the output file has")
    parser.add_argument("--note", default="", help="kept in the results, for example what else ran meanwhile")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "operators.json")
    options = parser.parse_args()
    functions = {"sequential": sequential_scan, "log-step": log_step_scan, "reference": reference}
    functions |= {"torch": torch_scan.scan, "jit": llvm_scan.scan}
    library = compile_cpp()
    if library is not None:
        functions["C++"] = cpp_scan(library)
    report = {"machine": machine(), "note": options.note, "first_call_s": first_call_s()}
    asked = report["machine"], options.rows, options.threads
    report["results"] = kept(options.output, *asked) if options.keep else []
    for row in options.rows:
        for threads in options.threads:
            measured = measure_row(row, threads, functions, options.seconds)
            report["results"] += measured
            write(report, options.output)
            busy = f"cores busy with other work: {measured[0]['cores_busy_with_other_work']}"
            print(f"{time.strftime('%H:%M:%S')} {row}, {threads} threads, {busy}", file=sys.stderr, flush=True)
    print(table(report["results"]))
    print(f"\nFirst call of a fresh process, compiling two kernels: {report['first_call_s']:.2f} s")


if __name__ == "__main__":
    main()
