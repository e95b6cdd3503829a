"""Authors' checkpoints into our networks: recognised, renamed, loaded completely or not at all.

``networks.weights_file`` reads a pickle by an allow-list. Because no such list is a proof, reading one also takes the
word of the user, ``trust=True``, once per file: what is imported is kept as safetensors in a model bundle. Files
``.safetensors`` need no trust.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, cat, nn

from .blocks.unet import drop_aliases
from .checkpoint_fingerprint import recognise
from .errors import UserError
from .networks import create, spec
from .networks.weights import load_strictly, named_tensors
from .networks.weights_file import is_pickle, read_file


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        weights: name -> tensor, in the authors' naming without wrappers' prefixes and nnU-Net's aliases.
        plans: nnU-Net's plan of the one configuration that was trained over what it inherits, and then what the plans
            say for all configurations; or {}.
        dataset: nnU-Net's dataset.json, or {}.
        trainer: nnU-Net's trainer class, or "".
        mirror_axes: that the training allows to mirror, of the network's.
    """

    weights: dict[str, Tensor]
    plans: dict = field(default_factory=dict)
    dataset: dict = field(default_factory=dict)
    trainer: str = ""
    mirror_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A network with its weights, and how to build it again: ``create(name, in_channels, out_channels, **hyper)``."""

    network: nn.Module
    name: str
    in_channels: int
    out_channels: int
    hyper: dict


def read_checkpoint(path, trust: bool = False) -> Checkpoint:
    """Read a ``.safetensors`` file, or a torch pickle with plain weights or in nnU-Net's form.

    Args:
        path: the file.
        trust: the user vouches for a pickle's origin.

    Raises:
        UserError: no file, a pickle without trust, objects that weights do not need, damaged, no weights.
    """
    path = Path(path)
    if path.is_file() and is_pickle(path) and not trust:
        raise UserError(
            f"{path.name} is a Python pickle: a small program that builds objects and could do harm when it is read.",
            "If it comes from a source you trust, say so (--trust, trust=True); else ask for a .safetensors file.",
        )
    content = read_file(path)
    weights = drop_aliases(named_tensors(content, path.name))
    settings = content.get("init_args") or {} if isinstance(content, dict) else {}
    plans = settings.get("plans") or {}
    return Checkpoint(
        weights,
        configuration(plans, settings.get("configuration", "")) if plans else {},
        settings.get("dataset_json") or {},
        str(content.get("trainer_name", "")),
        tuple(content.get("inference_allowed_mirroring_axes") or ()),
    )


def configuration(plans: dict, name: str) -> dict:
    """A configuration of nnU-Net's plans, see ``Checkpoint.plans``; strides and patch in one spelling for all dialects.

    Raises:
        UserError: the plans have no such configuration.
    """
    merged, seen, first = {}, set(), name
    while name:
        if name in seen or name not in plans.get("configurations", {}):
            raise UserError(f"The plans do not describe the configuration '{name}'.", "The checkpoint is damaged.")
        seen.add(name)
        merged = {**plans["configurations"][name], **merged}
        name = plans["configurations"][name].get("inherits_from", "")
    if "architecture" in merged:
        merged["strides"] = merged["architecture"]["arch_kwargs"]["strides"]
    elif "pool_op_kernel_sizes" in merged:
        merged["strides"] = merged["pool_op_kernel_sizes"]
    return {**{key: value for key, value in plans.items() if key != "configurations"}, **merged, "name": first}


def import_checkpoint(
    path, name: str = "", in_channels: int = 0, out_channels: int = 0, hyper: dict | None = None, trust: bool = False
) -> Imported:
    """A network with the authors' weights, in evaluation mode.

    Args:
        path: see ``read_checkpoint``.
        name: a variant; empty: recognised by the names of the weights.
        in_channels, out_channels: 0: read from the shapes of the weights (of recognised networks).
        hyper: overrides of what the variant, the shapes and nnU-Net's plan say.
        trust: see ``read_checkpoint``.

    Raises:
        UserError: as ``read_checkpoint``; an unknown network; weights that are missing, left over or do not fit.
    """
    return build(read_checkpoint(path, trust), Path(path).name, name, in_channels, out_channels, hyper)


def build(
    checkpoint: Checkpoint,
    source: str,
    name: str = "",
    in_channels: int = 0,
    out_channels: int = 0,
    hyper: dict | None = None,
) -> Imported:
    """As ``import_checkpoint``, from a checkpoint that was read; ``source`` is its name in messages.

    One output channel is a sigmoid's, x against background: it becomes two, 0 and x, whose softmax is the same.
    """
    if "SinNorm" in checkpoint.trainer:
        raise UserError(
            f"The trainer {checkpoint.trainer} changes the intensities inside its network.",
            "That transform is not part of this program; choose a checkpoint of another trainer.",
        )
    found = recognise(checkpoint.weights, checkpoint.plans)
    name = name or found.name
    settings = {**(found.hyper if name == found.name else {}), **(hyper or {})}
    channels = (in_channels or found.in_channels, out_channels or found.out_channels)
    unknown = [key for key, value in settings.items() if value is None]
    if not name or not all(channels) or unknown:
        what = ", ".join(unknown) or ("number of channels or classes" if name else "network")
        raise UserError(f"The {what} of {source} cannot be read from its weights.", "Give it; see 'mambaseg networks'.")
    channels = (channels[0], max(2, channels[1]))
    network = create(name, *channels, **settings)
    weights = spec(name).rename_upstream_keys(checkpoint.weights)
    load_strictly(network, _with_background(weights, network), source)
    return Imported(network.eval(), name, *channels, settings)


def _with_background(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Heads of one class get a second channel, always 0, before it."""
    own = {key: tensor.shape for key, tensor in network.state_dict().items()}
    single = [k for k, t in weights.items() if k in own and t.shape == (1, *own[k][1:]) and own[k][0] == 2]
    return weights | {key: cat((torch.zeros_like(weights[key]), weights[key])) for key in single}
