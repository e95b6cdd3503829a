"""All networks: ``create(name, in_channels, out_channels, **hyper)``, ``names()``, ``spec(name)``."""

from . import (  # noqa: F401  (importing a network's file registers its variants)
    deco_mamba,
    mamba_unet,
    mm_unet,
    plain_unet,
    umamba,
    vm_unet,
)
from .registry import Figure, NetworkSpec, create, names, spec

__all__ = ["Figure", "NetworkSpec", "create", "names", "spec"]
