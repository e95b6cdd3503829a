"""The table of networks: one entry per variant, with what its paper says and what can be checked."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from ..errors import UserError


@dataclass(frozen=True)
class Figure:
    """A published result: data set, metric, value, and the table or page it stands in."""

    dataset: str
    metric: str
    value: float
    source: str


def _same_keys(state: dict) -> dict:
    return state


@dataclass(frozen=True)
class NetworkSpec:
    """One variant of a network.

    Attributes:
        name: ``family_variant``.
        build: ``build(in_channels, out_channels, **hyper)`` -> module whose ``forward`` takes (B, C, *grid) of any
            size and returns logits (B, out_channels, *grid).
        dims: 2 or 3 grid axes.
        hyper: what this variant sets; ``create`` overrides single entries.
        divisor: grid sizes that need no padding are multiples of it, one number per axis.
        parameters: (in_channels, out_channels, count), checked by a test.
        paper, url: citation and address.
        licence: of the code and of any published weights.
        figures: published results.
        rename_upstream_keys: authors' state dict -> ours.
    """

    name: str
    build: Callable[..., nn.Module]
    dims: int
    hyper: dict = field(default_factory=dict)
    divisor: tuple[int, ...] = ()
    parameters: tuple[int, int, int] = (0, 0, 0)
    paper: str = ""
    url: str = ""
    licence: str = ""
    figures: tuple[Figure, ...] = ()
    rename_upstream_keys: Callable[[dict], dict] = _same_keys


_SPECS: dict[str, NetworkSpec] = {}


def register(entry: NetworkSpec) -> None:
    """Add a variant; its name must be new."""
    if entry.name in _SPECS:
        raise ValueError(f"network '{entry.name}' is registered twice")
    _SPECS[entry.name] = entry


def register_variants(columns: str, table: dict[str, tuple], **common) -> None:
    """Add the variants of a family.

    Args:
        columns: fields of ``NetworkSpec`` in the order of the table's tuples; ``reference`` is a pair (paper, url).
        table: variant -> its values.
        **common: fields that all share. ``dims`` defaults to the hyper-parameter of that name, else 3, and ``divisor``
            to the class's.
    """
    for name, row in table.items():
        fields = common | dict(zip(columns.split(), row, strict=True))
        if "reference" in fields:
            fields["paper"], fields["url"] = fields.pop("reference")
        fields = {"dims": fields["hyper"].get("dims", 3)} | fields
        fields = {"divisor": fields["build"].divisor} | fields if "divisor" not in fields else fields
        register(NetworkSpec(name=name, **fields))


def names() -> list[str]:
    """Names of all variants, sorted."""
    return sorted(_SPECS)


def spec(name: str) -> NetworkSpec:
    """The entry of a variant.

    Raises:
        UserError: no such variant; the message offers similar names.
    """
    if name not in _SPECS:
        close = difflib.get_close_matches(name, _SPECS, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "'mambaseg networks' lists all of them."
        raise UserError(f"Unknown network '{name}'.", hint)
    return _SPECS[name]


def create(name: str, in_channels: int, out_channels: int, **hyper) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a variant, see ``names()``.
        in_channels: image channels.
        out_channels: classes, background included.
        **hyper: overrides of the variant's hyper-parameters.

    Raises:
        UserError: unknown variant.
        TypeError: a hyper-parameter the network does not have.
    """
    entry = spec(name)
    return entry.build(in_channels, out_channels, **{**entry.hyper, **hyper})
