"""Versions of a model: kept under a name made of their content, put in use and taken back, and nothing is lost."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from MambaSegLib import catalogue, cli, model_store
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import UserError

ROW = {
    **{"structure": "Anterior", "finds_before": True, "finds_after": True, "cases": 4, "patients": 4},
    **{"dice_before": 0.8, "dice_after": 0.85, "difference": 0.05, "low": 0.02, "high": 0.08, "hd95_before": 2.0},
    **{"hd95_after": None, "surface_dice_before": 0.9, "surface_dice_after": 0.92, "volume_error_before": 5.0},
    **{"volume_error_after": 4.0, "agreement": 0.9, "false_alarms_before": 0, "false_alarms_after": 0},
    **{"worst_case": "x", "worst_difference": 0.01},
}
YES = {"accepted": True, "reasons": ["Better."], "rows": [ROW], "protocol": "hold-out", "margin": 0.01}
NO = {**YES, "accepted": False, "reasons": ["Anterior: Dice fell by 0.200 on average."]}


@pytest.fixture
def shipped(tmp_path, tiny_bundle_data, monkeypatch):
    """The program ships one model, "tiny"."""
    monkeypatch.setattr(catalogue, "shipped_folder", lambda: tmp_path / "shipped")
    monkeypatch.setattr(catalogue, "user_folder", lambda: tmp_path / "models")
    return write_bundle(tmp_path / "shipped" / "tiny", tiny_bundle_data, {"w": np.zeros(3, np.float32)})


@pytest.fixture
def make_child(tmp_path, tiny_bundle_data):
    def make(parent, seed: int):
        provenance = tiny_bundle_data["provenance"] | {
            **{"parent": parent.id, "parent_sha256": parent.sha256, "lineage": "tiny", "date": f"2026-02-{seed:02d}"},
        }
        weights = {"w": np.random.default_rng(seed).normal(size=3).astype(np.float32)}
        return write_bundle(tmp_path / f"work{seed}", tiny_bundle_data | {"provenance": provenance}, weights)

    return make


def ids(entries):
    return [entry.version for entry in entries]


def test_a_version_is_kept_under_its_content_and_nothing_of_it_changes(shipped, make_child, tmp_path):
    child = make_child(shipped, 1)
    version = model_store.add(child, YES)
    assert version.folder == tmp_path / "models" / f"tiny-{child.sha256[:12]}" == tmp_path / "models" / version.id
    assert version.parent == f"tiny-{shipped.sha256[:12]}" and version.lineage == "tiny" and not version.is_active
    assert version.decision["accepted"] and version.decision["date"] and version.decision["rows"] == [ROW]
    assert open_bundle(version.folder).data == child.data
    before = {path.name: path.read_bytes() for path in version.folder.iterdir()}
    assert model_store.add(child, NO) == version  # the same weights again: the first decision stays
    assert {path.name: path.read_bytes() for path in version.folder.iterdir()} == before
    assert child.folder.is_dir() and not list((tmp_path / "models").glob(".tiny*"))


def test_a_rejected_candidate_is_kept_and_not_offered_unless_asked(shipped, make_child):
    version = model_store.add(make_child(shipped, 1), NO)
    assert ids(catalogue.entries()) == [f"tiny-{shipped.sha256[:12]}"]
    assert catalogue.find("tiny").folder == shipped.folder
    assert set(ids(catalogue.entries(every_version=True))) == {version.id, f"tiny-{shipped.sha256[:12]}"}
    assert catalogue.find(version.id).folder == version.folder
    with pytest.raises(UserError, match="did not accept.*Dice fell by 0.200"):
        model_store.promote(version.id)
    assert catalogue.find("tiny").folder == shipped.folder
    model_store.promote(version.id, despite_gate=True)
    assert catalogue.find("tiny").folder == version.folder


def test_promotion_and_rollback_move_one_pointer(shipped, make_child, tmp_path):
    first = model_store.add(make_child(shipped, 1), YES)
    second = model_store.add(make_child(open_bundle(first.folder), 2), YES)
    sibling = model_store.add(make_child(shipped, 3), YES)
    root = f"tiny-{shipped.sha256[:12]}"
    assert [v.id for v in model_store.history("tiny")] == [root, first.id, sibling.id, second.id]
    assert [v.is_active for v in model_store.history("tiny")] == [True, False, False, False]

    assert model_store.promote(first.id).is_active and catalogue.find("tiny").folder == first.folder
    assert ids(catalogue.entries()) == [first.id]
    model_store.promote(second.id, instead_of=first.id)
    assert json.loads((tmp_path / "models" / "active.json").read_text()) == {"tiny": second.id}
    with pytest.raises(UserError, match=f"compared with {root}, but {second.id}"):
        model_store.promote(sibling.id, instead_of=root)
    assert model_store.rollback("tiny").id == first.id
    assert model_store.rollback("tiny").id == root and catalogue.find("tiny").folder == shipped.folder
    with pytest.raises(UserError, match="in use already"):
        model_store.rollback("tiny")
    assert model_store.find_version(second.id).folder.is_dir()


def test_what_is_in_use_shipped_or_a_parent_cannot_be_removed(shipped, make_child):
    first = model_store.add(make_child(shipped, 1), YES)
    second = model_store.add(make_child(open_bundle(first.folder), 2), YES)
    model_store.promote(second.id)
    for name, why in (
        (f"tiny-{shipped.sha256[:12]}", "came with the program"),
        (first.id, "parent"),
        (second.id, "in use"),
    ):
        with pytest.raises(UserError, match=why):
            model_store.remove(name)
    model_store.rollback("tiny")
    model_store.remove(second.id)
    assert not second.folder.exists() and first.folder.is_dir() and shipped.folder.is_dir()
    assert [v.id for v in model_store.history("tiny")] == [f"tiny-{shipped.sha256[:12]}", first.id]


def test_an_imported_model_is_in_use_at_once_and_can_be_removed(shipped, tmp_path, tiny_bundle_data):
    data = tiny_bundle_data | {"id": "mine"}
    version = model_store.add(write_bundle(tmp_path / "new", data, {"w": np.ones(2, np.float32)}))
    assert version.is_active and catalogue.find("mine").folder == version.folder
    model_store.remove(version.id)
    with pytest.raises(UserError, match="no model 'mine'"):
        catalogue.find("mine")


def test_damaged_weights_are_neither_added_nor_promoted(shipped, make_child, tmp_path):
    child = make_child(shipped, 1)
    version = model_store.add(child, YES)
    weights = version.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(UserError, match="sha256"):
        model_store.promote(version.id)
    assert catalogue.find("tiny").folder == shipped.folder
    bad = make_child(shipped, 2)
    bad.weights_path.write_bytes(bad.weights_path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(UserError, match="sha256"):
        model_store.add(bad, YES)
    assert sorted(p.name for p in (tmp_path / "models").glob("tiny-*")) == [version.id]


def test_a_lost_version_is_told_and_rolled_back(shipped, make_child):
    version = model_store.add(make_child(shipped, 1), YES)
    model_store.promote(version.id)
    shutil.rmtree(version.folder)
    with pytest.raises(UserError, match="not there any more.*rollback tiny"):
        catalogue.find("tiny")
    assert model_store.rollback("tiny").folder == shipped.folder
    assert catalogue.find("tiny").folder == shipped.folder


def test_an_accepted_version_from_elsewhere_is_offered_when_it_is_all_there_is(shipped, make_child, tmp_path):
    version = model_store.add(make_child(shipped, 1), YES, tmp_path / "colleague")
    rejected = model_store.add(make_child(shipped, 2), NO, tmp_path / "colleague")
    shutil.rmtree(shipped.folder)
    assert ids(catalogue.entries([tmp_path / "colleague"])) == [version.id]
    assert ids(catalogue.entries([rejected.folder])) == [rejected.id]  # a folder that was named


def test_folders_of_models_have_their_own_pointers(shipped, make_child, tmp_path):
    other = tmp_path / "other"
    version = model_store.add(make_child(shipped, 1), YES, other)
    model_store.promote(version.id, other)
    assert catalogue.find("tiny").folder == shipped.folder
    assert catalogue.find("tiny", [other]).folder == version.folder


@pytest.mark.parametrize("text", ["{", "[]", '{"tiny": 3}'])
def test_a_damaged_pointer_file_hides_no_model(shipped, make_child, tmp_path, text):
    model_store.add(make_child(shipped, 1), YES)
    (tmp_path / "models" / "active.json").write_text(text)
    entries = catalogue.entries()
    assert any(entry.error and "active.json" in entry.error.message for entry in entries)
    assert catalogue.find("tiny").folder == shipped.folder
    with pytest.raises(UserError, match=r"active\.json"):
        model_store.rollback("tiny")


def _promote_some(folder, names, start):
    start.wait()
    for _ in range(5):
        for name in names:
            model_store.promote(name, folder)


def test_two_processes_lose_nothing(shipped, make_child, tmp_path, tiny_bundle_data):
    """Each process moves the pointer of a lineage of its own, in one file; no move is lost, no half file is read."""
    folder, lineages = tmp_path / "models", {}
    for number, lineage in enumerate(("one", "two")):
        provenance = tiny_bundle_data["provenance"] | {"parent": lineage, "lineage": lineage}
        lineages[lineage] = []
        for seed in range(2):
            data = tiny_bundle_data | {"id": lineage, "provenance": provenance}
            weights = {"w": np.full(3, 10 * number + seed, np.float32)}
            bundle = write_bundle(tmp_path / f"{lineage}{seed}", data, weights)
            lineages[lineage].append(model_store.add(bundle, YES, folder).id)
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    workers = [context.Process(target=_promote_some, args=(folder, names, start)) for names in lineages.values()]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert catalogue.read_active(folder) == {lineage: names[-1] for lineage, names in lineages.items()}


def test_cards_are_exported_with_parent_and_decision(shipped, make_child, tmp_path):
    version = model_store.add(make_child(shipped, 1), YES)
    text = model_store.export_card(version.id, tmp_path / "card.md").read_text(encoding="utf-8")
    assert text == (version.folder / "README.md").read_text(encoding="utf-8")
    assert "Compared with its parent" in text and "**accepted**" in text and shipped.sha256 in text
    assert "| Anterior | 4 | 0.800 → 0.850 | +0.050 (+0.020 to +0.080) |" in text and "2.0 → -" in text
    page = model_store.export_card("tiny", tmp_path / "card.html").read_text(encoding="utf-8")
    assert "Toy hippocampus" in page and "<table>" in page and "Compared with" not in page  # the shipped one is in use
    with pytest.raises(UserError, match="exists already"):
        model_store.export_card("tiny", tmp_path / "card.html")
    with pytest.raises(UserError, match=r"\.md or \.html"):
        model_store.export_card("tiny", tmp_path / "card.pdf")


def test_on_the_command_line(shipped, make_child, tmp_path, capsys):
    def mambaseg(*arguments):
        code = cli.main(["models", *map(str, arguments)])
        return code, capsys.readouterr()

    good, bad = model_store.add(make_child(shipped, 1), YES), model_store.add(make_child(shipped, 2), NO)
    root = f"tiny-{shipped.sha256[:12]}"
    listed = mambaseg("list", "--all")[1].out.splitlines()
    assert [line.split()[0] for line in listed[2:]] == [root, good.id, bad.id]
    assert "yes" in listed[2] and "accepted" in listed[3] and "refused" in listed[4] and root in listed[4]
    facts = {entry["name"]: entry for entry in json.loads(mambaseg("list", "--all", "--json")[1].out)}
    assert facts[good.id]["parent"] == root and facts[root]["in_use"] and not facts[bad.id]["decision"]["accepted"]
    assert good.id not in mambaseg("list")[1].out

    code, told = mambaseg("promote", bad.id)
    assert code == 2 and "--despite-gate" in told.err
    assert mambaseg("promote", good.id)[1].out == f"'tiny' is now {good.id}.\n"
    assert "Compared with its parent" in mambaseg("show", "tiny")[1].out
    assert mambaseg("remove", good.id)[0] == 2 and mambaseg("remove", bad.id)[0] == 0 and not bad.folder.exists()
    assert mambaseg("rollback", good.id)[1].out == f"'tiny' is now {root}.\n"
    assert mambaseg("export-card", good.id, tmp_path / "card.html")[0] == 0 and (tmp_path / "card.html").is_file()
    assert "no such folder" in mambaseg("list", "--folder", tmp_path / "elsewhere")[1].out
