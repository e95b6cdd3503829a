"""A review on disk: large lists, several people, moved folders, crashes and full disks lose no decision."""

import json

import pytest

from MambaSegLib import review_file
from MambaSegLib.errors import UserError
from MambaSegLib.review import Session
from MambaSegLib.worklist import COMPLETED, FLAGGED, Entry


def entries_in(folder, count=3):
    return [
        Entry((str(folder / f"{i} ü.nrrd"),), str(folder / "out" / f"{i}.seg.nrrd"), f"case {i}") for i in range(count)
    ]


def journal(path):
    return path.with_name(path.name + ".changes.jsonl")


def test_a_moved_folder_keeps_its_decisions(tmp_path):
    (tmp_path / "old").mkdir()
    session = Session.create(tmp_path / "old" / "s.json", entries_in(tmp_path / "old"))
    first, second, _ = session.entries
    session.decide(first, FLAGGED, "A", "odd")
    (tmp_path / "old").rename(tmp_path / "neu ü")
    moved = Session.open(tmp_path / "neu ü" / "s.json")
    assert moved.entries[first].status == FLAGGED and moved.current is None
    assert moved.entries[first].images == (str(tmp_path / "neu ü" / "0 ü.nrrd"),)
    assert moved.add(entries_in(tmp_path / "neu ü", 4)) == 1 and len(moved.entries) == 4
    assert moved.entries[first].comment == "odd" and list(moved.entries)[:2] == [first, second]
    assert moved.add(entries_in(tmp_path / "neu ü", 4)) == 0


def test_names_elsewhere_and_of_nodes_stay_as_they_are(tmp_path):
    (tmp_path / "reviews").mkdir()
    outside = Entry((str(tmp_path / "images" / "a.nrrd"),), "vtkMRMLSegmentationNode1", "x")
    session = Session.create(tmp_path / "reviews" / "s.json", [outside])
    (entry,) = Session.open(session.path).entries.values()
    assert (entry.images, entry.segmentation, entry.id) == (outside.images, outside.segmentation, outside.id)


def test_a_review_of_the_first_version_goes_on(tmp_path):
    old = entries_in(tmp_path)
    rows = [{key: value for key, value in entry.to_json().items() if key != "key"} for entry in old]
    data = {"schema_version": 1, "current": old[1].id, "blinded": 7, "entries": rows}
    (tmp_path / "s.json").write_text(json.dumps(data), encoding="utf-8")
    session = Session.open(tmp_path / "s.json")
    assert (session.current, session.blinded, list(session.entries)) == (old[1].id, 7, [entry.id for entry in old])
    session.decide(old[0].id, COMPLETED, "A")
    assert session.add(entries_in(tmp_path)) == 0
    again = Session.open(tmp_path / "s.json")
    assert (again.current, again.blinded, again.entries[old[0].id].status) == (old[1].id, 7, COMPLETED)


def test_each_sees_what_the_other_decided_and_added(tmp_path):
    one = Session.create(tmp_path / "s.json", entries_in(tmp_path))
    two = Session.open(tmp_path / "s.json")
    first, second, third = one.entries
    one.decide(first, COMPLETED, "A")
    two.decide(second, FLAGGED, "B")
    assert one.add(entries_in(tmp_path, 5)) == 2
    two.decide(third, COMPLETED, "B")
    one.start(first, "A")
    for session in (one, two, Session.open(tmp_path / "s.json")):
        assert [e.status for e in session.entries.values()][:3] == [COMPLETED, FLAGGED, COMPLETED]
        assert len(session.entries) == 5


def test_a_look_at_what_another_has_just_decided_leaves_the_decision(tmp_path):
    one = Session.create(tmp_path / "s.json", entries_in(tmp_path))
    two = Session.open(tmp_path / "s.json")
    first = next(iter(one.entries))
    one.decide(first, FLAGGED, "A", "odd", seconds=3)
    seen = two.start(first, "B")
    assert (seen.status, seen.reviewer, seen.comment, seen.seconds) == (FLAGGED, "A", "odd", 3)
    assert two.decide(first, COMPLETED, "B", seconds=4).seconds == 7


def test_an_unfinished_line_is_no_decision_and_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "s.json"
    session = Session.create(path, entries_in(tmp_path))
    first, second, _ = session.entries
    session.decide(first, COMPLETED, "A")
    with open(journal(path), "ab") as file:
        file.write(b'{"id": "torn')
    again = Session.open(path)
    assert again.entries[first].status == COMPLETED
    again.decide(second, FLAGGED, "B")
    assert [e.status for e in Session.open(path).entries.values()][:2] == [COMPLETED, FLAGGED]
    journal(path).write_bytes(journal(path).read_bytes() + b"no json\n")
    with pytest.raises(UserError, match="damaged"):
        Session.open(path)


def test_the_journal_of_an_older_list_counts_no_more(tmp_path):
    path = tmp_path / "s.json"
    session = Session.create(path, entries_in(tmp_path))
    first = next(iter(session.entries))
    session.decide(first, FLAGGED, "A")
    left = journal(path).read_bytes()
    session.add(entries_in(tmp_path, 4))
    session.decide(first, COMPLETED, "A")
    journal(path).write_bytes(left)  # its deletion did not come to pass
    again = Session.open(path)
    assert again.entries[first].status == FLAGGED
    again.decide(first, COMPLETED, "A")
    assert Session.open(path).entries[first].status == COMPLETED


def test_a_journal_that_somebody_deleted_is_begun_anew(tmp_path):
    path = tmp_path / "s.json"
    session = Session.create(path, entries_in(tmp_path))
    first, second, _ = session.entries
    session.decide(first, FLAGGED, "A")
    journal(path).unlink()
    session.decide(second, COMPLETED, "A")
    assert Session.open(path).entries[second].status == COMPLETED


def test_a_full_disk_is_told_and_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "s.json"
    session = Session.create(path, entries_in(tmp_path))
    first = next(iter(session.entries))
    session.start(first, "A")
    before = journal(path).read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(review_file.os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        session.start(first, "A")
    monkeypatch.undo()
    assert journal(path).read_bytes() == before
    session.decide(first, COMPLETED, "A")
    assert Session.open(path).entries[first].status == COMPLETED


def test_a_decision_in_a_long_list_writes_little(tmp_path):
    session = Session.create(tmp_path / "s.json", entries_in(tmp_path, 10_000))
    first, size = next(iter(session.entries)), (tmp_path / "s.json").stat().st_size
    session.decide(first, COMPLETED, "A")
    assert (tmp_path / "s.json").stat().st_size == size > 1e6 and journal(session.path).stat().st_size < 1000
