"""Page Correct: clicks, placed by Slicer's own markups in a slice view, and the region that limits a correction."""

import numpy as np
import pytest
from test_correct_page import answer_with, edit, ijk_to_ras, page, result, shaped  # noqa: F401
from test_panel_segment import node_labels

INSIDE, BESIDE = (17, 30, 20), (17, 8, 20)  # (i, j, k): in the first cube of `shaped`, and in nothing


def world(volume, ijk) -> list[float]:
    import slicer

    return (slicer.util.arrayFromVTKMatrix(ijk_to_ras(volume)) @ [*ijk, 1.0])[:3].tolist()


@pytest.fixture
def quiet(user):
    """Clicks start nothing by themselves."""
    user.ui.atClickCheckBox.checked = False
    yield
    user.ui.atClickCheckBox.checked = True


@pytest.fixture
def place(user, crop, host_application):
    """place(button, ijk): press the button unless it is down, and click in a slice view through that voxel."""
    from slicerhost.views import SliceMouse

    def at(button, ijk) -> None:
        if not button.checked:
            user.click(button)
        mouse = SliceMouse(crop, "Red", world(crop, ijk))
        mouse.click(world(crop, ijk))
        mouse.close()
        host_application.processEvents()

    return at


@pytest.fixture
def answer(page, monkeypatch):  # noqa: F811
    """answer(change): as `answer_with`; returns a list with initial, edited and touched labels of each request."""
    from MambaSegmentationLib import SegmentVoxels

    def with_change(change) -> list[dict]:
        answer_with(page, monkeypatch, change)
        run, seen = page.services.worker.run, []

        def noted(job, params, onEvent):
            if job != "correct":
                return "0"
            seen.append({name: SegmentVoxels.readLabels(params[name]) for name in ("initial", "edited", "touched")})
            return run(job, params, onEvent)

        monkeypatch.setattr(page.services.worker, "run", noted)
        return seen

    return with_change


def test_buttons_start_and_stop_the_real_place_mode(user, shaped, page, place):  # noqa: F811
    import slicer
    from MambaSegmentationLib import Clicks

    interaction = slicer.app.applicationLogic().GetInteractionNode()
    page.editor.widget.setActiveEffectByName("Paint")
    user.click(user.ui.belongsButton)
    assert interaction.GetCurrentInteractionMode() == interaction.Place and interaction.GetPlaceModePersistence()
    assert page.editor.widget.activeEffect() is None, "a brush would draw as well"
    assert Clicks.placing() is True
    user.click(user.ui.belongsNotButton)
    assert user.ui.belongsNotButton.checked and not user.ui.belongsButton.checked and Clicks.placing() is False
    interaction.SwitchToViewTransformMode()
    assert not user.ui.belongsNotButton.checked, "the mouse mode was changed in Slicer's toolbar"
    for action, button in (("belongs", user.ui.belongsButton), ("belongsNot", user.ui.belongsNotButton)):
        page.clicks.keys.shortcuts[action].activated.emit()
        assert button.checked and ("H" in button.toolTip) == (action == "belongs")
    user.open("SegmentPage")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform and not page.clicks.keys.shortcuts
    user.open("CorrectPage")
    user.click(user.ui.belongsButton)
    slicer.mrmlScene.Clear(0)
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform, (
        "or a click would make a list of its own"
    )


def test_points_look_right_and_are_not_saved(user, shaped, page, place, quiet, crop, tmp_path):  # noqa: F811
    import slicer
    from MambaSegmentationLib import Clicks

    place(user.ui.belongsButton, BESIDE)
    place(user.ui.belongsNotButton, INSIDE)
    plus, minus = Clicks.listOf(True), Clicks.listOf(False)
    displays = [node.GetDisplayNode() for node in (plus, minus)]
    assert [d.GetGlyphTypeAsString() for d in displays] == ["ThickCross2D", "Dash2D"]
    assert displays[0].GetSelectedColor()[1] > 0.7 > 0.3 > displays[1].GetSelectedColor()[1]
    assert plus.GetHideFromEditors() and not plus.GetSaveWithScene()
    np.testing.assert_allclose(plus.GetNthControlPointPositionWorld(0), world(crop, BESIDE), atol=0.3)
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    user.open("CorrectPage")
    assert not Clicks.points() and not user.ui.removeClicksButton.enabled


def test_clicks_are_edits_of_the_job_and_not_painted(user, shaped, page, place, quiet, crop, answer):  # noqa: F811
    """Each is a small ball: 1 voxel here, of the structure or of background; the segmentation waits for Accept."""
    before = node_labels(shaped, crop)
    requests = answer(lambda labels: labels)
    place(user.ui.belongsButton, BESIDE)
    place(user.ui.belongsNotButton, INSIDE)
    assert user.ui.clickLabel.text.endswith("1 belongs, 1 does not") and not requests
    user.click(user.ui.correctButton)
    files, (z, y, x) = requests[-1], BESIDE[::-1]
    assert files["edited"][z, y, x] == 1 and files["edited"][INSIDE[::-1]] == 0
    assert (files["touched"] == 2).sum() == (files["edited"] != before).sum() == 2 and (
        files["touched"] == 1
    ).sum() == 0
    assert np.array_equal(files["initial"], before)
    assert np.array_equal(node_labels(shaped, crop), before), "nothing is painted before Accept"
    assert user.ui.previewArea.visible


def test_accept_uses_the_clicks_up_and_discard_keeps_them(user, shaped, page, place, quiet, crop, answer):  # noqa: F811
    from MambaSegmentationLib import Clicks

    before = node_labels(shaped, crop)
    answer(lambda labels: labels)
    place(user.ui.belongsNotButton, INSIDE)
    user.click(user.ui.correctButton)
    user.click(user.ui.discardCorrectionButton)
    assert len(Clicks.points()) == 1 and np.array_equal(node_labels(shaped, crop), before)
    user.click(user.ui.correctButton)
    user.click(user.ui.acceptCorrectionButton)
    expected = before.copy()
    expected[INSIDE[::-1]] = 0
    assert np.array_equal(node_labels(shaped, crop), expected) and not Clicks.points()
    page.editor.widget.undo()
    assert np.array_equal(node_labels(shaped, crop), before), "one undo step"


def test_drag_delete_and_remove(user, shaped, page, place, quiet, crop, host_application):  # noqa: F811
    from MambaSegmentationLib import Clicks, Regions

    from slicerhost.views import SliceMouse

    first, second = shaped.GetSegmentation().GetSegmentIDs()
    page.editor.widget.setCurrentSegmentID(second)
    place(user.ui.belongsButton, BESIDE)
    page.editor.widget.setCurrentSegmentID(first)
    place(user.ui.belongsButton, (30, 8, 20))
    assert user.ui.clickLabel.text == "Posterior hippocampus: 1 belongs; Anterior hippocampus: 1 belongs"
    user.click(user.ui.belongsButton)
    mouse = SliceMouse(crop, "Red", world(crop, BESIDE))
    mouse.drag(world(crop, BESIDE), world(crop, (17, 15, 20)))
    host_application.processEvents()
    moved = Regions.voxelOf(Clicks.points()[0].place, crop)
    np.testing.assert_allclose(moved, (17, 15, 20), atol=0.3)
    mouse.delete(Clicks.points()[0].place)
    mouse.close()
    host_application.processEvents()
    assert [point.segmentId for point in Clicks.points()] == [first] and "1 belongs" in user.ui.clickLabel.text
    user.click(user.ui.removeClicksButton)
    assert not Clicks.points() and "Press a button" in user.ui.clickLabel.text


def test_points_without_sense_are_refused(user, shaped, page, place, quiet, crop):  # noqa: F811
    from MambaSegmentationLib import Clicks
    from PySide6 import QtCore

    place(user.ui.belongsButton, (-9, 20, 20))
    assert "no image of" in user.message and not Clicks.points()
    user.ui.mayChangeList.item(0).setCheckState(QtCore.Qt.Unchecked)
    place(user.ui.belongsButton, BESIDE)
    assert "not ticked" in user.message and not Clicks.points()
    user.ui.mayChangeList.item(0).setCheckState(QtCore.Qt.Checked)
    shaped.GetDisplayNode().SetSegmentVisibility(page.editor.widget.currentSegmentID(), False)
    place(user.ui.belongsButton, BESIDE)
    assert "hidden" in user.message and not Clicks.points()


def test_a_click_in_a_locked_structure_or_for_one_of_the_users_is_refused(user, shaped, page, place, quiet, crop):  # noqa: F811
    from MambaSegmentationLib import Clicks
    from PySide6 import QtCore

    before = node_labels(shaped, crop)
    user.ui.mayChangeList.item(1).setCheckState(QtCore.Qt.Unchecked)
    place(user.ui.belongsButton, (30, 30, 20))  # in the second cube, for the first structure
    user.click(user.ui.correctButton)
    assert "lies where nothing may change" in user.message and page.run.waiting is None
    user.click(user.ui.removeClicksButton)
    user.ui.mayChangeList.item(1).setCheckState(QtCore.Qt.Checked)
    shaped.GetSegmentation().AddEmptySegment("own", "My lesion")
    page.refresh()
    page.editor.widget.setCurrentSegmentID("own")
    place(user.ui.belongsButton, BESIDE)
    user.click(user.ui.correctButton)
    assert "does not know 'My lesion'" in user.message and np.array_equal(node_labels(shaped, crop) % 3, before)
    shaped.GetSegmentation().RemoveSegment("own")
    page.refresh()
    assert not Clicks.points(), "they go with their segment"


def test_a_correction_at_every_click(user, shaped, page, place, crop, answer):  # noqa: F811
    """The preview follows the clicks; slow ones wait for the button; taking all clicks back takes the preview."""
    requests = answer(lambda labels: labels)
    place(user.ui.belongsButton, BESIDE)
    assert len(requests) == 1 and user.ui.previewArea.visible
    place(user.ui.belongsButton, (30, 8, 20))
    assert len(requests) == 2 and user.ui.previewArea.visible
    assert (requests[-1]["touched"] == 2).sum() == 2 and len(page.run.waiting.points) == 2
    page.run.seconds = 60.0
    place(user.ui.belongsNotButton, INSIDE)
    assert len(requests) == 2 and "takes a while" in user.ui.clickLabel.text
    user.click(user.ui.correctButton)  # in sight again, as the preview is of fewer clicks
    assert len(requests) == 3
    user.click(user.ui.removeClicksButton)
    assert not user.ui.previewArea.visible and page.preview.node is None
    page.run.seconds = 0.0


def test_a_click_while_a_correction_runs_is_seen_after_it(user, shaped, page, place, crop, monkeypatch):  # noqa: F811
    from MambaSegmentationLib import SegmentVoxels

    ends = []

    def run(job, params, onEvent):
        ends.append((params, onEvent))
        return str(len(ends))

    def finish():
        params, onEvent = ends[-1]
        SegmentVoxels.writeLabels(SegmentVoxels.readLabels(params["edited"]), crop, page.run.running.output)
        onEvent({"event": "finished", "result": {"seconds": {"features": 99.0, "learn": 0.5}}})

    monkeypatch.setattr(page.services.worker, "run", run)
    place(user.ui.belongsButton, BESIDE)
    place(user.ui.belongsButton, (30, 8, 20))
    assert len(ends) == 1
    finish()
    assert len(ends) == 2 and 0.5 < page.run.seconds < 2, "the look at the image is kept by the worker"
    finish()
    assert len(page.run.waiting.points) == 2 and user.ui.previewArea.visible and user.ui.acceptCorrectionButton.enabled


@pytest.mark.parametrize("isRunning", [True, False])
def test_the_segmentation_goes_while_clicks_are_there(user, shaped, page, place, quiet, answer, monkeypatch, isRunning):  # noqa: F811
    """Before a correction has ended, and while its preview waits."""
    import slicer
    from MambaSegmentationLib import Clicks

    answer(lambda labels: labels)
    if isRunning:
        monkeypatch.setattr(page.services.worker, "run", lambda job, params, onEvent: "1")
    place(user.ui.belongsButton, BESIDE)
    user.click(user.ui.correctButton)
    assert (page.run.running if isRunning else page.run.waiting) is not None
    slicer.mrmlScene.RemoveNode(shaped)
    slicer.app.processEvents()
    assert page.run.running is None and page.run.waiting is None and page.preview.node is None
    assert not user.panel.jobs.isRunning and not Clicks.points()
    assert not isRunning or "was removed from the scene" in user.message


def test_clicks_with_the_real_worker(user, result, page, place, crop):  # noqa: F811
    """One click, the worker, Accept: the clicked voxel is as said, and what was drawn before stays bit for bit."""
    model = node_labels(result, crop)
    kind = int(np.bincount(model.ravel()).argmax())  # a network with random weights finds one thing almost everywhere
    edit(page, radius=4, erase=kind == 1)
    drawn = node_labels(result, crop)
    touched = drawn != model
    button = user.ui.belongsNotButton if kind == 1 else user.ui.belongsButton
    place(button, BESIDE)
    user.until_idle()
    assert user.ui.previewArea.visible, user.message
    user.click(user.ui.acceptCorrectionButton)
    after = node_labels(result, crop)
    assert after[BESIDE[::-1]] == (0 if kind == 1 else 1)
    assert touched.any() and np.array_equal(after[touched], drawn[touched])
