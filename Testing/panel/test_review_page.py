"""The page Review, driven as a user does: lists, decisions, focus, keys."""

from pathlib import Path

import pytest
from review_cases import erase, labels_of_case, listed, log_of, start_review, status_in_segment_editor, statuses


def test_empty_page_says_what_to_do(user, review_page):
    ui = user.ui
    assert "press Start" in ui.reviewHintLabel.text and ui.reviewHintLabel.visible
    assert not ui.reviewCaseSection.visible and not ui.reviewTable.visible and not ui.reviewLogSection.visible
    assert ui.reviewReviewerEdit.text == "Dr. Ada"
    user.click(ui.reviewStartButton)
    assert "no segmentation with an image" in user.message


def test_folder_is_listed_worst_first_and_the_worst_is_opened(user, review_page, review_folder):
    start_review(user, review_folder)
    assert listed(user) == ["b", "c", "a"]
    assert [user.ui.reviewTable.item(row, 1).text() for row in range(3)] == ["0.90", "0.40", "0.20"]
    assert user.ui.reviewCaseLabel.text == "b" and statuses(user) == ["begun", "new", "new"]
    structures = user.ui.reviewStructureTable
    assert [structures.item(row, 1).text() for row in range(2)] == ["liver", "kidney"]
    assert user.ui.reviewCountsLabel.text == "0 of 3 reviewed."


def test_filters_by_status_structure_and_text(user, review_page, review_folder):
    start_review(user, review_folder)
    ui = user.ui
    ui.reviewStructureFilter.setCurrentIndex(ui.reviewStructureFilter.findData("kidney"))
    assert listed(user) == ["c", "a", "b"]
    ui.reviewSearch.text = "c.seg"
    assert listed(user) == ["c"] and "1 shown" in ui.reviewCountsLabel.text
    ui.reviewSearch.text = ""
    ui.reviewStatusFilter.setCurrentIndex(ui.reviewStatusFilter.findData("in_progress"))
    assert listed(user) == ["b"]
    ui.reviewStatusFilter.setCurrentIndex(ui.reviewStatusFilter.findData("flagged"))
    assert listed(user) == [] and "No case passes" in ui.reviewHintLabel.text


def test_worst_place_is_shown_in_all_slice_views(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    matrix = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([-11.4, -7.8, 31.0], abs=1.0)
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == review_page.review.case.volume.GetID()


def test_accept_goes_on_and_is_logged_with_model_and_time(user, review_page, review_folder):
    start_review(user, review_folder)
    user.ui.reviewCommentEdit.text = "fine, for once"
    user.click(user.ui.reviewAcceptButton)
    assert user.ui.reviewCaseLabel.text == "c" and statuses(user) == ["accepted", "begun", "new"]
    (record,) = log_of(review_page)
    assert (record["user"], record["decision"], record["comment"]) == ("Dr. Ada", "completed", "fine, for once")
    assert record["model"] == {"id": "quick", "sha256": "ab" * 32} and record["seconds"] > 0 and record["voxels"] == {}
    user.click(user.ui.reviewFlagButton)
    assert statuses(user) == ["accepted", "flagged", "begun"]
    user.click(user.ui.reviewAcceptButton)
    assert "All cases of this list are reviewed" in user.message
    assert user.ui.reviewCountsLabel.text == "3 of 3 reviewed, 1 of them flagged."


def test_changed_voxels_are_counted_and_kept_as_a_new_version(user, review_page, review_folder):
    start_review(user, review_folder)
    before = (review_folder / "b.seg.nrrd").read_bytes()
    erase(review_page, "kidney", 7)
    user.click(user.ui.reviewFlagButton)
    assert log_of(review_page)[0]["voxels"] == {"kidney": {"added": 0, "removed": 7}}
    (kept,) = (review_folder / "reviewed").glob("*.seg.nrrd")
    assert kept.name.startswith("b ") and kept.name.endswith(" v1.seg.nrrd")
    assert (review_folder / "b.seg.nrrd").read_bytes() == before
    user.click(user.ui.reviewPreviousButton)  # what was changed is what one comes back to
    import slicer

    node = review_page.review.case.segmentation
    kidney = node.GetSegmentation().GetSegmentIdBySegmentName("kidney")
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, kidney, review_page.review.case.volume).sum()
    assert voxels == (labels_of_case() == 2).sum() - 7
    assert status_in_segment_editor(review_page, "kidney") == "flagged"


def test_leaving_an_undecided_case_keeps_its_changes_and_removes_its_nodes(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    erase(review_page, "liver", 3)
    user.click(user.ui.reviewNextButton)
    assert len(list((review_folder / "reviewed").glob("b *.seg.nrrd"))) == 1
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    erase(review_page, "liver", 2)
    slicer.mrmlScene.Clear(0)
    assert len(list((review_folder / "reviewed").glob("c *.seg.nrrd"))) == 1


def test_next_and_previous_stop_at_the_ends(user, review_page, review_folder):
    start_review(user, review_folder)
    user.click(user.ui.reviewPreviousButton)
    assert user.ui.reviewCaseLabel.text == "b" and "first case" in user.message
    user.click(user.ui.reviewNextButton)
    user.click(user.ui.reviewNextButton)
    assert user.ui.reviewCaseLabel.text == "a"
    user.click(user.ui.reviewNextButton)
    assert user.ui.reviewCaseLabel.text == "a" and "last case" in user.message


def test_resumes_where_one_left_off(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    user.click(user.ui.reviewAcceptButton)
    file = user.panel.state.reviewFile
    assert Path(file).parent == review_folder
    review_page.review.end()
    start_review(user, review_folder)
    assert user.ui.reviewCaseLabel.text == "c" and statuses(user) == ["accepted", "begun", "new"]
    review_page.review.end()
    slicer.app.dialogs.answer_next(file)
    user.click(user.ui.reviewOpenButton)
    assert user.ui.reviewCaseLabel.text == "c"


def test_scene_is_listed_and_remembered_with_the_scene(user, review_page, crop, tmp_path):
    import slicer

    user.open("SegmentPage")
    node = user.segment(crop)
    user.open("ReviewPage")
    user.ui.reviewSourceSelector.setCurrentIndex(user.ui.reviewSourceSelector.findData("scene"))
    user.click(user.ui.reviewStartButton)
    assert listed(user) == [node.GetName()] and review_page.review.case.segmentation is node
    assert review_page.review.case.entry.scores and review_page.review.case.entry.model["id"]
    user.click(user.ui.reviewAcceptButton)
    bundle = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(bundle)
    slicer.mrmlScene.Clear(0)
    assert review_page.review.session is None
    slicer.util.loadScene(bundle)
    assert statuses(user) == ["accepted"]
    user.ui.reviewTable.cellClicked.emit(0, 0)
    assert review_page.review.case.volume.GetName() == "Left hippocampus"


def test_table_lists_what_it_names(user, review_page, review_folder):
    table = review_folder.parent / "list.csv"
    table.write_text("case;image;segmentation\nFirst;Studie ü/a.nrrd;Studie ü/a.seg.nrrd\n", encoding="utf-8")
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("table"))
    ui.reviewPathEdit.currentPath = str(table)
    user.click(ui.reviewStartButton)
    assert listed(user) == ["First"] and review_page.review.session.path.parent == table.parent


def test_one_structure_in_focus_fades_the_others_and_decides_alone(user, review_page, review_folder):
    start_review(user, review_folder)
    display = review_page.review.case.segmentation.GetDisplayNode()
    liver, kidney = review_page.structures.ids
    display.SetSegmentOpacity2DFill(kidney, 0.8)
    user.ui.reviewFocusCheckBox.checked = True
    assert display.GetSegmentOpacity2DFill(liver) == 1.0
    assert display.GetSegmentOpacity2DFill(kidney) == pytest.approx(0.12)
    user.click(user.ui.reviewFlagButton)
    assert review_page.structures.chosen == kidney and user.ui.reviewCaseLabel.text == "b"
    assert status_in_segment_editor(review_page, "liver") == "flagged"
    assert status_in_segment_editor(review_page, "kidney") == "inprogress"
    assert display.GetSegmentOpacity2DFill(kidney) == 0.8
    user.ui.reviewFocusCheckBox.checked = False
    assert [display.GetSegmentOpacity2DFill(i) for i in (liver, kidney)] == [1.0, 0.8]
    user.ui.reviewFocusCheckBox.checked = True
    user.click(user.ui.reviewAcceptButton)
    assert statuses(user)[0] == "flagged" and log_of(review_page)[0]["decision"] == "flagged"


def test_keys_work_only_while_the_page_is_shown(user, review_page, review_folder, host_application):
    import slicer
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    start_review(user, review_folder)
    window = slicer.util.mainWindow()
    window.show()
    window.activateWindow()
    host_application.wait_until(lambda: window.isActiveWindow)

    def press(key) -> None:
        QTest.keyClick(window, key)
        host_application.processEvents()

    try:
        review_page.review.leave()
        press(QtCore.Qt.Key_E)
        assert review_page.review.case is None and user.panel._currentPage() is review_page
        review_page._open(review_page.review.first().id)
        press(QtCore.Qt.Key_N)
        assert user.ui.reviewCaseLabel.text == "c"
        press(QtCore.Qt.Key_P)
        assert user.ui.reviewCaseLabel.text == "b"
        press(QtCore.Qt.Key_A)
        press(QtCore.Qt.Key_F)
        assert statuses(user) == ["accepted", "flagged", "begun"]
        user.open("SegmentPage")
        press(QtCore.Qt.Key_P)
        assert user.ui.reviewCaseLabel.text == "a"
    finally:
        window.hide()
    user.open("ReviewPage")
    assert "(key A)" in user.ui.reviewAcceptButton.toolTip


def test_missing_file_and_unwritable_folder_are_told(user, review_page, review_folder):
    start_review(user, review_folder)
    (review_folder / "c.nrrd").unlink()
    user.click(user.ui.reviewNextButton)
    assert "c.nrrd" in user.message and not user.ui.reviewCaseSection.visible
    user.ui.reviewTable.cellClicked.emit(2, 0)
    assert user.ui.reviewCaseLabel.text == "a"
