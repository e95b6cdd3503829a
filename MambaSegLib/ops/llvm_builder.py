"""A thin layer over llvmlite's IRBuilder for the kernels in this folder: loops, addresses and vector mathematics.

A kernel is one native function `void kernel(int64 *parameters)`. It treats `width` channels as one vector and may be
entered by any number of threads with the same parameter block: slot 0 hands out tasks and slot 1 hands out one piece
of scratch memory per thread, both by atomic addition. Scratch is not on the C stack, because frames of more than one
page need a probe function on Windows that a JIT cannot be sure to find.

`Element` holds all that differs between float32 (relative error of exp2 about 2e-7) and float64 (about 1e-15).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

INT8, INT32, INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
LOG2E = math.log2(math.e)
COUNTER, SCRATCH_SLOT, SCRATCH, SCRATCH_LENGTH, TASKS = "counter", "scratch_slot", "scratch", "scratch_length", "tasks"
DRIVER_PARAMETERS = (COUNTER, SCRATCH_SLOT, SCRATCH, SCRATCH_LENGTH, TASKS)


@dataclass(frozen=True)
class Element:
    """Constants of one floating-point type. Polynomials are highest power first."""

    name: str
    code: str  # in the names of LLVM's intrinsics
    type: ir.Type
    bits_type: ir.Type
    size: int  # bytes
    mantissa: int  # stored bits, so the shift that turns an integer into an exponent
    exponent_limit: float  # 2^x stays a normal number for |x| up to here
    exp2_polynomial: tuple[float, ...]  # 2^r on [-1/2, 1/2]
    log_polynomial: tuple[float, ...]  # log(1 + e) / t in q = t^2, t = e / (2 + e), on [0, 1/9]

    @property
    def one_bits(self) -> int:
        """The number 1 as an integer of the same bits."""
        return (2 ** (8 * self.size - 2 - self.mantissa) - 1) << self.mantissa

    @property
    def magic(self) -> float:
        """Added to a number it leaves the rounded integer in the lowest mantissa bits."""
        return 1.5 * 2.0**self.mantissa


FLOAT32 = Element(
    name="float32",
    code="f32",
    type=ir.FloatType(),
    bits_type=INT32,
    size=4,
    mantissa=23,
    exponent_limit=126.0,
    # Minimax fits; the Taylor series would need two more terms for the same error.
    exp2_polynomial=(
        0.0013274558141532565,
        0.009671958066682775,
        0.05550678633995778,
        0.24022235415808987,
        0.6931470613724576,
        1.0,
    ),
    log_polynomial=(0.26088443876182554, 0.2837503446360764, 0.4000164261762317, 0.6666666486972194, 2.0),
)
FLOAT64 = Element(
    name="float64",
    code="f64",
    type=ir.DoubleType(),
    bits_type=INT64,
    size=8,
    mantissa=52,
    exponent_limit=1022.0,
    exp2_polynomial=tuple(math.log(2.0) ** k / math.factorial(k) for k in range(13, -1, -1)),
    log_polynomial=tuple(2.0 / (2 * k + 1) for k in range(16, -1, -1)),
)
ELEMENTS = {element.name: element for element in (FLOAT32, FLOAT64)}


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
        self.ir.call(self._prefetch, [address, *(ir.Constant(INT32, v) for v in (0, 3, 1))])

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


class KernelBuilder(ControlBuilder):
    """Adds vectors: loads and stores, arithmetic and elementary functions. Offsets count elements."""

    def __init__(self, parameters: Sequence[str], element: Element, width: int):
        super().__init__(parameters, element, width)
        self.bits = ir.VectorType(element.bits_type, width)
        fma_type = ir.FunctionType(self.vector, [self.vector] * 3)
        self._fma = ir.Function(self.module, fma_type, f"llvm.fmuladd.v{width}{element.code}")
        self._lane_buffers: tuple = ()

    # ---- memory

    def load(self, pointer, *offsets):
        address = self.ir.bitcast(self.at(pointer, *offsets) if offsets else pointer, self.vector.as_pointer())
        value = self.ir.load(address)
        value.align = self.element.size
        return value

    def store(self, value, pointer, *offsets) -> None:
        address = self.ir.bitcast(self.at(pointer, *offsets) if offsets else pointer, self.vector.as_pointer())
        self.ir.store(value, address).align = self.element.size

    def accumulate(self, value, pointer, *offsets) -> None:
        self.store(self.add(self.load(pointer, *offsets), value), pointer, *offsets)

    def accumulate_compensated(self, value, pointer, lost) -> None:
        """Kahan's sum: `lost` keeps what rounding took, so millions of terms keep float32 accuracy."""
        term = self.sub(value, self.load(lost))
        old = self.load(pointer)
        new = self.add(old, term)
        self.store(self.sub(self.sub(new, old), term), lost)
        self.store(new, pointer)

    def fill_zero(self, pointer, vectors) -> None:
        with self.loop(vectors) as loop:
            self.store(self.constant(0), pointer, self.times(loop.index, self.width))

    def make_lane_buffers(self) -> None:
        """Needed once before load_block and store_block may get a `tail`; lanes that nobody writes read as zero."""
        self._lane_buffers = self.scratch(self.width), self.scratch(self.width)
        self.store(self.constant(0), self._lane_buffers[0])

    def load_block(self, tail, pointer, *offsets):
        """A vector of channels. `tail`: None, or (a bit: this is the last block, its number of channels), whose missing
        channels read as zero; the number must be the same in every call of a kernel."""
        if tail is None:
            return self.load(pointer, *offsets)
        return self.choose(
            tail[0], lambda: self._load_lanes(tail[1], pointer, *offsets), lambda: self.load(pointer, *offsets)
        )

    def store_block(self, value, tail, pointer, *offsets) -> None:
        """The counterpart of load_block; missing channels are not written."""
        if tail is None:
            self.store(value, pointer, *offsets)
            return
        with self.ir.if_else(tail[0]) as (partial, whole):
            with partial:
                self._store_lanes(value, tail[1], pointer, *offsets)
            with whole:
                self.store(value, pointer, *offsets)

    def _load_lanes(self, lanes, pointer, *offsets):
        buffer, source = self._lane_buffers[0], self.at(pointer, *offsets)
        with self.loop(lanes) as loop:
            self.ir.store(self.ir.load(self.at(source, loop.index)), self.at(buffer, loop.index))
        return self.load(buffer)

    def _store_lanes(self, value, lanes, pointer, *offsets) -> None:
        buffer, target = self._lane_buffers[1], self.at(pointer, *offsets)
        self.store(value, buffer)
        with self.loop(lanes) as loop:
            self.ir.store(self.ir.load(self.at(buffer, loop.index)), self.at(target, loop.index))

    # ---- vector arithmetic

    def constant(self, value: float):
        return ir.Constant(self.vector, [ir.Constant(self.element.type, float(value))] * self.width)

    def bit_constant(self, value: int):
        return ir.Constant(self.bits, [ir.Constant(self.element.bits_type, value)] * self.width)

    def splat(self, scalar):
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.ir.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        lanes = ir.Constant(ir.VectorType(INT32, self.width), [ir.Constant(INT32, 0)] * self.width)
        return self.ir.shuffle_vector(first, undefined, lanes)

    def load_splat(self, pointer, *offsets):
        return self.splat(self.ir.load(self.at(pointer, *offsets)))

    def add(self, a, b):
        return self.ir.fadd(a, b)

    def sub(self, a, b):
        return self.ir.fsub(a, b)

    def mul(self, a, b):
        return self.ir.fmul(a, b)

    def fma(self, a, b, c):
        return self.ir.call(self._fma, [a, b, c])

    def maximum(self, a, b):
        return self.ir.select(self.ir.fcmp_ordered(">", a, b), a, b)

    def minimum(self, a, b):
        return self.ir.select(self.ir.fcmp_ordered("<", a, b), a, b)

    def absolute(self, a):
        sign_cleared = self.bit_constant(2 ** (8 * self.element.size - 1) - 1)
        return self.ir.bitcast(self.ir.and_(self.ir.bitcast(a, self.bits), sign_cleared), self.vector)

    def any_greater(self, a, b):
        """One bit: some lane has a > b or is not a number."""
        mask_type = ir.IntType(self.width)
        mask = self.ir.bitcast(self.ir.fcmp_unordered(">", a, b), mask_type)
        return self.ir.icmp_unsigned("!=", mask, ir.Constant(mask_type, 0))

    # ---- elementary functions

    def polynomial(self, coefficients: Sequence[float], x):
        value = self.constant(coefficients[0])
        for coefficient in coefficients[1:]:
            value = self.fma(value, x, self.constant(coefficient))
        return value

    def _power_of_two(self, rounded):
        """2^k, where k sits in the lowest mantissa bits of `rounded`."""
        exponent = self.ir.shl(self.ir.bitcast(rounded, self.bits), self.bit_constant(self.element.mantissa))
        return self.ir.bitcast(self.ir.add(exponent, self.bit_constant(self.element.one_bits)), self.vector)

    def _exp2_parts(self, rounded, remainder):
        slope = self.polynomial(self.element.exp2_polynomial[:-1], remainder)
        return self._power_of_two(rounded), self.mul(slope, remainder)

    def exp2_parts(self, x):
        """2^x as (s, e) with 2^x = s (1 + e), s a power of two and |e| < 0.42: close to 1 it keeps all of its digits.

        x is clamped to normal results; not-a-number gives the smallest normal number.
        """
        limit, magic = self.element.exponent_limit, self.constant(self.element.magic)
        x = self.minimum(self.maximum(x, self.constant(-limit)), self.constant(limit))
        rounded = self.add(x, magic)
        return self._exp2_parts(rounded, self.sub(x, self.sub(rounded, magic)))

    def exp2_product_parts(self, a, b):
        """Like exp2_parts of a b, without rounding the product; |a b| must not exceed the element's exponent limit."""
        magic = self.constant(self.element.magic)
        rounded = self.fma(a, b, magic)
        return self._exp2_parts(rounded, self.fma(a, b, self.ir.fneg(self.sub(rounded, magic))))

    def _exp_minus_absolute(self, x):
        largest = self.constant(math.floor(self.element.exponent_limit / LOG2E))
        scale, excess = self.exp2_product_parts(self.minimum(self.absolute(x), largest), self.constant(-LOG2E))
        return self.fma(scale, excess, scale)

    def _sigmoid_from(self, x, e):
        positive = self.ir.fcmp_ordered(">=", x, self.constant(0))
        return self.ir.fdiv(self.ir.select(positive, self.constant(1), e), self.add(e, self.constant(1)))

    def sigmoid(self, x):
        return self._sigmoid_from(x, self._exp_minus_absolute(x))

    def softplus(self, x):
        """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), and its derivative."""
        e = self._exp_minus_absolute(x)
        t = self.ir.fdiv(e, self.add(e, self.constant(2)))
        log_over_t = self.polynomial(self.element.log_polynomial, self.mul(t, t))
        # The maximum is written so that not-a-number passes through.
        positive_part = self.ir.select(self.ir.fcmp_ordered("<", x, self.constant(0)), self.constant(0), x)
        return self.fma(log_over_t, t, positive_part), self._sigmoid_from(x, e)

    def silu_and_slope(self, x):
        """x sigmoid(x) and its derivative."""
        s = self.sigmoid(x)
        return self.mul(x, s), self.mul(s, self.fma(x, self.sub(self.constant(1), s), self.constant(1)))

    def silu(self, x):
        return self.mul(x, self.sigmoid(x))

    # ---- sums over lanes

    def sum_rows(self, target, source) -> None:
        """`width` sums over the lanes of `width` consecutive vectors, by pairwise shuffles."""
        rows = [self.load(source, i * self.width) for i in range(self.width)]
        lane_type = ir.VectorType(INT32, self.width)
        even, odd = (
            ir.Constant(lane_type, [ir.Constant(INT32, 2 * i + first) for i in range(self.width)]) for first in (0, 1)
        )
        while len(rows) > 1:
            rows = [
                self.add(self.ir.shuffle_vector(a, b, even), self.ir.shuffle_vector(a, b, odd))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        self.store(rows[0], target)
