"""Page Correct: what counts as an edit, what an accepted correction leaves to the next one, and its region."""

import numpy as np
from test_clicks import BESIDE, INSIDE, answer, place, quiet, world  # noqa: F401
from test_correct_page import edit, ijk_to_ras, page, result, shaped  # noqa: F401
from test_panel_segment import linear_transform, node_labels


def test_a_correction_does_not_learn_from_an_accepted_one(user, shaped, page, place, quiet, crop, answer):  # noqa: F811
    """What it changed is decided anew from what the user did; undone, it counts no more."""
    model = node_labels(shaped, crop)
    decided = np.zeros(model.shape, bool)
    decided[INSIDE[::-1]] = True
    requests = answer(lambda labels: np.where((labels == 0) & ~decided, 2, labels))
    place(user.ui.belongsNotButton, INSIDE)
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    edit(page, (30, 30, 25), 3, segment=0)
    now = node_labels(shaped, crop)
    user.click(user.ui.correctButton)
    files, drawn = requests[-1], (now == 1) & (model == 2)
    assert drawn.any() and np.array_equal(files["touched"] == 1, drawn)
    assert np.array_equal(np.argwhere(files["touched"] == 2), [INSIDE[::-1]]), "the click of then still teaches"
    expected = np.where(drawn, 1, model)
    expected[INSIDE[::-1]] = 0
    assert np.array_equal(files["edited"], expected)
    assert page.run.waiting is None, "the same again"
    page.editor.widget.undo()
    page.editor.widget.undo()
    edit(page, (30, 30, 25), 3, segment=0)
    user.click(user.ui.correctButton)
    assert np.array_equal(requests[-1]["touched"] == 1, drawn) and not (requests[-1]["touched"] == 2).any()


def test_nothing_changes_outside_of_the_region(user, shaped, page, crop, answer):  # noqa: F811
    """Also of a region that is turned, under a transform; the user's choice is kept in the scene."""
    import slicer

    edit(page)
    before = node_labels(shaped, crop)
    answer(lambda labels: np.where(labels == 0, 2, labels))
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    user.ui.correctionRoiSelector.setCurrentNode(roi)
    assert page.state.correctionRoi is roi and min(roi.GetSize()) > 40, "a new one is as large as the image"
    roi.SetSize(12, 20, 16)
    c, s = np.cos(0.4), np.sin(0.4)
    turn = np.array([[c, -s, 0, 5], [s, c, 0, -8], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    roi.SetAndObserveTransformNodeID(linear_transform("Turn", turn).GetID())
    roi.SetXYZ((np.linalg.inv(turn) @ [*world(crop, (24, 32, 26)), 1])[:3].tolist())
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    after = node_labels(shaped, crop)
    k, j, i = np.indices(before.shape)
    places = slicer.util.arrayFromVTKMatrix(ijk_to_ras(crop)) @ np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1)
    own = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ (places[:3] - np.array(world(crop, (24, 32, 26)))[:, None])
    inside = (np.abs(own) <= np.array([[6], [10], [8]]) + 1e-3).all(axis=0).reshape(before.shape)
    assert np.array_equal(after, np.where(inside & (before == 0), 2, before)) and 2000 < inside.sum() < 5000
    slicer.mrmlScene.RemoveNode(roi)
    assert page.state.correctionRoi is None


def test_lasso_islands_and_threshold_are_edits(user, shaped, page, crop, answer):  # noqa: F811
    """Whatever the Segment Editor's effects changed is what the job gets as decided, no voxel more or less."""
    import slicer

    from slicerhost import effects

    model, voxels = node_labels(shaped, crop), slicer.util.arrayFromVolume(crop)
    requests, editor = answer(lambda labels: labels), page.editor.widget
    first, second = shaped.GetSegmentation().GetSegmentIDs()
    lasso = [(5.5, 18.5), (30.5, 18.5), (30.5, 27.5), (18.5, 36.5), (5.5, 27.5)]  # over both cubes and beyond

    def check() -> np.ndarray:
        now = node_labels(shaped, crop)
        user.click(user.ui.correctButton)
        assert np.array_equal(requests[-1]["touched"], now != model) and np.array_equal(requests[-1]["edited"], now)
        return now

    effects.scissors(editor, first, lasso, erase=True)
    erased = check()
    assert (erased[model == 2] == 2).all() and 500 < np.sum((model == 1) & (erased == 0)) < np.sum(model == 1)
    effects.scissors(editor, second, lasso, erase=False)
    filled = check()
    assert (filled == 2).sum() > (model == 2).sum() + 10_000, "through all slices"
    editor.undo()
    editor.undo()
    edit(page, (40, 50, 45), 2, segment=0)
    effects.keep_largest_island(editor, first)
    assert np.array_equal(node_labels(shaped, crop), model), "what was drawn and taken away again is no edit"
    user.click(user.ui.correctButton)
    assert "no edits to learn from yet" in user.message
    node, middle = page.editor.node, float(np.median(voxels[model == 1]))
    node.SetMaskMode(shaped.EditAllowedInsideSingleSegment)
    node.SetMaskSegmentID(first)
    effects.threshold(editor, first, middle, float(voxels.max()))
    assert np.array_equal(check() == 1, (model == 1) & (voxels >= middle))
    node.SetMaskMode(shaped.EditAllowedEverywhere)


def test_decisions_are_saved_with_the_scene(user, shaped, page, place, quiet, crop, answer, tmp_path):  # noqa: F811
    """And they go with their segmentation."""
    import slicer
    from MambaSegmentationLib import SegmentVoxels

    requests = answer(lambda labels: np.where(labels == 2, 1, labels))
    place(user.ui.belongsNotButton, INSIDE)
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    user.open("CorrectPage")
    segmentation = page.state.resultSegmentation
    image, (first, _second) = SegmentVoxels.volumeOf(segmentation), SegmentVoxels.segmentIds(segmentation)
    drawn = dict(SegmentVoxels.masks(segmentation, image))[first].astype(bool)
    drawn[45:48, 5:8, 5:8] = True
    SegmentVoxels.setMask(segmentation, first, image, drawn)
    user.click(user.ui.correctButton)
    assert np.array_equal(np.argwhere(requests[-1]["touched"] == 2), [INSIDE[::-1]])
    assert (requests[-1]["touched"] == 1).sum() == 27, "the stroke, not what the correction changed"
    slicer.mrmlScene.RemoveNode(segmentation)
    assert not slicer.util.getNodesByClass("vtkMRMLTextNode")
