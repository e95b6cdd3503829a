"""Compiles the kernels of this folder for the machine at hand and runs them on several threads.

llvmlite alone, without numba: a kernel compiles in 0.1 to 0.4 s, so nothing needs to be kept on disk (no cache folder
that may be read-only, stale, or written by two processes at once), numba's import time is saved, and explicit vectors
are easier to write down as LLVM instructions than to coax out of a loop vectoriser.

Threads: a second thread pool beside torch's loses most of its gain, because OpenMP workers keep spinning for a while
after each of torch's own parallel regions. So a kernel runs on torch's own OpenMP team where its entry point
GOMP_parallel is found (Linux), else on a few Python threads, which wait without spinning and hold no GIL inside the
kernel. The number of threads follows torch.get_num_threads() and the amount of work.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import queue
import sys
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress

import torch

OLDEST_LLVMLITE = (0, 44)  # the first with opaque pointers and LLVM's present pass manager
ARCHITECTURES = ("x86_64", "amd64", "arm64", "aarch64")
WORK_PER_THREAD_S = 0.5e-3  # waking a thread for less costs more than it brings


@functools.cache
def why_not() -> str | None:
    """None if kernels can be compiled here, else one sentence that says what is missing."""
    if platform.machine().lower() not in ARCHITECTURES:
        return f"no JIT kernels for the processor architecture {platform.machine()!r}"
    if sys.byteorder != "little" or sys.maxsize < 2**32:
        return "JIT kernels need a 64-bit little-endian Python"
    try:
        import llvmlite
        import llvmlite.binding
    except Exception as error:  # a broken installation raises OSError, not ImportError
        return f"llvmlite cannot be imported ({type(error).__name__}: {error})"
    found = tuple(int(part) for part in llvmlite.__version__.split(".")[:2])
    if found < OLDEST_LLVMLITE:
        return f"llvmlite {llvmlite.__version__} is too old, {'.'.join(map(str, OLDEST_LLVMLITE))} or newer is needed"
    try:
        _target()
    except Exception as error:
        return f"LLVM offers no code generator for this machine ({error})"
    return None


@functools.cache
def _target():
    """(triple, processor name, feature string, names of the features that are on)."""
    import llvmlite.binding as llvm

    with suppress(RuntimeError):  # newer versions initialise themselves and say so by raising
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    on = frozenset(name for name, value in features.items() if value)
    triple = llvm.get_process_triple()
    llvm.Target.from_triple(triple)
    return triple, llvm.get_host_cpu_name(), features.flatten(), on


def vector_width(dtype: torch.dtype) -> int:
    """Channels that ride in one vector: one register with AVX-512 or AVX2, a pair of registers on narrower machines."""
    features = _target()[3]
    bits = 512 if {"avx512f", "avx512dq"} <= features else 256
    return bits // (8 * dtype.itemsize)


def not_traced(function: Callable) -> Callable:
    """torch.compiler.disable, but torch's compiler (3 s to import) is touched only where somebody did so before."""

    @functools.wraps(function)
    def call(*arguments, **named):
        if "torch._dynamo" not in sys.modules:
            return function(*arguments, **named)
        return torch.compiler.disable(function)(*arguments, **named)

    return call


# ---------------------------------------------------------------- compiling


class Kernel:
    """Machine code of one kernel, the names of its parameters, and its scratch need in elements per thread."""

    def __init__(self, builder):
        self._engine = _compile(str(builder.module))
        self.address = self._engine.get_function_address("kernel")
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)
        self.parameter_names = tuple(builder.parameter_index)
        self.scratch_length = builder.scratch_length

    def run(self, tasks: int, threads: int, extra_scratch: int, dtype: torch.dtype, values: dict[str, int]) -> None:
        """Runs `tasks` tasks on at most `threads` threads; `extra_scratch` more elements for each of them."""
        threads = max(1, min(threads, tasks))
        length = -(-(self.scratch_length + extra_scratch) // 16) * 16
        scratch = torch.empty(threads * length, dtype=dtype)
        values = values | {"scratch": scratch.data_ptr(), "scratch_length": length, "tasks": tasks}
        block = (ctypes.c_int64 * len(self.parameter_names))(*[values.get(name, 0) for name in self.parameter_names])
        _run_on_threads(self, ctypes.addressof(block), threads)


def _compile(assembly: str):
    import llvmlite.binding as llvm

    triple, processor, features, _ = _target()
    module = llvm.parse_assembly(assembly)
    module.triple = triple
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, features=features, opt=3, jit=True)
    # The kernels are vectorised and unrolled as written; trying again only costs time.
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


_kernels: dict[Hashable, Kernel] = {}
_compile_lock = threading.Lock()


def kernel(key: Hashable, build: Callable[[], object]) -> Kernel:
    """The kernel for `key`, compiled from `build()` (a KernelBuilder) at its first use in this process."""
    found = _kernels.get(key)
    if found is None:
        with _compile_lock:
            found = _kernels.get(key)
            if found is None:
                found = _kernels[key] = Kernel(build())
    return found


# ---------------------------------------------------------------- threads


def thread_count(work_s: float) -> int:
    """Threads for `work_s` seconds of single-threaded work."""
    if _in_openmp_region():
        return 1
    return max(1, min(torch.get_num_threads(), int(work_s / WORK_PER_THREAD_S)))


class _OpenMP:
    """Entry points of the OpenMP library that torch runs on."""

    def __init__(self, library: ctypes.CDLL):
        self.parallel = library.GOMP_parallel
        self.parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self.parallel.restype = None
        self.in_parallel = library.omp_in_parallel
        self.in_parallel.argtypes, self.in_parallel.restype = [], ctypes.c_int


def _find_openmp() -> _OpenMP | None:
    """Torch's OpenMP library among those mapped into this process; None where that is not certain."""
    if not sys.platform.startswith("linux") or "OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        with open("/proc/self/maps") as maps:
            mapped = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}
    except OSError:
        return None
    names = ("libgomp", "libomp", "libiomp")
    found = sorted(path for path in mapped if os.path.basename(path).startswith(names))
    of_torch = [path for path in found if f"{os.sep}torch" in os.path.dirname(path)]
    candidates = of_torch or found
    if len(candidates) != 1:
        return None
    with suppress(OSError, AttributeError):
        return _OpenMP(ctypes.CDLL(candidates[0]))
    return None


class _Pool:
    """Python threads that wait on a queue; ctypes releases the GIL while they are inside a kernel."""

    def __init__(self):
        self._queues: list[queue.SimpleQueue] = []
        self._lock = threading.Lock()

    @staticmethod
    def _serve(requests: queue.SimpleQueue) -> None:
        while True:
            call, block, done = requests.get()
            call(block)
            done.release()

    def run(self, call, block: int, threads: int) -> None:
        with self._lock:
            while len(self._queues) < threads - 1:
                requests: queue.SimpleQueue = queue.SimpleQueue()
                threading.Thread(target=self._serve, args=(requests,), daemon=True).start()
                self._queues.append(requests)
        done = threading.Semaphore(0)
        for requests in self._queues[: threads - 1]:
            requests.put((call, block, done))
        call(block)
        for _ in range(threads - 1):
            done.acquire()


_openmp = _find_openmp()
_pool = _Pool()


def driver_name() -> str:
    """What runs kernels on several threads, for reports."""
    return "Python threads" if _openmp is None else "torch's OpenMP team"


def _in_openmp_region() -> bool:
    return _openmp is not None and bool(_openmp.in_parallel())


def _run_on_threads(kernel: Kernel, block: int, threads: int) -> None:
    if threads == 1:
        kernel.call(block)
    elif _openmp is not None:
        _openmp.parallel(kernel.address, block, threads, 0)
    else:
        _pool.run(kernel.call, block, threads)


def _after_fork_in_child() -> None:
    """Neither an OpenMP team nor Python threads survive a fork, and GNU's OpenMP hangs when asked for its lost team."""
    global _openmp, _pool
    _openmp, _pool = None, _Pool()
    _compile_lock.release()


if hasattr(os, "register_at_fork"):  # nobody forks in the middle of a compilation
    os.register_at_fork(
        before=_compile_lock.acquire,
        after_in_parent=_compile_lock.release,
        after_in_child=_after_fork_in_child,
    )
