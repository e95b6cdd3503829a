"""What the panel shows and remembers when nothing runs."""

import numpy as np


def test_empty_scene_says_what_to_do(user):
    assert not user.ui.segmentButton.enabled and not user.ui.cancelButton.enabled
    assert user.ui.hintLabel.visible and user.ui.hintLabel.text == "Load a volume to start."
    assert user.ui.segmentButton.toolTip == "Load a volume to start."
    assert not user.ui.progressArea.visible and not user.ui.messageFrame.visible and not user.ui.resultSection.visible
    assert "research" in user.ui.researchLabel.text


def test_a_single_volume_is_taken_a_second_one_is_a_question(user, crop, wait_until):
    import slicer

    wait_until(lambda: user.ui.volumeSelector.currentNode() is crop, 2)
    assert user.ui.segmentButton.enabled and not user.ui.hintLabel.visible
    other = slicer.util.addVolumeFromArray(np.zeros((5, 5, 5), np.float32), name="Other")
    slicer.app.processEvents()
    assert user.ui.volumeSelector.currentNode() is crop and other.GetScene() is not None


def test_search_and_card(user):
    titles = lambda: [user.ui.modelList.item(r).text() for r in range(user.ui.modelList.count)]  # noqa: E731
    everything = titles()
    assert {"Quick hippocampus", "Slow hippocampus"} <= set(everything)
    user.ui.modelSearch.text = "slow posterior"
    assert titles() == ["Slow hippocampus"]
    user.ui.modelSearch.text = "liver of a mammoth"
    assert titles() == ["No model matches 'liver of a mammoth'."]
    user.ui.modelSearch.text = ""
    assert titles() == everything
    user.choose_model("Slow")
    card = user.ui.modelCard.toPlainText()
    for words in ("Tests of the panel only", "Anterior hippocampus, Posterior", "Dice 0.01", "n = 3", "Apache-2.0"):
        assert words in card
    assert user.panel.state.modelId == "slow"


def test_card_shows_what_the_model_finds(user):
    import re

    import qt

    user.choose_model("Hippocampus, anterior and posterior")
    (source,) = re.findall('<img src="([^"]+)"', user.ui.modelCard.toHtml())
    assert not qt.QPixmap(qt.QUrl(source).toLocalFile()).isNull()
    user.choose_model("Slow")
    assert "<img" not in user.ui.modelCard.toHtml()


def test_damaged_model_is_shown_and_explained(user, crop, model_folder, wait_until):
    import shutil

    copy = model_folder / "damaged"
    shutil.copytree(model_folder / "quick", copy)
    try:
        with open(copy / "weights.safetensors", "ab") as file:
            file.write(b"more")
        user.panel.enter()
        user.choose_model("damaged (damaged)")
        wait_until(lambda: user.ui.volumeSelector.currentNode() is crop, 2)
        assert "cannot be used" in user.ui.modelCard.toPlainText()
        assert "bytes" in user.ui.modelCard.toPlainText()
        assert not user.ui.segmentButton.enabled and "damaged" in user.ui.hintLabel.text
    finally:
        shutil.rmtree(copy)
        user.panel.enter()


def test_tampered_weights_of_equal_size_are_refused(user, crop, model_folder):
    import shutil

    copy = model_folder / "tampered"
    shutil.copytree(model_folder / "quick", copy)
    try:
        data = bytearray((copy / "weights.safetensors").read_bytes())
        data[-5] ^= 1
        (copy / "weights.safetensors").write_bytes(data)
        user.panel.enter()
        user.panel.page("SegmentPage").models.choose(str(copy))
        user.panel.page("SegmentPage")._onChoice()
        user.ui.volumeSelector.setCurrentNode(crop)
        user.click(user.ui.segmentButton)
        user.until_idle()
        assert "was changed" in user.message and "sha256" in user.message
    finally:
        shutil.rmtree(copy)
        user.panel.enter()


def test_state_is_saved_and_restored_with_the_scene(user, crop, tmp_path):
    import slicer

    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    bounds = np.zeros(6)
    crop.GetRASBounds(bounds)
    roi.SetXYZ(*(bounds[::2] + bounds[1::2]) / 2)
    roi.SetRadiusXYZ(9, 9, 9)
    user.ui.roiSelector.setCurrentNode(roi)
    user.ui.deviceSelector.setCurrentIndex(user.ui.deviceSelector.findData("cpu"))
    user.ui.showSurfaceCheckBox.checked = True
    segmentation = user.segment(crop)
    assert segmentation is not None, user.message
    name = segmentation.GetName()
    rows = [user.ui.resultTable.item(r, 2).text() for r in range(2)]
    scene_file = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(scene_file)

    slicer.mrmlScene.Clear(0)
    assert user.ui.volumeSelector.currentNode() is None and not user.ui.resultSection.visible
    assert not user.ui.showSurfaceCheckBox.checked and user.panel.state.device == "auto"

    slicer.util.loadScene(scene_file)
    assert user.ui.volumeSelector.currentNode().GetName() == "Left hippocampus"
    assert user.ui.roiSelector.currentNode().GetName() == "Box"
    assert user.panel.state.modelId == "quick" and user.ui.modelList.currentItem().text() == "Quick hippocampus"
    assert user.ui.deviceSelector.currentText.startswith("CPU")
    assert user.ui.showSurfaceCheckBox.checked
    assert user.panel.state.resultSegmentation.GetName() == name
    assert user.ui.resultSection.visible and [user.ui.resultTable.item(r, 2).text() for r in range(2)] == rows
    assert user.ui.segmentButton.enabled


def test_new_region_can_be_seen_at_once(user, crop):
    import slicer

    user.ui.volumeSelector.setCurrentNode(crop)
    roi = user.ui.roiSelector.addNode()
    user.ui.roiSelector.setCurrentNode(roi)
    bounds, expected = np.zeros(6), np.zeros(6)
    roi.GetRASBounds(bounds)
    crop.GetRASBounds(expected)
    assert np.allclose(bounds, expected)
    roi.SetRadiusXYZ(1, 1, 1)
    user.click(user.ui.fitRoiButton)
    roi.GetRASBounds(bounds)
    assert np.allclose(bounds, expected)
    roi.RemoveAllControlPoints()
    user.panel.refresh()
    assert "Fit to volume" in user.ui.hintLabel.text and not user.ui.segmentButton.enabled
    roi.SetXYZ(*expected[::2])  # placed by hand in a view
    roi.SetRadiusXYZ(5, 5, 5)
    slicer.app.processEvents()
    assert user.ui.segmentButton.enabled and not user.ui.hintLabel.visible
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 1


def test_remaining_time():
    from MambaSegmentationLib.RunView import RemainingTime, timeText

    remaining = RemainingTime()
    remaining.update(0, 10, now=100.0)
    assert remaining.seconds(100.5) is None and timeText(None) == ""
    remaining.update(2, 10, now=104.0)
    assert remaining.seconds(104.0) == 16.0
    assert remaining.seconds(105.0) == 15.0
    remaining.update(0, 40, now=110.0)  # another stage
    assert remaining.seconds(110.0) is None
    assert timeText(16.0) == "about 16 s left" and timeText(240.0) == "about 4 min left"


def test_everything_is_explained_and_reachable_by_keyboard(user, host_application):
    """Every control has a tooltip and takes the focus by Tab."""
    from PySide6 import QtCore, QtWidgets

    names = "volumeSelector roiSelector fitRoiButton modelSearch modelList modelCard deviceSelector segmentButton "
    names += "cancelButton installButton copyDetailsButton dismissButton resultTable showSurfaceCheckBox logText "
    names += "sampleButton allFramesCheckBox allStructuresButton noStructuresButton structureList smoothingSpinBox "
    names += "largestComponentCheckBox otherVolumesSelector queueTable cancelTaskButton cancelAllButton"
    for name in names.split():
        widget = getattr(user.ui, name)
        assert widget.toolTip, f"{name} has no tooltip"
        inside = [widget, *widget.findChildren(QtWidgets.QWidget)]
        assert any(int(w.focusPolicy) & int(QtCore.Qt.TabFocus) for w in inside), (
            f"{name} is out of the keyboard's reach"
        )


def test_every_page_opens_without_a_main_window(user, monkeypatch):
    """Slicer's generic tests run with --no-main-window: there is no layout manager then."""
    import slicer

    monkeypatch.setattr(slicer.app, "_layout", None)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    for name in (*user.panel.pages, "SegmentPage"):
        user.open(name)
    user.module.exit()
    user.module.enter()


def test_sections_open_that_ctk_leaves_empty(user, crop, monkeypatch):
    """The real ctkCollapsibleButton never shows what it hid before that had been shown once: sections that are folded
    and come while another tab is in front."""
    from slicerhost import widgets_ctk

    def only_hides(section, is_collapsed):
        for child in (w for w in section.children() if is_collapsed and w.isWidgetType()):
            child.setProperty("visibilityToParent", not child.isHidden())
            child.hide()

    user.segment(crop)
    user.open("CorrectPage")
    section, contents = user.ui.snapshotSection, user.ui.snapshotList
    section.collapsed = False
    monkeypatch.setattr(widgets_ctk._Collapsing, "_collapsed_changed", only_hides)
    section.collapsed = True
    assert not contents.isVisibleTo(section)
    section.collapsed = False
    assert contents.isVisibleTo(section)
