"""The selective scan as LLVM kernels, forward and backward. `llvm_scan` packs the operands and calls them.

For a tile and a block of channels (see `llvm_scan_task`): softplus(delta + bias) and delta u go to small buffers; then,
a few states at a time (so that they stay in registers), the recurrence runs over the tile; then D, the gate and the
store. Few states need no buffers and no tiles' passes: one loop does it all. Nothing of size L x D x N exists.

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
    return 2 * state + 2 * variant.width if variant.backward else state


def build(variant: Variant) -> KernelBuilder:
    kernel = BackwardKernel(variant) if variant.backward else ForwardKernel(variant)
    return kernel.build()


class ForwardKernel(ScanKernel):
    def walk(self, task) -> None:
        g, state = self.g, task.run_time_scratch
        in_one_loop = self.at_once == self.v.state_size
        g.fill_zero(state, g.times(task.blocks, self.v.state_size))
        with g.loop(task.tiles) as tiles:
            tile = self.tile(task, tiles.index)
            if not in_one_loop:
                self.load_b_and_c(task, tile)
            with g.loop(task.blocks) as blocks:
                block, at_block = blocks.index, g.times(blocks.index, self.block)
                block_state = g.at(state, at_block)
                if self.v.keep_states:
                    kept = g.at(task.states, g.times(g.plus(g.times(block, task.tiles), tile.number), self.block))
                    with g.loop(self.v.state_size) as n:
                        offset = g.times(n.index, self.v.width)
                        g.store(g.load(block_state, offset), kept, offset)
                walk_tile = self.tile_in_one_loop if in_one_loop else self.tile_in_passes
                walk_tile(task, tile, block, g.at(task.A_log2e, at_block), block_state)

    def tile_in_passes(self, task, tile, block, a_log2e, state) -> None:
        """A tile by buffers: step sizes and inputs, then the recurrence a few states at a time, then the output."""
        largest_delta = self.fill_tile(task, tile, block)
        self.on_both_exponent_ranges(task, block, largest_delta, lambda exp2: self.recur(tile, a_log2e, state, exp2))
        self.finish_tile(task, tile, block)

    def tile_in_one_loop(self, task, tile, block, a_log2e, state) -> None:
        """A tile in one loop, where all states fit into registers: for few states, buffers cost more than they save."""
        g, width, count = self.g, self.v.width, self.v.state_size
        at_block = g.times(block, width)
        bias, skip = g.load(task.bias, at_block), g.load(task.D, at_block)
        a, before = ([g.load(p, i * width) for i in range(count)] for p in (a_log2e, state))
        sources = [task.u, task.delta, *([task.z] if self.v.gated else [])]
        with g.loop(tile.steps, carry=before) as steps:
            position = self.position(task, tile, steps.index)
            u = self.read(task, block, task.u, position)
            delta, _ = self.step_size(task, block, position, bias)
            self.prefetch(task, block, sources, g.plus(position, self.steps))
            x, y, h = g.mul(delta, u), g.mul(skip, u), []
            for i in range(count):
                b, c = (g.load_splat(p, g.times(position, row), i) for p, row in (task.B, task.C))
                scale, excess = g.exp2_parts(g.mul(delta, a[i]))
                h.append(g.fma(scale, g.fma(excess, steps.values[i], steps.values[i]), g.mul(x, b)))
                y = g.fma(h[i], c, y)
            if self.v.gated:
                y = g.mul(y, g.silu(self.read(task, block, task.z, position)))
            self.write_shared(y, task, block, task.y, position)
            steps.carry_on(h)
        for i, value in enumerate(steps.results):
            g.store(value, state, i * width)

    def fill_tile(self, task, tile, block):
        g, at_block = self.g, self.g.times(block, self.v.width)
        bias, skip = g.load(task.bias, at_block), g.load(task.D, at_block)
        sources = [task.u, task.delta, *([task.z] if self.v.gated else [])]
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

    def recur(self, tile, a_log2e, state, exp2) -> None:
        """h = exp(delta A) h + delta u B and y += C h over the tile, a few states at a time."""
        g, width, few = self.g, self.v.width, range(self.at_once)
        with g.loop(self.v.state_size, step=self.at_once) as n:
            offsets = [g.plus(g.times(n.index, width), i * width) for i in few]
            a = [g.load(a_log2e, offset) for offset in offsets]
            with g.loop(tile.steps, carry=[g.load(state, offset) for offset in offsets]) as steps:
                at, row = g.times(steps.index, width), g.plus(g.times(steps.index, self.v.state_size), n.index)
                delta, x, y = (g.load(source, at) for source in (self.delta_tile, self.input_tile, self.y_tile))
                h = []
                for i in few:
                    scale, excess = exp2(delta, a[i])
                    before = steps.values[i]
                    h.append(g.fma(scale, g.fma(excess, before, before), g.mul(x, g.load_splat(self.b_tile, row, i))))
                    y = g.fma(h[i], g.load_splat(self.c_tile, row, i), y)
                g.store(y, self.y_tile, at)
                steps.carry_on(h)
            for value, offset in zip(steps.results, offsets, strict=True):
                g.store(value, state, offset)

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
        # What Kahan's sums lost: of dA, then of dD and dbias.
        lost_a = g.at(carry, g.times(task.blocks, self.block))
        lost_channel = g.at(lost_a, g.times(task.blocks, self.block))
        g.fill_zero(carry, g.times(task.blocks, 2 * self.v.state_size + 2))
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
                places = [g.at(p, at_block) for p in (task.A_log2e, task.A, carry, task.dA, lost_a)]
                self.on_both_exponent_ranges(
                    task,
                    block,
                    largest_delta,
                    lambda exp2, kept=kept, places=places: self.adjoint(tile, kept, *places, exp2),
                )
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

    def adjoint(self, tile, kept, a_log2e, a, carry, da, lost, exp2) -> None:
        """The recurrence forward over the tile, then its adjoint backward, a few states at a time."""
        g, width, few = self.g, self.v.width, range(self.at_once)
        with g.loop(self.v.state_size, step=self.at_once) as n:
            offsets = [g.plus(g.times(n.index, width), i * width) for i in few]
            self.recompute(tile, n.index, *([g.load(p, o) for o in offsets] for p in (a_log2e, kept)), exp2)
            carried = self.adjoint_steps(tile, n.index, *([g.load(p, o) for o in offsets] for p in (a, carry)))
            for i, offset in enumerate(offsets):
                g.store(carried[i], carry, offset)
                # Sums of one tile first, then of all: this and Kahan keep float32 accurate for long sequences.
                g.accumulate_compensated(carried[self.at_once + i], g.at(da, offset), g.at(lost, offset))

    def recompute(self, tile, n, a, start, exp2) -> None:
        """Keeps the decay of each step and the state before it, and adds to dC (here, where registers are free)."""
        g, width = self.g, self.v.width
        with g.loop(tile.steps, carry=start) as steps:
            at, row = g.times(steps.index, width), g.plus(g.times(steps.index, self.v.state_size), n)
            lanes, kept = g.times(row, width), g.times(at, self.at_once)
            delta, x, gy = (g.load(p, at) for p in (self.delta_tile, self.input_tile, self.gy_tile))
            y = g.load(self.y_tile, at) if self.v.gated else None
            h = []
            for i, before in enumerate(steps.values):
                scale, excess = exp2(delta, a[i])
                lane = g.plus(lanes, i * width)
                for value, target in ((before, self.state_tile), (scale, self.scale_tile), (excess, self.excess_tile)):
                    g.store(value, target, kept, i * width)
                h.append(g.fma(scale, g.fma(excess, before, before), g.mul(x, g.load_splat(self.b_tile, row, i))))
                g.store(g.fma(gy, h[i], g.load(self.dc_lanes, lane)), self.dc_lanes, lane)
                if self.v.gated:
                    y = g.fma(h[i], g.load_splat(self.c_tile, row, i), y)
            if self.v.gated:
                g.store(y, self.y_tile, at)
            steps.carry_on(h)

    def adjoint_steps(self, tile, n, a, carry) -> list:
        """The adjoint recurrence over the tile; returns the carries and dA of the tile."""
        g, width, count = self.g, self.v.width, self.at_once
        with g.loop(tile.steps, carry=[*carry, *[g.constant(0)] * count]) as steps:
            index = g.minus(g.minus(tile.steps, 1), steps.index)
            at, row = g.times(index, width), g.plus(g.times(index, self.v.state_size), n)
            lanes, kept = g.times(row, width), g.times(at, count)
            gy, delta, x, sum_b, sum_a = (
                g.load(p, at)
                for p in (self.gy_tile, self.delta_tile, self.input_tile, self.sum_b_tile, self.sum_a_tile)
            )
            carried, da = [], []
            for i in range(count):
                gh = g.fma(gy, g.load_splat(self.c_tile, row, i), steps.values[i])
                lane = g.plus(lanes, i * width)
                g.store(g.fma(gh, x, g.load(self.db_lanes, lane)), self.db_lanes, lane)
                sum_b = g.fma(gh, g.load_splat(self.b_tile, row, i), sum_b)
                scale, excess = (g.load(p, kept, i * width) for p in (self.scale_tile, self.excess_tile))
                carried.append(g.mul(scale, g.fma(excess, gh, gh)))
                decayed = g.mul(carried[i], g.load(self.state_tile, kept, i * width))
                sum_a = g.fma(decayed, a[i], sum_a)
                da.append(g.fma(decayed, delta, steps.values[count + i]))
            g.store(sum_b, self.sum_b_tile, at)
            g.store(sum_a, self.sum_a_tile, at)
            steps.carry_on([*carried, *da])
        return steps.results

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
