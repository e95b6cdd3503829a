"""The page Settings: what is set holds for all scenes, reaches the worker, and is checked."""

import pytest


@pytest.fixture
def settings(user):
    import slicer

    user.open("SettingsPage")
    yield slicer.app.userSettings()
    for key in ("threads", "device", "annotator", "correctionsFolder", "keys/next"):
        slicer.app.userSettings().remove("MambaSegmentation/" + key)
    user.panel.services.worker.quit()


def test_threads_and_device_reach_the_worker(user, settings, crop):
    from MambaSegmentationLib.WorkerClient import workerEnvironment

    user.ui.threadsSpinBox.value = 1
    user.ui.defaultDeviceSelector.setCurrentIndex(user.ui.defaultDeviceSelector.findData("cpu"))
    environment = workerEnvironment()
    assert environment["OMP_NUM_THREADS"] == "1" and environment["MAMBASEG_DEVICE"] == "cpu"
    assert user.panel.services.worker.processId == 0, "the next worker starts with these values"
    user.open("SegmentPage")
    assert user.segment(crop) is not None, user.message
    user.open("SettingsPage")
    user.ui.threadsSpinBox.value = 0
    assert "MAMBASEG_DEVICE" in workerEnvironment() and not settings.contains("MambaSegmentation/threads")


def test_model_folders(user, settings, model_folder, tmp_path):
    import slicer

    slicer.app.dialogs.answer_next(str(tmp_path))
    user.click(user.ui.addModelFolderButton)
    rows = [user.ui.modelFoldersList.item(row).text() for row in range(user.ui.modelFoldersList.count)]
    assert rows == [str(model_folder), str(tmp_path)]
    assert settings.value("MambaSegmentation/modelFolders") == f"{model_folder};{tmp_path}"
    assert not user.ui.removeModelFolderButton.enabled
    user.ui.modelFoldersList.setCurrentRow(1)
    user.click(user.ui.removeModelFolderButton)
    assert settings.value("MambaSegmentation/modelFolders") == str(model_folder) and tmp_path.is_dir()


def test_name_and_folder_of_corrections(user, settings, tmp_path):
    from MambaSegmentationLib import Settings

    user.ui.annotatorEdit.text = "Dr. Ærø "
    user.ui.annotatorEdit.editingFinished.emit()
    assert settings.value("MambaSegmentation/annotator") == "Dr. Ærø"
    assert user.ui.correctionsFolderEdit.currentPath == Settings.correctionsFolder()
    user.ui.correctionsFolderEdit.currentPath = str(tmp_path)
    assert Settings.correctionsFolder() == str(tmp_path)
    user.ui.correctionsFolderEdit.currentPath = ""
    assert Settings.text(Settings.CORRECTIONS_FOLDER_SETTING) == "", "the usual folder again"


def test_keys_are_checked_stored_and_reset(user, settings):
    from MambaSegmentationLib.ReviewKeys import DEFAULTS, keyOf

    table, row = user.ui.keysTable, list(DEFAULTS).index("next")
    table.item(row, 1).setText("ctrl+right")
    assert keyOf("next") == "Ctrl+Right" and table.item(row, 1).text() == "Ctrl+Right"
    table.item(row, 1).setText(DEFAULTS["accept"])
    assert "taken" in user.message and keyOf("next") == "Ctrl+Right"
    table.item(row, 1).setText("   ")
    assert "no key" in user.message and table.item(row, 1).text() == "Ctrl+Right"
    user.ui.keysSection.collapsed = False
    user.click(user.ui.resetKeysButton)
    assert keyOf("next") == DEFAULTS["next"]


def test_doctor_in_the_panel_is_copied(user, settings):
    import slicer

    user.ui.doctorSection.collapsed = False
    assert not user.ui.copyDoctorButton.enabled
    user.panel.page("SettingsPage")._onExamined({"text": "Packages\n  torch  2.9"})
    user.click(user.ui.copyDoctorButton)
    assert slicer.app.clipboard().text() == "Packages\n  torch  2.9"


@pytest.mark.slow
def test_doctor_runs_in_the_worker(user, settings):
    user.ui.doctorSection.collapsed = False
    user.click(user.ui.doctorButton)
    assert not user.ui.doctorButton.enabled and user.ui.progressArea.visible
    user.until_idle()
    text = user.ui.doctorText.toPlainText()
    assert all(word in text for word in ("System", "Packages", "Devices", "Operators", "Folders"))


def test_everything_is_explained_and_in_order(user, settings):
    """Tooltips, Tab from top to bottom, and no two mnemonics on the page."""
    from PySide6 import QtWidgets

    page = user.ui.packagesTable.parent().parent()
    seen = []
    for button in page.findChildren(QtWidgets.QPushButton):
        assert button.toolTip, f"{button.objectName} has no tooltip"
        seen += [button.text.split("&")[1][0].lower()] if "&" in button.text else []
    seen += [label.text.split("&")[1][0].lower() for label in page.findChildren(QtWidgets.QLabel) if "&" in label.text]
    assert len(seen) == len(set(seen)) and len(seen) > 5, seen
    for name in ("packagesTable", "modelFoldersList", "correctionsFolderEdit", "threadsSpinBox", "keysTable"):
        assert getattr(user.ui, name).toolTip and getattr(user.ui, name).accessibleName
