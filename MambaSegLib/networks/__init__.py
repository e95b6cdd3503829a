"""All networks: ``create(name, in_channels, out_channels, **hyper)``, ``names()``, ``spec(name)``."""

from . import mm_unet  # noqa: F401  (importing a network's file registers its variants)
from .registry import Figure, NetworkSpec, create, names, spec

__all__ = ["Figure", "NetworkSpec", "create", "names", "spec"]
