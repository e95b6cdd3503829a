"""Depthwise causal convolution over a sequence as LLVM kernels, forward and backward; `llvm_conv1d` calls them.

One task is one batch item and a range of channel blocks. It walks the sequence in tiles; within a tile and a block the
last taps - 1 rows stay in registers. The backward pass walks from the end: the gradient before the activation, gp, of
the following rows is carried along, since dx_t = sum_k w_k gp_{t + taps - 1 - k}. Walking a sequence in the other
direction is a matter of negative row strides and needs no code here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from .llvm_builder import ELEMENTS, KernelBuilder

TILE = 32
STRIDED = ("x", "y", "gy", "dx")
PARAMETERS = (
    *("parts", "blocks", "tail_lanes", "length", "padded", "weight", "bias", "dweight", "dbias"),
    *(name + suffix for name in STRIDED for suffix in ("", "_batch", "_row")),
)


@dataclass(frozen=True)
class Variant:
    """What a convolution kernel is compiled for."""

    backward: bool
    dtype: str
    width: int
    taps: int
    silu: bool
    tail: bool


def scratch_per_block(variant: Variant) -> int:
    """Elements of run-time scratch per channel block: carried gradients, and what Kahan's sums lost."""
    return 2 * variant.taps * variant.width if variant.backward else 0


def build(variant: Variant) -> KernelBuilder:
    return ConvolutionKernel(variant).build()


class ConvolutionKernel:
    def __init__(self, variant: Variant):
        self.v = variant
        self.g = KernelBuilder(PARAMETERS, ELEMENTS[variant.dtype], variant.width)
        if variant.tail:
            self.g.make_lane_buffers()

    def build(self) -> KernelBuilder:
        g = self.g
        with g.each_task() as number:
            task = self.locate(number)
            if self.v.backward:
                self.start_sums(task)
            tiles = g.quotient(g.plus(task.length, TILE - 1), TILE)
            with g.loop(tiles) as loop:
                tile_number = g.minus(g.minus(tiles, 1), loop.index) if self.v.backward else loop.index
                start = g.times(tile_number, TILE)
                steps = g.smaller(g.minus(task.length, start), TILE)
                with g.loop(task.blocks) as blocks:
                    walk = self.backward_tile if self.v.backward else self.forward_tile
                    walk(task, start, steps, blocks.index)
        return g

    def locate(self, number) -> SimpleNamespace:
        g = self.g
        parts, blocks, padded = (g.parameter(name) for name in ("parts", "blocks", "padded"))
        part, batch = g.remainder(number, parts), g.quotient(number, parts)
        first = g.quotient(g.times(blocks, part), parts)
        channel = g.times(first, self.v.width)
        task = SimpleNamespace(
            blocks=g.minus(g.quotient(g.times(blocks, g.plus(part, 1)), parts), first),
            last_block=g.minus(g.minus(blocks, 1), first),
            tail_lanes=g.parameter("tail_lanes"),
            length=g.parameter("length"),
            padded=padded,
            weight=g.at(g.pointer("weight"), channel),
            bias=g.at(g.pointer("bias"), channel),
            dweight=g.at(g.pointer("dweight"), g.plus(g.times(batch, padded, self.v.taps), channel)),
            dbias=g.at(g.pointer("dbias"), g.plus(g.times(batch, padded), channel)),
            run_time_scratch=g.scratch_end(),
        )
        for name in ("x", "gy", "dx") if self.v.backward else ("x", "y"):
            start = g.plus(g.times(batch, g.parameter(name + "_batch")), channel)
            setattr(task, name, (g.at(g.pointer(name), start), g.parameter(name + "_row")))
        return task

    def row(self, task, block, operand, step):
        """(tail, pointer, offset) as load_block and store_block take them."""
        pointer, row = operand
        tail = None
        if self.v.tail:
            tail = self.g.ir.icmp_signed("==", block, task.last_block), task.tail_lanes
        return tail, pointer, self.g.plus(self.g.times(step, row), self.g.times(block, self.v.width))

    def read_x(self, task, block, step):
        """A row of x; zeros before the beginning."""
        g, zero = self.g, self.g.integer(0)
        inside = g.ir.icmp_signed(">=", step, zero)
        value = g.load_block(*self.row(task, block, task.x, g.ir.select(inside, step, zero)))
        return g.ir.select(inside, value, g.constant(0))

    def weights(self, task, block) -> list:
        at = self.g.times(block, self.v.width)
        return [self.g.load(task.weight, at, self.g.times(task.padded, k)) for k in range(self.v.taps)]

    def before_activation(self, window, weights, bias):
        value = bias
        for x, weight in zip(window, weights, strict=True):
            value = self.g.fma(x, weight, value)
        return value

    def forward_tile(self, task, start, steps, block) -> None:
        g = self.g
        weights, bias = self.weights(task, block), g.load(task.bias, g.times(block, self.v.width))
        history = [self.read_x(task, block, g.plus(start, k - self.v.taps + 1)) for k in range(self.v.taps - 1)]
        with g.loop(steps, carry=history) as loop:
            step = g.plus(start, loop.index)
            window = [*loop.values, g.load_block(*self.row(task, block, task.x, step))]
            y = self.before_activation(window, weights, bias)
            g.store_block(g.silu(y) if self.v.silu else y, *self.row(task, block, task.y, step))
            loop.carry_on(window[1:])

    def start_sums(self, task) -> None:
        g, width = self.g, self.v.width
        g.fill_zero(task.run_time_scratch, g.times(task.blocks, 2 * self.v.taps))
        g.fill_zero(task.dbias, task.blocks)
        for k in range(self.v.taps):
            g.fill_zero(g.at(task.dweight, g.times(task.padded, k)), task.blocks)
        task.scratch_stride = 2 * self.v.taps * width

    def backward_tile(self, task, start, steps, block) -> None:
        g, width, taps = self.g, self.v.width, self.v.taps
        weights, bias = self.weights(task, block), g.load(task.bias, g.times(block, width))
        carried = g.at(task.run_time_scratch, g.times(block, task.scratch_stride))
        following = [g.load(carried, k * width) for k in range(taps - 1)]
        last = g.minus(g.plus(start, steps), 1)
        window = [self.read_x(task, block, g.plus(last, k - taps + 2)) for k in range(taps - 1)]
        sums = [g.constant(0)] * (taps + 1)
        with g.loop(steps, carry=[*following, *window, *sums]) as loop:
            step = g.minus(last, loop.index)
            following, window = loop.values[: taps - 1], loop.values[taps - 1 : 2 * taps - 2]
            sums = loop.values[2 * taps - 2 :]
            window = [self.read_x(task, block, g.plus(step, 1 - taps)), *window]
            gp = g.load_block(*self.row(task, block, task.gy, step))
            if self.v.silu:
                gp = g.mul(gp, g.silu_and_slope(self.before_activation(window, weights, bias))[1])
            following = [gp, *following]
            dx = g.mul(gp, weights[-1])
            for k in range(1, taps):
                dx = g.fma(following[k], weights[-1 - k], dx)
            g.store_block(dx, *self.row(task, block, task.dx, step))
            sums = [*(g.fma(gp, x, total) for x, total in zip(window, sums, strict=False)), g.add(sums[-1], gp)]
            # The next round looks at the step before: its window is the older part of this one.
            loop.carry_on([*following[:-1], *window[:-1], *sums])
        self.keep(task, block, carried, loop.results)

    def keep(self, task, block, carried, results) -> None:
        """Stores what the next tile needs and adds the tile's sums to dweight and dbias."""
        g, width, taps = self.g, self.v.width, self.v.taps
        for k in range(taps - 1):
            g.store(results[k], carried, k * width)
        lost, at = g.at(carried, (taps - 1) * width), g.times(block, width)
        targets = [g.at(task.dweight, g.times(task.padded, k), at) for k in range(taps)] + [g.at(task.dbias, at)]
        for i, (total, target) in enumerate(zip(results[2 * taps - 2 :], targets, strict=True)):
            g.accumulate_compensated(total, target, g.at(lost, i * width))
