"""The language that the kernels of this folder are written in: the frame of `llvm_control`, and vector mathematics.

A kernel treats `width` channels as one vector. Relative error of exp2: about 2e-7 in float32, 1e-15 in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from .llvm_control import ControlBuilder
from .llvm_elements import ELEMENTS, INT32, INT64, Element

__all__ = ["ELEMENTS", "INT32", "INT64", "KernelBuilder"]

LOG2E = math.log2(math.e)


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

    def sum_and_lost(self, a, b):
        """a + b as rounded, and exactly what rounding took (Knuth 1969)."""
        total = self.add(a, b)
        b_in_total = self.sub(total, a)
        return total, self.add(self.sub(a, self.sub(total, b_in_total)), self.sub(b, b_in_total))

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

    def exp2_excess(self, x):
        """2^x - 1 for |x| <= 1/4."""
        return self.mul(self.polynomial(self.element.excess_polynomial, x), x)

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
