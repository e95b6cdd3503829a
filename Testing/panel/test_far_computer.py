"""Computing on another computer, from the page Settings on. Here is no torch; there is another process of this one."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
from library_python import python_with_torch
from test_correct_page import edit
from test_interruptions import scene_content
from test_panel_segment import node_labels

NO_TORCH = "import sys, runpy; sys.modules.update(torch=None, monai=None); sys.argv[1:] = []\n"
NO_TORCH += "runpy.run_module('MambaSegLib.worker', run_name='__main__')"
KEYS = ("pythonExecutable", "computer", "computeThere", "agreedComputers")


@pytest.fixture
def far(user, tmp_path):
    """A computer that works; `user` has a worker without torch. Returns what one writes into the field."""
    import slicer

    settings = slicer.app.userSettings()
    old = {key: settings.value("MambaSegmentation/" + key) for key in KEYS}
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {python_with_torch()} -u -c "{NO_TORCH}"\n')
    python.chmod(0o755)
    settings.setValue("MambaSegmentation/pythonExecutable", str(python))
    user.panel.services.worker.quit()
    yield f"{python_with_torch()} -m MambaSegLib.remote_worker"
    user.panel.jobs.cancelAll()
    user.until_idle()
    for key, value in old.items():
        settings.setValue("MambaSegmentation/" + key, value) if value else settings.remove("MambaSegmentation/" + key)
    user.panel.services.worker.quit()
    user.panel.page("SettingsPage").computer._tested = ""
    slicer.app.dialogs.forget()
    user.panel.refresh()


@pytest.fixture
def chosen(user, far):
    """The same, chosen and tried on the page Settings; then the page Segment."""
    choose(user, far)
    user.click(user.ui.tryComputerButton)
    user.until_idle()
    user.open("SegmentPage")
    return far


def choose(user, computer: str) -> None:
    user.open("SettingsPage")
    user.ui.computeOnSelector.setCurrentIndex(1)
    user.ui.computerEdit.text = computer
    user.ui.computerEdit.editingFinished.emit()


def answer(code: str) -> None:
    import slicer
    from PySide6.QtWidgets import QMessageBox

    slicer.app.dialogs.answer_next(getattr(QMessageBox, code))


def questions() -> list[str]:
    import slicer

    return [text for text in slicer.app.dialogs.texts() if "will be sent" in text]


def test_settings_try_it(user, far):
    user.open("SettingsPage")
    ui = user.ui
    assert ui.computeOnSelector.currentIndex == 0 and not ui.computerEdit.visible and not ui.computerHintLabel.visible
    choose(user, "")
    assert ui.computerEdit.visible and "until then" in ui.computerHintLabel.text
    choose(user, far)
    assert "sent there" in ui.computerHintLabel.text
    user.click(ui.tryComputerButton)
    assert not ui.tryComputerButton.enabled and ui.progressArea.visible, "in the background"
    user.until_idle()
    assert "It works: no GPU" in ui.computerHintLabel.text and " ms" in ui.computerHintLabel.text, user.message
    assert not questions(), "no image was sent"
    choose(user, "no-such-program worker")
    assert "It works" not in ui.computerHintLabel.text
    user.click(ui.tryComputerButton)
    user.until_idle()
    assert "cannot be started" in user.message
    ui.computeOnSelector.setCurrentIndex(0)
    assert not ui.computerEdit.visible and ui.computerEdit.text == "no-such-program worker", "kept for another time"


def test_segment_there_after_one_question(user, chosen, crop, crop_file, command_line_labels):
    steps = []
    watcher = user.panel.jobs.watcher
    old, watcher.onMessage = watcher.onMessage, lambda text, level: (steps.append(text), old(text, level))
    try:
        answer("Ok")
        segmentation = user.segment(crop)
    finally:
        watcher.onMessage = old
    assert segmentation is not None, user.message
    assert np.array_equal(node_labels(segmentation, crop), command_line_labels(crop_file, "quick"))
    assert len(questions()) == 1 and any(step.startswith("python") and ": Segmenting" in step for step in steps)
    assert "cpu of python" in user.ui.logText.toPlainText() and not user.ui.installButton.visible
    assert user.segment(crop) is not None, user.message
    assert len(questions()) == 1, "asked once per computer"
    user._wait_until(lambda: user.ui.estimateLabel.visible, 60)
    assert "python" in user.ui.estimateLabel.toolTip


def test_without_consent_nothing_is_sent(user, chosen, crop):
    answer("Cancel")
    before = scene_content()
    user.start(crop, "Quick")
    assert not user.panel.jobs.isRunning and scene_content() == before and questions()
    failed = []
    user.panel.services.segment.start(crop, "quick", onFailed=failed.append)  # as a script
    assert "not agreed" in failed[0].message


def test_devices_are_those_of_there(user, chosen, crop):
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model("Quick")
    user._wait_until(lambda: user.ui.deviceSelector.findData("cpu") == 1, 60)
    options = user.panel.page("SegmentPage").options
    for saved, then in (("cpu", "cpu"), ("cuda:5", "auto")):
        user.panel.state.device = saved  # as a scene has it that was saved where there are other devices
        options.bind()
        options._onDevices()
        assert user.panel.state.device == options.devices.device == then
    choose(user, "no-such-program worker")
    user.open("SegmentPage")
    user._wait_until(lambda: "cannot be started" in user.ui.deviceHintLabel.text, 60)
    answer("Ok")
    before = scene_content()
    assert user.segment(crop) is None and "no-such-program" in user.message
    assert scene_content() == before


def test_cancel_and_kill_there(user, chosen, crop):
    answer("Ok")
    user.start_endless(crop)
    before, start = scene_content(), time.monotonic()
    user.click(user.ui.cancelButton)
    user.until_idle()
    assert time.monotonic() - start < 2.0 and scene_content() == before
    user.start_endless(crop)
    here = user.panel.services.worker.processId
    keeper = children(here)[0]
    os.kill(children(keeper)[0], signal.SIGKILL)
    user.until_idle()
    assert "stopped unexpectedly" in user.message and "memory" in user.message
    assert user.segment(crop) is not None, user.message
    assert user.panel.services.worker.processId == here


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def test_correct_there(user, chosen, crop):
    answer("Ok")
    assert user.segment(crop) is not None, user.message
    user.open("CorrectPage")
    edit(user.panel.page("CorrectPage"))
    user.click(user.ui.correctButton)
    user.until_idle()
    assert "cpu of python" in user.ui.logText.toPlainText()
    assert user.ui.previewArea.visible or "nothing would change" in user.message, user.message
    user.panel.page("CorrectPage").discard()


def test_no_package_is_missing_here_then(user, chosen, monkeypatch):
    from MambaSegmentationLib import Dependencies as module

    asked = []
    monkeypatch.setattr(module, "Job", lambda *arguments: asked.append(arguments[1]))
    packages = user.panel.services.packages
    monkeypatch.setattr(packages, "_wasLooked", False)
    packages.look()
    assert not asked
    user.open("SettingsPage")
    user.ui.computeOnSelector.setCurrentIndex(0)
    packages.look()
    assert asked == ["packages"]
