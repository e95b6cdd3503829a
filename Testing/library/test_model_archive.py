"""A model given away as one file and added elsewhere: nothing hostile gets out of it."""

import json
import os
import stat
import zipfile

import numpy as np
import pytest

from MambaSegLib import catalogue, cli, export, model_add, model_store
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.bundle_archive import describe
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.job import Report


def write_zip(bundle, place, **more):
    place.parent.mkdir(parents=True, exist_ok=True)
    return export.run({"model": str(bundle), "output": str(place), "format": "bundle", **more}, Report())


def add(source, **more):
    return model_add.run({"source": str(source), **more}, Report())


def changed(archive, target, change):
    """The zip again, each member's (info, content) as `change` gives it; None leaves it out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for info in source.infolist():
            pair = change(info, source.read(info))
            if pair:
                copy.writestr(*pair)
    return target


def test_there_and_back(tiny_bundle, tmp_path, home):
    events = []
    request = {"model": str(tiny_bundle), "output": str(tmp_path / "out" / "tiny.zip"), "format": "bundle"}
    result = export.run(request, Report(events.append))
    assert result["output"] == str(tmp_path / "out" / "tiny.zip") and result["withheld"] == 0
    assert [e for e in events if e["event"] == "progress"][-1]["done"] == open_bundle(tiny_bundle).data["weights"][
        "bytes"
    ]
    with zipfile.ZipFile(result["output"]) as archive:
        names = {name.split("/")[-1] for name in archive.namelist()}
    assert names == {"bundle.json", "README.md", "weights.safetensors"} and os.listdir(tmp_path / "out") == ["tiny.zip"]
    added = add(result["output"])
    assert added["in_use"] and not added["was_there"] and added["bundle"].startswith(str(home))
    here, there = open_bundle(added["bundle"]), open_bundle(tiny_bundle)
    assert here.data == there.data and here.weights_path.read_bytes() == there.weights_path.read_bytes()
    assert sorted(p.name for p in home.iterdir()) == [".lock", added["id"]], "no temporary folder is left"
    write_zip(tiny_bundle, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "out" / "tiny.zip").read_bytes()


def test_the_same_model_twice_and_another_of_its_name(tiny_bundle, tiny_bundle_data, tmp_path, home):
    write_zip(tiny_bundle, tmp_path / "tiny.zip")
    first = add(tmp_path / "tiny.zip")
    again = add(tiny_bundle)
    assert again["was_there"] and again["bundle"] == first["bundle"]
    weights = {"w": np.ones(3, "float32")}
    other = write_bundle(tmp_path / "other", tiny_bundle_data, weights)
    second = add(other.folder)
    assert second["id"].startswith("tiny-2-") and open_bundle(first["bundle"]).id == "tiny"
    assert open_bundle(second["bundle"]).sha256 == other.sha256
    named = add(tmp_path / "tiny.zip", name="Großer Test")
    assert open_bundle(named["bundle"]).title == "Großer Test" and named["id"].startswith("gro-er-test-")
    assert catalogue.find("tiny").sha256 == open_bundle(tiny_bundle).sha256, "no id means two models"


def test_a_version_stays_a_version(tiny_bundle, tiny_bundle_data, tmp_path, home):
    parent = open_bundle(tiny_bundle)
    made = {"parent": "tiny", "parent_sha256": parent.sha256, "lineage": "tiny"}
    child_data = tiny_bundle_data | {"version": "1.1.0", "provenance": tiny_bundle_data["provenance"] | made}
    child = write_bundle(tmp_path / "child", child_data, {"w": np.ones(3, "float32")})
    judged = {"accepted": True, "reasons": ["Better."], "rows": [], "protocol": "hold-out", "margin": 0.01}
    (child.folder / "decision.json").write_text(json.dumps(judged | {"date": "2026-01-02T03:04:05+00:00"}))
    write_zip(child.folder, tmp_path / "child.zip")
    model_store.add(parent)
    with pytest.raises(UserError, match="is a version of 'tiny'"):
        add(tmp_path / "child.zip", name="Other")
    result = add(tmp_path / "child.zip")
    assert not result["in_use"] and catalogue.find("tiny").sha256 == parent.sha256, "the one in use stays"
    (version,) = [v for v in model_store.history("tiny") if v.parent]
    assert version.decision["date"].startswith("2026-01-02") and version.is_accepted
    used = add(tmp_path / "child.zip", use=True)
    assert used["was_there"] and used["in_use"] and catalogue.find("tiny").sha256 == child.sha256
    (child.folder / "decision.json").unlink()
    write_zip(child.folder, tmp_path / "unjudged.zip")
    model_store.rollback("tiny")
    model_store.remove(version.id)
    assert not add(tmp_path / "unjudged.zip")["in_use"]
    assert not model_store.find_version(version.id).is_accepted


def test_a_version_without_its_family_is_in_use_at_once(tiny_bundle_data, tmp_path, home):
    made = {"parent": "gone", "parent_sha256": "0" * 64, "lineage": "gone"}
    data = tiny_bundle_data | {"provenance": tiny_bundle_data["provenance"] | made}
    child = write_bundle(tmp_path / "child", data, {"w": np.ones(3, "float32")})
    assert add(child.folder)["in_use"] and catalogue.find("gone").sha256 == child.sha256


def link(info, content):
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, b"/etc/passwd"


def renamed(name):
    def change(info, content):
        return (info.filename.replace("README.md", name) if "README" in info.filename else info), content

    return change


def moved(name):
    def change(info, content):
        return (name if "README" in info.filename else info), content

    return change


def other_weights(info, content):
    return info, content[:-1] + bytes([content[-1] ^ 1]) if info.filename.endswith(".safetensors") else content


def bomb(info, content):
    if info.filename.endswith(".safetensors"):
        info.compress_type = zipfile.ZIP_DEFLATED
        return info, bytes(64 << 20)
    return info, content


def foreign_json(**fields):
    def change(info, content):
        if info.filename.endswith("bundle.json"):
            content = json.dumps(json.loads(content) | fields).encode()
        return info, content

    return change


@pytest.mark.parametrize(
    "change,complaint",
    [
        (moved("../../evil.md"), "leads out of the folder"),
        (moved("/tmp/evil.md"), "leads out of the folder"),
        (moved("C:\\evil.md"), "leads out of the folder"),
        (moved("x/..\\evil.md"), "leads out of the folder"),
        (lambda i, c: link(i, c) if i.filename.endswith(".safetensors") else (i, c), "is a link"),
        (lambda i, c: link(i, c) if "README" in i.filename else (i, c), "is a link"),
        (bomb, "as no model does"),
        (other_weights, "was changed: its sha256"),
        (lambda i, c: (i, c[:-10]) if i.filename.endswith(".safetensors") else (i, c), "must have .* bytes"),
        (lambda i, c: None if i.filename.endswith(".safetensors") else (i, c), "does not hold it"),
        (lambda i, c: None if i.filename.endswith("bundle.json") else (i, c), "0 were found"),
        (lambda i, c: (i, b"[1") if i.filename.endswith("bundle.json") else (i, c), "not valid JSON"),
        (foreign_json(labels=[]), "labels must be"),
        (foreign_json(schema_version=99), "newer program"),
        (foreign_json(weights={"file": "../../x.safetensors"}), "plain file name"),
        (foreign_json(metrics={"protocol": "", "values": [{"structure": "a"}]}), "metrics"),
        (renamed("thumbnail.png"), "no PNG"),
        (renamed("decision.json"), "not valid JSON"),
    ],
)
def test_hostile_files_are_refused(tiny_bundle, tmp_path, home, change, complaint):
    write_zip(tiny_bundle, tmp_path / "good.zip")
    bad = changed(tmp_path / "good.zip", tmp_path / "bad.zip", change)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=complaint):
        add(bad)
    there = {path for path in tmp_path.rglob("*") if path != home and path not in home.parents}
    assert there == before, "nothing is left with the user's models, or put elsewhere"
    assert not os.path.exists("/tmp/evil.md") and not (tmp_path.parent / "evil.md").exists()


@pytest.mark.parametrize("size", [0, 100, -30])
def test_half_a_file_is_refused(tiny_bundle, tmp_path, home, size):
    write_zip(tiny_bundle, tmp_path / "good.zip")
    content = (tmp_path / "good.zip").read_bytes()
    (tmp_path / "bad.zip").write_bytes(content[:size])
    with pytest.raises(UserError, match=r"bad\.zip is damaged, incomplete, or no zip file"):
        add(tmp_path / "bad.zip")


def test_a_flipped_byte_on_the_way_is_noticed(tiny_bundle, tmp_path, home):
    write_zip(tiny_bundle, tmp_path / "good.zip")
    content = bytearray((tmp_path / "good.zip").read_bytes())
    content[len(content) // 2] ^= 1  # in the weights, where the zip's own CRC sees it
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        add(tmp_path / "bad.zip")


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "thumbnail.png"])
def test_a_folder_with_links_is_refused(tiny_bundle, tmp_path, home, name):
    (tmp_path / "elsewhere").write_bytes((tiny_bundle / name).read_bytes() if (tiny_bundle / name).exists() else b"")
    (tiny_bundle / name).unlink(missing_ok=True)
    (tiny_bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"'{name}' is a link"):
        add(tiny_bundle)


def test_a_folder_that_was_unpacked_into_another(tiny_bundle, tmp_path, home):
    write_zip(tiny_bundle, tmp_path / "tiny.zip")
    with zipfile.ZipFile(tmp_path / "tiny.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert describe(tmp_path / "unpacked").data["id"] == "tiny" and add(tmp_path / "unpacked")["in_use"]


def test_a_folder_whose_decision_is_none(tiny_bundle, tmp_path, home):
    (tiny_bundle / "decision.json").write_text('{"accepted": true, "rows": [1]}')
    with pytest.raises(UserError, match="cannot be understood"):
        add(tiny_bundle)


def test_nothing_is_overwritten_and_a_cancelled_one_leaves_nothing(tiny_bundle, tmp_path, home):
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_zip(tiny_bundle, tmp_path / "mine.zip")
    with pytest.raises(UserError, match=r"ends in \.zip"):
        write_zip(tiny_bundle, tmp_path / "model.tar")
    report = Report()
    request = {"model": str(tiny_bundle), "output": str(tmp_path / "out" / "x.zip"), "format": "bundle"}
    report._sink = lambda event: report.cancel()
    with pytest.raises(Cancelled):
        export.run(request, report)
    assert not list((tmp_path / "out").iterdir()) and (tmp_path / "mine.zip").read_text() == "mine"


def test_on_the_command_line(tiny_bundle, tmp_path, home, capsys):
    output = tmp_path / "tiny.zip"
    assert cli.main(["export", str(tiny_bundle), "-o", str(output), "--format", "bundle"]) == 0
    assert cli.main(["models", "add", str(output), "--json"]) == 0
    added = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert added["id"].startswith("tiny-") and cli.main(["models", "add", str(output), "--name", "Mine"]) == 0
    assert "Mine is here now: mine-" in capsys.readouterr().out
    assert cli.main(["models", "add", str(tmp_path / "no.zip")]) == 2
