"""A folder of images in the panel: what is found, the run, its end, and the way to the review."""

import csv
import shutil
import time

import numpy as np
import pytest
import SimpleITK as sitk
from test_interruptions import scene_content


@pytest.fixture
def images(crop_file, tmp_path):
    """A small image, a picture that is no volume, the crop, and a file that is no image, in this order."""
    folder = tmp_path / "Köpfe"
    folder.mkdir()
    crop = sitk.ReadImage(str(crop_file))
    sitk.WriteImage(crop[16:32, 16:32, 16:32], str(folder / "a small.nii.gz"))
    (folder / "b broken.mha").write_bytes(b"no image")
    shutil.copy(crop_file, folder / "c crop.nrrd")
    return folder


@pytest.fixture
def section(user):
    """The section, open, as a user finds it."""
    user.ui.folderSection.collapsed = user.ui.optionsSection.collapsed = False
    yield user
    user.ui.folderInputEdit.currentPath = user.ui.folderOutputEdit.currentPath = ""
    user.ui.folderSection.collapsed = user.ui.optionsSection.collapsed = True


def choose(user, images, output, model: str = "Quick", wait_s: float = 60) -> str:
    """Both folders; what is said about them when the worker has looked."""
    user.choose_model(model)
    user.ui.folderInputEdit.currentPath = str(images)
    user.ui.folderOutputEdit.currentPath = str(output)
    user._wait_until(lambda: not user.ui.folderFoundLabel.text.startswith("Looking"), wait_s)
    return user.ui.folderFoundLabel.text


def rows(output) -> dict:
    with open(output / "summary.csv", encoding="utf-8-sig", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def run(user) -> None:
    user.click(user.ui.segmentFolderButton)
    user.until_idle()


def test_from_the_folder_to_the_review(section, images, tmp_path, command_line_labels):
    user, output, before = section, tmp_path / "Ergebnisse", scene_content()
    assert choose(user, images, output) == "3 images found."
    assert not output.exists() and not user.ui.reviewFolderButton.visible
    labels = []
    user.panel.jobs.watcher.onProgress, watch = (
        lambda done, of, label: (labels.append(label), watch(done, of, label)),
        user.panel.jobs.watcher.onProgress,
    )
    run(user)
    user.panel.jobs.watcher.onProgress = watch
    assert "Case 3 of 3: c crop" in labels
    assert user.message.startswith("3 images: 2 segmented, 1 failed.") and str(output) in user.message
    table = user.ui.folderFailedTable
    assert table.visible and table.rowCount == 1 and table.item(0, 0).text() == "b broken"
    assert 40 < table.height <= 260, "the reason is a sentence of several lines"
    assert "b broken.mha" in table.item(0, 1).text() == rows(output)["b broken"]["error"]
    for name in ("a small.nii.gz", "c crop.nrrd"):
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(output / f"{name.split('.')[0]}.seg.nrrd")))
        assert np.array_equal(found, command_line_labels(images / name, "quick")), name
    assert scene_content() == before, "nothing enters the scene"

    user._wait_until(lambda: user.ui.reviewFolderButton.visible, 60)
    user.click(user.ui.reviewFolderButton)
    assert user.ui.pageTabs.currentIndex == list(user.panel.pages).index("ReviewPage")
    user.ui.reviewReviewerEdit.text = "Dr. Ada"
    user.click(user.ui.reviewStartButton)
    review = user.panel.page("ReviewPage").review
    assert {entry.title for entry in review.session.entries.values()} == {"a small", "c crop"}
    review.end()
    user.panel.state.reviewFile = ""


def test_earlier_run_is_continued_by_itself(section, images, tmp_path):
    user, output = section, tmp_path / "out"
    choose(user, images, output)
    run(user)
    stamps = {path.name: path.stat().st_mtime_ns for path in output.glob("*.seg.nrrd")}
    shutil.copy(images / "c crop.nrrd", images / "d.nrrd")
    user.open("CorrectPage")
    user.open("SegmentPage")
    user._wait_until(lambda: user.ui.folderFoundLabel.text.startswith("4 images"), 60)
    said = "4 images found, 2 of them done already: the run goes on with the others."
    assert user.ui.folderFoundLabel.text == said and user.ui.reviewFolderButton.visible
    (images / "b broken.mha").unlink()
    run(user)
    assert user.message.startswith("3 images: 1 segmented, 2 done before.")
    assert not user.ui.folderFailedTable.visible
    assert all((output / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    user._wait_until(lambda: user.ui.folderFoundLabel.text == "3 images found, all of them done.", 60)
    said = choose(user, images, output, "Slow")
    assert "of another model, another image or other options" in said and not user.ui.segmentFolderButton.enabled


def test_cancelled_run_keeps_what_is_done(section, images, tmp_path):
    user, output = section, tmp_path / "out"
    choose(user, images, output, "Endless")
    user.click(user.ui.segmentFolderButton)
    user._wait_until(lambda: user.ui.stepLabel.text == "Case 3 of 3: c crop" and user.ui.progressBar.value > 66, 120)
    start = time.monotonic()
    user.click(user.ui.cancelButton)
    user.until_idle()
    assert time.monotonic() - start < 2.5
    assert user.message.startswith("Stopped. The images that are done stay")
    assert {name: row["status"] for name, row in rows(output).items()} == {
        "a small": "done",
        "b broken": "failed",
        "c crop": "not run",
    }
    assert not list(output.glob("*c crop.*"))
    user._wait_until(lambda: "1 of them done already" in user.ui.folderFoundLabel.text, 60)


def test_what_is_in_the_way_is_told(section, images, tmp_path):
    user = section
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for source, output, words in (
        (images, tmp_path / "mine", "An empty output folder was expected"),
        (images, images, "An empty output folder was expected"),
        (tmp_path / "empty", tmp_path / "out", "none was found"),
        (tmp_path / "absent", tmp_path / "out", "Check the path"),
    ):
        assert words in choose(user, source, output)
        assert not user.ui.segmentFolderButton.enabled
    assert "expects 2 images per case (T1, T2), but 'a small' has 1" in choose(user, images, tmp_path / "o", "Pair")
    choose(user, images, tmp_path / "out")
    user.click(user.ui.noStructuresButton)
    assert user.ui.folderFoundLabel.text.startswith("Tick at least one structure")
    assert not user.ui.segmentFolderButton.enabled
    user.click(user.ui.allStructuresButton)


def test_options_of_the_page_apply_and_a_folder_is_proposed(section, images, monkeypatch):
    from PySide6 import QtCore

    user = section
    user.choose_model("Quick")
    user.ui.folderInputEdit.currentPath = str(images)
    assert user.ui.folderOutputEdit.currentPath == f"{images} quick"
    user.choose_model("Slow")
    assert user.ui.folderOutputEdit.currentPath == f"{images} slow" == user.panel.state.folderOutput
    user.ui.structureList.item(0).setCheckState(QtCore.Qt.Unchecked)
    user.ui.smoothingSpinBox.value = 1.5
    user.ui.largestComponentCheckBox.checked = True
    user._wait_until(lambda: user.ui.segmentFolderButton.enabled, 60)
    sent = []
    monkeypatch.setattr(user.panel.services.worker, "run", lambda job, params, onEvent: sent.append((job, params)))
    user.click(user.ui.segmentFolderButton)
    (job, params) = sent[-1]
    assert job == "batch" and params["labels"] == ["Posterior hippocampus"] and params["workers"] == 0
    assert (params["smoothing_mm"], params["largest_component"], params["resume"]) == (1.5, True, False)
    assert params["model"].endswith("slow") and params["device"] == "auto"
    user.panel.jobs.forget()
    user.click(user.ui.allStructuresButton)
    user.ui.smoothingSpinBox.value, user.ui.largestComponentCheckBox.checked = 0, False


def test_the_run_does_not_need_the_scene(section, images, tmp_path):
    import slicer

    user, output = section, tmp_path / "out"
    choose(user, images, output, "Slow")
    user.click(user.ui.segmentFolderButton)
    user.until_progress()
    slicer.mrmlScene.Clear(0)
    assert user.panel.jobs.isRunning and user.ui.folderInputEdit.currentPath == ""
    user.until_idle()
    assert rows(output)["c crop"]["status"] == "done" and "2 segmented, 1 failed" in user.message


def test_the_folders_are_saved_with_the_scene(section, images, tmp_path):
    import slicer

    choose(section, images, tmp_path / "out")
    scene_file = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(scene_file)
    slicer.mrmlScene.Clear(0)
    assert section.ui.folderInputEdit.currentPath == ""
    slicer.util.loadScene(scene_file)
    assert section.ui.folderInputEdit.currentPath == str(images)
    section._wait_until(lambda: section.ui.folderFoundLabel.text == "3 images found.", 60)
