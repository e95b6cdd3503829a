"""A model learns from a few new cases: the child, its gate, its resume, and that the parent stays what it is."""

import json
import shutil
from types import SimpleNamespace

import pytest
import SimpleITK as sitk
from balls_data import balls_config, write_balls
from safetensors.numpy import load_file

from MambaSegLib import catalogue, model_store
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.job import Report
from MambaSegTraining import finetune, train
from MambaSegTraining.pace import Pace, in_words
from MambaSegTraining.run_folder import read_run


@pytest.fixture(scope="module")
def parent(tmp_path_factory, balls):
    """A toy model that knows a little about balls."""
    folder = tmp_path_factory.mktemp("parent")
    config = balls_config(balls) | {"steps": 30, "validate_every": 30}
    (folder / "config.json").write_text(json.dumps(config))
    return train.run({"config": str(folder / "config.json"), "output": str(folder / "run")}, Report())["bundle"]


@pytest.fixture(scope="module")
def new_cases(tmp_path_factory):
    """Eleven patients, four of them held out, as follows from their names."""
    folder = tmp_path_factory.mktemp("new")
    write_balls(folder / "d", 11)
    for path in sorted((folder / "d").glob("*/*.nii.gz"), reverse=True):
        path.rename(path.with_name(path.name.replace("case_", "ward_")))
    return folder / "d"


class Events(Report):
    def __init__(self, at=None):
        super().__init__(self.keep)
        self.seen, self.at, self.pictures = [], at, []

    def keep(self, event):
        self.seen.append(event)
        if event["event"] == "picture":
            self.pictures.append(sitk.GetArrayFromImage(sitk.ReadImage(event["path"])))
        if self.at and event["event"] == "metric" and event["step"] == self.at:
            self.cancel()

    def named(self, name):
        return [(e["step"], e["value"]) for e in self.seen if e["event"] == "metric" and e["name"] == name]


@pytest.fixture
def ask(parent, new_cases, tmp_path):
    def request(**changes):
        return {"model": parent, "data": [str(new_cases)], "output": str(tmp_path / "models"), "budget_s": 6} | changes

    return request


@pytest.fixture(autouse=True)
def few_folds(monkeypatch):
    monkeypatch.setattr(finetune, "MOST_FOLDS", 2)


def test_a_child_is_made_judged_and_kept(ask, parent, tmp_path):
    before = open_bundle(parent)
    report = Events()
    result = finetune.run(ask(), report)
    child = open_bundle(result["candidate"])
    provenance = child.data["provenance"]
    assert (provenance["parent"], provenance["parent_sha256"]) == ("balls", before.sha256)
    assert provenance["lineage"] == "balls" and child.version == "1.1.0" and child.id == "balls"
    assert set(provenance["new_cases"]).isdisjoint(provenance["validation_cases"])
    assert set(before.data["provenance"]["cases"]) < set(provenance["cases"])
    assert provenance["config"]["method"] == "all" and provenance["config"]["steps"] == result["steps"]
    assert result["protocol"] == "hold-out" and result["decision"]["rows"]
    assert result["promoted"] == result["decision"]["accepted"]
    assert len(report.named("loss")) == result["steps"] and report.named("validation Dice")
    assert open_bundle(parent).data == before.data  # its weights are verified by opening it
    run = tmp_path / "models" / ".finetune" / catalogue.version_name(before)
    assert read_run(run)["state"] == "finished" and [p.name for p in run.iterdir()] == ["run.json"]
    assert any("left" in e.get("label", "") for e in report.seen)
    assert len(report.pictures) == len(report.named("validation Dice"))
    middle = report.pictures[0].shape[1] // 2 - 2
    assert all((picture[:, :middle] == report.pictures[0][:, :middle]).all() for picture in report.pictures)


def test_stopped_and_resumed(ask, tmp_path):
    with pytest.raises(Cancelled):
        finetune.run(ask(budget_s=600), Events(at=25))
    (run,) = (tmp_path / "models" / ".finetune").iterdir()
    found = read_run(run)
    assert found["state"] == "stopped" and found["kind"] == "finetune" and found["step"] == 20
    report = Events()
    result = finetune.run(found["request"] | {"resume": True, "budget_s": 5}, report)
    assert report.named("loss")[0][0] == 21 and result["steps"] >= 21


def test_leave_one_out_where_patients_are_few(ask, new_cases, tmp_path):
    few = tmp_path / "few"
    for kind in ("imagesTr", "labelsTr"):
        (few / kind).mkdir(parents=True)
        for path in sorted((new_cases / kind).iterdir())[:3]:
            shutil.copy(path, few / kind)
    report = Events()
    result = finetune.run(ask(data=[str(few)]), report)
    assert result["protocol"] == "leave-one-out" and result["decision"]["rows"][0]["cases"] == 3
    assert open_bundle(result["candidate"]).data["provenance"]["validation_cases"] == []
    assert any(e.get("label", "").startswith("Leave-one-out 2 of 2") for e in report.seen)


def test_adding_a_structure_and_adapters(ask, new_cases, tmp_path):
    import numpy as np
    import SimpleITK as sitk

    data = tmp_path / "three"
    shutil.copytree(new_cases, data)
    for path in (data / "labelsTr").iterdir():
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        array[:, :3][array[:, :3] == 0] = 3
        new = sitk.GetImageFromArray(array.astype(np.uint8))
        new.CopyInformation(image)
        sitk.WriteImage(new, str(path))
    wishes = {"structures_added": ["Edge"], "structures_renamed": {"Dark ball": "Black ball"}, "method": "adapters"}
    child = open_bundle(finetune.run(ask(data=[str(data)], **wishes), Report())["candidate"])
    assert [label.name for label in child.labels] == ["Bright ball", "Black ball", "Edge"]
    assert child.network["out_channels"] == 4
    parent = open_bundle(ask()["model"])
    assert child.weights_path.stat().st_size < 1.1 * parent.weights_path.stat().st_size  # adapters are merged


def test_the_parents_cases_are_replayed_where_they_are_at_hand(ask, balls):
    report = Report()
    result = finetune.run(ask(replay=[str(balls)]), report)
    provenance = open_bundle(result["candidate"]).data["provenance"]
    assert provenance["replayed_cases"] and set(provenance["replayed_cases"]) <= set(provenance["cases"])
    assert set(provenance["replayed_cases"]).isdisjoint(provenance["validation_cases"])


def test_a_version_that_came_into_use_meanwhile_stays(parent, tmp_path):
    first, models, children = open_bundle(parent), tmp_path / "models", []
    model_store.add(first, None, models)
    ancestry = {"parent": first.id, "parent_sha256": first.sha256, "lineage": first.id}
    for factor in (1.25, 1.5):
        data = {**first.data, "provenance": {**first.data["provenance"], **ancestry}}
        weights = {name: array * factor for name, array in load_file(first.weights_path).items()}
        child = write_bundle(tmp_path / str(factor), data, weights)
        children.append(model_store.add(child, {"accepted": True, "reasons": [], "rows": []}, models).id)
    task = SimpleNamespace(parent=first, models=models, report=Events())
    assert finetune.put_in_use(task, children[0])
    assert not finetune.put_in_use(task, children[1])
    assert [v.id for v in model_store.history(first.id, models) if v.is_active] == [children[0]]
    assert children[0] in task.report.seen[-1]["text"] and task.report.seen[-1]["level"] == "warning"


def test_refusals(ask, tmp_path):
    with pytest.raises(UserError, match="There is no method 'magic'"):
        finetune.run(ask(method="magic"), Report())
    with pytest.raises(UserError, match="no cases to learn from"):
        finetune.run(ask(data=[]), Report())
    parent = open_bundle(ask()["model"])
    labels = [label | {"value": 2 * i + 1} for i, label in enumerate(parent.data["labels"])]
    network = parent.network | {"out_channels": 4}
    odd = write_bundle(tmp_path / "odd", parent.data | {"labels": labels, "network": network}, parent.weights_path)
    with pytest.raises(UserError, match="not 1, 2, 3"):
        finetune.run(ask(model=str(odd.folder)), Report())


def test_steps_fit_the_budget():
    """Two slow first steps, then 0.5 s each; a validation takes 4 s."""
    pace = Pace(100.0)
    for step, seconds in enumerate([9.0, 3.0, 0.5, 0.5, 0.5], start=1):
        pace.step_took(seconds)
        assert pace.shall_fit == (step == 5)
    pace.validation_took(4.0)
    assert pace.fitting_steps(5, 13.5, 3) == 5 + int((100 - 13.5 - 12) / 0.5)
    assert pace.remaining_s(100, 3) == pytest.approx(62)
    for _ in range(20):  # the machine becomes slower: fewer steps fit
        pace.step_took(1.0)
    assert pace.shall_fit and 25 + 45 <= pace.fitting_steps(25, 33.5, 3) < 25 + 70
    assert pace.fitting_steps(90, 120.0, 3) == 91


def test_times_in_words():
    assert [in_words(s) for s in (2, 43, 200, 1500, 7500)] == ["5 s", "45 s", "3 min 20 s", "25 min", "2 h 5 min"]
