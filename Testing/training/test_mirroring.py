"""Left and right: when a configuration must say what mirroring means."""

import json

import numpy as np
import pytest

from MambaSegLib.errors import UserError
from MambaSegTraining.config import read_config
from MambaSegTraining.mirroring import Swap, side_axis, side_pairs, swap_of


def labels(*names):
    return [{"value": i, "name": name, "color": [1, 2, 3], "terminology": {}} for i, name in enumerate(names, 1)]


@pytest.fixture
def config(config_file):
    """A configuration with two kidneys; keyword arguments override fields."""

    def read(orientation="RAS", axes=(), **changes):
        path = config_file(**changes)
        data = json.loads(path.read_text())
        data["model"]["labels"] = labels("Left kidney", "Right kidney")
        data["inference"]["mirror_axes"] = list(axes)
        data["preprocessing"]["orientation"] = orientation
        path.write_text(json.dumps(data))
        return read_config(path)

    return read


def test_pairs_are_known_by_name():
    found = side_pairs(labels("Left kidney", "Spleen", "Right kidney", "kidney_tumour", "hand_R", "hand_L"))
    assert sorted(found) == [(1, 3), (6, 5)]
    assert side_pairs(labels("Left atrium", "Right kidney", "Left")) == []


def test_the_axis_between_the_sides():
    assert [side_axis({"orientation": code}) for code in ("RAS", "LPS", "SAR", "PLI", None)] == [2, 2, 0, 1, None]


def test_mirrored_sides_need_a_word(config):
    assert swap_of(config(mirror_axes=[0, 1])) is None
    with pytest.raises(UserError, match="two sides of the body") as error:
        swap_of(config(mirror_axes=[2]))
    assert "[[1, 2]]" in error.value.hint
    with pytest.raises(UserError, match="two sides"):
        swap_of(config(axes=[2]))
    with pytest.raises(UserError, match="two sides"):
        swap_of(config(orientation=None, mirror_axes=[1]))


def test_what_the_configuration_says_counts(config):
    assert swap_of(config(mirror_axes=[2], mirror_swap=[])) is None
    assert swap_of(config(mirror_axes=[2], mirror_swap=[[1, 2]])) == Swap(2, ((1, 2),))
    with pytest.raises(UserError, match="inference.mirror_axes"):
        swap_of(config(axes=[2], mirror_axes=[2], mirror_swap=[[1, 2]]))
    with pytest.raises(UserError, match="orientation is null"):
        swap_of(config(orientation=None, mirror_axes=[2], mirror_swap=[[1, 2]]))


def test_labels_change_places():
    assert Swap(2, ((1, 2),)).apply(np.array([0, 1, 2, 3, 255])).tolist() == [0, 2, 1, 3, 255]
