"""Modulated deformable convolution on the CPU: kernels compiled by llvmlite sample, torch multiplies matrices.

`conv` is the backend "jit" of `deform_conv`; `llvm_engine.why_not()` says whether it can run here. Samples are made
for a tile of pixels at a time, small enough to be multiplied while they are in the cache; nothing kH*kW times the size
of the input exists, and the backward pass samples again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType

import torch
from torch.autograd.function import once_differentiable

from . import llvm_engine

# Single-threaded seconds per sample and channel, measured with AVX2; they only choose the thread count.
FORWARD_COST_S, BACKWARD_COST_S = 0.5e-9, 1.5e-9
TILE_BYTES = 1 << 22  # measured: below 2 MiB the calls cost, above 8 MiB the cache misses


@llvm_engine.not_traced
def conv(x, offset, weight, bias, mask, stride, padding, dilation) -> torch.Tensor:
    """Shapes as in `deform_conv.reference`, all tensors of one type, float32 or float64."""
    return _DeformConv.apply(x, offset, weight, bias, mask, stride, padding, dilation)


class _DeformConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, weight, bias, mask, *geometry):
        ctx.save_for_backward(x, offset, weight, bias, mask)
        ctx.geometry = geometry
        return _forward(x, offset, weight, bias, mask, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        gradients = _backward(gy, *ctx.saved_tensors, *ctx.geometry)
        wanted = (g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False))
        return *wanted, None, None, None


def _forward(x, offset, weight, bias, mask, stride, padding, dilation):
    call = _Call(x, offset, weight, mask, stride, padding, dilation, backward=False)
    y = x.new_empty(x.shape[0], weight.shape[0], offset.shape[2] * offset.shape[3])
    by_group = y.unflatten(1, (call.groups, -1))
    for images, pixels in call.tiles():
        columns = call.sample(images, pixels)
        for group, matrix in enumerate(call.matrices):
            target = by_group[images, group, :, pixels]
            result = torch.mm(matrix, columns[group].flatten(0, 1).t())
            target.copy_(result.unflatten(1, (target.shape[0], -1)).transpose(0, 1))
    if bias is not None:
        y += bias.view(-1, 1)
    return y.unflatten(2, offset.shape[2:])


def _backward(gy, x, offset, weight, bias, mask, stride, padding, dilation):
    """Gradients of x, offset, weight, bias and mask; those of absent operands are None."""
    call = _Call(x, offset, weight, mask, stride, padding, dilation, backward=True)
    by_group = gy.flatten(2).unflatten(1, (call.groups, -1))
    dmatrices = torch.zeros_like(call.matrices)
    for images, pixels in call.tiles():
        columns = call.columns(images, pixels)
        rows = [by_group[images, group, :, pixels].transpose(0, 1).flatten(1) for group in range(call.groups)]
        for group, matrix in enumerate(call.matrices):
            torch.mm(rows[group].t(), matrix, out=columns[group].flatten(0, 1))
        call.sample(images, pixels, columns)
        for group in range(call.groups):
            dmatrices[group].addmm_(rows[group], columns[group].flatten(0, 1))
    dbias = None if bias is None else gy.sum((0, 2, 3))
    doffset, dmask = call.summed_partial_gradients()
    return call.image_gradient(), doffset, call.weight_from(dmatrices), dbias, dmask


class _Call:
    """One convolution: sizes, packed operands, and runs of the sampling kernel on tiles of pixels."""

    def __init__(self, x, offset, weight, mask, stride, padding, dilation, backward):
        self.x, self.offset, self.mask, self.weight_shape = x, offset, mask, weight.shape
        self.taps = weight.shape[2] * weight.shape[3]
        self.all_pixels = offset.shape[2] * offset.shape[3]
        offset_groups = offset.shape[1] // (2 * self.taps)
        self.groups = x.shape[1] // weight.shape[1]
        self.segments = math.lcm(offset_groups, self.groups)
        self.segment_channels = x.shape[1] // self.segments
        self.width = _width(self.segment_channels, x.dtype)
        self.blocks = -(-self.segment_channels // self.width)
        self.matrix_width = self.segments // self.groups * self.blocks * self.width  # channels of a weight group
        self.matrices = self._matrices(weight)
        self.variant = _ir().Variant(backward, str(x.dtype).removeprefix("torch."), self.width, mask is not None)
        self.kernel = llvm_engine.kernel(self.variant, lambda: _ir().build(self.variant))
        cost_s = BACKWARD_COST_S if backward else FORWARD_COST_S
        self.cost_per_pixel_s = self.taps * self.segments * self.blocks * self.width * cost_s
        self._room = None
        self._pack(offset_groups, stride, padding, dilation)
        if backward:
            self._prepare_gradients()

    def _padded(self, t):
        """(..., C) -> (..., segments, channels of a segment and zeros)."""
        t = t.unflatten(-1, (self.segments, self.segment_channels))
        return torch.nn.functional.pad(t, (0, self.blocks * self.width - self.segment_channels))

    def _matrices(self, weight):
        """(Cout, C / groups, kH, kW) -> (groups, Cout / groups, taps * padded channels)."""
        w = weight.detach().flatten(2).unflatten(0, (self.groups, -1))
        w = w.unflatten(2, (self.segments // self.groups, self.segment_channels)).permute(0, 1, 4, 2, 3)
        w = torch.nn.functional.pad(w, (0, self.blocks * self.width - self.segment_channels))
        return w.flatten(2).contiguous()

    def weight_from(self, matrices):
        """The inverse of _matrices."""
        w = matrices.unflatten(2, (self.taps, self.segments // self.groups, self.blocks * self.width))
        return w[..., : self.segment_channels].permute(0, 1, 3, 4, 2).reshape(self.weight_shape)

    def _pack(self, offset_groups, stride, padding, dilation) -> None:
        """The image with its border, tables of coordinates, and the parameters that are the same for all tiles."""
        border, (batch, _, height, width) = _ir().BORDER, self.x.shape
        self.image = self.x.new_zeros(
            batch, height + 2 * border, width + 2 * border, self.segments, self.blocks * self.width
        )
        self.inner = slice(None), slice(border, -border), slice(border, -border), slice(None)
        channels = slice(0, self.segment_channels)
        self.image[(*self.inner, channels)] = self.x.unflatten(1, (self.segments, -1)).permute(0, 3, 4, 1, 2)
        tables = _tables(self.x, self.offset.shape[2:], self.weight_shape[2:], stride, padding, dilation, border)
        self.operands = {"image": self.image, "offset": self.offset.contiguous(), **tables}
        if self.mask is not None:
            self.operands["mask"] = self.mask.contiguous()
        self.values = {
            "segments": self.segments,
            "blocks": self.blocks,
            "segments_per_offset_group": self.segments // offset_groups,
            "segments_per_weight_group": self.segments // self.groups,
            "taps": self.taps,
            "all_pixels": self.all_pixels,
            "image_stride": self.image.stride(0),
            "row_stride": self.image.stride(1),
            "pixel_stride": self.image.stride(2),
            "offset_stride": self.offset.shape[1] * self.all_pixels,
            "mask_stride": self.offset.shape[1] // 2 * self.all_pixels,
            "columns_pixel": self.taps * self.matrix_width,
            "columns_tap": self.matrix_width,
        }

    def _prepare_gradients(self) -> None:
        """Buffers that the kernel adds to or, per part of the channels, writes to."""
        threads = llvm_engine.thread_count(self.x.shape[0] * self.all_pixels * self.cost_per_pixel_s)
        self.parts = min(self.blocks, -(-threads // (self.segments * min(self.x.shape[0], self._images_per_tile()))))
        copies = self.values["segments_per_offset_group"] * self.parts
        self.operands["dimage"] = torch.zeros_like(self.image)
        self.operands["doffset"] = self.offset.new_empty(copies, *self.offset.shape)
        self.values["doffset_part"] = self.operands["doffset"].stride(0)
        if self.mask is not None:
            self.operands["dmask"] = self.mask.new_empty(copies, *self.mask.shape)
            self.values["dmask_part"] = self.operands["dmask"].stride(0)

    def _pixels_per_tile(self) -> int:
        per_pixel = self.groups * self.taps * self.matrix_width * self.x.element_size()
        chunk = _ir().CHUNK
        return max(4 * chunk, TILE_BYTES // per_pixel // chunk * chunk)

    def _images_per_tile(self) -> int:
        return max(1, self._pixels_per_tile() // self.all_pixels)

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """(images, pixels): some of one image, or all of several."""
        images, pixels = self._images_per_tile(), self._pixels_per_tile()
        for image in range(0, self.x.shape[0], images):
            for pixel in range(0, self.all_pixels, pixels):
                stop = min(pixel + pixels, self.all_pixels)
                yield slice(image, min(image + images, self.x.shape[0])), slice(pixel, stop)

    def columns(self, images: slice, pixels: slice):
        """Room for the samples of a tile: (groups, images, pixels, taps * channels), the same for every tile."""
        sizes = self.groups, images.stop - images.start, pixels.stop - pixels.start, self.taps * self.matrix_width
        if self._room is None:  # the first tile is the largest; fresh memory for each would be paid in page faults
            self._room = self.x.new_empty(math.prod(sizes))
        return self._room[: math.prod(sizes)].view(sizes)

    def sample(self, images: slice, pixels: slice, columns=None):
        """Runs the kernel on a tile; returns the samples."""
        columns = self.columns(images, pixels) if columns is None else columns
        count, n = columns.shape[1:3]
        work_s = count * n * self.cost_per_pixel_s
        threads, chunk = llvm_engine.thread_count(work_s), _ir().CHUNK
        range_pixels, parts = -(-n // chunk) * chunk, 1
        if self.variant.backward:
            parts = self.parts
        elif threads > count * self.segments:
            range_pixels = max(chunk, n // (4 * threads) // chunk * chunk)
        ranges = -(-n // range_pixels)
        values = self.values | {name: self._address(name, images, pixels) for name in self.operands}
        values |= {"pixels": n, "range_pixels": range_pixels, "ranges": ranges, "parts": parts}
        values |= {"columns": columns.data_ptr(), "columns_group": columns.stride(0)}
        values["columns_image"] = columns.stride(1)
        scratch = self.taps * _ir().scratch_per_tap(self.variant)
        self.kernel.run(count * self.segments * parts * ranges, threads, scratch, self.x.dtype, values)
        return columns

    def _address(self, name: str, images: slice, pixels: slice) -> int:
        """Of a tile's first element."""
        tensor = self.operands[name]
        at = 0
        if name in ("image", "dimage"):
            at = images.start * tensor.stride(0)
        elif name.startswith("pixel_"):
            at = pixels.start
        elif tensor.dim() >= 4:  # offset, mask and their gradients, which have one dimension more
            at = images.start * tensor.stride(-4) + pixels.start
        return tensor.data_ptr() + at * tensor.element_size()

    def image_gradient(self):
        inner = self.operands["dimage"][self.inner][..., : self.segment_channels]
        return inner.permute(0, 3, 4, 1, 2).reshape(self.x.shape)

    def summed_partial_gradients(self):
        """doffset, and dmask or None."""
        found = [self.operands.get(name) for name in ("doffset", "dmask")]
        return [None if t is None else t[0] if t.shape[0] == 1 else t.sum(0) for t in found]


def _tables(x, output_size, kernel_size, stride, padding, dilation, border) -> dict[str, torch.Tensor]:
    """Coordinates of output pixels and taps, and the largest coordinates and the row length of the padded image."""
    steps = [torch.arange(n, dtype=x.dtype) * s - p for n, s, p in zip(output_size, stride, padding, strict=True)]
    taps = [torch.arange(n, dtype=x.dtype) * d for n, d in zip(kernel_size, dilation, strict=True)]
    tables = {}
    for name, (y, x_) in (("pixel", steps), ("tap", taps)):
        y, x_ = (t.flatten() for t in torch.meshgrid(y, x_, indexing="ij"))
        rest = 0 if name == "tap" else _ir().CHUNK  # vectors may read beyond the last pixel
        tables |= {f"{name}_y": torch.nn.functional.pad(y, (0, rest))}
        tables |= {f"{name}_x": torch.nn.functional.pad(x_, (0, rest))}
    height, width = x.shape[2:]
    limits = [height + border, width + border, width + 2 * border]
    return tables | {"limits": torch.tensor(limits, dtype=x.dtype)}


def _width(channels: int, dtype: torch.dtype) -> int:
    """The widest vector that pads the channels by less than an eighth, or else the one that pads least."""
    widths = [w for w in (16, 8, 4, 2) if w <= llvm_engine.vector_width(dtype)]
    padded = {w: -(-channels // w) * w for w in widths}
    return next((w for w in widths if padded[w] < 1.125 * channels), min(widths[:-1], key=padded.get))


def _ir() -> ModuleType:
    """The module that writes the kernels; it needs llvmlite, this one must be importable without."""
    from . import llvm_deform_conv_ir

    return llvm_deform_conv_ir
