"""The frame of a kernel over llvmlite's IRBuilder: parameters, scratch memory, addresses, loops and tasks.

A kernel is one native function `void kernel(int64 *parameters)`, which any number of threads may enter with the same
parameter block: slot 0 hands out tasks and slot 1 hands out one piece of scratch memory per thread, both by atomic
addition. Scratch is not on the C stack, because frames of more than one page need a probe function on Windows that a
JIT cannot be sure to find.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from .llvm_elements import INT8, INT32, INT64, Element

COUNTER, SCRATCH_SLOT, SCRATCH, SCRATCH_LENGTH, TASKS = "counter", "scratch_slot", "scratch", "scratch_length", "tasks"
DRIVER_PARAMETERS = (COUNTER, SCRATCH_SLOT, SCRATCH, SCRATCH_LENGTH, TASKS)


class Loop:
    """A counted loop in the making: `values` are this round's carried values, `carry_on` names the next round's."""

    def __init__(self, index, values: list):
        self.index = index
        self.values = values
        self.next_values: list = []

    def carry_on(self, values: Sequence) -> None:
        self.next_values = list(values)

    @property
    def results(self) -> list:
        """The carried values after the loop."""
        return self.values


class ControlBuilder:
    """A kernel's frame: parameters, scratch, integers, loops. Integers are int64 values or Python ints."""

    def __init__(self, parameters: Sequence[str], element: Element, width: int):
        self.element, self.width = element, width
        self.parameter_index = {name: i for i, name in enumerate((*DRIVER_PARAMETERS, *parameters))}
        self.vector = ir.VectorType(element.type, width)
        self.module = ir.Module("kernel")
        kernel_type = ir.FunctionType(ir.VoidType(), [INT64.as_pointer()])
        self.function = ir.Function(self.module, kernel_type, "kernel")
        self.ir = ir.IRBuilder(self.function.append_basic_block("entry"))
        prefetch_type = ir.FunctionType(ir.VoidType(), [INT8.as_pointer(), INT32, INT32, INT32])
        self._prefetch = ir.Function(self.module, prefetch_type, "llvm.prefetch.p0")
        self.scratch_length = 0  # elements per thread, grows with every scratch()
        slot_address = self.ir.gep(self.function.args[0], [self.integer(self.parameter_index[SCRATCH_SLOT])])
        slot = self.ir.atomic_rmw("add", slot_address, self.integer(1), "monotonic")
        self._scratch = self.at(self.pointer(SCRATCH), self.times(slot, self.parameter(SCRATCH_LENGTH)))

    # ---- integers and addresses

    def integer(self, value):
        return ir.Constant(INT64, value) if isinstance(value, int) else value

    def plus(self, *terms):
        return functools.reduce(self.ir.add, map(self.integer, terms))

    def times(self, *factors):
        return functools.reduce(self.ir.mul, map(self.integer, factors))

    def minus(self, a, b):
        return self.ir.sub(self.integer(a), self.integer(b))

    def quotient(self, a, b):
        return self.ir.sdiv(self.integer(a), self.integer(b))

    def remainder(self, a, b):
        return self.ir.srem(self.integer(a), self.integer(b))

    def smaller(self, a, b):
        a, b = self.integer(a), self.integer(b)
        return self.ir.select(self.ir.icmp_signed("<", a, b), a, b)

    def parameter(self, name: str):
        return self.ir.load(self.ir.gep(self.function.args[0], [self.integer(self.parameter_index[name])]))

    def pointer(self, name: str, pointee: ir.Type | None = None):
        return self.ir.inttoptr(self.parameter(name), (pointee or self.element.type).as_pointer())

    def at(self, pointer, *offsets):
        return self.ir.gep(pointer, [self.plus(*offsets)])

    def scratch(self, length: int):
        """`length` elements of this thread's scratch memory, aligned to 16 elements."""
        start = self.scratch_length
        self.scratch_length += -(-length // 16) * 16
        return self.at(self._scratch, start)

    def scratch_end(self):
        """Where the part begins whose length only the caller of the kernel knows (see `Kernel.launch`)."""
        return self.at(self._scratch, self.scratch_length)

    def prefetch(self, pointer, *offsets) -> None:
        address = self.ir.bitcast(self.at(pointer, *offsets), INT8.as_pointer())
        to_read, into_second_level, data = 0, 2, 1
        self.ir.call(self._prefetch, [address, *(ir.Constant(INT32, v) for v in (to_read, into_second_level, data))])

    # ---- control flow

    @contextmanager
    def loop(self, stop, start=0, step: int = 1, carry: Sequence = ()) -> Iterator[Loop]:
        before = self.ir.block
        head, body, end = (self.ir.append_basic_block(name) for name in ("head", "body", "end"))
        self.ir.branch(head)
        self.ir.position_at_end(head)
        index = self.ir.phi(INT64)
        index.add_incoming(self.integer(start), before)
        values = [self.ir.phi(value.type) for value in carry]
        for phi, value in zip(values, carry, strict=True):
            phi.add_incoming(value, before)
        self.ir.cbranch(self.ir.icmp_signed("<", index, self.integer(stop)), body, end)
        self.ir.position_at_end(body)
        loop = Loop(index, values)
        yield loop
        following = self.plus(index, step)
        last = self.ir.block
        index.add_incoming(following, last)
        for phi, value in zip(values, loop.next_values, strict=True):
            phi.add_incoming(value, last)
        self.ir.branch(head)
        self.ir.position_at_end(end)

    @contextmanager
    def each_task(self):
        """Runs the body for every task number this thread gets; ends the kernel."""
        head, run, end = (self.ir.append_basic_block(name) for name in ("next_task", "task", "done"))
        self.ir.branch(head)
        self.ir.position_at_end(head)
        task = self.ir.atomic_rmw("add", self.function.args[0], self.integer(1), "monotonic")
        self.ir.cbranch(self.ir.icmp_signed("<", task, self.parameter(TASKS)), run, end)
        self.ir.position_at_end(run)
        yield task
        self.ir.branch(head)
        self.ir.position_at_end(end)
        self.ir.ret_void()

    def choose(self, condition, when_true, when_false):
        """A vector that is computed on one of two paths."""
        with self.ir.if_else(condition) as (then, otherwise):
            with then:
                a, a_block = when_true(), self.ir.block
            with otherwise:
                b, b_block = when_false(), self.ir.block
        phi = self.ir.phi(self.vector)
        phi.add_incoming(a, a_block)
        phi.add_incoming(b, b_block)
        return phi
