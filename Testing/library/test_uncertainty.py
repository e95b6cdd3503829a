"""The doubt of a result: the score per structure that orders a worklist, and the places to look at."""

import numpy as np
import pytest

from MambaSegLib.bundle import Label
from MambaSegLib.preprocessing import TwoBest
from MambaSegLib.uncertainty import review
from MambaSegLib.volume import Volume

HEAD, TAIL = (Label(value, name, (value, 0, 0), {}) for value, name in ((1, "Head"), (2, "Tail")))
GRID = Volume(np.zeros((12, 12, 12), np.float32), (2.0, 2.0, 2.0), (10, 20, 30))


def two_best(*parts) -> TwoBest:
    """Of a (12, 12, 12) image: (place, winner, runner-up, margin) for every part; the rest is surely background."""
    winner, runner_up = np.zeros(GRID.shape, np.uint8), np.ones(GRID.shape, np.uint8)
    margin = np.ones(GRID.shape, np.float32)
    for place, first, second, apart in parts:
        winner[place], runner_up[place], margin[place] = first, second, apart
    return TwoBest(winner, runner_up, margin)


def scores(best: TwoBest, wanted=(HEAD, TAIL)) -> dict[str, float]:
    return {row["structure"]: row["score"] for row in review(best, GRID, (HEAD, TAIL), wanted)}


def test_score_is_the_doubtful_part():
    head = (np.s_[2:4, :6, :6], 1, 0, 0.9)
    rim = (np.s_[4, :6, :6], 1, 2, 0.5)  # between the two: doubtful for both
    tail = (np.s_[5:8, :6, :6], 2, 0, 0.9)
    found = scores(two_best(head, rim, tail))
    assert found == {"Head": pytest.approx(36 / (36 + 108)), "Tail": pytest.approx(36 / (36 + 108))}
    assert scores(two_best(head, tail)) == {"Head": 0, "Tail": 0}


def test_nothing_found_without_any_doubt_is_the_worst():
    assert scores(two_best()) == {"Head": 1, "Tail": 1}
    only_tail = two_best((np.s_[5:8, :6, :6], 2, 0, 0.9))
    assert scores(only_tail) == {"Head": 0, "Tail": 0}, "a structure may be outside of the image"
    assert scores(only_tail, [HEAD]) == {"Head": 1}, "nothing of what was asked for"


def test_places_are_where_doubt_gathers_in_lps():
    doubtful = (np.s_[8:11, 3:6, 1:4], 1, 0, 0.1)
    row = review(two_best((np.s_[2:4, :6, :6], 1, 0, 0.9), doubtful), GRID, (HEAD, TAIL), (HEAD,))[0]
    assert row["places"][0]["position_mm"] == pytest.approx([10 + 2 * 2, 20 + 4 * 2, 30 + 9 * 2])
    assert row["places"][0]["volume_ml"] == pytest.approx(27 * 0.008)
