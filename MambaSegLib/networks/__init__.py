"""All networks: ``create(name, in_channels, out_channels, **hyper)``, ``names()``, ``spec(name)``.

``mamba=False`` builds the same network without its state-space part, to see what Mamba adds, where that is defined:
Deco-Mamba, Attention-Mamba, MM-UNet, U-Mamba, UMambaAdj, U-Mamba2, SegMamba and nnMamba. The others (VM-UNet,
Mamba-UNet, Swin-UMamba, VMamba, LightM-UNet, UltraLight VM-UNet) are made of Mamba blocks: nothing would be left.
"""

from . import (  # noqa: F401  (importing a network's file registers its variants)
    attention_mamba,
    deco_mamba,
    lightm_unet,
    mamba_unet,
    mm_unet,
    nnmamba,
    plain_unet,
    segmamba,
    swin_umamba,
    ultralight_vm_unet,
    umamba,
    vm_unet,
    vmamba,
)
from .registry import Figure, NetworkSpec, create, names, spec

__all__ = ["Figure", "NetworkSpec", "create", "names", "spec"]
