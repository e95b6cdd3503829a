"""How many of torch's threads a loop over small operations should have: all, or only its own.

An operation on one block of a scan takes 0.1 ms and is followed by short ones that keep other threads idle. Where idle
threads are awake again at once, several share each operation and gain; in a virtual machine waking them took 0.1 ms,
and a scan on two threads took twice the time of one. Which it is depends on the machine, so it is tried.
"""

import functools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .torch_recurrence import Recurrence

LOSS = 1.05  # of time in the trial; a whole scan has larger operations, too, which gain more


@contextmanager
def as_many_threads_as_pay(device: torch.device) -> Iterator[None]:
    """Keeps torch to the calling thread inside the block where several are slower; matters on the CPU only.

    torch has no such setting for one call: a thread that uses torch for the first time meanwhile also gets one only.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or several_pay(threads):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def several_pay(threads: int) -> bool:
    """Whether ``threads`` threads are not slower than one on the operations of a block; takes 5 ms, once."""
    if "OpenMP" not in torch.__config__.parallel_info():
        return True  # the number cannot be changed any more
    several = block_seconds()
    torch.set_num_threads(1)
    try:
        return several < LOSS * block_seconds()
    finally:
        torch.set_num_threads(threads)


def block_seconds() -> float:
    """The median time of what a scan does with a block of 64 steps of 4096 numbers."""
    exponents, decay, states = torch.zeros(3, 64, 4096)
    recurrence = Recurrence(decay, states, 0)

    def once() -> float:
        start = time.perf_counter()
        torch.exp2(exponents, out=decay)
        torch.mul(exponents, exponents, out=states)
        recurrence.run()
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(9))
