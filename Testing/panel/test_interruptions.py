"""What stops a run (user, dying worker, closed scene, removed volume, missing package) leaves the scene whole."""

import os
import signal
import time

import pytest


def scene_content() -> list[tuple]:
    """Every node's ID, class and name."""
    import slicer

    nodes = [slicer.mrmlScene.GetNthNode(i) for i in range(slicer.mrmlScene.GetNumberOfNodes())]
    return [(n.GetID(), n.GetClassName(), n.GetName()) for n in nodes]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # a zombie is nobody
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_cancel_within_two_seconds(user, crop):
    user.start(crop, "Endless")
    before = scene_content()
    user.until_progress()
    start = time.monotonic()
    user.click(user.ui.cancelButton)
    user.until_idle()
    assert time.monotonic() - start < 2.0
    assert "Nothing in the scene was changed" in user.message
    assert scene_content() == before
    assert user.ui.segmentButton.enabled and not user.ui.cancelButton.enabled
    assert user.segment(crop) is not None, "the next run works"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a process that does not listen")
def test_cancel_of_a_worker_that_does_not_listen(user, crop, wait_until):
    user.start_endless(crop)
    pid = user.panel.services.worker.processId
    os.kill(pid, signal.SIGSTOP)
    before, start = scene_content(), time.monotonic()
    user.click(user.ui.cancelButton)
    user.until_idle()
    assert time.monotonic() - start < 2.0
    assert scene_content() == before and "Stopped" in user.message
    wait_until(lambda: not is_alive(pid), 5)
    assert user.segment(crop) is not None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_worker(user, crop):
    user.start(crop, "Endless")
    before = scene_content()
    user.until_progress()
    os.kill(user.panel.services.worker.processId, signal.SIGKILL)
    user.until_idle()
    assert "background process stopped unexpectedly" in user.message and "memory" in user.message
    assert scene_content() == before
    assert user.ui.segmentButton.enabled and not user.ui.progressArea.visible
    user.click(user.ui.copyDetailsButton)
    assert user.segment(crop) is not None, "the next run starts a new worker"
    assert user.message == ""


def test_scene_closed(user, crop):
    import slicer

    user.start_endless(crop)
    slicer.mrmlScene.Clear(0)
    assert not user.panel.jobs.isRunning
    assert "scene was closed" in user.message
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert user.ui.hintLabel.text == "Load a volume to start."


def test_volume_removed(user, crop, crop_file):
    import slicer

    user.start_endless(crop)
    slicer.mrmlScene.RemoveNode(crop)
    assert not user.panel.jobs.isRunning
    assert "removed" in user.message
    again = slicer.util.loadVolume(str(crop_file))
    assert user.segment(again) is not None, "a run may follow at once, even while the worker still stops the old one"


def test_volume_changed_during_the_run(user, crop):
    import slicer

    user.panel.state.resultSegmentation = None
    user.start(crop, "Slow")
    user.until_progress()
    slicer.util.arrayFromVolume(crop)[0] = 0
    slicer.util.arrayFromVolumeModified(crop)
    user.until_idle()
    assert user.panel.state.resultSegmentation is not None
    assert "has changed" in user.message


def test_region_removed_is_never_replaced_by_another(user, crop):
    import slicer

    first, second = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name) for name in "AB")
    user.ui.volumeSelector.setCurrentNode(crop)
    user.ui.roiSelector.setCurrentNode(first)
    slicer.mrmlScene.RemoveNode(first)
    assert user.ui.roiSelector.currentNode() is None and user.panel.state.roi is None
    assert second.GetScene() is slicer.mrmlScene


@pytest.fixture
def python_without_torch(tmp_path, monkeypatch, module):
    """Until the end of the test the worker's `import torch` fails as it does in a fresh Slicer."""
    (tmp_path / "torch.py").write_text('raise ModuleNotFoundError("No module named \'torch\'", name="torch")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module.panel.services.worker.quit()
    yield
    module.panel.services.worker.quit()


def test_missing_torch_offers_to_install(user, crop, python_without_torch):
    import slicer

    slicer.packaging.calls.clear()
    assert user.segment(crop) is None
    assert "'torch'" in user.message and user.ui.installButton.visible
    assert slicer.packaging.calls == [], "nothing is installed before the user asks for it"


def test_wrong_python_setting_is_a_clear_message(user, crop):
    import slicer

    settings = slicer.app.userSettings()
    user.panel.services.worker.quit()
    old = settings.value("MambaSegmentation/pythonExecutable")
    settings.setValue("MambaSegmentation/pythonExecutable", "/nowhere/python")
    try:
        assert user.segment(crop) is None
        assert "/nowhere/python" in user.message and user.ui.copyDetailsButton.visible
    finally:
        settings.remove("MambaSegmentation/pythonExecutable")
        if old:
            settings.setValue("MambaSegmentation/pythonExecutable", old)


def test_panel_process_never_imports_torch(user, crop, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)  # other tests may have imported it; from now on that fails
    assert user.segment(crop) is not None, user.message


def test_no_orphan_after_the_module_goes(user, crop, wait_until):
    """The last test of this file."""
    user.start_endless(crop)
    pid = user.panel.services.worker.processId
    folder = user.panel.services.files.newFile("x").parents[1]
    assert is_alive(pid) and folder.is_dir()
    user.panel.cleanup()
    wait_until(lambda: not is_alive(pid), 5)
    assert not folder.exists()
    assert not user.panel.jobs.isRunning
