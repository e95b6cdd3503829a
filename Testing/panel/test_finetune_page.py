"""The page Fine-tune: the training set, running and pausing, curves, the comparison, keep and discard, history."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def store(tmp_path, module):
    """An empty training set of this test."""
    from MambaSegmentationLib import Settings

    Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, str(tmp_path / "corrections"))
    Settings.store(Settings.ANNOTATOR_SETTING, "")
    module.ui.caseAnnotatorEdit.text = ""
    yield tmp_path / "corrections"
    Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, "")


@pytest.fixture
def result(user, crop, store):
    segmentation = user.segment(crop)
    user.open("FineTunePage")
    return segmentation


@pytest.fixture
def page(user):
    return user.panel.page("FineTunePage")


@pytest.fixture
def own_models(model_folder):
    """What a test adds to the models goes again."""
    before = set(model_folder.iterdir())
    yield model_folder
    for path in set(model_folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def keys(part: str, count: int) -> list[str]:
    """Names of patients that belong to this part."""
    from MambaSegLib.corrected_case import patient_hash

    isHeldOut = lambda key: int(patient_hash(key)[:16], 16) / 2**64 < 0.25  # noqa: E731
    return [k for k in (f"P{i}" for i in range(200)) if isHeldOut(k) == (part == "hold-out")][:count]


def add_case(store, key: str, seed: int):
    """A small image with two cubes in it."""
    from MambaSegLib import corrections
    from MambaSegLib.bundle import Label
    from MambaSegLib.volume import Volume

    noise = np.random.default_rng(seed).normal(size=(28, 28, 28)).astype(np.float32)
    labels = np.zeros(noise.shape, np.uint8)
    labels[6:14, 6:20, 6:20], labels[14:22, 6:20, 6:20] = 1, 2
    image = Volume(noise + 3 * labels, np.ones(3), np.zeros(3), np.eye(3), name=f"Image {seed}")
    names = ("Anterior hippocampus", "Posterior hippocampus")
    table = [Label(value, name, (200, 100, 50), {}) for value, name in enumerate(names, start=1)]
    annotated = {"structures": list(names), "slices": None}
    return corrections.add(store, [image], image.with_array(labels), table, annotated, key, "Ann")


def events(page, monkeypatch) -> list:
    """The worker only takes requests: [job, params, onEvent]."""
    asked = []
    monkeypatch.setattr(page.services.worker, "run", lambda *request: asked.append(request) or str(len(asked)))
    monkeypatch.setattr(page.services.worker, "cancel", lambda key: asked[int(key) - 1][2]({"event": "cancelled"}))
    return asked


DECISION = {"accepted": True, "reasons": ["Better."], "protocol": "hold-out", "margin": 0.01}
ROW = {"structure": "Anterior hippocampus", "cases": 4, "patients": 3, "dice_before": 0.81, "dice_after": 0.84}
ROW |= {"difference": 0.03, "low": 0.01, "high": 0.05, "agreement": 0.9, "finds_before": True, "finds_after": True}
ROW |= {f"{name}_{when}": 1.0 for name in ("surface_dice", "hd95", "volume_error") for when in ("before", "after")}
ROW |= {"false_alarms_before": 0, "false_alarms_after": 0, "worst_case": "a", "worst_difference": 0.0}


# The training set


def test_add_to_training_set(user, result, page, store, crop):
    from PySide6 import QtCore

    ui = user.ui
    assert "No cases yet" in ui.casesLabel.text and not ui.deleteCaseButton.visible
    assert not ui.addCaseButton.enabled and ui.addCaseButton.toolTip == "Tick the structures that are done."
    ui.caseStructureList.item(0).setCheckState(QtCore.Qt.Checked)
    assert "hash" in ui.addCaseButton.toolTip
    ui.casePatientEdit.text = keys("training", 1)[0]
    ui.caseAnnotatorEdit.text = "Dr Weiß"
    user.click(ui.addCaseButton)
    user.until_idle()
    assert "the next fine-tuning learns from it" in user.message
    (case,) = page.caseList.cases
    assert case.annotated == {"structures": ["Anterior hippocampus"], "slices": None}
    assert case.annotator == "Dr Weiß" and case.title == crop.GetName() and case.data["model"]["id"] == "quick"
    assert keys("training", 1)[0] not in (case.folder / "case.json").read_text(encoding="utf-8")
    from test_panel_segment import node_labels

    stored = case.label_volume().array
    expected = node_labels(result, crop)
    assert np.array_equal(stored, np.where(expected == 2, 255, expected)), "what is not ticked is not known"
    item = ui.caseList.item(0)
    assert "(training)" in item.text() and not item.icon().isNull()
    user.click(ui.addCaseButton)
    user.until_idle()
    assert "replaces the earlier version" in user.message and len(page.caseList.cases) == 1


def test_only_done_slices_and_the_dicom_patient(user, crop, store, page):
    import slicer
    from MambaSegmentationLib import DoneSlices
    from PySide6 import QtCore

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientID", keys("hold-out", 1)[0])
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(crop), patient)
    segmentation = user.segment(crop)
    DoneSlices.mark(segmentation, 0, [20, 22])
    user.open("FineTunePage")
    ui = user.ui
    assert ui.casePatientEdit.text == keys("hold-out", 1)[0]
    assert ui.caseSlicesSelector.currentText == "2 done axial slices" and ui.caseSlicesSelector.count == 2
    for row in (0, 1):
        ui.caseStructureList.item(row).setCheckState(QtCore.Qt.Checked)
    ui.caseAnnotatorEdit.text = "Ann"
    user.click(ui.addCaseButton)
    user.until_idle()
    assert "held out" in user.message and page.caseList.cases[0].part == "hold-out"
    assert page.caseList.cases[0].annotated["slices"] == {"axis": 0, "indices": [20, 22]}
    assert "1 of them held out" in ui.casesLabel.text and "With one patient" in ui.casesLabel.text
    assert "(hold-out)" in ui.caseList.item(0).text() and "2 slices" in ui.caseList.item(0).text()


def test_annotator_is_remembered(user, result, store):
    from MambaSegmentationLib import Settings

    user.ui.caseAnnotatorEdit.text = "Dr Lee"
    user.ui.caseAnnotatorEdit.editingFinished.emit()
    assert Settings.annotator() == "Dr Lee"


def test_a_case_is_deleted_after_a_question(user, page, store, slicer_app_scene):
    import qt
    import slicer

    add_case(store, keys("training", 1)[0], 1)
    user.open("FineTunePage")
    user.ui.caseList.setCurrentRow(0)
    slicer.app.dialogs.answer_next(qt.QMessageBox.No, qt.QMessageBox.Yes)
    user.click(user.ui.deleteCaseButton)
    assert len(page.caseList.cases) == 1
    user.click(user.ui.deleteCaseButton)
    assert not page.caseList.cases and "cannot be undone" in slicer.app.dialogs.texts()[-1]
    assert not list(store.glob("2*"))


def test_a_damaged_case_is_named(user, page, store):
    case = add_case(store, keys("training", 1)[0], 1)
    (case.folder / "case.json").write_text("{")
    user.open("FineTunePage")
    assert "is damaged" in user.ui.casesLabel.text and not user.ui.startTrainingButton.enabled


# The run


def test_what_is_missing_is_said(user, page, store):
    user.open("FineTunePage")
    assert "at least one case" in user.ui.trainingHintLabel.text and not user.ui.startTrainingButton.enabled
    for seed, key in enumerate([*keys("training", 2), *keys("hold-out", 1)]):
        add_case(store, key, seed)
    user.open("SegmentPage")
    user.open("FineTunePage")
    assert "judged by leave-one-out" in user.ui.casesLabel.text and "3 patients, 1 of them" in user.ui.casesLabel.text


def test_pause_continue_stop(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    ui, asked = user.ui, events(page, monkeypatch)
    user.click(ui.startTrainingButton)
    job, params, _onEvent = asked[-1]
    assert (job, params["budget_s"], params["resume"]) == ("finetune", 120, False)
    assert params["corrections"] == str(store) and params["output"] == str(own_models)
    assert ui.pauseTrainingButton.enabled and not ui.startTrainingButton.enabled
    from MambaSegLib.catalogue import version_name

    run = own_models / ".finetune" / version_name(page.training.bundle())
    run.mkdir(parents=True)
    (run / "checkpoint.pt").write_bytes(b"weights")
    user.click(ui.pauseTrainingButton)
    assert ui.startTrainingButton.text == "Con&tinue" and "paused" in ui.trainingHintLabel.text
    user.click(ui.startTrainingButton)
    assert asked[-1][1]["resume"] is True
    slicer.app.dialogs.answer_next(qt.QMessageBox.Yes)
    user.click(ui.stopTrainingButton)
    assert not (run / "checkpoint.pt").exists() and ui.startTrainingButton.text == "S&tart"


def test_curves_in_the_plot_view(user, page, store, monkeypatch):
    import slicer

    add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    asked = events(page, monkeypatch)
    user.click(user.ui.startTrainingButton)
    assert not user.ui.showCurvesButton.enabled
    for step, value in ((1, 1.5), (2, None), (3, 1.25)):
        asked[-1][2]({"event": "metric", "step": step, "name": "loss", "value": value})
    asked[-1][2]({"event": "metric", "step": 3, "name": "validation Dice", "value": 0.5})
    chart = page.training.curves.chart
    assert chart.GetNumberOfPlotSeriesNodes() == 2 and "Quick hippocampus" in chart.GetTitle()
    series = chart.GetNthPlotSeriesNode(0)
    table = series.GetTableNode().GetTable()
    assert [table.GetValue(r, 0).ToInt() for r in range(2)] == [1, 3] and table.GetNumberOfRows() == 2
    assert table.GetValueByName(1, series.GetYColumnName()).ToDouble() == 1.25
    user.click(user.ui.showCurvesButton)
    shown = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotViewNode")
    assert shown is None or shown.GetPlotChartNode() is chart
    user.click(user.ui.showCurvesButton)
    page.training.curves.begin("next")
    assert page.training.curves.chart is None and not slicer.util.getNodesByClass("vtkMRMLTableNode")
    user.panel.jobs.forget()


def test_picture_of_the_model_that_learns(user, page, store, monkeypatch, tmp_path):
    import qt

    add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    asked, ui, file = events(page, monkeypatch), user.ui, tmp_path / "ü.png"
    user.click(ui.startTrainingButton)
    assert not ui.trainingPictureLabel.visible
    picture = qt.QPixmap(404, 150)
    picture.fill(qt.QColor(200, 40, 40))
    assert picture.save(str(file))
    asked[-1][2]({"event": "picture", "step": 20, "path": str(file), "text": "Step 20: Image 3"})
    assert ui.trainingPictureLabel.visible and ui.trainingPictureCaption.text == "Step 20: Image 3"
    file.unlink()
    asked[-1][2]({"event": "picture", "step": 40, "path": str(file), "text": "Step 40: Image 3"})
    assert ui.trainingPictureCaption.text == "Step 20: Image 3", "the file was gone: the last one stays"
    user.click(ui.pauseTrainingButton)
    user.click(ui.startTrainingButton)
    assert not ui.trainingPictureLabel.visible, "a new run has no picture yet"
    user.panel.jobs.forget()


def make_child(folder, accepted=True):
    """A version of 'quick' with other weights, judged."""
    from MambaSegLib import model_store
    from MambaSegLib.bundle import open_bundle

    parent = open_bundle(folder / "quick")
    work = Path(tempfile.mkdtemp()) / "child"  # elsewhere, or the child would be there twice
    shutil.copytree(parent.folder, work)
    data = json.loads((work / "bundle.json").read_text())
    weights = work / parent.weights_path.name
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    text = json.dumps(data).replace(parent.sha256, hashlib.sha256(content).hexdigest())
    data = json.loads(text)
    provenance = {"parent": "quick", "parent_sha256": parent.sha256, "lineage": "quick", "new_cases": []}
    data["provenance"] |= provenance
    (work / "bundle.json").write_text(json.dumps(data))
    decision = DECISION | {"accepted": accepted, "rows": [ROW]}
    version = model_store.add(open_bundle(work), decision, folder)
    shutil.rmtree(work.parent)
    if accepted:
        model_store.promote(version.id, folder)
    return version


def finish(user, page, store, monkeypatch, folder, accepted: bool):
    """A fine-tuning that ends at once with a child of 'quick'; returns its version."""
    if not list(store.glob("2*")):
        add_case(store, keys("training", 1)[0], 1)
    user.choose_model("Quick")
    user.open("FineTunePage")
    asked = events(page, monkeypatch)
    user.click(user.ui.startTrainingButton)
    version = make_child(folder, accepted)
    decision = DECISION | {"accepted": accepted, "rows": [ROW]}
    answer = {"candidate": str(version.folder), "decision": decision, "promoted": accepted}
    asked[-1][2]({"event": "finished", "result": answer})
    return version


def active(folder) -> str:
    from MambaSegLib import model_store

    (version,) = (v for v in model_store.history("quick", folder) if v.is_active)
    return version.id


def test_before_and_after_and_keep(user, page, store, monkeypatch, own_models):
    version = finish(user, page, store, monkeypatch, own_models, accepted=True)
    table = user.ui.decisionTable
    assert [table.item(0, c).text() for c in range(4)] == [
        *("Anterior hippocampus", "0.810", "0.840", "+0.030\n[+0.010, +0.050]"),
    ]
    assert "passed and is in use now" in user.ui.decisionLabel.text and active(own_models) == version.id
    user.click(user.ui.keepModelButton)
    assert not user.ui.decisionSection.visible and active(own_models) == version.id


def test_discard_goes_back_and_deletes(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    version = finish(user, page, store, monkeypatch, own_models, accepted=True)
    slicer.app.dialogs.answer_next(qt.QMessageBox.Yes)
    user.click(user.ui.discardModelButton)
    assert active(own_models).startswith("quick-") and active(own_models) != version.id
    assert not version.folder.exists() and not user.ui.decisionSection.visible


def test_one_that_did_not_pass(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    version = finish(user, page, store, monkeypatch, own_models, accepted=False)
    assert "did not pass" in user.ui.decisionLabel.text and user.ui.keepModelButton.text == "&Keep and use it"
    assert active(own_models) != version.id
    slicer.app.dialogs.answer_next(qt.QMessageBox.No, qt.QMessageBox.Yes)
    user.click(user.ui.keepModelButton)
    assert active(own_models) != version.id
    user.click(user.ui.keepModelButton)
    assert active(own_models) == version.id


def test_history_and_rollback(user, page, store, monkeypatch, own_models):
    import qt
    import slicer

    version = finish(user, page, store, monkeypatch, own_models, accepted=True)
    user.click(user.ui.keepModelButton)
    ui, table = user.ui, user.ui.historyTable
    ui.historySection.collapsed = False
    rows = [table.item(row, 0).text() for row in range(table.rowCount)]
    assert rows[0] == f"{version.id} (in use)" and len(rows) == 2 and table.item(1, 2).text() == "first model"
    user.click(ui.rollbackButton)
    assert active(own_models) != version.id and not ui.rollbackButton.enabled
    table.selectRow(0)
    user.click(ui.useVersionButton)
    assert active(own_models) == version.id
    user.click(ui.rollbackButton)
    table.selectRow(0)
    slicer.app.dialogs.answer_next(qt.QMessageBox.Yes)
    user.click(ui.deleteVersionButton)
    assert not version.folder.exists() and table.rowCount == 1


def test_fine_tuning_with_the_real_worker(user, page, store, own_models, monkeypatch):
    """A few seconds of training on cubes, judged on three patients that were held out."""
    for seed, key in enumerate([*keys("training", 2), *keys("hold-out", 3)]):
        add_case(store, key, seed)
    user.choose_model("Quick")
    user.open("FineTunePage")
    ui = user.ui
    ui.budgetSelector.addItem("6 seconds", 6)
    ui.budgetSelector.setCurrentIndex(ui.budgetSelector.count - 1)
    user.click(ui.startTrainingButton)
    user.until_idle()
    ui.budgetSelector.removeItem(ui.budgetSelector.count - 1)
    assert ui.decisionSection.visible, user.message
    assert ui.decisionTable.rowCount == 2 and page.training.curves.chart.GetNumberOfPlotSeriesNodes() == 2
    assert ui.trainingPictureLabel.visible and ui.trainingPictureLabel.pixmap.width() == 270
    assert "left the reference, right the model" in ui.trainingPictureCaption.text
    assert len([f for f in own_models.iterdir() if f.name.startswith("quick-")]) == 1
    assert not ui.pauseTrainingButton.enabled
