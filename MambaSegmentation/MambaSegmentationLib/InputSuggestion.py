"""Which volume of the scene belongs to which further input of a model, by names and modality. A guess, to be checked.

The first volume is chosen by the user: "Case 7 T1" for the input T1 makes "Case 7 T2" the best name for the input T2.
Files named as nnU-Net does, "case7_0000" and "case7_0001", are known by their number. "Case 8 T2" is never proposed:
what has other words in the place of "7" may be another patient's, unless DICOM tells that it is not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Candidate:
    """A volume: its name, and the modality and patient that DICOM tells, "" if it tells none."""

    name: str
    modality: str = ""
    patient: str = ""


def suggested(inputs: Sequence[dict], first: Candidate, others: Sequence[Candidate]) -> list[int | None]:
    """For each input after the first the index of its volume among `others`, None where it is not clear.

    Args:
        inputs: {"name", "modality"} of all inputs, that of `first` included.
    """
    found: list[int | None] = []
    for number, wanted in enumerate(inputs[1:], start=1):
        free = [i for i in range(len(others)) if i not in found and _mayBe(others[i], wanted, first)]
        found.append(_byName(inputs[0], wanted, number, first, others, free))
    return [
        _byModality(inputs, number, first, others, found) if index is None else index
        for number, index in enumerate(found, start=1)
    ]


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(text))


def _mayBe(candidate: Candidate, wanted: dict, first: Candidate) -> bool:
    isOther = bool(candidate.patient and first.patient and candidate.patient != first.patient)
    return not isOther and candidate.modality.upper() in ("", wanted["modality"].upper())


def _byName(own: dict, wanted: dict, number: int, first: Candidate, others, free: list[int]) -> int | None:
    """The one whose name has this input's words, or its number, and else is most like the first volume's."""
    firstWords = _words(first.name)
    for mark, firstMark in ((_words(wanted["name"]), _words(own["name"])), ({f"{number:04d}"}, {"0000"})):
        expected = (firstWords - firstMark) | mark
        named = {i: _words(others[i].name) for i in free}
        isSame = {i: bool(first.patient) and others[i].patient == first.patient for i in free}
        marked = {
            i: len(expected ^ words)
            for i, words in named.items()
            if mark <= words and (isSame[i] or expected <= words or words <= expected)
        }
        best = [i for i, distance in marked.items() if distance == min(marked.values())]
        if len(best) == 1:
            return best[0]
    return None


def _byModality(inputs: Sequence[dict], number: int, first: Candidate, others, found) -> int | None:
    """The only free one of a modality that no other input has, as the CT beside a PET."""
    modalities = [item["modality"].upper() for item in inputs]
    if modalities.count(modalities[number]) > 1:
        return None
    mayBe = [i for i, other in enumerate(others) if i not in found and _mayBe(other, inputs[number], first)]
    free = [i for i in mayBe if others[i].modality]
    return free[0] if len(free) == 1 else None
