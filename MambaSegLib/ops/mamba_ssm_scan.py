"""The authors' CUDA kernel, where the package ``mamba-ssm`` is installed and works."""

import functools


@functools.cache
def why_not() -> str | None:
    """None where the kernel can be imported, else the reason."""
    try:
        import torch
        from mamba_ssm.ops.selective_scan_interface import selective_scan_cuda, selective_scan_fn  # noqa: F401
    except ImportError as error:
        return f"mamba-ssm is not installed or incomplete ({error})"
    except Exception as error:  # half-built packages raise all sorts of things at import
        return f"mamba-ssm does not import: {type(error).__name__}: {error}"
    if selective_scan_cuda is None:
        return "mamba-ssm was installed without its selective_scan_cuda extension"
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """Channels-last shapes as in ``selective_scan.reference``; CUDA fp32 tensors."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    first = [None if x is None else x.transpose(1, 2).contiguous() for x in (u, delta, z)]
    B, C = (x.permute(0, 2, 3, 1).contiguous() for x in (B, C))
    y = selective_scan_fn(first[0], first[1], A.contiguous(), B, C, D, first[2], delta_bias, delta_softplus)
    return y.transpose(1, 2)
