"""Left and right: labels of the two sides change places in a mirrored image, or nothing is mirrored."""

import re
from dataclasses import dataclass

from MambaSegLib.errors import UserError

from .config import TrainConfig


@dataclass(frozen=True)
class Swap:
    """What becomes of labels when ``axis`` (of Z, Y, X) runs backwards: the two values of each pair change places."""

    axis: int
    pairs: tuple[tuple[int, int], ...]

    def apply(self, labels):
        """Array or tensor of label values -> the same with the sides swapped."""
        swapped = labels + 0
        for one, other in self.pairs:
            swapped[labels == one] = other
            swapped[labels == other] = one
        return swapped


def swap_of(config: TrainConfig) -> Swap | None:
    """What the configuration says about sides; None where nothing is swapped.

    Raises:
        UserError: mirroring would take one side's structure for the other's.
    """
    axis = side_axis(config.preprocessing)
    mirrored = {*config.mirror_axes, *config.inference["mirror_axes"]}
    pairs = side_pairs(config.model["labels"])
    if config.mirror_swap is None:
        if pairs and (mirrored if axis is None else axis in mirrored):
            names = " and ".join(repr(label["name"]) for label in config.model["labels"] if label["value"] in pairs[0])
            raise UserError(
                f"mirror_axes holds {sorted(mirrored)}, and {names} look like two sides of the body.",
                f'Write "mirror_swap": {[list(p) for p in pairs]} to swap their labels in mirrored patches, [] if they '
                "are told apart by more than their side, or mirror other axes.",
            )
        return None
    if not config.mirror_swap:
        return None
    if axis is None:
        raise UserError(
            "mirror_swap needs to know which axis runs from side to side, but preprocessing.orientation is null.",
            "Write an orientation such as RAS.",
        )
    if axis in config.inference["mirror_axes"]:
        raise UserError(
            f"inference.mirror_axes holds {axis}: averaging with the mirrored image would mix the two sides.",
            "Leave it out there; training may mirror it.",
        )
    return Swap(axis, tuple(tuple(pair) for pair in config.mirror_swap))


def side_axis(preprocessing: dict) -> int | None:
    """The axis of (Z, Y, X) between left and right on the network's grid; None where the recipe does not say."""
    code = preprocessing["orientation"]
    return None if code is None else 2 - next(i for i, letter in enumerate(code) if letter in "LR")


def side_pairs(labels: list[dict]) -> list[tuple[int, int]]:
    """Values of structures whose names differ by nothing but left and right."""
    found: dict[str, dict[str, int]] = {}
    for label in labels:
        side = re.search(r"\b(left|right|[lr])\b", label["name"].replace("_", " "), re.IGNORECASE)
        if side:
            rest = label["name"].replace("_", " ")
            rest = (rest[: side.start()] + rest[side.end() :]).casefold().strip()
            found.setdefault(rest, {})[side[0][0].casefold()] = label["value"]
    return [(sides["l"], sides["r"]) for sides in found.values() if len(sides) == 2]
