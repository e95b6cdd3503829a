"""Prepared cases on disk: the same as read anew, made once, and never more in memory than there is room for."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from MambaSegLib.errors import UserError
from MambaSegTraining import prepared, reading
from MambaSegTraining.patches import PatchSource
from MambaSegTraining.prepared import prepared_case
from MambaSegTraining.reading import HeldOutCases, training_case
from MambaSegTraining.sources import open_source

RECIPE = {"orientation": "RAS", "spacing_mm": [1.5, 1, 1], "normalisation": {"name": "zscore"}}
VALUES = {"Bright ball": 1, "Dark ball": 2}


@pytest.fixture
def case(balls, tmp_path):
    """A copy of the first case, so that its files may be changed."""
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        shutil.copy(balls / kind / "case_00.nii.gz", tmp_path / "data" / kind)
    return open_source(tmp_path / "data")[0]


def test_arrays_come_from_the_disk_and_are_the_same(case, tmp_path):
    plain, mapped = training_case(case, RECIPE, VALUES), prepared_case(case, RECIPE, VALUES, tmp_path / "p")
    assert isinstance(mapped.image, np.memmap) and isinstance(mapped.label, np.memmap)
    for name in ("image", "label", "points"):
        assert np.array_equal(getattr(plain, name), getattr(mapped, name))
    assert mapped.merged is None and not mapped.is_colour
    sources = [PatchSource([c], [], (16, 16, 16), 0.5, 0.0, (2,), 1) for c in (plain, mapped)]
    assert np.array_equal(*(s.batch(2, 2).images.numpy() for s in sources))


def test_many_cases_keep_no_file_open(case, tmp_path):
    """Data sets have thousands of cases, systems allow about a thousand open files."""
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("counting open files needs /proc")
    before = len(list(opened.iterdir()))
    cases = [prepared_case(case, RECIPE, VALUES, tmp_path / "p") for _ in range(40)]
    PatchSource(cases, [], (16, 16, 16), 0.5, 0.0, (2,), 1).batch(0, 8)
    assert len(list(opened.iterdir())) <= before + 2


def test_made_once_until_something_changes(case, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(prepared, "training_case", lambda *a: made.append(1) or training_case(*a))
    for _ in range(2):
        prepared_case(case, RECIPE, VALUES, tmp_path / "p")
    assert len(made) == 1
    prepared_case(case, RECIPE | {"spacing_mm": [1, 1, 1]}, VALUES, tmp_path / "p")
    shutil.copy(case.images[0], case.label)  # another file at the same place
    with pytest.raises(UserError, match="Whole numbers were expected"):
        prepared_case(case, RECIPE, VALUES, tmp_path / "p")
    assert len(made) == 3 and len(list((tmp_path / "p").iterdir())) == 2


def test_a_full_disk_leaves_nothing_half_done(case, tmp_path, monkeypatch):
    def full(path, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared.np, "save", full)
    with pytest.raises(UserError, match="No space left"):
        prepared_case(case, RECIPE, VALUES, tmp_path / "p")
    assert list((tmp_path / "p").iterdir()) == []


def test_held_out_cases_stay_within_their_room(balls, monkeypatch):
    read = []
    whole = reading.held_out_case
    monkeypatch.setattr(reading, "held_out_case", lambda case, *a: read.append(case.name) or whole(case, *a))
    cases = HeldOutCases(open_source(balls)[:3], RECIPE, VALUES, room=1)
    assert len(cases) == 3 and [c.name for c in cases] == [c.name for c in cases] and len(read) == 6
    read.clear()
    cases = HeldOutCases(open_source(balls)[:3], RECIPE, VALUES, room=1 << 30)
    assert [c.name for c in cases] == [c.name for c in cases] and len(read) == 3


def test_at_most_so_many_points_evenly():
    label = np.zeros((50, 60, 70), np.uint8)
    label[:, :30] = 1
    label[:10] = 255
    points = reading.points_in(label)
    assert len(points) == 84_000 and np.all(label[tuple(points.T)] == 1)
    everywhere = reading.points_in(np.ones((50, 60, 70), np.uint8))
    assert len(everywhere) == reading.MOST_POINTS and abs(everywhere[:, 0].mean() - 24.5) < 0.5
