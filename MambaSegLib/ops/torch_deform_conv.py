"""Modulated deformable convolution in plain torch operations: any device, little memory, own backward.

Tap by tap and a block of pixels at a time: the four corners of a sample are rows of the channels-last image, so reading
them is `index_select` and their gradient `index_add_`; each tap's samples are multiplied with its matrix at once.
Nothing kH*kW times the size of the input exists, and the backward pass samples again. A border of two zero pixels
spares all tests for corners outside: coordinates are clamped to [-2, H] x [-2, W], where all four corners are zero.

Below: n output pixels of the whole batch; G offset groups; K taps; corners in the order (0,0), (0,1), (1,0), (1,1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .llvm_engine import not_traced

BORDER = 2
FARTHEST = 2.0**20  # offsets are clamped to this: outside any image, and safe to turn into integers
# Elements of one block of samples: in the cache on a CPU, enough to fill an accelerator.
BLOCK_ELEMENTS = {"cpu": 1 << 18}
BLOCK_ELEMENTS_ACCELERATOR = 1 << 24


@not_traced  # torch's compiler would unroll the loops over blocks and taps
def conv(x, offset, weight, bias, mask, stride, padding, dilation) -> Tensor:
    """Shapes as in `deform_conv.reference`; any device, fp32 or fp64."""
    return _DeformConv.apply(x, offset, weight, bias, mask, stride, padding, dilation)


class _Rows:
    """Operands of a convolution with pixels as rows, shared by the forward and the backward pass."""

    def __init__(self, x, offset, weight, mask, stride, padding, dilation):
        batch, channels, height, width = x.shape
        self.taps = weight.shape[2] * weight.shape[3]
        self.G, self.groups = offset.shape[1] // (2 * self.taps), channels // weight.shape[1]
        self.padded = (batch, height + 2 * BORDER, width + 2 * BORDER, channels)
        self.x_shape, self.output = x.shape, (batch, *offset.shape[2:])
        self.row_length = self.padded[2]
        self.largest = x.new_tensor([height, width]).view(2, 1, 1)
        image = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[BORDER] * 4))
        self.image = image.reshape(-1, channels // self.G)
        self.base = self._pixel_table(offset, stride, padding)
        rows, columns = torch.meshgrid(*(torch.arange(k) for k in weight.shape[2:]), indexing="ij")
        steps = torch.stack([rows.flatten() * dilation[0], columns.flatten() * dilation[1]], 1)
        self.steps = steps.to(x)
        self.offset = self._rows_of(offset.unflatten(1, (self.G, self.taps, 2)))  # (n, K, G, 2)
        self.mask = None if mask is None else self._rows_of(mask.unflatten(1, (self.G, self.taps, 1)))
        # (K, groups, C / groups, Cout / groups)
        self.matrices = weight.detach().flatten(2).unflatten(0, (self.groups, -1)).permute(3, 0, 2, 1).contiguous()
        size = max(1, BLOCK_ELEMENTS.get(x.device.type, BLOCK_ELEMENTS_ACCELERATOR) // channels)
        pixels = self.offset.shape[0]
        self.blocks = [slice(i, min(i + size, pixels)) for i in range(0, pixels, size)]

    def _rows_of(self, t: Tensor) -> Tensor:
        """(B, G, K, c, Ho, Wo) -> (n, K, G, c)."""
        return t.permute(0, 4, 5, 2, 1, 3).flatten(0, 2)

    def from_rows(self, t: Tensor) -> Tensor:
        """The inverse of _rows_of, with all channels in one dimension."""
        return t.unflatten(0, self.output).permute(0, 4, 3, 5, 1, 2).flatten(1, 3)

    def _pixel_table(self, offset, stride, padding) -> Tensor:
        """(n, 3): image number, and the coordinates of the first tap."""
        batch, height, width = self.output
        axes = torch.arange(batch), torch.arange(height) * stride[0] - padding[0]
        grid = torch.meshgrid(*axes, torch.arange(width) * stride[1] - padding[1], indexing="ij")
        return torch.stack([t.flatten() for t in grid], 1).to(offset)

    def place(self, pixels: slice):
        """Of every tap: row of the first corner (K, n, G), fractions (K, 2, n, G), weights of the corners (K, 4, n, G).

        The fractions come from the offsets alone, so they do not lose bits to large coordinates.
        """
        offset = self.offset[pixels].permute(1, 3, 0, 2).clamp(-FARTHEST, FARTHEST)
        whole = offset.floor()
        base = self.base[pixels].t().unsqueeze(-1)  # (3, n, 1)
        low = (base[1:] + self.steps[..., None, None] + whole).clamp(min=-BORDER)
        low = torch.minimum(low, self.largest).nan_to_num(nan=-BORDER).long() + BORDER
        row = (base[0].long() * self.padded[1] + low[:, 0]) * self.row_length + low[:, 1]
        row = row * self.G + torch.arange(self.G, device=row.device)
        fraction = offset - whole
        (fy, fx), m = fraction.unbind(1), 1 if self.mask is None else self.mask[pixels, ..., 0].transpose(0, 1)
        lower = fy * m
        upper = m - lower
        return row, fraction, torch.stack([upper - upper * fx, upper * fx, lower - lower * fx, lower * fx], 1)

    def corner_rows(self, row: Tensor) -> list[Tensor]:
        right, down = self.G, self.G * self.row_length
        return [(row + step).flatten() for step in (0, right, down, down + right)]

    def read(self, rows: list[Tensor], shape) -> list[Tensor]:
        """The corners, each (n, G, C / G)."""
        return [self.image.index_select(0, row).view(*shape, -1) for row in rows]

    def multiply(self, rows: Tensor, matrices: Tensor) -> Tensor:
        """(n, groups * i) times (groups, i, o) -> (n, groups * o)."""
        if self.groups == 1:
            return rows @ matrices[0]
        by_group = rows.unflatten(1, (self.groups, -1)).transpose(0, 1)
        return torch.bmm(by_group, matrices).transpose(0, 1).flatten(1)


def _weighted_sum(corners: list[Tensor], weights: Tensor) -> Tensor:
    total = corners[0] * weights[0, ..., None]
    for corner, weight in zip(corners[1:], weights[1:], strict=True):
        total.addcmul_(corner, weight[..., None])
    return total.flatten(1)


class _DeformConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, weight, bias, mask, *geometry):
        rows = _Rows(x, offset, weight, mask, *geometry)
        y = x.new_empty(rows.offset.shape[0], weight.shape[0])
        for pixels in rows.blocks:
            total = 0 if bias is None else bias
            first, _, shares = rows.place(pixels)
            for row, corner_shares, matrix in zip(first, shares, rows.matrices, strict=True):
                samples = _weighted_sum(rows.read(rows.corner_rows(row), row.shape), corner_shares)
                total = total + rows.multiply(samples, matrix)
            y[pixels] = total
        ctx.save_for_backward(x, offset, weight, bias, mask)
        ctx.geometry = geometry
        return y.unflatten(0, rows.output).permute(0, 3, 1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, offset, weight, bias, mask = ctx.saved_tensors
        rows = _Rows(x, offset, weight, mask, *ctx.geometry)
        gy_rows = gy.permute(0, 2, 3, 1).flatten(0, 2)
        dimage, dmatrices = torch.zeros_like(rows.image), torch.zeros_like(rows.matrices)
        doffset = torch.empty_like(rows.offset)
        dmask = None if mask is None else torch.empty_like(rows.mask)
        for pixels in rows.blocks:
            sums = _block_gradients(rows, rows.place(pixels), gy_rows[pixels], dimage, dmatrices)
            doffset[pixels] = sums[:, :2].permute(2, 0, 3, 1)
            if dmask is not None:
                doffset[pixels] *= rows.mask[pixels]
                dmask[pixels] = sums[:, 2:].permute(2, 0, 3, 1)
        inner = slice(BORDER, -BORDER)
        dx = dimage.view(rows.padded)[:, inner, inner].permute(0, 3, 1, 2).contiguous()
        dweight = dmatrices.permute(1, 3, 2, 0).reshape(weight.shape)
        dbias = None if bias is None else gy.sum((0, 2, 3))
        dmask = None if mask is None else rows.from_rows(dmask)
        return dx, rows.from_rows(doffset), dweight, dbias, dmask, None, None, None


def _block_gradients(rows: _Rows, places, gy: Tensor, dimage: Tensor, dmatrices: Tensor) -> Tensor:
    """Adds what a block of pixels contributes to ``dimage`` and ``dmatrices``; returns derivatives by y, x and the
    modulation (K, 3, n, G), those by y and x still without the modulation."""
    products = []
    by_group = gy.unflatten(1, (rows.groups, -1)).transpose(0, 1)
    for tap, (row, _, weights) in enumerate(zip(*places, strict=True)):
        corner_rows = rows.corner_rows(row)
        corners = rows.read(corner_rows, row.shape)
        samples = _weighted_sum(corners, weights).unflatten(1, (rows.groups, -1))
        dmatrices[tap] += torch.bmm(samples.permute(1, 2, 0), by_group)
        gradient = rows.multiply(gy, rows.matrices[tap].transpose(1, 2)).view(*row.shape, -1)  # of the samples
        for corner_row, weight in zip(corner_rows, weights, strict=True):
            dimage.index_add_(0, corner_row, (gradient * weight[..., None]).flatten(0, 1))
        products.append(torch.stack([(gradient * corner).sum(-1) for corner in corners]))
    s00, s01, s10, s11 = torch.stack(products, 1)
    fy, fx = places[1].unbind(1)
    upper, lower = torch.lerp(s00, s01, fx), torch.lerp(s10, s11, fx)
    along_x = torch.lerp(s01 - s00, s11 - s10, fy)
    return torch.stack([lower - upper, along_x, torch.lerp(upper, lower, fy)], 1)
