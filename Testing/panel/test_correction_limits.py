"""What a correction leaves alone: locked, hidden, masked and overlapping segments, and edits made meanwhile."""

import numpy as np
import pytest
from test_correct_page import answer_with, edit, page, result, shaped  # noqa: F401
from test_panel_segment import node_labels


@pytest.mark.parametrize("way", ["unticked", "hidden"])
def test_locked_and_hidden_segments_stay(user, shaped, page, crop, monkeypatch, way):  # noqa: F811
    from PySide6 import QtCore

    edit(page)
    before = node_labels(shaped, crop)
    second = shaped.GetSegmentation().GetSegmentIDs()[1]
    if way == "unticked":
        user.ui.mayChangeList.item(1).setCheckState(QtCore.Qt.Unchecked)
    else:
        shaped.GetDisplayNode().SetSegmentVisibility(second, False)
        page.refresh()
        assert "hidden" in user.ui.mayChangeList.item(1).text()
    requests = answer_with(page, monkeypatch, lambda labels: np.roll(labels, 5, axis=0))
    user.click(user.ui.correctButton)
    assert user.ui.previewArea.visible, user.message
    user.click(user.ui.acceptCorrectionButton)
    after = node_labels(shaped, crop)
    assert requests[0]["locked"] == ["Posterior hippocampus"]
    assert np.array_equal(after == 2, before == 2) and not np.array_equal(after == 1, before == 1)


def test_masking_settings_are_obeyed(user, shaped, page, crop, monkeypatch):  # noqa: F811
    """Intensity range, overwrite mode and editable area of the Segment Editor."""
    import slicer

    edit(page)
    before, voxels = node_labels(shaped, crop), slicer.util.arrayFromVolume(crop)
    node = page.editor.node
    middle = float(np.median(voxels))
    node.SetSourceVolumeIntensityMaskRange(middle, float(voxels.max()))
    node.SetSourceVolumeIntensityMask(True)
    answer_with(page, monkeypatch, lambda labels: np.roll(labels, 5, axis=0))

    def corrected() -> np.ndarray:
        user.click(user.ui.correctButton)
        user.click(user.ui.acceptCorrectionButton)
        after = node_labels(shaped, crop)
        page.editor.widget.undo()
        assert np.array_equal(node_labels(shaped, crop), before)
        return after

    rolled = np.roll(before, 5, axis=0)
    assert np.array_equal(corrected(), np.where(voxels >= middle, rolled, before))
    node.SetSourceVolumeIntensityMask(False)
    node.SetOverwriteMode(node.OverwriteNone)
    assert np.array_equal(corrected(), np.where(before == 0, rolled, before))
    node.SetOverwriteMode(node.OverwriteAllSegments)
    node.SetMaskSegmentID(shaped.GetSegmentation().GetSegmentIDs()[0])  # first, or Slicer's widget undoes the mode
    node.SetMaskMode(shaped.EditAllowedInsideSingleSegment)
    assert np.array_equal(corrected(), np.where(before == 1, rolled, before))
    node.SetMaskMode(shaped.EditAllowedOutsideAllSegments)
    assert np.array_equal(corrected(), np.where(before == 0, rolled, before))
    node.SetMaskMode(shaped.EditAllowedEverywhere)
    assert np.array_equal(corrected(), rolled)


def test_edits_made_while_the_preview_waits_stay(user, shaped, page, crop, monkeypatch):  # noqa: F811
    edit(page)
    answer_with(page, monkeypatch, lambda labels: np.where(labels == 0, 1, labels))
    user.click(user.ui.correctButton)
    edit(page, (30, 30, 25), 4, segment=1)
    edited = node_labels(shaped, crop)
    user.click(user.ui.acceptCorrectionButton)
    after = node_labels(shaped, crop)
    assert np.array_equal(after[edited > 0], edited[edited > 0]) and (after > 0).all()


def test_segments_of_the_users_own_and_other_names(user, shaped, page, crop, monkeypatch):  # noqa: F811
    """Renamed structures keep their meaning; a new segment is nobody's and stays."""
    segmentation = shaped.GetSegmentation()
    segmentation.AddEmptySegment("own", "My lesion")
    edit(page, segment=2)
    before = node_labels(shaped, crop)
    segmentation.GetNthSegment(1).SetName("Tail")
    seen = []
    answer_with(page, monkeypatch, lambda labels: seen.append(labels.copy()) or np.where(labels == 0, 2, labels))
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    assert np.array_equal(seen[0], before), "values 1, 2 of the model and 3 for the new one"
    assert np.array_equal(node_labels(shaped, crop), np.where(before == 0, 2, before))


def test_overlapping_segments_keep_their_overlap(user, shaped, page, crop, monkeypatch):  # noqa: F811
    import slicer
    from MambaSegmentationLib import SegmentVoxels

    ids = shaped.GetSegmentation().GetSegmentIDs()
    both = np.zeros(slicer.util.arrayFromVolume(crop).shape, bool)
    both[20:24, 20:24, 20:24] = True
    for segment_id in ids:
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(shaped, segment_id, crop) > 0
        SegmentVoxels.setMask(shaped, segment_id, crop, mask | both)
    found = dict(SegmentVoxels.masks(shaped, crop))
    assert all(found[i][both].all() for i in ids)
    answer_with(page, monkeypatch, lambda labels: np.zeros_like(labels))
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    assert all(np.array_equal(mask, both) for _id, mask in SegmentVoxels.masks(shaped, crop))


def test_another_geometry_is_refused(user, shaped, page, crop):  # noqa: F811
    edit(page)
    crop.SetSpacing(0.8, 1.0, 1.2)
    user.click(user.ui.correctButton)
    user.until_idle()
    assert "are not those of the volume" in user.message
    assert user.ui.correctButton.enabled and page.run.waiting is None and page.run.running is None
