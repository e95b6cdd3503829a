"""The page Correct: the editor, doubtful places, done slices, learning from edits, undo, snapshots."""

import json

import numpy as np
import pytest
from test_panel_segment import linear_transform, node_labels


@pytest.fixture
def result(user, crop):
    """A segmentation by the model 'quick', open on the page Correct."""
    segmentation = user.segment(crop)
    assert segmentation is not None, user.message
    user.open("CorrectPage")
    return segmentation


@pytest.fixture
def shaped(result, crop):
    """The same, but as if the model had found two cubes: what a network with random weights finds is all or nothing."""
    import slicer
    from MambaSegmentationLib import SegmentVoxels, Snapshots

    Snapshots.forget(result)
    for index, segment_id in enumerate(result.GetSegmentation().GetSegmentIDs()):
        mask = np.zeros(slicer.util.arrayFromVolume(crop).shape, bool)
        mask[12:30, 20:40, 10 + 14 * index : 24 + 14 * index] = True
        SegmentVoxels.setMask(result, segment_id, crop, mask)
    Snapshots.take(result, "as the model left it", isFirst=True)
    return result


@pytest.fixture
def page(user):
    return user.panel.page("CorrectPage")


def edit(page, ijk=(20, 30, 25), radius=5.0, erase=False, segment=0):
    from slicerhost.widgets_editor import paint

    editor = page.editor.widget
    ids = editor.segmentationNode().GetSegmentation().GetSegmentIDs()
    paint(editor, ids[segment], ijk, radius, erase)


def answer_with(page, monkeypatch, change):
    """The worker answers a correction at once with change(edited label array); returns the list of requests."""
    from MambaSegmentationLib import SegmentVoxels

    requests = []

    def run(job, params, onEvent):
        requests.append(params)
        labels = change(SegmentVoxels.readLabels(params["edited"]))
        volume = SegmentVoxels.volumeOf(page.state.resultSegmentation)
        SegmentVoxels.writeLabels(labels, volume, page.run.running.output)
        onEvent({"event": "finished", "result": {}})
        return "1"

    monkeypatch.setattr(page.services.worker, "run", run)
    return requests


def test_empty_page_says_what_to_do(user):
    user.open("CorrectPage")
    assert "Segment a volume first" in user.ui.correctHintLabel.text
    assert not user.ui.correctButton.enabled and not user.ui.editSection.visible


def test_editor_works_on_the_result_and_its_image(user, result, page, crop):
    import slicer

    editor = page.editor.widget
    assert editor.segmentationNode() is result and editor.sourceVolumeNode() is crop
    assert user.ui.correctSegmentationSelector.currentNode() is result
    assert editor._watching and editor._has_shortcuts
    user.open("SegmentPage")
    assert not editor._watching and not editor._has_shortcuts
    slicer.mrmlScene.RemoveNode(result)
    user.open("CorrectPage")
    assert editor.segmentationNode() is None and user.ui.correctHintLabel.visible


def test_doubtful_places_in_order(user, result, page):
    import slicer
    from MambaSegmentationLib import DoubtfulPlaces

    places = DoubtfulPlaces.ranked(result)
    assert len(places) > 1 and [p.score for p in places] == sorted((p.score for p in places), reverse=True)
    user.click(user.ui.nextDoubtButton)
    text = user.ui.doubtLabel.text
    assert text.startswith(f"1 of {len(places)}: {places[0].structure}, doubt {round(100 * places[0].score)} %")
    matrices = [slicer.app.layoutManager().sliceWidget(n).mrmlSliceNode().GetSliceToRAS() for n in ("Red", "Green")]
    x, y, _z = places[0].position_mm
    for matrix in matrices:
        assert np.allclose([matrix.GetElement(0, 3), matrix.GetElement(1, 3)], [-x, -y], atol=1e-3)
    user.click(user.ui.previousDoubtButton)
    assert user.ui.doubtLabel.text.startswith(f"{len(places)} of {len(places)}: ")
    current = page.editor.widget.currentSegmentID()
    assert result.GetSegmentation().GetSegment(current).GetName() == places[-1].structure


def test_done_slices(user, result, page, crop):
    import slicer
    from MambaSegmentationLib import DoneSlices, SegmentVoxels

    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    matrix = slicer.util.arrayFromVTKMatrix(ijk_to_ras(crop))
    node.RotateToVolumePlane(crop)
    node.JumpSliceByOffsetting(*(matrix @ [10, 10, 17, 1])[:3])
    user.ui.doneViewSelector.setCurrentText("Red")
    user.click(user.ui.doneSliceButton)
    assert DoneSlices.marked(result) == {0: [17]} and user.ui.doneLabel.text == "Done slices: axial: 17"
    seen = DoneSlices.mask(result, slicer.util.arrayFromVolume(crop).shape)
    assert seen[17].all() and seen.sum() == seen[17].size
    # The segmentation and its marks stay right when both lie under a transform.
    turn = linear_transform("Turn", np.array([[0, -1, 0, 5], [1, 0, 0, 9], [0, 0, 1, 3], [0, 0, 0, 1.0]]))
    crop.SetAndObserveTransformNodeID(turn.GetID())
    place = np.array([[0, -1, 0, 5], [1, 0, 0, 9], [0, 0, 1, 3], [0, 0, 0, 1.0]]) @ matrix @ [10, 10, 20, 1]
    node.JumpSliceByOffsetting(*place[:3])
    user.click(user.ui.doneSliceButton)
    assert DoneSlices.marked(result) == {0: [17, 20]}
    node.SetSliceToRASByNTP(0.6, 0, 0.8, 0, 1, 0, *place[:3], 0)
    user.click(user.ui.doneSliceButton)
    assert "does not show whole slices" in user.message and DoneSlices.marked(result) == {0: [17, 20]}
    user.click(user.ui.clearDoneButton)
    assert DoneSlices.marked(result) == {} and SegmentVoxels.volumeOf(result) is crop


def ijk_to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_nothing_to_learn_from_is_said(user, result):
    user.click(user.ui.correctButton)
    user.until_idle()
    assert "no edits to learn from yet" in user.message and user.ui.correctButton.enabled


def test_correct_with_the_real_worker(user, result, page, crop):
    """Edits are continued; what was edited stays bit for bit; the whole is one undo step."""
    import slicer

    model = node_labels(result, crop)
    edit(page, radius=7)
    edited = node_labels(result, crop)
    touched = edited != model
    assert touched.any()
    user.click(user.ui.correctButton)
    user.until_idle()
    assert user.ui.previewArea.visible, user.message
    assert np.array_equal(node_labels(result, crop), edited), "nothing changes before Accept"
    preview = page.preview.node
    assert preview.GetDisplayNode().GetVisibility() and not preview.GetSaveWithScene()
    user.click(user.ui.showPreviewCheckBox)
    assert not preview.GetDisplayNode().GetVisibility()
    assert user.ui.previewTable.rowCount >= 1
    user.click(user.ui.acceptCorrectionButton)
    after = node_labels(result, crop)
    assert (after != edited).any() and np.array_equal(after[touched], edited[touched])
    assert not slicer.mrmlScene.IsNodePresent(preview) and not user.ui.previewArea.visible
    page.editor.widget.undo()
    assert np.array_equal(node_labels(result, crop), edited), "one undo step"
    page.editor.widget.undo()
    assert np.array_equal(node_labels(result, crop), model)


def test_discard_changes_nothing(user, shaped, page, crop, monkeypatch):
    edit(page)
    before = node_labels(shaped, crop)
    answer_with(page, monkeypatch, lambda labels: np.roll(labels, 3, axis=1))
    user.click(user.ui.correctButton)
    assert user.ui.previewArea.visible
    user.click(user.ui.discardCorrectionButton)
    assert np.array_equal(node_labels(shaped, crop), before) and page.preview.node is None
    assert user.ui.correctButton.visible and user.ui.correctButton.enabled


def test_request_tells_edits_and_done_slices(user, shaped, page, crop, monkeypatch):
    from MambaSegmentationLib import DoneSlices, SegmentVoxels

    before = node_labels(shaped, crop)
    edit(page)
    requests, files = answer_with(page, monkeypatch, lambda labels: labels), {}
    run = page.services.worker.run

    def keep(job, params, onEvent):
        files.update({name: SegmentVoxels.readLabels(params[name]) for name in ("initial", "edited", "touched")})
        return run(job, params, onEvent)

    monkeypatch.setattr(page.services.worker, "run", keep)
    DoneSlices.mark(shaped, 0, [5])
    user.click(user.ui.correctButton)
    edited = node_labels(shaped, crop)
    assert np.array_equal(files["initial"], before) and np.array_equal(files["edited"], edited)
    expected = before != edited
    expected[5] = True
    assert np.array_equal(files["touched"] > 0, expected) and requests[0]["locked"] == []
    assert "nothing would change" in user.message and not user.ui.previewArea.visible


def test_snapshots_are_kept_and_restored(user, shaped, page, crop, monkeypatch, tmp_path):
    import slicer

    model = node_labels(shaped, crop)
    edit(page)
    edited = node_labels(shaped, crop)
    answer_with(page, monkeypatch, lambda labels: np.roll(labels, 5, axis=0))
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    user.ui.snapshotSection.collapsed = False
    box = user.ui.snapshotList
    titles = [box.item(row).text()[8:] for row in range(box.count)]
    assert titles == ["before the correction", "as the model left it"]
    box.setCurrentRow(0)
    user.click(user.ui.restoreSnapshotButton)
    assert np.array_equal(node_labels(shaped, crop), edited)
    page.editor.widget.undo()
    assert np.array_equal(node_labels(shaped, crop), np.roll(edited, 5, axis=0)), "going back is one undo step, too"
    shaped.GetSegmentation().RemoveSegment(shaped.GetSegmentation().GetSegmentIDs()[0])
    box.setCurrentRow(box.count - 1)
    user.click(user.ui.restoreSnapshotButton)
    assert np.array_equal(node_labels(shaped, crop), model), "a removed segment comes back"
    name, path = shaped.GetName(), str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    user.open("CorrectPage")
    assert box.count == 4 and page.state.resultSegmentation.GetName() == name
    user.click(user.ui.takeSnapshotButton)
    assert "kept by you" in box.item(0).text()
    slicer.mrmlScene.RemoveNode(page.state.resultSegmentation)
    assert not slicer.util.getNodesByClass("vtkMRMLTextNode"), "they go with their segmentation"


def test_cancel_and_removed_node_leave_no_preview(user, shaped, page, crop, monkeypatch):
    import slicer

    edit(page)
    answer_with(page, monkeypatch, lambda labels: np.roll(labels, 5, axis=0))
    user.click(user.ui.correctButton)
    preview = page.preview.node
    slicer.mrmlScene.RemoveNode(shaped)
    assert not slicer.mrmlScene.IsNodePresent(preview) and page.run.waiting is None and page.run.running is None
    assert json.loads(page.state.node.GetParameter("lockedSegments") or "[]") == []
