"""ImageNet weights of VMamba's first generation in the segmenters that are built on it (VM-UNet, Swin-UMamba ...)."""

import re

from torch import Tensor, nn

from ..wording import counted
from .weights import load_strictly

FIRST_NAMES = (  # those of today's code -> those of January 2024, which the segmenters kept
    ("patch_embed.0.", "patch_embed.proj."),
    ("patch_embed.2.", "patch_embed.norm."),
    (".norm.", ".ln_1."),
    (".op.", ".self_attention."),
)
UP = re.compile(r"^layers_up\.(\d)\.blocks")
BLOCK = re.compile(r"(.*\bblocks\.\d+\.)")


def to_first_names(state: dict) -> dict:
    """A file's encoder under the names of the first generation; its classifier is left out."""
    renamed = {}
    for key, tensor in state.items():
        if key.startswith(("norm.", "head.", "classifier.")):
            continue
        for new, old in FIRST_NAMES:
            if new != ".norm." or "blocks." in key:  # the norms outside of blocks kept their name
                key = key.replace(new, old)
        renamed[key] = tensor
    return renamed


def start_from_vmamba(
    network: nn.Module, weights: dict[str, Tensor], what: str, encoder: tuple[str, ...], fresh: tuple[str, ...] = ()
) -> list[str]:
    """Load an encoder, and into decoder blocks ``layers_up.i`` those of level 3 - i, as VM-UNet's authors do.

    Args:
        network: whose encoder it is.
        weights: under the network's names.
        what: where they come from, for messages.
        encoder: beginnings of the encoder's names; all of them must be in the weights.
        fresh: beginnings of those that need not, since the segmenter's stem differs.

    Returns:
        One sentence for each part that is not taken over.

    Raises:
        UserError: they do not fit; nothing is changed then.
    """
    own = network.state_dict()
    weights = {key: tensor for key, tensor in weights.items() if not (fresh and key.startswith(fresh))}
    there = {match[1] for key in own if (match := BLOCK.match(key))}
    deeper = {match[1] for key in weights if (match := BLOCK.match(key))} - there
    taken = {key: tensor for key, tensor in weights.items() if not (deeper and key.startswith(tuple(deeper)))}
    kept = {key: t for key, t in own.items() if not key.startswith(encoder) or (fresh and key.startswith(fresh))}
    mirrored = {
        key: re.sub(r"^layers_up\.(\d)\.blocks", lambda m: f"layers.{3 - int(m[1])}.blocks", key) for key in own
    }
    copies = {key: taken[source] for key, source in mirrored.items() if source != key and source in taken}
    load_strictly(network, {**kept, **copies, **taken}, what)
    remarks = [f"{name}* starts fresh: this network's first layers are its own." for name in fresh]
    if deeper:
        remarks.append(f"{counted(len(deeper), 'block')} of {what} without a place: this network has fewer per level.")
    return remarks
