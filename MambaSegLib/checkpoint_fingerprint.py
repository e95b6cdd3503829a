"""Which network some weights are of, and how it was built, told by their names and shapes."""

from typing import NamedTuple

from torch import Tensor


class Recognised(NamedTuple):
    """A variant and how to build it; empty name: unknown. A value None in ``hyper`` cannot be told from weights."""

    name: str = ""
    in_channels: int = 0
    out_channels: int = 0
    hyper: dict = {}  # noqa: RUF012 (never changed)


class Fingerprint(NamedTuple):
    """Keys that begin so must exist; the variant in 3-D and in 2-D; where to read channels and classes."""

    prefixes: tuple[str, ...]
    name_3d: str
    name_2d: str
    first: str
    last: str


SEG = "decoder.seg_layers.0.weight"
UMAMBA_FIRST, RESENC_FIRST = "encoder.stem.0.conv1.weight", "encoder.stem.convs.0.conv.weight"
PLAIN_FIRST, SWIN_FIRST = "encoder.stages.0.0.convs.0.conv.weight", "encoder1.layer.conv1.conv.weight"
EMBED = "patch_embed.proj.weight"
MIX, TRANSPOSED = "mamba_layer.mamba.x_proj", "decoder.transpconvs."
RESENC_STEM = "encoder.stem.convs."
FINGERPRINTS = tuple(  # the special before the plain
    Fingerprint(*row)
    for row in (
        (("encoder.mamba_layers.", UMAMBA_FIRST), "umamba_enc", "umamba_enc_2d", UMAMBA_FIRST, SEG),
        ((MIX, UMAMBA_FIRST), "umamba_bot", "umamba_bot_2d", UMAMBA_FIRST, SEG),
        (("mamba_layer.mamba.dt_bias", RESENC_STEM), "umamba2_bot", "umamba2_bot", RESENC_FIRST, SEG),
        ((MIX, RESENC_STEM), "umamba_bot_resenc", "umamba_bot_resenc", RESENC_FIRST, SEG),
        (("mamba_layers.", RESENC_STEM), "umamba_adj", "umamba_adj", RESENC_FIRST, SEG),
        ((RESENC_STEM, TRANSPOSED), "resenc_unet", "resenc_unet", RESENC_FIRST, SEG),
        ((PLAIN_FIRST, TRANSPOSED), "plain_unet", "plain_unet_2d", PLAIN_FIRST, SEG),
        (("vssm_encoder.", SWIN_FIRST), "", "swin_umamba", SWIN_FIRST, "out_layers.0.conv.conv.weight"),
        (("vssm_encoder.", "decoder.concat_back_dim."), "", "swin_umamba_d", f"vssm_encoder.{EMBED}", SEG),
        (("convInit.",), "lightm_unet", "lightm_unet_2d", "convInit.1.conv.weight", "conv_final.2.1.conv.weight"),
        (("vit.gscs.",), "segmamba", "", SWIN_FIRST, "out.conv.conv.weight"),
        (("layer3.1.mamba_layer.",), "nnmamba", "", "in_conv.conv.0.weight", "conv8.conv.3.weight"),
        (("vmunet.",), "", "vm_unet", f"vmunet.{EMBED}", "vmunet.final_conv.weight"),
        (("mamba_unet.",), "", "mamba_unet", f"mamba_unet.{EMBED}", "mamba_unet.output.weight"),
        (("scab.",), "", "ultralight_vm_unet", "encoder1.0.weight", "final.weight"),
        (("multi_scale_attentions.",), "", "attention_mamba", "layer0.0.0.weight", "multi_loss_head.0.0.weight"),
    )
)


def recognise(weights: dict[str, Tensor], plans: dict) -> Recognised:
    """The variant that these weights are of.

    Args:
        weights: in the authors' naming, without aliases.
        plans: one configuration of nnU-Net's plans with ``strides`` and ``patch_size``, or {}.
    """
    for mark in FINGERPRINTS:
        if not all(any(key.startswith(prefix) for key in weights) for prefix in mark.prefixes):
            continue
        if mark.first not in weights or mark.last not in weights:
            continue
        dims = weights[mark.first].dim() - 2
        name = mark.name_3d if dims == 3 else mark.name_2d
        hyper = {}
        if name.startswith("umamba"):
            hyper = _umamba(weights, plans, name) if mark.first == UMAMBA_FIRST else _resenc(weights, dims, name)
        elif mark.first in (RESENC_FIRST, PLAIN_FIRST):
            hyper = _resenc(weights, dims, name)
        return Recognised(name, weights[mark.first].shape[1], weights[mark.last].shape[0], hyper)
    return Recognised()


def _children(weights: dict, prefix: str) -> int:
    """How many different parts stand below a name."""
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})


def _shape_of_levels(weights: dict, key: str) -> dict:
    """Widths and kernels, from the first convolution of every level; ``key`` has the level's number in it."""
    convs = [weights[key.format(i)] for i in range(_children(weights, "encoder.stages."))]
    return {"features": tuple(w.shape[0] for w in convs), "kernels": tuple(tuple(w.shape[2:]) for w in convs)}


def _umamba(weights: dict, plans: dict, name: str) -> dict:
    """U-Mamba's strides leave no trace in the weights, nor does the patch of Enc."""
    hyper = _shape_of_levels(weights, "encoder.stages.{}.0.conv1.weight")
    levels = len(hyper["features"])
    hyper["blocks"] = tuple(_children(weights, f"encoder.stages.{i}.") for i in range(levels))
    hyper["decoder_blocks"] = tuple(_children(weights, f"decoder.stages.{i}.") for i in range(levels - 1))
    strides = plans.get("strides")
    hyper["strides"] = None if strides is None else tuple(tuple(s) for s in strides)
    if "_enc" in name:
        hyper["patch"] = tuple(plans["patch_size"]) if "patch_size" in plans else None
    return hyper


def _resenc(weights: dict, dims: int, name: str) -> dict:
    """nnU-Net's form: all is in the weights, for the kernels of the transposed convolutions are the strides."""
    residual = RESENC_FIRST in weights
    level, parts = ("{}.blocks.0.conv1.conv", "{}.blocks.") if residual else ("{}.0.convs.0.conv", "{}.0.convs.")
    hyper = {"dims": dims, **_shape_of_levels(weights, f"encoder.stages.{level}.weight")}
    levels = range(len(hyper["features"]))
    hyper["blocks"] = tuple(_children(weights, "encoder.stages." + parts.format(i)) for i in levels)
    up = [tuple(weights[f"decoder.transpconvs.{i}.weight"].shape[2:]) for i in levels[:-1]]
    hyper["strides"] = ((1,) * dims, *reversed(up))
    if not name.startswith("umamba"):
        hyper["decoder_convs"] = _children(weights, "decoder.stages.0.convs.")
    if name == "umamba2_bot":
        inner = weights["mamba_layer.mamba.out_proj.weight"].shape[1]
        hyper["head_width"] = inner // weights["mamba_layer.mamba.dt_bias"].shape[0]
        hyper["states"] = (weights["mamba_layer.mamba.conv1d.weight"].shape[0] - inner) // 2
    return hyper
