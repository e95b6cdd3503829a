"""The window Add model with what strangers trained: nothing harmful is opened, and the user says what is not told."""

from test_model_files import add, files, look, strangers, voxels  # noqa: F401


def test_a_trained_folder_with_other_names(user, files, strangers, crop):  # noqa: F811
    """Nothing is opened without trust; then the names are the user's, and it segments."""
    ui = look(user, files, strangers / "trained")
    assert "femur, tibia" in ui.addFoundLabel.text and ui.addNameEdit.text == "Dataset004 Knee"
    assert not ui.addStartButton.enabled and "not opened until you say" in ui.addStatusLabel.text
    assert not user.panel.jobs.isRunning
    ui.addTrustCheckBox.click()
    user.until_idle()
    assert "Recognised: plain_unet, 2 structures, 1 image." in ui.addStatusLabel.text
    assert ui.addRecipeArea.isHidden() and ui.addModalitySelector.currentText == "MR"
    table = ui.addStructuresTable
    assert [table.item(row, 1).text() for row in range(2)] == ["femur", "tibia"]
    table.item(0, 1).setText("Tibia")
    table.item(1, 1).setText("Tibia")
    assert not ui.addStartButton.enabled and "name of its own" in ui.addStatusLabel.text
    table.item(0, 1).setText("Oberschenkel ä")
    ui.addNameEdit.text = "Knee"
    add(user, ui)
    assert "'Knee' was added and is chosen." in user.message, ui.addStatusLabel.text
    assert "linearly" in user.message, "what is done otherwise than by nnU-Net is said"
    segmentation = user.segment(crop, "Knee")
    assert set(voxels(segmentation)) == {"Oberschenkel ä", "Tibia"}


def test_without_trust_nothing_is_opened(user, files, strangers):  # noqa: F811
    ui = look(user, files, strangers / "evil.pth")
    assert ui.addTrustArea.visible and "Read the weights" not in [task.title for task in user.panel.jobs.tasks]
    assert not ui.addStartButton.enabled and not (strangers / "harm").exists()
    ui.addTrustCheckBox.click()
    user.until_idle()
    assert "holds more than weights" in ui.addStatusLabel.text, "the list of allowed parts holds with trust, too"
    assert not ui.addStartButton.enabled and not (strangers / "harm").exists()


def test_a_reading_that_failed_is_tried_again(user, files, strangers, monkeypatch):  # noqa: F811
    """As after packages were installed: the same file, chosen again."""
    with monkeypatch.context() as broken:
        broken.setattr(user.panel.services.worker, "run", failing)
        ui = look(user, files, strangers / "plain.safetensors")
    assert "Install packages" in ui.addStatusLabel.text and "not read yet" in ui.addStatusLabel.text
    look(user, files, strangers / "plain.safetensors")
    user.until_idle()
    assert "not recognised" in ui.addStatusLabel.text


def failing(job, params, onEvent) -> str:
    onEvent({"event": "failed", "message": "No torch.", "hint": "", "traceback": "", "package": "torch"})
    return "0"


def test_weights_that_tell_nothing(user, files, strangers, crop):  # noqa: F811
    """No pickle, so no trust; everything else has to be said."""
    ui = look(user, files, strangers / "plain.safetensors")
    user.until_idle()
    assert ui.addTrustArea.isHidden() and ui.addRecipeArea.visible
    assert "not recognised" in ui.addStatusLabel.text and "Choose the network" in ui.addStatusLabel.text
    ui.addNetworkSelector.setCurrentIndex(ui.addNetworkSelector.findData("mm_unet"))
    table = ui.addStructuresTable
    table.item(0, 1).setText("One")
    table.item(1, 1).setText("Two")
    assert table.rowCount == 3 and table.item(2, 1).text() == ""
    assert "voxel size" in ui.addStatusLabel.text
    ui.addSpacingEdit.text = "1 1 own"
    ui.addPatchEdit.text = "inf 24 32"
    assert "window" in ui.addStatusLabel.text
    ui.addPatchEdit.text = "16 24 32"
    assert ui.addStartButton.enabled, ui.addStatusLabel.text
    ui.addModalitySelector.setCurrentIndex(ui.addModalitySelector.findData("CT"))
    add(user, ui)
    bundle = user.panel.page("SegmentPage").models.entry.bundle
    assert bundle.title == "plain" and bundle.inputs[0]["modality"] == "CT"
    assert bundle.preprocessing["spacing_mm"] == [1, 1, None] and bundle.inference["patch"] == [32, 24, 16]
    assert [label.name for label in bundle.labels] == ["One", "Two"]


def test_a_version_of_a_model_here(user, files, strangers, own_models, tmp_path):  # noqa: F811
    """It is put in use only if the user says so."""
    ui = look(user, files, strangers / "child")
    assert "a version of it" in ui.addFoundLabel.text and not ui.addNameEdit.enabled
    assert ui.addUseCheckBox.visible and not ui.addUseCheckBox.checked, "it was never compared"
    add(user, ui)
    assert "another version of it is in use" in user.message
    ui = look(user, files, strangers / "child")
    ui.addUseCheckBox.click()
    add(user, ui)
    assert user.panel.page("SegmentPage").models.entry.bundle.version == "1.1.0"


def test_everything_by_keyboard(user, files, strangers, host_application):  # noqa: F811
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    files.addAction.trigger()
    ui = files.addDialog.ui
    QTest.keyClicks(ui.addSourceEdit, str(strangers / "trained"))
    QTest.keyClick(ui.addSourceEdit, QtCore.Qt.Key_Return)
    assert "femur" in ui.addFoundLabel.text and files.addDialog.isOpen, "Return presses no button"
    QTest.keyClick(ui.addTrustCheckBox, QtCore.Qt.Key_Space)
    user.until_idle()
    table = ui.addStructuresTable
    table.setCurrentCell(1, 1)
    QTest.keyClick(table, QtCore.Qt.Key_F2)
    (editor,) = [w for w in table.findChildren(QtCore.QObject) if w.inherits("QLineEdit")]
    QTest.keyClicks(editor, "Shin")
    QTest.keyClick(editor, QtCore.Qt.Key_Return)
    host_application.processEvents()
    assert table.item(1, 1).text() == "Shin"
    QTest.keyClick(ui.addStartButton, QtCore.Qt.Key_Space)
    user.until_idle()
    assert user.panel.page("SegmentPage").models.entry.title == "Dataset004 Knee"
    QTest.keyClick(files.addDialog.window, QtCore.Qt.Key_Escape)
    assert not files.addDialog.isOpen
