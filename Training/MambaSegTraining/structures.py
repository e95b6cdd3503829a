"""Another table of structures for a trained network: added, renamed, merged or left out, by its output channels.

Every class of the new table says which old classes it comes from. Renaming changes the table alone. An added structure
starts as a copy of background with a lower bias, as it was background so far; the logits of all old classes stay what
they were. Merged structures start from the mean of their channels, which is no more than a start (the exact sum of
their probabilities is not expressible in weights): merging needs training on cases with the merged structure. What is
left out becomes background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from MambaSegLib.errors import UserError
from MambaSegLib.networks import create

HEAD_START = 3.0  # background's bias minus an added structure's: about one voxel in twenty of background at the start
COLORS = ((86, 180, 233), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178), (148, 103, 189))


@dataclass(frozen=True)
class Table:
    """New labels (as in bundle.json, values 1, 2 ...), and for every class, background first, its old classes."""

    labels: list[dict]
    origins: list[list[int]]

    @property
    def is_new(self) -> bool:
        """Whether the network's channels change, not only their names."""
        return self.origins != [[k] for k in range(len(self.origins))]


def new_table(labels: list[dict], added=(), renamed=None, merged=None, removed=()) -> Table:
    """The table after these changes.

    Args:
        labels: of the model, class i being ``labels[i - 1]``.
        added: names of new structures.
        renamed: {old name: new name}.
        merged: {new name: [old names]}; the first one's colour and terminology's category stay.
        removed: names.

    Raises:
        UserError: an unknown name, or a name twice.
    """
    renamed, merged = renamed or {}, merged or {}
    number = {label["name"]: k for k, label in enumerate(labels, start=1)}
    for name in [*renamed, *removed, *(n for names in merged.values() for n in names)]:
        if name not in number:
            raise UserError(f"The model has no structure {name!r}.", f"It has {', '.join(number)}.")
    into = {old: new for new, olds in merged.items() for old in olds}
    rows: dict[str, tuple[dict, list[int]]] = {}
    for name, k in number.items():
        if name in removed:
            continue
        new = into.get(name, renamed.get(name, name))
        if new in rows and name not in into:
            raise UserError(f"Two structures would be named {new!r}.", "Choose another name, or merge them.")
        terminology = {} if name in into else labels[k - 1]["terminology"]
        rows.setdefault(new, (labels[k - 1] | {"name": new, "terminology": terminology}, []))[1].append(k)
    for name in added:
        if name in rows:
            raise UserError(f"The model has a structure {name!r} already.", "Choose another name.")
        rows[name] = ({"name": name, "color": list(COLORS[len(rows) % len(COLORS)]), "terminology": {}}, [])
    if not rows:
        raise UserError("No structure would be left.", "Keep at least one.")
    background = [0, *(number[name] for name in removed)]
    table = [label | {"value": value} for value, (label, _) in enumerate(rows.values(), start=1)]
    return Table(table, [background, *(origin for _, origin in rows.values())])


def network_for(table: Table, parent: dict, weights: dict[str, Tensor]) -> nn.Module:
    """The parent's network with the output channels of the new table.

    Args:
        parent: bundle.json's "network".
        weights: its tensors.
    """
    name, channels, hyper = parent["name"], parent["in_channels"], parent["hyper"]
    network = create(name, channels, len(table.origins), **hyper)
    if table.is_new:
        wider = _shapes(create(name, channels, parent["out_channels"] + 1, **hyper))
        shifted = {f"{n}.bias" for n, m in network.named_modules() if isinstance(m, _CONVOLUTIONS)}
        weights = {
            key: _rearranged(tensor, wider[key], table.origins, parent["out_channels"], key in shifted)
            for key, tensor in weights.items()
        }
    network.load_state_dict(weights)
    return network


_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.Linear)


def class_keys(described: dict) -> list[str]:
    """Names of the tensors whose shape depends on the number of classes: the heads. ``described``: bundle.json's
    "network"."""
    name, channels, classes, hyper = (described[key] for key in ("name", "in_channels", "out_channels", "hyper"))
    narrow, wide = (_shapes(create(name, channels, count, **hyper)) for count in (classes, classes + 1))
    return [key for key, shape in narrow.items() if shape != wide[key]]


def _shapes(network: nn.Module) -> dict:
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


def _rearranged(tensor: Tensor, wider: torch.Size, origins, classes: int, is_bias: bool) -> Tensor:
    """The axes that grow with the number of classes, ordered anew: results (axis 0) and what reads them (axis 1)."""
    for axis, (size, more) in enumerate(zip(tensor.shape, wider, strict=True)):
        if size != more:
            groups = tensor.unflatten(axis, (size // classes, classes)).movedim(axis + 1, 0)
            rows = torch.stack([_row(groups, origin, axis, is_bias) for origin in origins])
            tensor = rows.movedim(0, axis + 1).flatten(axis, axis + 1)
    return tensor.contiguous()


def _row(groups: Tensor, origin: list[int], axis: int, is_bias: bool) -> Tensor:
    if not origin:
        return torch.zeros_like(groups[0]) if axis else groups[0] - HEAD_START * is_bias
    if 0 in origin:  # background stays itself, whatever joins it
        return groups[0]
    return groups[origin].sum(0) if axis else groups[origin].mean(0)
