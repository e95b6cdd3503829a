"""Weights from files that others made: read without running anything in them, loaded completely or not at all."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from .weights_file import read_file

# Where a checkpoint keeps its weights: nnU-Net, VMamba, timm and most others.
CONTAINERS = ("network_weights", "model", "state_dict", "model_state_dict", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
COUNTERS = ("total_ops", "total_params")  # left behind by the MAC counter thop


def read_weights(path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or a torch pickle, without wrapping prefixes and thop's counters.

    Raises:
        UserError: see ``weights_file.read_file``; or no weights in it.
    """
    return named_tensors(read_file(path), Path(path).name)


def load_encoder(network: nn.Module, path) -> list[str]:
    """Start a network's encoder from ImageNet weights; a training does so before its first step.

    Deco-Mamba takes PVTv2 and Swin (timm's and the authors' names), VM-UNet, Mamba-UNet and Swin-UMamba take VMamba of
    the first generation (``vssmtiny_dp01_ckpt_epoch_292.pth``, ``vmamba_small_e238_ema.pth``), the VMamba segmenters
    that of their own generation, Attention-Mamba a ResNet-18.

    Args:
        network: as ``registry.create`` made it.
        path: ``.safetensors``, or a pickle in any form that ``read_weights`` knows.

    Returns:
        Sentences on what was not taken over, for the user; empty: everything was.

    Raises:
        UserError: unreadable, weights of another encoder (nothing is changed then), or a network without pretraining.
    """
    if not hasattr(network, "load_encoder"):
        raise UserError(
            f"The network {type(network).__name__} has no encoder with ImageNet weights.",
            "Leave the encoder's weights out, or choose deco_mamba, swin_umamba, vm_unet, vmamba or attention_mamba.",
        )
    return network.load_encoder(read_weights(path), Path(path).name)


def named_tensors(content, name: str) -> dict[str, Tensor]:
    """The tensors of what a file held, wherever its authors keep them, without prefixes and counters.

    Raises:
        UserError: there are none; ``name`` is the file's, for the message.
    """
    for container in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
            break
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(t) for t in content.values()):
        raise UserError(
            f"{name} was expected to hold named tensors, or a dictionary of them under one of {', '.join(CONTAINERS)}.",
            "Choose the file with the network's weights.",
        )
    weights = {}
    for key, tensor in content.items():
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        if key.rpartition(".")[2] not in COUNTERS:
            weights[key] = tensor
    return weights


def load_strictly(module: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Load all weights into the module, or none.

    Args:
        weights: with the module's own names.
        what: where they come from, for the message.

    Raises:
        UserError: a tensor is missing, left over, or of another shape; says which.
    """
    state = module.state_dict()
    missing = [f"{k} is missing" for k in state if k not in weights]
    unexpected = [f"{k} has no place" for k in weights if k not in state]
    shapes = [
        f"{k} is {tuple(weights[k].shape)} instead of {tuple(t.shape)}"
        for k, t in state.items()
        if k in weights and weights[k].shape != t.shape
    ]
    faults = shapes + missing + unexpected
    if faults:
        listed = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise UserError(
            f"{what} does not fit this network: {listed}.", "Choose the variant, channels and classes it was made for."
        )
    module.load_state_dict(weights)


def fit_image_channels(weights: dict[str, Tensor], key: str, channels: int) -> dict[str, Tensor]:
    """ImageNet's first convolution for other images: its filters are repeated in turn and scaled to keep the sum.

    Args:
        weights: with a convolution (C, 3, kH, kW) under ``key``; left alone where there is none.
        channels: of the images.
    """
    filters = weights.get(key)
    if filters is None or filters.shape[1] == channels:
        return weights
    source = torch.arange(channels) % filters.shape[1]
    return {**weights, key: filters[:, source] * (filters.shape[1] / channels)}
