"""The audit log: every kind of tampering is found, and nothing is lost when several write or one is interrupted."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from MambaSegLib import audit, cli, safe_file
from MambaSegLib.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(tmp_path):
    """Five records."""
    path = tmp_path / "prüfung.jsonl"
    for index in range(5):
        model = {"id": "hippocampus", "sha256": "ab" * 32}
        voxels = {"Left": {"added": index, "removed": 2}}
        audit.append(path, "review", "Dr. Ä", f"case {index}", model, voxels, 1.5, "completed", '=1+1, "ok"')
    return path


def rewritten(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    return audit.verify(path)["problems"]


def test_a_log_reads_back_and_is_unbroken(log):
    found = audit.records(log)
    assert [record["n"] for record in found] == [1, 2, 3, 4, 5] and found[2]["case"] == "case 2"
    assert found[0]["time"].endswith("+00:00") and found[3]["voxels"] == {"Left": {"added": 3, "removed": 2}}
    assert audit.verify(log) == {"records": 5, "head": found[-1]["hash"], "problems": []}


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [line.replace(b"case 2", b"case 7") for line in lines],
        lambda lines: lines[:1] + lines[2:],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: lines[:4],
        lambda lines: [],
        lambda lines: [*lines[:4], lines[4][:-20]],
        lambda lines: [*lines[:2], b"nothing\n", *lines[2:]],
    ],
    ids=["changed", "deleted", "first", "reordered", "doubled", "cut", "emptied", "torn", "garbage"],
)
def test_tampering_is_found(log, change):
    assert rewritten(log, change)


def test_a_record_whose_hash_was_made_anew_breaks_the_chain(log):
    def forge(lines):
        record = json.loads(lines[2])
        record["decision"] = "flagged"
        record["hash"] = audit._hash(record)
        return [*lines[:2], json.dumps(record).encode() + b"\n", *lines[3:]]

    assert rewritten(log, forge) == ["Before record 4 something was deleted, inserted or moved."]


def test_a_log_replaced_together_with_its_head_is_found_by_a_noted_hash(log):
    noted = audit.verify(log)["head"]
    audit.append(log, "review", "A", "later")
    assert not audit.verify(log, noted)["problems"]
    log.unlink()
    log.with_name(log.name + ".head").unlink()
    audit.append(log, "review", "A", "forged")
    assert not audit.verify(log)["problems"] and audit.verify(log, noted)["problems"]


def test_a_shortened_log_takes_no_more_records(log):
    lines = log.read_bytes().splitlines(keepends=True)
    for left in (lines[:3], []):
        log.write_bytes(b"".join(left))
        with pytest.raises(UserError, match="not the one"):
            audit.append(log, "review", "A", "next")


def test_an_interrupted_write_is_repaired_and_told(log):
    with open(log, "ab") as file:
        file.write('{"n": 6, "user": "Ä'.encode()[:-1])
    audit.append(log, "review", "B", "case 9")
    found = audit.records(log)
    assert [record["action"] for record in found[5:]] == ["recovered", "review"] and "19 bytes" in found[5]["comment"]
    assert not audit.verify(log)["problems"]


def test_a_kill_between_log_and_head_is_no_tampering(log, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            audit.append(log, "review", "A", "case 5")
    assert audit.verify(log)["records"] == 6 and not audit.verify(log)["problems"]
    assert audit.append(log, "review", "A", "case 6")["n"] == 7 and not audit.verify(log)["problems"]


def test_a_full_disk_leaves_no_part_of_a_record(log, monkeypatch):
    before = log.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit.os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        audit.append(log, "review", "A", "case 5")
    assert log.read_bytes() == before and safe_file.os.fsync is full


def test_four_processes_append_at_once(tmp_path):
    code = (
        "import sys; from MambaSegLib import audit\n"
        "for i in range(20): audit.append(sys.argv[1], 'a', sys.argv[2], str(i))"
    )
    path = tmp_path / "log.jsonl"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=ROOT) for name in "abcd"]
    assert [process.wait() for process in running] == [0] * 4
    found = audit.records(path)
    assert len(found) == 80 and not audit.verify(path)["problems"]
    for name in "abcd":
        assert [record["case"] for record in found if record["user"] == name] == [str(i) for i in range(20)]


def test_long_records_are_found_from_the_end(log):
    audit.append(log, "review", "A", "long", comment="ä" * 200_000)
    assert audit.append(log, "review", "A", "after")["n"] == 7


def test_the_command_verifies_and_exports(log, tmp_path, capsys):
    assert cli.main(["audit", "verify", str(log)]) == 0
    assert "5 records, unbroken" in capsys.readouterr().out
    assert cli.main(["audit", "export", str(log), "-o", str(tmp_path / "a.csv")]) == 0
    with open(tmp_path / "a.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and rows[1]["voxels"] == "Left +1 -2" and rows[1]["model_sha256"] == "ab" * 32
    assert rows[0]["comment"] == '\'=1+1, "ok"' and rows[0]["user"] == "Dr. Ä"
    rewritten(log, lambda lines: lines[:3])
    capsys.readouterr()
    assert cli.main(["audit", "verify", str(log)]) == 2
    assert "cut off" in capsys.readouterr().err
