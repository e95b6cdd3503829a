"""What both directions of the scan's kernels share: parameters, finding a task's data, tiles, rows of channels.

One task is one batch item, one group and a range of channel blocks (a block is `width` channels, one vector). It walks
the sequence in tiles of tile_length steps. Each step sits at a position of the sequence, its own number or the entry
of an order table. With `shared`, all groups of a batch item are one task: they read the same u, z and gy and add up
their y, du and dz in place.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace

from .llvm_builder import ELEMENTS, INT32, INT64, KernelBuilder

STRIDED = ("u", "delta", "z", "B", "C", "y", "gy", "du", "ddelta", "dz", "dB", "dC")
PARAMETERS = (
    *("parts", "groups", "channels", "blocks", "tail_lanes", "length", "tiles", "order", "part_stride"),
    *("A", "A_log2e", "D", "bias", "states", "dA", "dD", "dbias"),
    *(name + suffix for name in STRIDED for suffix in ("", "_batch", "_group", "_row")),
)


@dataclass(frozen=True)
class Variant:
    """What a scan kernel is compiled for."""

    backward: bool
    dtype: str
    width: int
    state_size: int
    gated: bool  # there is a z
    softplus: bool
    ordered: bool  # there is an order table
    shared: bool
    tail: bool  # the last block of a group has fewer channels than `width`
    keep_states: bool  # forward only: write checkpoints


def tile_length(width: int) -> int:
    """Steps per tile: a longer one needs fewer checkpoints, but its buffers should stay in the fastest cache."""
    return 32 if width <= 8 else 16


def states_at_once(variant: Variant) -> int:
    """States that are carried together: enough to hide latencies, few enough for 16 registers."""
    most = 2 if variant.backward and variant.state_size % 2 == 0 else 4
    return next(count for count in range(most, 0, -1) if variant.state_size % count == 0)


class ScanKernel(ABC):
    """What both directions share: finding a task's data, tiles, and access to rows of channels."""

    def __init__(self, variant: Variant):
        self.v = variant
        self.g = KernelBuilder(PARAMETERS, ELEMENTS[variant.dtype], variant.width)
        self.at_once = states_at_once(variant)
        self.steps = tile_length(variant.width)
        self.block = variant.state_size * variant.width  # elements of one block's state
        vectors, scalars = self.steps * variant.width, self.steps * variant.state_size
        self.b_tile, self.c_tile = self.g.scratch(scalars), self.g.scratch(scalars)
        self.delta_tile, self.input_tile, self.y_tile = (self.g.scratch(vectors) for _ in range(3))
        if variant.tail:
            self.g.make_lane_buffers()

    def build(self) -> KernelBuilder:
        g, v = self.g, self.v
        with g.each_task() as task:
            parts, groups = g.parameter("parts"), g.parameter("groups")
            part, rest = g.remainder(task, parts), g.quotient(task, parts)
            if v.shared:
                with g.loop(groups) as loop:
                    self.walk(self.locate(rest, loop.index, part))
            else:
                self.walk(self.locate(g.quotient(rest, groups), g.remainder(rest, groups), part))
        return g

    @abstractmethod
    def walk(self, task: SimpleNamespace) -> None:
        """Emits the work of one task (of one group, if groups are shared)."""

    def locate(self, batch, group, part) -> SimpleNamespace:
        """Pointers and sizes of one task; the pointers of u, delta, ... are at its first channel."""
        g, blocks = self.g, self.g.parameter("blocks")
        parts = g.parameter("parts")
        first = g.quotient(g.times(blocks, part), parts)
        beyond = g.quotient(g.times(blocks, g.plus(part, 1)), parts)
        task = SimpleNamespace(
            group=group,
            blocks=g.minus(beyond, first),
            length=g.parameter("length"),
            tiles=g.parameter("tiles"),
            tail_lanes=g.parameter("tail_lanes"),
            last_block=g.minus(g.minus(blocks, 1), first),  # of the group, counted from the task's first
            run_time_scratch=g.scratch_end(),
        )
        names = ["u", "delta", "B", "C", *(["z"] if self.v.gated else [])]
        names += ["gy", "du", "ddelta", "dB", "dC", *(["dz"] if self.v.gated else [])] if self.v.backward else ["y"]
        for name in names:
            start = g.plus(g.times(batch, g.parameter(name + "_batch")), g.times(group, g.parameter(name + "_group")))
            if name in ("dB", "dC"):
                start = g.plus(start, g.times(part, g.parameter("part_stride")))
            elif name not in ("B", "C"):
                start = g.plus(start, g.times(first, self.v.width))
            setattr(task, name, (g.at(g.pointer(name), start), g.parameter(name + "_row")))
        in_group = g.plus(g.times(group, blocks), first)
        in_batch = g.plus(g.times(batch, g.parameter("groups"), blocks), in_group)
        for name, size in (("A", self.block), ("A_log2e", self.block), ("D", self.v.width), ("bias", self.v.width)):
            setattr(task, name, g.at(g.pointer(name), g.times(in_group, size)))
        task.states = g.at(g.pointer("states"), g.times(in_batch, task.tiles, self.block))
        for name, size in (("dA", self.block), ("dD", self.v.width), ("dbias", self.v.width)):
            setattr(task, name, g.at(g.pointer(name), g.times(in_batch, size)))
        if self.v.ordered:
            task.order = g.at(g.pointer("order", INT32), g.times(group, task.length))
        return task

    def tile(self, task, number) -> SimpleNamespace:
        start = self.g.times(number, self.steps)
        return SimpleNamespace(
            number=number, start=start, steps=self.g.smaller(self.g.minus(task.length, start), self.steps)
        )

    def position(self, task, tile, step):
        t = self.g.plus(tile.start, step)
        return self.g.ir.sext(self.g.ir.load(self.g.at(task.order, t)), INT64) if self.v.ordered else t

    def load_b_and_c(self, task, tile) -> None:
        """Gathers the tile's B and C once for all channel blocks."""
        g, n = self.g, self.v.state_size
        with g.loop(tile.steps) as steps:
            position = self.position(task, tile, steps.index)
            for target, (source, row) in ((self.b_tile, task.B), (self.c_tile, task.C)):
                with g.loop(n) as states:
                    value = g.ir.load(g.at(source, g.times(position, row), states.index))
                    g.ir.store(value, g.at(target, g.times(steps.index, n), states.index))

    # ---- rows of channels: one block of u, delta, z, y, ... at one position

    def row(self, task, block, operand, position):
        """(tail, pointer, offset) as load_block and store_block take them."""
        pointer, row = operand
        tail = None
        if self.v.tail:
            tail = self.g.ir.icmp_signed("==", block, task.last_block), task.tail_lanes
        return tail, pointer, self.g.plus(self.g.times(position, row), self.g.times(block, self.v.width))

    def read(self, task, block, operand, position):
        return self.g.load_block(*self.row(task, block, operand, position))

    def write(self, value, task, block, operand, position) -> None:
        self.g.store_block(value, *self.row(task, block, operand, position))

    def write_shared(self, value, task, block, target, position) -> None:
        """Like write, but with `shared` the groups after the first one add to what is there."""
        if self.v.shared:
            value = self.g.choose(
                self.g.ir.icmp_signed(">", task.group, self.g.integer(0)),
                lambda: self.g.add(value, self.read(task, block, target, position)),
                lambda: value,
            )
        self.write(value, task, block, target, position)

    def prefetch(self, task, block, sources, position) -> None:
        """Rows are far apart, which hardware prefetchers do not follow. Wrong addresses do no harm here.

        Into the second-level cache: rows of many channels share few sets of the first one, and would be lost there.
        """
        if not self.v.ordered:
            for pointer, row in sources:
                offset = self.g.plus(self.g.times(position, row), self.g.times(block, self.v.width))
                self.g.prefetch(pointer, offset)

    def step_size(self, task, block, position, bias):
        """delta after bias and softplus, and the derivative of the latter."""
        delta = self.g.add(self.read(task, block, task.delta, position), bias)
        return self.g.softplus(delta) if self.v.softplus else (delta, self.g.constant(1))

    def decay_range(self, largest_delta, a_log2e) -> SimpleNamespace:
        """Bits that tell how a tile's decays can be computed, from its largest |delta| and the states' exponents.

        fast: some decay is below 2^-1/4 or above its inverse; extreme: some decay needs clamping.
        """
        g = self.g
        largest_a = functools.reduce(g.maximum, [g.absolute(a) for a in a_log2e])
        bound = g.mul(largest_delta, largest_a)
        limits = (0.25, g.element.exponent_limit)
        fast, extreme = (g.any_greater(bound, g.constant(limit)) for limit in limits)
        return SimpleNamespace(fast=fast, extreme=extreme)

    def on_each_range(self, found, emit) -> None:
        """emit(exp2 of a product) for all kinds of decays; None stands for slow ones."""
        g = self.g
        with g.ir.if_else(found.fast) as (fast, slow):
            with fast, g.ir.if_else(found.extreme) as (extreme, plain):
                with extreme:
                    emit(lambda delta, a: g.exp2_parts(g.mul(delta, a)))
                with plain:
                    emit(g.exp2_product_parts)
            with slow:
                emit(None)

    def step(self, exp2, start, carried, delta, a, x, b) -> SimpleNamespace:
        """One step of h = exp(delta A) h + x B of one state.

        What is carried from step to step is the state, or, where decays are slow (exp2 is None), its change since the
        tile's start: rounding the state itself in every step, by 1e-7 of it, adds up over the 10,000 steps it lives.
        """
        g = self.g
        if exp2 is None:
            before, excess = g.add(start, carried), g.exp2_excess(g.mul(delta, a))
            carry = g.fma(excess, before, g.fma(x, b, carried))
            return SimpleNamespace(before=before, scale=None, excess=excess, after=g.add(start, carry), carry=carry)
        scale, excess = exp2(delta, a)
        after = g.fma(scale, g.fma(excess, carried, carried), g.mul(x, b))
        return SimpleNamespace(before=carried, scale=scale, excess=excess, after=after, carry=after)

    def keep(self, slow: bool, start, carried, pointer, lost, offset) -> None:
        """Stores what a tile ends with, and what is too small for it but not for the next tile's changes."""
        state, rest = self.g.sum_and_lost(start, carried) if slow else (carried, self.g.constant(0))
        self.g.store(state, pointer, offset)
        self.g.store(rest, lost, offset)
