"""The page Fine-tune: the training set, and what is missing to begin."""

import numpy as np
import pytest
from finetune_cases import add_case, keys


@pytest.fixture
def result(user, crop, store):
    segmentation = user.segment(crop)
    user.open("FineTunePage")
    return segmentation


@pytest.fixture
def page(user):
    return user.panel.page("FineTunePage")


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
    assert "1 case of 1 patient, 1 of them held out" in ui.casesLabel.text and "With one patient" in ui.casesLabel.text
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


def test_what_is_missing_is_said(user, page, store):
    user.open("FineTunePage")
    assert "at least one case" in user.ui.trainingHintLabel.text and not user.ui.startTrainingButton.enabled
    for seed, key in enumerate([*keys("training", 2), *keys("hold-out", 1)]):
        add_case(store, key, seed)
    user.open("SegmentPage")
    user.open("FineTunePage")
    assert "judged by leave-one-out" in user.ui.casesLabel.text and "3 patients, 1 of them" in user.ui.casesLabel.text
