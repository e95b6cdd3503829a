"""Modulated deformable convolution in two dimensions (Zhu et al. 2018, arXiv 1811.11168): one law, several backends.

For the output pixel (i, j), with K = kH * kW taps and a tap k = (r, c)::

    y_k = i * stride - padding + r * dilation + dy_k[i, j]          x_k likewise
    out[:, i, j] = bias + sum_k weight[:, :, k] (m_k[i, j] * sample(x, y_k, x_k))

``sample`` is bilinear; pixels outside the image are zero. Arguments are laid out as torchvision's ``deform_conv2d`` has
them, so that its weights and habits carry over: offset channels are dy_0, dx_0, dy_1, dx_1, ... of each offset group,
which is a range of channels with offsets and modulation of their own.
"""

import functools
import math

import torch
from torch import Tensor

from . import llvm_deform_conv, llvm_engine, torch_deform_conv
from .backends import Backend, Ladder, autocast_off


def reference(x, offset, weight, bias, mask, stride, padding, dilation) -> Tensor:
    """The specification: gather four corners for every sample.

    Args:
        x: (B, C, H, W).
        offset: (B, 2 * G * K, Ho, Wo), G offset groups.
        weight: (Cout, C / groups, kH, kW).
        bias: (Cout,) or None.
        mask: (B, G * K, Ho, Wo) or None, the modulation m.
        stride, padding, dilation: pairs of ints (vertical, horizontal).

    Returns:
        (B, Cout, Ho, Wo).
    """
    _, channels, height, width = x.shape
    (rows, columns), (out_height, out_width) = weight.shape[2:], offset.shape[2:]
    taps, groups = rows * columns, channels // weight.shape[1]
    by_tap = offset.unflatten(1, (-1, taps, 2)).clamp(-(2.0**20), 2.0**20)  # (B, G, K, 2, Ho, Wo)
    whole = by_tap.detach().floor()
    fy, fx = (by_tap - whole).unbind(3)
    r, c = (torch.arange(taps).view(-1, 1, 1) // columns, torch.arange(taps).view(-1, 1, 1) % columns)
    y = torch.arange(out_height).view(-1, 1) * stride[0] - padding[0] + r * dilation[0]
    x_ = torch.arange(out_width) * stride[1] - padding[1] + c * dilation[1]
    y, x_ = (t.to(x.device) + w.nan_to_num().long() for t, w in zip((y, x_), whole.unbind(3), strict=True))
    image = x.unflatten(1, (y.shape[1], -1)).flatten(3)  # (B, G, C / G, H * W)
    samples = 0
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y_at, x_at = y + down, x_ + right
        inside = (y_at >= 0) & (y_at < height) & (x_at >= 0) & (x_at < width)
        index = (y_at.clamp(0, height - 1) * width + x_at.clamp(0, width - 1)).flatten(2).unsqueeze(2)
        corner = image.gather(3, index.expand(-1, -1, image.shape[2], -1)).unflatten(3, y.shape[2:])
        share = (fy if down else 1 - fy) * (fx if right else 1 - fx) * inside  # (B, G, K, Ho, Wo)
        samples = samples + corner * share.unsqueeze(2)
    if mask is not None:
        samples = samples * mask.unflatten(1, (-1, 1, taps))
    samples = samples.flatten(1, 2).unflatten(1, (groups, -1)).flatten(4)  # (B, groups, C / groups, K, Ho * Wo)
    matrices = weight.flatten(2).unflatten(0, (groups, -1))
    out = torch.einsum("bgckp,gock->bgop", samples, matrices).flatten(1, 2).unflatten(2, (out_height, out_width))
    return out if bias is None else out + bias.view(-1, 1, 1)


@functools.cache
def _torchvision_why_not() -> str | None:
    try:
        import torchvision.ops

        torchvision.ops.deform_conv2d  # noqa: B018
        torch.ops.torchvision.deform_conv2d  # noqa: B018  # fails where the compiled part does not fit this torch
    except ImportError as error:
        return f"torchvision is not installed ({error})"
    except Exception as error:  # a torchvision for another torch raises all sorts of things
        return f"torchvision does not work with this torch: {type(error).__name__}: {error}"
    return None


def _torchvision(x, offset, weight, bias, mask, stride, padding, dilation) -> Tensor:
    from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

    return torchvision_deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)


def _disagreement(
    function, device_type, dtype, kernel, stride, dilation, groups, offset_groups, channels, bias, mask, gradients
) -> float:
    """Largest scale-relative difference of a backend from ``reference`` over the result and all gradients."""
    generator = torch.Generator().manual_seed(20181127)
    channels *= math.lcm(groups, offset_groups)
    height, width = (n + d * (k - 1) for n, d, k in zip((5, 7), dilation, kernel, strict=True))
    x = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)
    padding = (kernel[0] // 2, kernel[1] // 2)
    size = _output_size(x.shape, kernel, stride, padding, dilation)
    taps = kernel[0] * kernel[1]
    shapes = [(2, 2 * offset_groups * taps, *size), (2 * groups, channels // groups, *kernel), (2 * groups,)]
    shapes += [(2, offset_groups * taps, *size), (2, 2 * groups, *size)]
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    tensors[0] *= 3  # offsets of several pixels, some outside the image
    x, offset, weight, b, m, upstream = (t.to(device_type, getattr(torch, dtype)) for t in (x, *tensors))
    inputs = [x, offset, weight, b if bias else None, m if mask else None]
    wanted = [t.requires_grad_(gradients) for t in inputs if t is not None]

    def outputs(f):
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            y = f(*inputs, stride, padding, dilation)
            return [y, *torch.autograd.grad(y, wanted, upstream)] if gradients else [y]

    pairs = zip(outputs(function), outputs(reference), strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item() for a, b in pairs)


LADDER = Ladder(
    "deform_conv2d",
    (
        # On a CPU torchvision samples one number at a time and stores kH*kW copies of 32 images.
        Backend("jit", llvm_deform_conv.conv, ("cpu",), ("float32", "float64"), llvm_engine.why_not),
        Backend("torchvision", _torchvision, ("cpu", "cuda"), ("float32", "float64"), _torchvision_why_not),
        Backend("torch", torch_deform_conv.conv),
        Backend("reference", reference),
    ),
    _disagreement,
    {"float32": 2e-5, "float64": 1e-10},
)


def deform_conv2d(x, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None, backend="auto") -> Tensor:
    """Modulated deformable convolution.

    Args:
        x: (B, C, H, W).
        offset: (B, 2 * G * kH * kW, Ho, Wo), pairs (y, x) in pixels; G offset groups.
        weight: (Cout, C / groups, kH, kW).
        bias: (Cout,) or None.
        stride, padding, dilation: an int, or a pair (vertical, horizontal).
        mask: (B, G * kH * kW, Ho, Wo), or None for no modulation.
        backend: ``auto``, ``jit``, ``torchvision``, ``torch`` or ``reference``.

    Returns:
        (B, Cout, Ho, Wo), in the dtype of ``x``.

    Raises:
        ValueError: shapes do not fit together.
        UserError: the backend asked for cannot be had.
    """
    stride, padding, dilation = (_pair(v) for v in (stride, padding, dilation))
    _check_shapes(x, offset, weight, bias, stride, padding, dilation, mask)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    tensors = [None if t is None else t.to(dtype) for t in (x, offset, weight, bias, mask)]
    with autocast_off(x.device.type):
        function = LADDER.choose(backend, _kind(*tensors, stride, dilation)).function
        return function(*tensors, stride, padding, dilation).to(x.dtype)


def _kind(x, offset, weight, bias, mask, stride, dilation) -> dict:
    """What the self-check is told about a call."""
    kernel, groups = tuple(weight.shape[2:]), x.shape[1] // weight.shape[1]
    offset_groups = offset.shape[1] // (2 * kernel[0] * kernel[1])
    alike = x.shape[1] // math.lcm(groups, offset_groups)  # channels with the same offsets and matrices
    needed = any(t is not None and t.requires_grad for t in (x, offset, weight, bias, mask))
    return {
        "device_type": x.device.type,
        "dtype": str(x.dtype).removeprefix("torch."),
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "offset_groups": offset_groups,
        "channels": alike if alike <= 128 else 128 + alike % 16,  # decides on the vectors that a kernel works with
        "bias": bias is not None,
        "mask": mask is not None,
        "gradients": torch.is_grad_enabled() and needed,
    }


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(int(v) for v in value)


def _output_size(image, kernel, stride, padding, dilation) -> tuple[int, int]:
    sizes = zip(image[2:], kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)


def _check_shapes(x, offset, weight, bias, stride, padding, dilation, mask) -> None:
    if x.dim() != 4 or offset.dim() != 4 or weight.dim() != 4:
        shapes = [tuple(t.shape) for t in (x, offset, weight)]
        raise ValueError(f"expected x (B, C, H, W), offset (B, 2GK, Ho, Wo), weight (Cout, C/groups, kH, kW): {shapes}")
    batch, channels = x.shape[:2]
    taps = weight.shape[2] * weight.shape[3]
    if channels % weight.shape[1] or weight.shape[0] % (channels // weight.shape[1]):
        raise ValueError(f"{channels} channels and a weight {tuple(weight.shape)} do not divide into groups")
    groups = offset.shape[1] // (2 * taps)
    if offset.shape[1] % (2 * taps) or not groups or channels % groups:
        raise ValueError(
            f"expected 2 * G * {taps} offset channels with G a divisor of {channels}, got {offset.shape[1]}"
        )
    size = _output_size(x.shape, weight.shape[2:], stride, padding, dilation)
    if min(size) < 1 or min(x.shape) < 1:
        raise ValueError(f"an image {tuple(x.shape)} with kernel {tuple(weight.shape[2:])} leaves no output")
    expected = {"offset": (offset, (batch, offset.shape[1], *size)), "bias": (bias, (weight.shape[0],))}
    expected["mask"] = (mask, (batch, groups * taps, *size))
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
