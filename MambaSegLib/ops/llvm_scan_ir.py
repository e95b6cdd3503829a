"""The selective scan as LLVM kernels, forward and backward. `llvm_scan` packs the operands and calls them.

For a tile and a block of channels (see `llvm_scan_task`): softplus(delta + bias) and delta u go to small buffers; then,
a few states at a time (so that they stay in registers), the recurrence runs over the tile; then D, the gate and the
store. Nothing of size L x D x N exists.

The forward pass keeps the state at each tile's start. The backward pass walks the tiles from the end, recomputes the
states of a tile from there, and runs the adjoint recurrence
    g_t = C_t gy_t + c_t,  c_{t-1} = exp(delta_t A) g_t
    dC_t = gy_t h_t,  dB_t = g_t delta_t u_t,  dA = sum g_t exp(delta_t A) h_{t-1} delta_t
    ddelta_t = u_t sum_n g_t B_t + sum_n g_t exp(delta_t A) h_{t-1} A,  du_t = delta_t sum_n g_t B_t + D gy_t
exp(delta A) is kept as s (1 + e): rounding it near 1 would be the same error at every step of a slow decay.
"""

from __future__ import annotations

from .llvm_builder import KernelBuilder
from .llvm_scan_task import ScanKernel, Variant, tile_length

__all__ = ["Variant", "build", "scratch_per_block", "tile_length"]


def scratch_per_block(variant: Variant) -> int:
    """Elements of run-time scratch for every channel block of a task."""
    state = variant.state_size * variant.width
    return 3 * state + 2 * variant.width if variant.backward else 2 * state


def build(variant: Variant) -> KernelBuilder:
    kernel = BackwardKernel(variant) if variant.backward else ForwardKernel(variant)
    return kernel.build()


class ForwardKernel(ScanKernel):
    def walk(self, task) -> None:
        g, state = self.g, task.run_time_scratch
        lost = g.at(state, g.times(task.blocks, self.block))
        g.fill_zero(state, g.times(task.blocks, 2 * self.v.state_size))
        with g.loop(task.tiles) as tiles:
            tile = self.tile(task, tiles.index)
            self.load_b_and_c(task, tile)
            with g.loop(task.blocks) as blocks:
                block, at_block = blocks.index, g.times(blocks.index, self.block)
                block_state = g.at(state, at_block)
                if self.v.keep_states:
                    kept = g.at(task.states, g.times(g.plus(g.times(block, task.tiles), tile.number), self.block))
                    with g.loop(self.v.state_size) as n:
                        offset = g.times(n.index, self.v.width)
                        g.store(g.load(block_state, offset), kept, offset)
                largest_delta = self.fill_tile(task, tile, block)
                self.recur(tile, largest_delta, g.at(task.A_log2e, at_block), block_state, g.at(lost, at_block))
                self.finish_tile(task, tile, block)

    def fill_tile(self, task, tile, block):
        g, at_block = self.g, self.g.times(block, self.v.width)
        bias, skip = g.load(task.bias, at_block), g.load(task.D, at_block)
        sources = [task.u, task.delta, task.y, *([task.z] if self.v.gated else [])]
        with g.loop(tile.steps, carry=[g.constant(0)]) as steps:
            position, offset = self.position(task, tile, steps.index), g.times(steps.index, self.v.width)
            u = self.read(task, block, task.u, position)
            delta, _ = self.step_size(task, block, position, bias)
            self.prefetch(task, block, sources, g.plus(position, self.steps))
            g.store(delta, self.delta_tile, offset)
            g.store(g.mul(delta, u), self.input_tile, offset)
            g.store(g.mul(skip, u), self.y_tile, offset)
            steps.carry_on([g.maximum(steps.values[0], g.absolute(delta))])
        return steps.results[0]

    def recur(self, tile, largest_delta, a_log2e, state, lost) -> None:
        """h = exp(delta A) h + delta u B and y += C h over the tile, a few states at a time."""
        g, width = self.g, self.v.width
        with g.loop(self.v.state_size, step=self.at_once) as n:
            offsets = [g.plus(g.times(n.index, width), i * width) for i in range(self.at_once)]
            a = [g.load(a_log2e, offset) for offset in offsets]
            self.on_each_range(
                self.decay_range(largest_delta, a),
                lambda exp2: self.recur_steps(tile, n.index, offsets, a, state, lost, exp2),
            )

    def recur_steps(self, tile, n, offsets, a, state, lost, exp2) -> None:
        g, width = self.g, self.v.width
        start = [g.load(state, offset) for offset in offsets]
        carried = [g.load(lost, offset) for offset in offsets] if exp2 is None else start
        with g.loop(tile.steps, carry=carried) as steps:
            at, row = g.times(steps.index, width), g.plus(g.times(steps.index, self.v.state_size), n)
            delta, x, y = (g.load(source, at) for source in (self.delta_tile, self.input_tile, self.y_tile))
            carry = []
            for i, value in enumerate(steps.values):
                step = self.step(exp2, start[i], value, delta, a[i], x, g.load_splat(self.b_tile, row, i))
                y = g.fma(step.after, g.load_splat(self.c_tile, row, i), y)
                carry.append(step.carry)
            g.store(y, self.y_tile, at)
            steps.carry_on(carry)
        for i, offset in enumerate(offsets):
            self.keep(exp2 is None, start[i], steps.results[i], state, lost, offset)

    def finish_tile(self, task, tile, block) -> None:
        g = self.g
        with g.loop(tile.steps) as steps:
            position = self.position(task, tile, steps.index)
            y = g.load(self.y_tile, g.times(steps.index, self.v.width))
            if self.v.gated:
                y = g.mul(y, g.silu(self.read(task, block, task.z, position)))
            self.write_shared(y, task, block, task.y, position)


class BackwardKernel(ScanKernel):
    def __init__(self, variant: Variant):
        super().__init__(variant)
        g, width = self.g, variant.width
        few_states, all_states = self.steps * self.at_once * width, self.steps * self.block
        # Read-modify-write buffers are staggered, so that they never agree in the lowest 12 bits of their addresses.
        self.db_lanes, self.dc_lanes = g.scratch(all_states + 128), g.scratch(all_states + 256)
        self.scale_tile, self.excess_tile, self.state_tile = (g.scratch(few_states + extra) for extra in (384, 512, 0))
        names = ("u_tile", "slope_tile", "gy_tile", "sum_b_tile", "sum_a_tile", "gate_tile")
        for name in names:
            setattr(self, name, g.scratch(self.steps * width))
        self.row_sums = g.scratch(self.steps * variant.state_size + width)

    def walk(self, task) -> None:
        g, width = self.g, self.v.width
        carry = task.run_time_scratch
        # What sums lost: of the carried gradient, of dA, then of dD and dbias.
        lost = g.at(carry, g.times(task.blocks, self.block))
        lost_a = g.at(lost, g.times(task.blocks, self.block))
        lost_channel = g.at(lost_a, g.times(task.blocks, self.block))
        g.fill_zero(carry, g.times(task.blocks, 3 * self.v.state_size + 2))
        g.fill_zero(task.dA, g.times(task.blocks, self.v.state_size))
        g.fill_zero(task.dD, task.blocks)
        g.fill_zero(task.dbias, task.blocks)
        with g.loop(task.tiles) as tiles:
            tile = self.tile(task, g.minus(g.minus(task.tiles, 1), tiles.index))
            self.load_b_and_c(task, tile)
            g.fill_zero(self.db_lanes, self.steps * self.v.state_size)
            g.fill_zero(self.dc_lanes, self.steps * self.v.state_size)
            with g.loop(task.blocks) as blocks:
                block, at_block = blocks.index, g.times(blocks.index, self.block)
                at_channel = g.times(block, width)
                largest_delta, dd = self.fill_tile(task, tile, block)
                lost_d = g.at(lost_channel, g.times(at_channel, 2))
                g.accumulate_compensated(dd, g.at(task.dD, at_channel), lost_d)
                kept = g.at(task.states, g.times(g.plus(g.times(block, task.tiles), tile.number), self.block))
                places = (g.at(p, at_block) for p in (task.A_log2e, task.A, carry, lost, task.dA, lost_a))
                self.adjoint(tile, largest_delta, kept, *places)
                dbias = self.finish_tile(task, tile, block)
                g.accumulate_compensated(dbias, g.at(task.dbias, at_channel), g.at(lost_d, width))
            self.reduce_rows(task, tile, self.db_lanes, task.dB)
            self.reduce_rows(task, tile, self.dc_lanes, task.dC)

    def fill_tile(self, task, tile, block):
        g, at_block = self.g, self.g.times(block, self.v.width)
        bias, skip = g.load(task.bias, at_block), g.load(task.D, at_block)
        sources = [task.u, task.delta, task.gy, *([task.z] if self.v.gated else [])]
        with g.loop(tile.steps, carry=[g.constant(0)] * 2) as steps:
            position, at = self.position(task, tile, steps.index), g.times(steps.index, self.v.width)
            u, gy = (self.read(task, block, source, position) for source in (task.u, task.gy))
            delta, slope = self.step_size(task, block, position, bias)
            self.prefetch(task, block, sources, g.minus(position, self.steps))
            if self.v.gated:
                gate, gate_slope = g.silu_and_slope(self.read(task, block, task.z, position))
                g.store(g.mul(gy, gate_slope), self.gate_tile, at)
                g.store(g.mul(skip, u), self.y_tile, at)
                gy = g.mul(gy, gate)
            for value, target in (
                (u, self.u_tile),
                (delta, self.delta_tile),
                (slope, self.slope_tile),
                (g.mul(delta, u), self.input_tile),
                (gy, self.gy_tile),
                (g.constant(0), self.sum_b_tile),
                (g.constant(0), self.sum_a_tile),
            ):
                g.store(value, target, at)
            steps.carry_on([g.maximum(steps.values[0], g.absolute(delta)), g.fma(gy, u, steps.values[1])])
        return steps.results

    def adjoint(self, tile, largest_delta, kept, a_log2e, a, carry, lost, da, lost_a) -> None:
        """The recurrence forward over the tile, then its adjoint backward, a few states at a time."""
        g, width = self.g, self.v.width
        with g.loop(self.v.state_size, step=self.at_once) as n:
            offsets = [g.plus(g.times(n.index, width), i * width) for i in range(self.at_once)]
            exponents, start, a_values = ([g.load(p, offset) for offset in offsets] for p in (a_log2e, kept, a))
            found = self.decay_range(largest_delta, exponents)
            self.on_each_range(found, lambda exp2: self.recompute(tile, n.index, exponents, start, exp2))
            with g.ir.if_else(found.fast) as branches:
                for slow, branch in zip((False, True), branches, strict=True):
                    with branch:
                        tile_da = self.adjoint_steps(tile, n.index, offsets, a_values, carry, lost, slow)
                        # Sums of one tile first, then of all: this and Kahan keep float32 accurate for long sequences.
                        for value, offset in zip(tile_da, offsets, strict=True):
                            g.accumulate_compensated(value, g.at(da, offset), g.at(lost_a, offset))

    def recompute(self, tile, n, a, start, exp2) -> None:
        """Keeps the decay of each step and the state before it, and adds to dC (here, where registers are free)."""
        g, width = self.g, self.v.width
        with g.loop(tile.steps, carry=[g.constant(0)] * self.at_once if exp2 is None else start) as steps:
            at, row = g.times(steps.index, width), g.plus(g.times(steps.index, self.v.state_size), n)
            lanes, kept = g.times(row, width), g.times(at, self.at_once)
            delta, x, gy = (g.load(p, at) for p in (self.delta_tile, self.input_tile, self.gy_tile))
            y = g.load(self.y_tile, at) if self.v.gated else None
            carry = []
            for i, value in enumerate(steps.values):
                step = self.step(exp2, start[i], value, delta, a[i], x, g.load_splat(self.b_tile, row, i))
                if step.scale is not None:
                    g.store(step.scale, self.scale_tile, kept, i * width)
                g.store(step.before, self.state_tile, kept, i * width)
                g.store(step.excess, self.excess_tile, kept, i * width)
                lane = g.plus(lanes, i * width)
                g.store(g.fma(gy, step.after, g.load(self.dc_lanes, lane)), self.dc_lanes, lane)
                if self.v.gated:
                    y = g.fma(step.after, g.load_splat(self.c_tile, row, i), y)
                carry.append(step.carry)
            if self.v.gated:
                g.store(y, self.y_tile, at)
            steps.carry_on(carry)

    def adjoint_steps(self, tile, n, offsets, a, carry, lost, slow) -> list:
        """The adjoint recurrence over the tile, carried like the states (see `step`); returns dA of the tile."""
        g, width, count = self.g, self.v.width, self.at_once
        start = [g.load(carry, offset) for offset in offsets]
        carried = [g.load(lost, offset) for offset in offsets] if slow else start
        with g.loop(tile.steps, carry=[*carried, *[g.constant(0)] * count]) as steps:
            index = g.minus(g.minus(tile.steps, 1), steps.index)
            at, row = g.times(index, width), g.plus(g.times(index, self.v.state_size), n)
            lanes, kept = g.times(row, width), g.times(at, count)
            gy, delta, x, sum_b, sum_a = (
                g.load(p, at)
                for p in (self.gy_tile, self.delta_tile, self.input_tile, self.sum_b_tile, self.sum_a_tile)
            )
            carries, da = [], []
            for i in range(count):
                c, excess = g.load_splat(self.c_tile, row, i), g.load(self.excess_tile, kept, i * width)
                if slow:
                    change = g.fma(gy, c, steps.values[i])
                    gh = g.add(start[i], change)
                    carries.append(g.fma(excess, gh, change))
                    through = g.add(start[i], carries[i])
                else:
                    gh = g.fma(gy, c, steps.values[i])
                    scale = g.load(self.scale_tile, kept, i * width)
                    through = g.mul(scale, g.fma(excess, gh, gh))
                    carries.append(through)
                lane = g.plus(lanes, i * width)
                g.store(g.fma(gh, x, g.load(self.db_lanes, lane)), self.db_lanes, lane)
                sum_b = g.fma(gh, g.load_splat(self.b_tile, row, i), sum_b)
                decayed = g.mul(through, g.load(self.state_tile, kept, i * width))
                sum_a = g.fma(decayed, a[i], sum_a)
                da.append(g.fma(decayed, delta, steps.values[count + i]))
            g.store(sum_b, self.sum_b_tile, at)
            g.store(sum_a, self.sum_a_tile, at)
            steps.carry_on([*carries, *da])
        for i, offset in enumerate(offsets):
            self.keep(slow, start[i], steps.results[i], carry, lost, offset)
        return steps.results[count:]

    def finish_tile(self, task, tile, block):
        """du, ddelta and dz of the tile; returns its part of dbias."""
        g, skip = self.g, self.g.load(task.D, self.g.times(block, self.v.width))
        with g.loop(tile.steps, carry=[g.constant(0)]) as steps:
            position, at = self.position(task, tile, steps.index), g.times(steps.index, self.v.width)
            tiles = (self.u_tile, self.gy_tile, self.sum_b_tile, self.sum_a_tile, self.delta_tile, self.slope_tile)
            u, gy, sum_b, sum_a, delta, slope = (g.load(p, at) for p in tiles)
            if self.v.gated:
                dz = g.mul(g.load(self.y_tile, at), g.load(self.gate_tile, at))
                self.write_shared(dz, task, block, task.dz, position)
            du = g.fma(delta, sum_b, g.mul(skip, gy))
            ddelta = g.mul(g.fma(u, sum_b, sum_a), slope)
            self.write_shared(du, task, block, task.du, position)
            self.write(ddelta, task, block, task.ddelta, position)
            steps.carry_on([g.add(steps.values[0], ddelta)])
        return steps.results[0]

    def reduce_rows(self, task, tile, lanes, target) -> None:
        """Sums dB or dC of the tile over the channels and writes it to its positions."""
        g, width, n = self.g, self.v.width, self.v.state_size
        pointer, row = target
        with g.loop(-(-self.steps * n // width)) as groups:
            g.sum_rows(
                g.at(self.row_sums, g.times(groups.index, width)), g.at(lanes, g.times(groups.index, width * width))
            )
        with g.loop(tile.steps) as steps:
            position = self.position(task, tile, steps.index)
            with g.loop(n) as states:
                value = g.ir.load(g.at(self.row_sums, g.times(steps.index, n), states.index))
                g.ir.store(value, g.at(pointer, g.times(position, row), states.index))
