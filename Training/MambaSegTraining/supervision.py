"""The losses that a configuration can name, all as ``f(levels, labels) -> scalar``.

dice_ce         CE + soft Dice, level i weighs ``scale_weights[i]``, later ones nothing (MM-UNet)
dice_ce_umamba  the same with nnU-Net's weights 1, 1/2, 1/4 ... over all levels but the coarsest (U-Mamba, SegMamba)
dice_msda       Dice of the finest level, class distributions of the coarse ones (Deco-Mamba)
attention_mamba half CE, half Dice of nine outputs at full size (Attention-Mamba)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from MambaSegLib.errors import UserError

from .config import TrainConfig
from .losses import deep_supervision
from .losses_attention_mamba import WEIGHTS, nine_outputs
from .losses_msda import msda

Loss = Callable[[list[Tensor], Tensor], Tensor]


def loss_function(config: TrainConfig) -> Loss:
    """The loss that ``config.loss`` names.

    Args of the function:
        levels: logits (B, K, *grid_i), finest first, as ``forward_multiscale`` gives them.
        labels: (B, *grid_0) class indices, ``losses.UNKNOWN`` where there is none.
    """
    if config.loss == "dice_msda":
        return msda
    if config.loss == "attention_mamba":
        return nine_outputs
    if config.loss == "dice_ce_umamba":
        return lambda levels, labels: deep_supervision(levels, labels, halving(len(levels)))
    weights = config.scale_weights
    return lambda levels, labels: deep_supervision(levels[: len(weights)], labels, weights)


def halving(levels: int) -> list[float]:
    """nnU-Net's weights: each level half of the finer one, the coarsest none (deep supervision of one level: 1)."""
    return [0.5**i for i in range(levels - 1)] + [0.0] if levels > 1 else [1.0]


@torch.no_grad()
def check_levels(config: TrainConfig, network: nn.Module, device) -> None:
    """Refuse a network without the outputs that the loss is made for, before the first step.

    Raises:
        UserError: too few levels for ``dice_msda``, not nine outputs for ``attention_mamba``.
    """
    if config.loss not in ("dice_msda", "attention_mamba"):
        return
    network.eval()
    count = len(network.forward_multiscale(torch.zeros(1, config.in_channels, *config.patch, device=device)))
    if config.loss == "dice_msda" and count < 2:
        raise UserError(
            f"The loss 'dice_msda' needs a network with coarse outputs, but {config.network} has {count} output.",
            "Set hyper.distribution_heads to true (Deco-Mamba), or choose the loss 'dice_ce'.",
        )
    if config.loss == "attention_mamba" and count != len(WEIGHTS):
        raise UserError(
            f"The loss 'attention_mamba' needs {len(WEIGHTS)} outputs, but {config.network} has {count}.",
            "Choose an attention_mamba network, or the loss 'dice_ce'.",
        )
