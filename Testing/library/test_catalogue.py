"""The catalogue finds every model, hides no broken one, and says what is near when a name is wrong."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from MambaSegLib import catalogue
from MambaSegLib.errors import UserError


@pytest.fixture
def folder(tmp_path, tiny_bundle, monkeypatch):
    """Two models in a folder beside a stranger; the user's own folder is empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "home"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    folder = tmp_path / "models"
    copy(tiny_bundle, folder / "tiny")
    copy(tiny_bundle, folder / "heart", id="heart", title="Atrium", keywords=["cardiac"], description="Left side")
    (folder / "notes").mkdir()
    return folder


def copy(source, target, **changes):
    shutil.copytree(source, target)
    file = target / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def ids(entries):
    return [entry.id for entry in entries if entry.origin != "shipped"]


def test_models_are_listed_by_title(folder):
    entries = catalogue.entries([folder])
    assert ids(entries) == ["heart", "tiny"]
    assert {bundle.id for bundle in catalogue.bundles([folder])} >= {"heart", "tiny"}


def test_a_folder_that_is_itself_a_model_counts(folder):
    assert ids(catalogue.entries([folder / "tiny"])) == ["tiny"]
    assert ids(catalogue.entries([folder / "tiny", folder])) == ["tiny", "heart"]


def test_a_broken_model_is_listed_with_its_error_and_the_others_work(folder):
    (folder / "tiny" / "bundle.json").write_text("{", encoding="utf-8")
    broken, good = sorted(catalogue.entries([folder])[:2], key=lambda entry: entry.bundle is not None)
    assert broken.id == "tiny" and broken.bundle is None and "JSON" in str(broken.error)
    assert good.id == "heart" and good.error is None
    with pytest.raises(UserError, match="JSON"):
        catalogue.find("tiny", [folder])


def test_the_users_own_folder_is_looked_into(folder, tiny_bundle):
    own = catalogue.user_folder()
    assert own.parts[-2:] == ("SlicerMambaSegmentation", "models")
    assert ids(catalogue.entries()) == []
    copy(tiny_bundle, own / "mine", id="mine")
    (own / "half-copied").mkdir()
    assert sorted(ids(catalogue.entries())) == ["half-copied", "mine"]
    assert catalogue.find("mine").folder == own / "mine"


@pytest.mark.parametrize(
    ("system", "variable", "end"),
    [
        ("win32", "APPDATA", "data"),
        ("win32", None, "AppData/Roaming"),
        ("linux", "XDG_DATA_HOME", "data"),
        ("linux", None, ".local/share"),
        ("darwin", None, "Library/Application Support"),
    ],
)
def test_where_the_users_folder_is(monkeypatch, tmp_path, system, variable, end):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("APPDATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "data"))
    assert catalogue.user_folder() == tmp_path / end / "SlicerMambaSegmentation" / "models"


@pytest.mark.parametrize(
    ("text", "found"),
    [("", ["heart", "tiny"]), ("ATRIUM", ["heart"]), ("left card", ["heart"]), ("posterior", ["heart", "tiny"]),
     ("toy hippo", ["tiny"]), ("cardiac toy", []), ("heart", ["heart"])],
)  # fmt: skip
def test_search_wants_all_words_anywhere(folder, text, found):
    assert ids(catalogue.search(text, [folder])) == found


def test_find_by_id_and_by_folder(folder):
    assert catalogue.find("heart", [folder]).title == "Atrium"
    assert catalogue.find(folder / "heart").title == "Atrium"
    assert catalogue.find(str(folder / "tiny")).id == "tiny"


def test_a_wrong_name_gets_near_ones_and_the_whole_list(folder):
    with pytest.raises(UserError) as caught:
        catalogue.find("haert", [folder])
    assert "'haert'" in caught.value.message
    assert "Did you mean heart?" in caught.value.hint and "tiny" in caught.value.hint
    with pytest.raises(UserError, match="no such folder"):
        catalogue.find(str(folder / "absent"))


def test_find_verifies_the_weights(folder):
    weights = folder / "tiny" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "tiny" in ids(catalogue.entries([folder]))
    with pytest.raises(UserError, match="sha256"):
        catalogue.find("tiny", [folder])


def test_one_id_for_two_different_models_is_refused_for_two_copies_not(folder, tmp_path):
    copy(folder / "tiny", tmp_path / "copy" / "tiny")
    assert catalogue.find("tiny", [folder, tmp_path / "copy"]).id == "tiny"
    copy(folder / "tiny", tmp_path / "other" / "tiny", title="Another")
    with pytest.raises(UserError, match="Different models"):
        catalogue.find("tiny", [folder, tmp_path / "other"])


def test_every_shipped_model_is_whole_and_small():
    shipped = [entry for entry in catalogue.entries() if entry.origin == "shipped"]
    for entry in shipped:
        assert entry.error is None, entry.error
        assert catalogue.find(entry.folder).data["weights"]["bytes"] <= 25_000_000


def test_a_model_shows_its_own_picture_or_that_of_the_shipped_one_it_comes_from(folder, tmp_path, monkeypatch):
    bundle = catalogue.find("tiny", [folder])
    assert catalogue.thumbnail_of(bundle) is None
    monkeypatch.setattr(catalogue, "shipped_folder", lambda: tmp_path / "shipped")
    (tmp_path / "shipped" / "tiny").mkdir(parents=True)
    inherited, own = tmp_path / "shipped" / "tiny" / "thumbnail.png", bundle.folder / "thumbnail.png"
    inherited.write_bytes(b"picture")
    assert catalogue.thumbnail_of(bundle) == inherited
    own.write_bytes(b"picture")
    assert catalogue.thumbnail_of(bundle) == own
