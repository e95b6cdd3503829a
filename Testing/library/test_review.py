"""The review: cases are found in the usual layouts, come worst first, and no decision is ever lost."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import audit, comparison, scores_file, worklist
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, write_labels
from MambaSegLib.job import Report
from MambaSegLib.label_table import table_of
from MambaSegLib.review import Session
from MambaSegLib.volume import Volume
from MambaSegLib.worklist import COMPLETED, FLAGGED, IN_PROGRESS, NOT_STARTED, Entry, Filter

ROOT = Path(__file__).resolve().parents[2]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found_in(folder):
    told = []
    entries = worklist.from_folder(folder, told.append)
    shown = {
        entry.title: (
            [Path(image).relative_to(folder).as_posix() for image in entry.images],
            Path(entry.segmentation).relative_to(folder).as_posix(),
        )
        for entry in entries
    }
    return shown, told


def test_pairs_beside_each_other(tmp_path):
    touch(tmp_path, "a.nrrd", "a.seg.nrrd", "b.nii.gz", "b_seg.nii.gz", "ä c.nii.gz", "ä c-label.nrrd", "left.nrrd")
    shown, told = found_in(tmp_path)
    assert shown == {
        "a": (["a.nrrd"], "a.seg.nrrd"),
        "b": (["b.nii.gz"], "b_seg.nii.gz"),
        "ä c": (["ä c.nii.gz"], "ä c-label.nrrd"),
    }
    assert told == ["Left out, as they have no segmentation: left."]


def test_pairs_as_nnunet_and_the_decathlon_have_them(tmp_path):
    touch(tmp_path, "imagesTr/x_0000.nii.gz", "imagesTr/x_0001.nii.gz", "labelsTr/x.nii.gz")
    touch(tmp_path, "imagesTs/y_0000.nii.gz", "imagesTs/z_0000.nii.gz", "predictions/y.nii.gz")
    shown, told = found_in(tmp_path)
    assert shown == {
        "x": (["imagesTr/x_0000.nii.gz", "imagesTr/x_0001.nii.gz"], "labelsTr/x.nii.gz"),
        "y": (["imagesTs/y_0000.nii.gz"], "predictions/y.nii.gz"),
    }
    assert "z" in told[0]


def test_one_folder_per_case(tmp_path):
    touch(tmp_path, "p1/image.nii.gz", "p1/segmentation.nii.gz", "p2/ct.nrrd", "p2/liver_mask.nrrd")
    shown, told = found_in(tmp_path)
    assert shown == {
        "p1": (["p1/image.nii.gz"], "p1/segmentation.nii.gz"),
        "ct": (["p2/ct.nrrd"], "p2/liver_mask.nrrd"),
    }
    assert told == []


def test_dicom_folders_count_as_images(tmp_path):
    touch(tmp_path, "p1/labels.nrrd", "p2.seg.nrrd")
    for name in ("p1/1.dcm", "p2/1.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    assert found_in(tmp_path)[0] == {"p2": (["p2"], "p2.seg.nrrd")}
    (tmp_path / "p2.seg.nrrd").unlink()
    assert found_in(tmp_path)[0] == {"p1": (["p1"], "p1/labels.nrrd")}


def test_a_folder_without_pairs_is_refused(tmp_path):
    touch(tmp_path, "a.nrrd", "b.nrrd")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError):
            worklist.from_folder(folder, print)


def test_a_list_brings_the_scores_that_stand_beside_the_segmentations(tmp_path):
    touch(tmp_path, "a.nrrd", "out/a.seg.nrrd")
    place = {"position_mm": [1, 2, 3], "score": 0.5, "volume_ml": 0.1}
    result = {"model": "m", "model_sha256": "0" * 64, "segments": [], "time_s": 1.0, "warnings": []}
    result["review"] = [{"structure": "Left", "score": 0.4, "places": [place]}]
    scores_file.write(tmp_path / "out" / "a.seg.nrrd", result)
    lines = ["case;image;segmentation;status", "Fall ä;a.nrrd;out/a.seg.nrrd;done", "b;b.nrrd;;failed"]
    (tmp_path / "list.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    told = []
    (entry,) = worklist.from_csv(tmp_path / "list.csv", told.append)
    assert (entry.title, entry.scores, entry.model["id"]) == ("Fall ä", {"Left": 0.4}, "m")
    assert entry.places == {"Left": [place]} and "b" in told[0]


@pytest.fixture
def entries():
    scores = [{"Left": 0.1, "Right": 0.6}, {"Left": 0.3}, {}, {"Left": 0.05, "Right": 0.2}]
    rows = [{"image": f"scene:{i}", "segmentation": f"seg:{i}", "title": f"case {i}"} for i in range(4)]
    return worklist.from_rows(row | {"scores": score} for row, score in zip(rows, scores, strict=True))


def titles(some):
    return [entry.title[-1] for entry in some]


def test_worst_first_by_structure(entries):
    assert titles(worklist.ordered(entries)) == ["0", "1", "3", "2"]
    assert titles(worklist.ordered(entries, "Left")) == ["1", "0", "3", "2"]


def test_filters(entries):
    entries[1] = replace(entries[1], status=FLAGGED, comment="Strange border", model={"id": "m7"})
    cases = [
        (Filter(statuses=[FLAGGED]), ["1"]),
        (Filter(structure="Right"), ["0", "3"]),
        (Filter(low=0.2), ["0", "1", "3"]),
        (Filter(structure="Left", low=0.1, high=0.3), ["0", "1"]),
        (Filter(text="BORDER m7"), ["1"]),
        (Filter(text="case 2"), ["2"]),
    ]
    for chosen, expected in cases:
        assert titles(worklist.ordered(entries, shown=chosen)) == expected, chosen


def test_a_review_is_resumed_where_it_was_left(tmp_path, entries):
    path = tmp_path / "prüfung.review-session.json"
    session = Session.create(path, entries)
    first = session.neighbour(None, 1)
    session.start(first.id, "Dr. Ä")
    session.decide(first.id, COMPLETED, "Dr. Ä", "gut", 12.5, {"Left": {"added": 3, "removed": 0}})
    second = session.neighbour(first.id, 1)
    session.start(second.id, "Dr. Ä")
    session.decide(second.id, FLAGGED, "Dr. B", seconds=2)
    session.decide(second.id, COMPLETED, "Dr. B", seconds=3)

    again = Session.open(path)
    assert again.current == second.id and titles([first, second]) == ["0", "1"]
    done = again.entries[first.id]
    assert (done.status, done.comment, done.reviewer, done.seconds) == (COMPLETED, "gut", "Dr. Ä", 12.5)
    assert done.started.endswith("+00:00") and again.entries[second.id].seconds == 5
    assert again.counts() == {NOT_STARTED: 2, IN_PROGRESS: 0, COMPLETED: 2, FLAGGED: 0}
    log = audit.records(session.log)
    assert [record["decision"] for record in log] == [COMPLETED, FLAGGED, COMPLETED]
    assert log[0]["voxels"] == {"Left": {"added": 3, "removed": 0}} and not audit.verify(session.log)["problems"]
    with pytest.raises(UserError, match="already"):
        Session.create(path, [])


def test_walking_forth_and_back_and_past_what_is_hidden(tmp_path, entries):
    session = Session.create(tmp_path / "s.json", entries)
    walk = [session.neighbour(None, 1)]
    while walk[-1]:
        walk.append(session.neighbour(walk[-1].id, 1))
    assert titles(walk[:-1]) == ["0", "1", "3", "2"]
    assert titles([session.neighbour(walk[2].id, -1)]) == ["1"] and session.neighbour(walk[0].id, -1) is None
    session.decide(walk[1].id, COMPLETED, "A")
    open_ones = Filter(statuses=[NOT_STARTED])
    assert titles([session.neighbour(walk[0].id, 1, open_ones), session.neighbour(walk[1].id, 1, open_ones)]) == [
        "3",
        "3",
    ]


def test_what_was_found_later_comes_in_and_decisions_stay(tmp_path, entries):
    session = Session.create(tmp_path / "s.json", entries[:2])
    session.decide(entries[0].id, FLAGGED, "A", "odd")
    assert session.add([replace(entries[0], scores={"Left": 0.9}), *entries[1:]]) == 2
    kept = Session.open(tmp_path / "s.json").entries[entries[0].id]
    assert (kept.status, kept.comment, kept.scores) == (FLAGGED, "odd", {"Left": 0.9}) and len(session.entries) == 4


def test_two_people_work_through_one_list(tmp_path, entries):
    one = Session.create(tmp_path / "s.json", entries)
    two = Session.open(tmp_path / "s.json")
    one.decide(entries[0].id, COMPLETED, "A")
    two.decide(entries[1].id, FLAGGED, "B")
    assert two.entries[entries[0].id].status == COMPLETED, "the other one's decision was lost"


def test_a_kill_while_writing_loses_no_decision(tmp_path, entries):
    path = tmp_path / "s.json"
    session = Session.create(path, entries)
    session.decide(entries[0].id, COMPLETED, "A")
    code = (
        "import os, sys\n"
        "from MambaSegLib import review, safe_file\n"
        "session = review.Session.open(sys.argv[1])\n"
        "safe_file.os.fsync = lambda _: os._exit(9)\n"
        "session.start(next(iter(session.entries)), 'B')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    again = Session.open(path)
    assert done.returncode == 9 and again.entries[entries[0].id].status == COMPLETED
    again.decide(entries[1].id, COMPLETED, "A")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 2, "entries": []}'])
def test_a_file_that_is_no_review_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError):
        Session.open(tmp_path / "s.json")
    assert (tmp_path / "s.json").read_text() == text


def test_a_blinded_comparison_reveals_after_the_choice(tmp_path, entries):
    many = [Entry((f"image {i}",), f"seg {i}") for i in range(60)]
    session = Session.create(tmp_path / "s.json", many, blinded=7)
    orders = [tuple(session.shown_order(entry.id, 2)) for entry in many]
    assert 15 < orders.count((0, 1)) < 45, "A is nearly always shown first, or last"
    assert orders == [tuple(Session.open(tmp_path / "s.json").shown_order(entry.id, 2)) for entry in many]
    swapped = many[orders.index((1, 0))]
    assert session.entries[swapped.id].preference is None
    chosen = session.choose(swapped.id, ["model A", "model B"], 0, "R", 4).preference
    assert chosen == {"candidates": ["model A", "model B"], "shown": ["model B", "model A"], "chosen": "model B"}
    assert session.choose(many[0].id, ["model A", "model B"], None, "R").preference["chosen"] is None
    assert audit.records(session.log)[0]["decision"] == "model B of model B, model A"
    plain = Session.create(tmp_path / "p.json", many)
    assert plain.shown_order(swapped.id, 3) == [0, 1, 2]


def two_segmentations(folder):
    """First: two cubes. Second: one a voxel further (other number, same name), one as another structure."""
    grid = Volume(np.zeros((20, 30, 30), np.uint8), (1, 1, 2))
    a, b = grid.array.copy(), grid.array.copy()
    a[4:10, 5:15, 5:15], a[12:16, 5:15, 5:15] = 1, 2
    b[4:10, 5:15, 6:16], b[12:16, 5:15, 5:15] = 4, 9
    grey = (9, 9, 9)
    first = (Label(1, "Left", grey, {}), Label(2, "Right", grey, {}))
    second = (Label(4, "left", grey, {}), Label(9, "Cyst", grey, {}))
    files = [folder / "a.seg.nrrd", folder / "b.seg.nrrd"]
    for path, array, table in zip(files, (a, b), (first, second), strict=True):
        write_labels(path, grid.with_array(array), table)
    return [str(path) for path in files]


def test_two_segmentations_in_numbers_and_as_an_overlay(tmp_path):
    files = two_segmentations(tmp_path)
    request = {"segmentations": files, "names": ["A", "B"], "overlay": str(tmp_path / "d.nrrd")}
    rows = {row["structure"]: row for row in comparison.run(request, Report())["rows"]}
    left = rows["Left"]
    assert left["dice"] == pytest.approx(0.9) and left["hd95_mm"] == pytest.approx(1.0)
    assert (left["first_ml"], left["second_ml"], left["difference_ml"]) == pytest.approx((1.2, 1.2, 0))
    assert rows["Right"]["dice"] == 0 and rows["Cyst"]["difference_ml"] == pytest.approx(0.8)
    overlay = read_labels(tmp_path / "d.nrrd").array
    assert (overlay[4:10, 5:15, 5] == 1).all() and (overlay[4:10, 5:15, 15] == 2).all()
    assert (overlay[12:16, 5:15, 5:15] == 3).all() and np.count_nonzero(overlay) == 60 + 60 + 400


def test_one_or_two_are_measured_on_the_image(tmp_path):
    first, second = two_segmentations(tmp_path)
    labels = read_labels(first)
    image = np.random.default_rng(1).normal(40, 9, labels.shape).astype(np.float32)
    sitk.WriteImage(labels.with_array(image).to_sitk(), str(tmp_path / "image.nrrd"))
    request = {"segmentations": [first], "image": str(tmp_path / "image.nrrd")}
    rows = comparison.run(request, Report())["rows"]
    pairs = comparison.run(request | {"segmentations": [first, second]}, Report())["rows"]
    voxel_ml = labels.voxel_volume_mm3 / 1000
    for row, label in zip(rows, table_of(first, labels.array), strict=True):
        inside = image[labels.array == label.value]
        assert (row["structure"], row["first_ml"]) == (label.name, pytest.approx(inside.size * voxel_ml))
        assert (row["first_mean"], row["first_sd"]) == pytest.approx((inside.mean(), inside.std()), rel=1e-5)
        (pair,) = (other for other in pairs if other["structure"] == label.name)
        assert {key: pair[key] for key in row} == pytest.approx(row)
    left = next(pair for pair in pairs if pair["structure"] == "Left")
    assert 0 < left["assd_mm"] < left["hd95_mm"] and left["second_mean"] != left["first_mean"]
    with pytest.raises(UserError):
        comparison.run({"segmentations": [first], "overlay": str(tmp_path / "o.nrrd")}, Report())
    sitk.WriteImage(sitk.Image([30, 30, 20], sitk.sitkFloat32), str(tmp_path / "image.nrrd"))
    with pytest.raises(UserError, match="same voxels"):
        comparison.run(request, Report())


def test_three_are_compared_in_pairs_and_other_grids_are_refused(tmp_path):
    files = two_segmentations(tmp_path)
    rows = comparison.run({"segmentations": [*files, files[0]]}, Report())["rows"]
    pairs = {(row["first"], row["second"]) for row in rows}
    assert len(pairs) == 3 and all(r["dice"] == 1 for r in rows if r["first"] == r["second"] == "a.seg.nrrd")
    sitk.WriteImage(sitk.Image([30, 30, 20], sitk.sitkUInt8), str(tmp_path / "c.nrrd"))
    for others in ([], [files[0], str(tmp_path / "c.nrrd")]):
        with pytest.raises(UserError):
            comparison.run({"segmentations": others}, Report())
