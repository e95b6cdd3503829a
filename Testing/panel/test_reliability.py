"""What may happen beside a run: nodes moved, hardened; odd paths; full disks; reload; the application's end."""

import errno
import os
import sys

import numpy as np
import pytest
from test_interruptions import is_alive, scene_content
from test_panel_segment import linear_transform, node_labels, turned_and_shifted


def start_slow(user, crop) -> None:
    user.panel.state.resultSegmentation = None
    user.start(crop, "Slow")
    user.until_progress()


def test_renamed_reparented_and_hardened_during_the_run(user, crop, crop_file, command_line_labels):
    """The result lies on the same voxels, under the study that the volume has now."""
    import slicer

    transform = linear_transform("Placed", turned_and_shifted())
    crop.SetAndObserveTransformNodeID(transform.GetID())
    start_slow(user, crop)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "Patient"), "Study")
    tree.SetItemParent(tree.GetItemByDataNode(crop) or tree.CreateItem(study, crop), study)
    crop.SetName("Another name")
    crop.HardenTransform()
    user.until_idle()
    segmentation = user.panel.state.resultSegmentation
    assert segmentation is not None, user.message
    assert segmentation.GetParentTransformNode() is None and crop.GetParentTransformNode() is None
    assert np.array_equal(node_labels(segmentation, crop), command_line_labels(crop_file, "slow"))
    assert tree.GetItemParent(tree.GetItemByDataNode(segmentation)) == study
    assert "moved" in user.message and "earlier state" not in user.message


@pytest.mark.slow
def test_transform_given_and_dragged_during_the_run(user, crop, crop_file, command_line_labels):
    start_slow(user, crop)
    transform = linear_transform("Placed", turned_and_shifted())
    crop.SetAndObserveTransformNodeID(transform.GetID())
    user.until_idle()
    segmentation = user.panel.state.resultSegmentation
    assert segmentation.GetParentTransformNode() is transform and user.message == ""
    assert np.array_equal(node_labels(segmentation, crop), command_line_labels(crop_file, "slow"))


def test_two_volumes_of_the_same_name_are_two_images(user, crop, crop_file):
    import slicer

    other = slicer.util.loadVolume(str(crop_file))
    other.SetName(crop.GetName())
    slicer.util.arrayFromVolume(other)[:] = slicer.util.arrayFromVolume(crop)[::-1].copy()
    slicer.util.arrayFromVolumeModified(other)
    first, second = user.segment(crop), user.segment(other)
    assert first.GetName() != second.GetName()
    assert not np.array_equal(node_labels(first, crop), node_labels(second, other))
    reference = second.GetNodeReference(second.GetReferenceImageGeometryReferenceRole())
    assert reference is other


@pytest.fixture
def temporary_folder(user):
    """set(path): Slicer's temporary folder until the end of the test."""
    import slicer

    before = slicer.app.temporaryPath
    user.panel.services.files.clear()

    def place(path) -> None:
        slicer.app.temporaryPath = str(path)

    yield place
    user.panel.services.files.clear()
    slicer.app.temporaryPath = before


def test_long_and_foreign_paths(user, crop, temporary_folder, tmp_path, model_folder):
    """More than 260 characters, spaces and other alphabets: temporary folder, model, name of the volume."""
    import shutil

    import slicer

    folder = tmp_path / ("Jürgen Ærøskøbing 陽子 " * 6).strip() / ("глубоко " * 14).strip()
    assert len(str(folder)) > 220
    (folder / "tmp").mkdir(parents=True)
    shutil.copytree(model_folder / "quick", folder / "модель")
    temporary_folder(folder / "tmp")
    crop.SetName("Schädel von 陽子 / 2026 : ?")
    user.panel.page("SegmentPage").models.choose("quick")
    done = []
    slicer.modules.MambaSegmentationWidget.logic.segment(
        *(crop, str(folder / "модель")),
        onFinished=lambda node, result: done.append(node),
        onFailed=lambda problem: done.append(problem.message),
    )
    slicer.app.wait_until(lambda: done, 60)
    assert not isinstance(done[0], str), done
    assert done[0].GetName().startswith("Schädel von 陽子")
    assert max(len(str(path)) for path in folder.rglob("*")) > 260


def test_temporary_folder_is_gone(user, crop, temporary_folder, tmp_path):
    before = scene_content()
    temporary_folder(tmp_path / "nowhere")
    user.start(crop, "Quick")
    user.until_idle()
    assert "could not be written" in user.message and "temporary folder" in user.message
    assert scene_content() == before and user.ui.segmentButton.enabled


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "may not write"), (errno.EROFS, "may not write")],
)
def test_why_a_file_could_not_be_written(user, crop, monkeypatch, number, words):
    from MambaSegmentationLib import SceneIO

    def refuse(**arguments):
        raise OSError(number, os.strerror(number))

    user.panel.services.files.clear()
    monkeypatch.setattr(SceneIO.tempfile, "mkdtemp", refuse)
    user.start(crop, "Quick")
    user.until_idle()
    assert words in user.message


def test_disk_that_is_full_in_the_middle_of_a_file(user, crop):
    """A limit on the size of files stands for it: the file on the disk is too short."""
    import slicer

    resource = pytest.importorskip("resource")
    user.panel.services.files.clear()
    before, old = scene_content(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        user.start(crop, "Quick")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    user.until_idle()
    assert "could not be written" in user.message and "Make room" in user.message
    assert scene_content() == before
    assert slicer.app.problems, "Slicer's writer complains, too"
    slicer.app.problems.clear()
    assert user.segment(crop) is not None, "with room again, the next run works"


def test_worker_without_memory(user, crop, tmp_path, monkeypatch):
    """It survives and says so; the panel's next run uses the same one."""
    (tmp_path / "torch.py").write_text("raise MemoryError('12 GB')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    user.panel.services.worker.quit()
    before = scene_content()
    try:
        assert user.segment(crop) is None
        assert "more memory" in user.message and "region" in user.message and not user.ui.installButton.visible
        assert scene_content() == before and user.panel.services.worker.processId
    finally:
        user.panel.services.worker.quit()


def test_scene_without_a_file_and_back_from_mrb(user, crop, tmp_path):
    """Nothing asks for a saved scene; saving keeps the result's reference to its volume and its numbers."""
    import slicer

    assert slicer.mrmlScene.GetURL() == ""
    segmentation = user.segment(crop)
    labels = node_labels(segmentation, crop)
    assert slicer.util.saveScene(str(tmp_path / "ä 陽.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "ä 陽.mrb"))
    again = user.panel.state.resultSegmentation
    volume = again.GetNodeReference(again.GetReferenceImageGeometryReferenceRole())
    assert volume is user.panel.state.inputVolume
    assert np.array_equal(node_labels(again, volume), labels)


def test_reload_takes_the_panels_parts_and_the_library_along(module, monkeypatch):
    kept = {name: part for name, part in sys.modules.items() if name.split(".")[0].startswith("MambaSeg")}
    old = sys.modules["MambaSegmentationLib.Panel"]
    try:
        module.onReload()
        assert sys.modules["MambaSegmentationLib.Panel"] is not old
        assert sys.modules["MambaSegLib.job"] is not kept["MambaSegLib.job"]
        assert sys.modules["MambaSegmentation"].MambaSegmentationWidget is not type(module)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0].startswith("MambaSeg")]:
            del sys.modules[name]
        sys.modules.update(kept)


def test_end_of_the_application_during_a_job(user, crop, wait_until):
    """The last test of this file: afterwards the module is as Slicer leaves it."""
    import slicer

    user.start_endless(crop)
    pid = user.panel.services.worker.processId
    folder = user.panel.services.files.newFile("x").parents[1]
    slicer.app.aboutToQuit.emit()
    wait_until(lambda: not is_alive(pid), 5)
    assert not folder.exists() and not user.panel.jobs.isRunning
    for node in (None, crop):  # the selectors still speak while the application goes
        user.ui.volumeSelector.setCurrentNode(node)
    user.ui.defaultDeviceSelector.setCurrentIndex(1)
    slicer.app.wait(0.6)
    assert user.panel.services.worker._worker is None and not folder.exists()
