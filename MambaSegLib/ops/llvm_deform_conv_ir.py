"""Sampling for modulated deformable convolution as LLVM kernels, forward and backward; `llvm_deform_conv` calls them.

The image is channels last with a border of two zero pixels, so every corner of every sample can be read without a
test: coordinates are clamped to [-2, H] x [-2, W], and from there all four corners are zero. Channels come in segments
(all of one offset group and one weight group), a segment in blocks of `width` channels, one vector each.

A task is one image, one segment, a part of its blocks and a range of pixels. It goes through the pixels in chunks: the
corner addresses and weights of a chunk are computed `width` pixels at a time; then every (pixel, tap) is a sum of four
weighted vectors per block. The forward pass writes the samples to `columns` (pixel, tap, channel) for a matrix product.

The backward pass finds dL/dsample in `columns` and replaces it by the sample itself, which the gradient of the weight
needs. It adds the sample's gradient to the four corners (parts never share channels, so no two threads write to the
same place) and keeps the products s_ij = sum_channels dL/dsample * corner_ij, from which, with f = (fy, fx) the
position between the corners and m the modulation,
    dm = (1-fy) (1-fx) s_00 + (1-fy) fx s_01 + fy (1-fx) s_10 + fy fx s_11
    dy = m ((1-fx) (s_10 - s_00) + fx (s_11 - s_01)),  dx = m ((1-fy) (s_01 - s_00) + fy (s_11 - s_10))
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from .llvm_builder import ELEMENTS, INT64, KernelBuilder

CHUNK = 16  # pixels, a multiple of every vector width
BORDER = 2
FARTHEST = 2.0**20  # offsets are clamped to this, which is outside any image and safe to round
CORNERS = 4
PARAMETERS = (
    *("segments", "parts", "ranges", "blocks", "segments_per_offset_group", "segments_per_weight_group"),
    *("pixels", "range_pixels", "all_pixels", "taps", "pixel_y", "pixel_x", "tap_y", "tap_x", "limits"),
    *("image", "image_stride", "row_stride", "pixel_stride", "dimage"),
    *("offset", "offset_stride", "mask", "mask_stride", "doffset", "doffset_part", "dmask", "dmask_part"),
    *("columns", "columns_group", "columns_image", "columns_pixel", "columns_tap"),
)


@dataclass(frozen=True)
class Variant:
    """What a sampling kernel is compiled for."""

    backward: bool
    dtype: str
    width: int
    modulated: bool


def scratch_per_tap(variant: Variant) -> int:
    """Elements of run-time scratch per tap: an address and weights per pixel, and in the backward pass s_ij."""
    per_pixel = 1 + CORNERS
    if variant.backward:
        per_pixel += 3 + CORNERS * variant.width
    return per_pixel * CHUNK


def build(variant: Variant) -> KernelBuilder:
    return (BackwardKernel if variant.backward else ForwardKernel)(variant).build()


class SamplingKernel:
    """What both directions share: finding a task's data, and where its samples lie."""

    def __init__(self, variant: Variant):
        self.v = variant
        self.g = KernelBuilder(PARAMETERS, ELEMENTS[variant.dtype], variant.width)
        self.g.make_lane_buffers()

    def build(self) -> KernelBuilder:
        g = self.g
        with g.each_task() as number:
            task = self.locate(number)
            chunks = g.quotient(g.plus(g.minus(task.end, task.start), CHUNK - 1), CHUNK)
            with g.loop(chunks) as loop:
                start = g.plus(task.start, g.times(loop.index, CHUNK))
                pixels = g.smaller(g.minus(task.end, start), CHUNK)
                self.each_vector(task, start, pixels, self.find_corners)
                with g.loop(pixels) as pixel, g.loop(task.taps) as tap:
                    self.sample(task, start, pixel.index, tap.index)
                if self.v.backward:
                    self.each_vector(task, start, pixels, self.finish)
        return g

    def locate(self, number) -> SimpleNamespace:
        """Pointers and sizes of one task."""
        g, p = self.g, self.g.parameter
        number, piece = g.quotient(number, p("ranges")), g.remainder(number, p("ranges"))
        number, part = g.quotient(number, p("parts")), g.remainder(number, p("parts"))
        image, segment = g.quotient(number, p("segments")), g.remainder(number, p("segments"))
        first = g.quotient(g.times(p("blocks"), part), p("parts"))
        beyond = g.quotient(g.times(p("blocks"), g.plus(part, 1)), p("parts"))
        per_offset_group, per_weight_group = p("segments_per_offset_group"), p("segments_per_weight_group")
        offset_group, weight_group = (g.quotient(segment, n) for n in (per_offset_group, per_weight_group))
        taps, start = p("taps"), g.times(piece, p("range_pixels"))
        plane = g.times(offset_group, taps, p("all_pixels"))
        channel = g.times(g.plus(g.times(segment, p("blocks")), first), self.v.width)
        column = g.times(g.plus(g.times(g.remainder(segment, per_weight_group), p("blocks")), first), self.v.width)
        task = SimpleNamespace(
            taps=taps,
            blocks=g.minus(beyond, first),
            start=start,
            end=g.smaller(g.plus(start, p("range_pixels")), p("pixels")),
            image=g.at(g.pointer("image"), g.times(image, p("image_stride")), channel),
            columns=g.at(
                g.pointer("columns"),
                g.times(weight_group, p("columns_group")),
                g.times(image, p("columns_image")),
                column,
            ),
            offset=g.at(g.pointer("offset"), g.times(image, p("offset_stride")), g.times(plane, 2)),
            mask=g.at(g.pointer("mask"), g.times(image, p("mask_stride")), plane),
        )
        if self.v.backward:
            partial = g.plus(g.times(g.remainder(segment, per_offset_group), p("parts")), part)
            gradients = ("doffset", "offset_stride", g.times(plane, 2)), ("dmask", "mask_stride", plane)
            for name, stride, at in gradients:
                place = g.plus(g.times(partial, p(name + "_part")), g.times(image, p(stride)), at)
                setattr(task, name, g.at(g.pointer(name), place))
            task.dimage = g.at(g.pointer("dimage"), g.times(image, p("image_stride")), channel)
        self.divide_scratch(task)
        return task

    def divide_scratch(self, task) -> None:
        """Tables of the chunk, each (taps, CHUNK), sums (taps, CORNERS, CHUNK, width)."""
        g, size = self.g, self.g.times(task.taps, CHUNK)
        names = ["address", *[f"weight{i}" for i in range(CORNERS)]]
        if self.v.backward:
            names += ["fy", "fx", "modulation", "sums"]
        for i, name in enumerate(names):
            setattr(task, name, g.at(g.scratch_end(), g.times(size, i)))

    def each_vector(self, task, start, pixels, body) -> None:
        """`body(task, tap, at, place, plane, tail)` for every tap and every `width` pixels of the chunk: `at` counts
        from the start of the pixels, `place` into the tables, `plane` is the start of the tap's channel of the mask."""
        g, width = self.g, self.v.width
        vectors = g.quotient(g.plus(pixels, width - 1), width)
        with g.loop(task.taps) as taps, g.loop(vectors) as loop:
            first = g.times(loop.index, width)
            rest = g.minus(pixels, first)
            tail = g.ir.icmp_signed("<", rest, g.integer(width)), rest
            place = g.plus(g.times(taps.index, CHUNK), first)
            body(task, taps.index, g.plus(start, first), place, g.times(taps.index, g.parameter("all_pixels")), tail)

    def clamped_offset(self, task, plane, at, axis: int, tail):
        """Not-a-number passes through."""
        g = self.g
        channel = g.plus(g.times(plane, 2), g.times(g.parameter("all_pixels"), axis))
        x = g.load_block(tail, task.offset, channel, at)
        for bound, relation in ((-FARTHEST, "<"), (FARTHEST, ">")):
            x = g.ir.select(g.ir.fcmp_ordered(relation, x, g.constant(bound)), g.constant(bound), x)
        return x

    def low_corner(self, offset, at, tap, axis: int):
        """(whole coordinate of the corner before the sample, clamped and counted from the border's edge; fraction).

        The fraction comes from the offset alone, so it does not lose bits to large coordinates.
        """
        g, letter = self.g, "yx"[axis]
        magic = g.constant(g.element.magic)
        rounded = g.sub(g.add(offset, magic), magic)
        too_large = g.ir.fcmp_ordered(">", rounded, offset)
        whole = g.ir.select(too_large, g.sub(rounded, g.constant(1)), rounded)
        base = g.add(g.load(g.pointer(f"pixel_{letter}"), at), g.load_splat(g.pointer(f"tap_{letter}"), tap))
        low = g.add(g.add(base, whole), g.constant(BORDER))
        low = g.minimum(g.maximum(low, g.constant(0)), g.load_splat(g.pointer("limits"), axis))
        return low, g.sub(offset, whole)

    def find_corners(self, task, tap, at, place, plane, tail) -> None:
        g = self.g
        (y, fy), (x, fx) = (
            self.low_corner(self.clamped_offset(task, plane, at, axis, tail), at, tap, axis) for axis in (0, 1)
        )
        row_length = g.ir.fptosi(g.load_splat(g.pointer("limits"), 2), g.bits)
        address = g.ir.add(g.ir.mul(g.ir.fptosi(y, g.bits), row_length), g.ir.fptosi(x, g.bits))
        g.store(g.ir.bitcast(address, g.vector), task.address, place)
        m = g.load_block(tail, task.mask, plane, at) if self.v.modulated else g.constant(1)
        lower = g.mul(fy, m)
        upper = g.sub(m, lower)
        for i, vertical in enumerate((upper, lower)):
            right = g.mul(vertical, fx)
            g.store(g.sub(vertical, right), getattr(task, f"weight{2 * i}"), place)
            g.store(right, getattr(task, f"weight{2 * i + 1}"), place)
        if self.v.backward:
            for name, value in (("fy", fy), ("fx", fx), ("modulation", m)):
                g.store(value, getattr(task, name), place)

    def corners(self, task, pixel, tap):
        """(offset of the first corner in the image, offsets of the others from it, the four weights)."""
        g, place = self.g, self.g.plus(self.g.times(tap, CHUNK), pixel)
        bits = g.ir.bitcast(g.ir.load(g.at(task.address, place)), g.element.bits_type)
        address = bits if g.element.bits_type == INT64 else g.ir.sext(bits, INT64)
        right, down = g.parameter("pixel_stride"), g.parameter("row_stride")
        weights = [g.load_splat(getattr(task, f"weight{i}"), place) for i in range(CORNERS)]
        return g.times(address, right), (0, right, down, g.plus(right, down)), weights

    def column(self, task, start, pixel, tap):
        g = self.g
        row = g.times(g.plus(start, pixel), g.parameter("columns_pixel"))
        return g.at(task.columns, row, g.times(tap, g.parameter("columns_tap")))

    def weighted_sum(self, values, weights):
        total = self.g.mul(values[0], weights[0])
        for value, weight in zip(values[1:], weights[1:], strict=True):
            total = self.g.fma(value, weight, total)
        return total


class ForwardKernel(SamplingKernel):
    def sample(self, task, start, pixel, tap) -> None:
        g = self.g
        first, others, weights = self.corners(task, pixel, tap)
        places = [g.at(task.image, first, other) for other in others]
        column = self.column(task, start, pixel, tap)
        with g.loop(task.blocks) as loop:
            at = g.times(loop.index, self.v.width)
            g.store(self.weighted_sum([g.load(place, at) for place in places], weights), column, at)


class BackwardKernel(SamplingKernel):
    def sample(self, task, start, pixel, tap) -> None:
        g, width = self.g, self.v.width
        first, others, weights = self.corners(task, pixel, tap)
        places = [g.at(task.image, first, other) for other in others]
        targets = [g.at(task.dimage, first, other) for other in others]
        column = self.column(task, start, pixel, tap)
        with g.loop(task.blocks, carry=[g.constant(0)] * CORNERS) as loop:
            at = g.times(loop.index, width)
            gradient = g.load(column, at)
            values = [g.load(place, at) for place in places]
            g.store(self.weighted_sum(values, weights), column, at)
            for weight, target in zip(weights, targets, strict=True):
                g.store(g.fma(gradient, weight, g.load(target, at)), target, at)
            loop.carry_on([g.fma(gradient, v, s) for v, s in zip(values, loop.values, strict=True)])
        for i, total in enumerate(loop.results):
            row = g.plus(g.times(g.plus(g.times(tap, CORNERS), i), CHUNK), pixel)
            g.store(total, task.sums, g.times(row, width))

    def finish(self, task, tap, at, place, plane, tail) -> None:
        """Gradients of offset and mask for `width` pixels, from s_ij."""
        g, width = self.g, self.v.width
        pixel = g.remainder(place, CHUNK)
        s = []
        for i in range(CORNERS):
            row = g.at(task.sums, g.times(g.plus(g.times(g.plus(g.times(tap, CORNERS), i), CHUNK), pixel), width))
            g.sum_rows(row, row)
            s.append(g.load(row))
        fy, fx, m = (g.load(getattr(task, name), place) for name in ("fy", "fx", "modulation"))
        upper, lower = (g.fma(fx, g.sub(s[i + 1], s[i]), s[i]) for i in (0, 2))  # sums along x
        left, right = g.sub(s[2], s[0]), g.sub(s[3], s[1])
        dy = g.mul(m, g.fma(fx, g.sub(right, left), left))
        above, below = g.sub(s[1], s[0]), g.sub(s[3], s[2])
        dx = g.mul(m, g.fma(fy, g.sub(below, above), above))
        channel = g.times(plane, 2)
        g.store_block(dy, tail, task.doffset, channel, at)
        g.store_block(dx, tail, task.doffset, g.plus(channel, g.parameter("all_pixels")), at)
        if self.v.modulated:
            g.store_block(g.fma(fy, g.sub(lower, upper), upper), tail, task.dmask, plane, at)
