"""The page Review where things go wrong: files that went, folders that refuse, two reviewers, second thoughts."""

from pathlib import Path

import numpy as np
import pytest
from review_cases import ball, erase, listed, log_of, start_review, statuses
from test_review_compare import compare, second_segmentation


def test_missing_files_are_told_and_passed_by(user, review_page, review_folder):
    start_review(user, review_folder)
    (review_folder / "c.nrrd").unlink()
    user.click(user.ui.reviewAcceptButton)
    assert "c.nrrd" in user.message and review_page.review.case is None
    assert statuses(user) == ["accepted", "new", "new"], "a case that could not be opened is not begun"
    assert user.ui.reviewTable.currentRow() == 1
    user.ui.reviewNextButton.click()  # its key works
    assert user.ui.reviewCaseLabel.text == "a"
    user.ui.reviewPreviousButton.click()
    assert review_page.review.case is None
    user.ui.reviewPreviousButton.click()
    assert user.ui.reviewCaseLabel.text == "b"


def test_an_accepted_case_that_is_edited_later_is_open_again(user, review_page, review_folder):
    start_review(user, review_folder)
    user.click(user.ui.reviewAcceptButton)
    user.click(user.ui.reviewPreviousButton)
    erase(review_page, "kidney", 4)
    user.click(user.ui.reviewNextButton)
    assert statuses(user)[0] == "begun"
    assert [record["decision"] for record in log_of(review_page)] == ["completed", "in_progress"]
    assert log_of(review_page)[1]["voxels"] == {"kidney": {"added": 0, "removed": 4}}


def test_only_changed_voxels_make_it_a_persons_work(user, review_page, review_folder):
    start_review(user, review_folder)
    user.click(user.ui.reviewAcceptButton)
    user.click(user.ui.reviewPreviousButton)
    assert list((review_folder / "reviewed").glob("b *")), "the status is kept"
    assert not review_page.review.case.isChanged
    erase(review_page, "kidney", 4)
    assert review_page.review.case.isChanged
    user.click(user.ui.reviewFlagButton)
    user.click(user.ui.reviewPreviousButton)
    assert review_page.review.case.isChanged and review_page.review.case.changes() == {}


def test_edits_of_a_scene_case_are_logged_once(user, review_page, review_folder):
    import slicer

    for name in "ab":
        volume = slicer.util.loadVolume(str(review_folder / f"{name}.nrrd"))
        node = slicer.util.loadSegmentation(str(review_folder / f"{name}.seg.nrrd"))
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("scene"))
    user.click(ui.reviewStartButton)
    erase(review_page, "kidney", 5)
    user.click(ui.reviewAcceptButton)
    user.click(ui.reviewPreviousButton)
    assert statuses(user)[0] == "accepted" and len(log_of(review_page)) == 1
    erase(review_page, "liver", 2)
    user.click(ui.reviewNextButton)
    assert statuses(user)[0] == "begun" and log_of(review_page)[1]["voxels"] == {"liver": {"added": 0, "removed": 2}}


def test_a_comment_is_kept_without_a_decision(user, review_page, review_folder):
    start_review(user, review_folder)
    user.ui.reviewCommentEdit.text = "ask Bob"
    user.click(user.ui.reviewNextButton)
    assert user.ui.reviewCommentEdit.text == ""
    user.click(user.ui.reviewPreviousButton)
    assert user.ui.reviewCommentEdit.text == "ask Bob" and not review_page.review.session.log.exists()
    user.ui.reviewCommentEdit.text = "asked"
    user.ui.reviewCommentEdit.editingFinished.emit()
    review_page.review.end()
    start_review(user, review_folder)
    assert user.ui.reviewCommentEdit.text == "asked"


def test_two_reviewers_do_not_get_the_same_case(user, review_page, review_folder):
    from MambaSegLib.review import FLAGGED, Session

    start_review(user, review_folder)
    colleague = Session.open(review_page.review.session.path)
    by_title = {entry.title: entry.id for entry in colleague.entries.values()}
    colleague.start(by_title["c"], "Dr. Bob")
    user.click(user.ui.reviewAcceptButton)
    assert user.ui.reviewCaseLabel.text == "a", "c is being reviewed by Dr. Bob"
    colleague.decide(by_title["c"], FLAGGED, "Dr. Bob", "cut off")
    user.click(user.ui.reviewAcceptButton)
    assert "All cases of this list are reviewed" in user.message
    assert statuses(user) == ["accepted", "flagged", "accepted"]
    user.ui.reviewTable.cellClicked.emit(1, 0)
    assert user.ui.reviewCaseLabel.text == "c\nflagged by Dr. Bob\ncut off"


def test_a_colleague_who_resumes_gets_a_case_of_his_own(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    assert user.ui.reviewCaseLabel.text == "b"
    review_page.review.end()
    slicer.app.userSettings().setValue("MambaSegmentation/annotator", "Dr. Bob")
    user.ui.reviewReviewerEdit.text = "Dr. Bob"
    start_review(user, review_folder)
    assert user.ui.reviewCaseLabel.text == "c" and listed(user)[0] == "b"


def test_a_read_only_folder_is_reviewed_from_a_folder_of_ones_own(
    user, review_page, review_folder, tmp_path, monkeypatch
):
    from MambaSegmentationLib import ReviewSources

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    real = ReviewSources.isWritable
    monkeypatch.setattr(ReviewSources, "isWritable", lambda folder: folder != review_folder and real(folder))
    before = sorted(review_folder.iterdir())
    start_review(user, review_folder)
    file = review_page.review.session.path
    assert (tmp_path / "home") in file.parents and file.name.startswith("Studie ü ")
    assert "cannot be written to" in user.message and str(file.parent) in user.message
    erase(review_page, "kidney", 3)
    user.click(user.ui.reviewAcceptButton)
    assert [path.suffix for path in (file.parent / "reviewed").iterdir()] == [".nrrd"]
    review_page.review.end()
    start_review(user, review_folder)
    assert review_page.review.session.path == file and statuses(user) == ["accepted", "begun", "new"]
    assert sorted(review_folder.iterdir()) == before


def test_what_can_be_written_to(tmp_path):
    from MambaSegmentationLib import ReviewSources

    (tmp_path / "file").write_text("")
    assert ReviewSources.isWritable(tmp_path)
    assert not ReviewSources.isWritable(tmp_path / "file") and not ReviewSources.isWritable(Path("/proc/self"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_fading_does_not_unblind(user, review_page, review_folder):
    user.ui.reviewBlindedCheckBox.checked = True
    start_review(user, review_folder)
    user.ui.reviewFocusCheckBox.checked = True
    compare(user, second_segmentation(review_page, "Model B", 2))
    box, display = user.ui.reviewFocusCheckBox, review_page.review.case.segmentation.GetDisplayNode()
    assert not box.enabled and not box.checked
    assert {display.GetSegmentOpacity2DFill(i) for i in review_page.structures.ids} == {1.0}
    user.click(user.ui.reviewChoice1Button)
    assert box.enabled
    user.click(user.ui.reviewCompareButton)
    assert box.enabled


def test_what_was_written_is_told_only_of_the_open_case(user, review_page, review_folder, tmp_path):
    import slicer

    start_review(user, review_folder)
    user.ui.reviewExportSection.collapsed = False
    slicer.app.dialogs.answer_next(str(tmp_path / "out.seg.nrrd"))
    user.click(user.ui.reviewExportButton)
    assert user.ui.reviewExportLabel.visible
    user.click(user.ui.reviewNextButton)
    assert not user.ui.reviewExportLabel.visible


def test_overlapping_segments_are_told_wherever_they_are_numbers(user, review_page, review_folder, tmp_path):
    import slicer

    start_review(user, review_folder)
    case = review_page.review.case
    tumour = ball((10, 12, 8), 3)
    segmentId = case.segmentation.GetSegmentation().AddEmptySegment("", "tumour")
    slicer.util.updateSegmentBinaryLabelmapFromArray(tumour.astype(np.uint8), case.segmentation, segmentId, case.volume)
    user.ui.reviewNumbersSection.collapsed = user.ui.reviewExportSection.collapsed = False
    user.click(user.ui.reviewQuantifyButton)
    user.until_idle()
    assert "too few in: liver." in user.message
    user.panel.runView.hideMessage()
    user.ui.reviewFormatSelector.setCurrentIndex(user.ui.reviewFormatSelector.findData(".nii.gz"))
    slicer.app.dialogs.answer_next(str(tmp_path / "out.nii.gz"))
    user.click(user.ui.reviewExportButton)
    assert "too few in: liver." in user.message


@pytest.fixture(autouse=True)
def reviewer_again():
    yield
    import slicer

    slicer.app.userSettings().setValue("MambaSegmentation/annotator", "Dr. Ada")
