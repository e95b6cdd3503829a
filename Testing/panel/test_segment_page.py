"""The page Segment: what fits the image, options, several inputs, queue, samples, estimate, devices."""

import json

import numpy as np
import pytest
from test_panel_segment import node_labels


def copies(crop, count: int) -> list:
    """Volumes like the crop, with other voxels and the same name."""
    import slicer

    made = []
    for index in range(count):
        node = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, crop, crop.GetName())
        slicer.util.arrayFromVolume(node)[:] = np.roll(slicer.util.arrayFromVolume(crop), index + 3, axis=0)
        slicer.util.arrayFromVolumeModified(node)
        made.append(node)
    return made


def titles(user) -> list[str]:
    return [user.ui.modelList.item(row).text() for row in range(user.ui.modelList.count)]


# Suggestion


def model(modality="MR", patch=(32, 32, 32)):
    import types

    inputs, inference = [{"modality": modality}], {"patch": list(patch)}
    preprocessing = {"spacing_mm": [1, 1, 1]}
    return types.SimpleNamespace(inputs=inputs, inference=inference, preprocessing=preprocessing, is_for_pictures=False)


def test_fit_rule(module):
    from MambaSegmentationLib.Suggestion import ImageFacts, fit, guessedModality

    head = ImageFacts("MR", "DICOM", (180.0, 220.0, 200.0))
    assert fit(head, model()).score > fit(ImageFacts("", "values", head.extent_mm), model()).score
    assert fit(head, model()).text == "fits: MR, DICOM says so"
    assert fit(head, model("CT")).score < 0 and "this is MR" in fit(head, model("CT")).text
    slab = ImageFacts("MR", "DICOM", (180.0, 220.0, 10.0))
    assert fit(slab, model()).score < fit(head, model()).score and "10 x 180 x 220 mm" in fit(slab, model()).text
    assert fit(None, model()).text == "for MR"
    assert guessedModality(-1024) == "CT" and guessedModality(0) == ""


def test_models_are_sorted_by_fit_and_none_is_hidden(user, crop, model_folder):
    import shutil

    import slicer

    other = model_folder / "ct"
    shutil.copytree(model_folder / "quick", other)
    data = json.loads((other / "bundle.json").read_text())
    data |= {"id": "ct", "title": "A model for CT"}
    data["inputs"][0]["modality"] = "CT"
    (other / "bundle.json").write_text(json.dumps(data))
    try:
        user.ui.volumeSelector.setCurrentNode(crop)
        user.panel.enter()
        before = titles(user)
        slicer.util.arrayFromVolume(crop)[0, 0, 0] = -1000
        slicer.util.arrayFromVolumeModified(crop)
        slicer.app.processEvents()
        assert titles(user)[0] == "A model for CT   (fits: CT, by its values)"
        assert len(titles(user)) == len(before)
        crop.SetAttribute("DICOM.Modality", "MR")
        slicer.app.processEvents()
        unfit = titles(user)[len(before) - 2 :]
        assert any(title.startswith("A model for CT   (for CT, but this is MR") for title in unfit)
        assert "Quick hippocampus   (fits: MR, DICOM says so)" in titles(user)
    finally:
        shutil.rmtree(other)
        user.panel.enter()


# Options


def test_only_ticked_structures_are_found(user, crop):
    from PySide6 import QtCore

    user.ui.optionsSection.collapsed = False
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model("Quick")
    user.click(user.ui.noStructuresButton)
    assert not user.ui.segmentButton.enabled and "at least one structure" in user.ui.hintLabel.text
    user.ui.structureList.item(1).setCheckState(QtCore.Qt.Checked)
    assert user.ui.structuresLabel.text == "S&tructures (1 of 2):"
    segmentation = user.segment(crop)
    names = [segmentation.GetSegmentation().GetNthSegment(i).GetName() for i in range(1)]
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1 and names == ["Posterior hippocampus"]
    assert user.ui.resultTable.rowCount == 1


def test_smoothing_and_largest_part_change_the_result(user, crop):
    from scipy import ndimage

    plain = node_labels(user.segment(crop), crop)
    user.ui.smoothingSpinBox.value = 2
    user.ui.largestComponentCheckBox.checked = True
    changed = node_labels(user.segment(crop), crop)
    assert user.panel.state.smoothingMm == 2 and user.panel.state.largestComponent
    parts = [ndimage.label(labels == 2, np.ones((3, 3, 3)))[1] for labels in (plain, changed)]
    assert parts[0] > 1 and parts[1] == 1 and (changed == 2).any()


def test_statistics(user, crop):
    import slicer

    segmentation = user.segment(crop)
    inside = node_labels(segmentation, crop) == 1
    mean = slicer.util.arrayFromVolume(crop)[inside].mean()
    assert float(user.ui.resultTable.item(0, 3).text()) == pytest.approx(mean, abs=0.06)


# Queue


def test_queue_of_volumes(user, crop):
    import slicer

    others = copies(crop, 2)
    for node in others:
        user.ui.otherVolumesSelector.check(node)
    user.start(crop, "Quick")
    table = user.ui.queueTable
    states = lambda: [table.item(row, 1).text() for row in range(table.rowCount)]  # noqa: E731
    assert user.ui.queueArea.visible and states() == ["running", "waiting", "waiting"]
    table.selectRow(1)
    user.click(user.ui.cancelTaskButton)
    assert states() == ["running", "stopped", "waiting"]
    user.until_idle()
    assert states() == ["done", "stopped", "done"]
    made = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    volumes = [n.GetNodeReference(n.GetReferenceImageGeometryReferenceRole()) for n in made]
    assert volumes == [crop, others[1]] and len({n.GetName() for n in made}) == 2
    for node in others:
        user.ui.otherVolumesSelector.uncheck(node)
    expected = user.segment(others[1])
    assert np.array_equal(node_labels(made[1], others[1]), node_labels(expected, others[1]))


def test_cancel_all(user, crop):
    import slicer

    for node in copies(crop, 2):
        user.ui.otherVolumesSelector.check(node)
    user.start_endless(crop)
    user.click(user.ui.cancelAllButton)
    user.until_idle()
    assert {task.state for task in user.panel.jobs.tasks} == {"cancelled"}
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_one_that_fails_does_not_stop_the_others(user, crop):
    import slicer

    (bad,) = copies(crop, 1)
    bad.SetSpacing(0.9, 1.0, 1.2)
    bad.SetIJKToRASDirections(1, 0.5, 0, 0, 1, 0, 0, 0, 1)
    user.ui.otherVolumesSelector.check(bad)
    (good,) = copies(crop, 1)
    user.ui.otherVolumesSelector.check(good)
    user.start(crop, "Quick")
    user.until_idle()
    assert [task.state for task in user.panel.jobs.tasks] == ["done", "failed", "done"]
    assert "right angles" in user.ui.queueTable.item(1, 1).toolTip()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2


# Sequences


# Samples, estimate, devices


def test_sample_in_one_click(user, crop_file):
    import slicer

    from slicerhost import sample_data

    user.choose_model("Quick")
    sample_data.files["MambaSegmentationMRHead"] = crop_file
    user.click(user.ui.sampleButton)
    assert user.ui.volumeSelector.currentNode().GetName() == "MRHead" and user.ui.segmentButton.enabled
    (source,) = (s for s in slicer.modules.sampleDataSources["Mamba Segmentation"] if "MRHead" in s.sampleName)
    assert source.checksums.startswith("SHA256:")
    sample_data.forget()


@pytest.mark.parametrize(
    ("modality", "keywords", "expected"), [("MR", ["Brain"], "MR"), ("MR", ["heart"], ""), ("XC", ["brain"], "")]
)
def test_sample_shows_what_the_model_finds(module, modality, keywords, expected):
    from types import SimpleNamespace

    from MambaSegmentationLib import Samples

    bundle = SimpleNamespace(inputs=[{"modality": modality}], data={"keywords": keywords})
    assert Samples.modalityFor(bundle) == expected


def test_sample_without_network(user):
    user.choose_model("Quick")
    user.click(user.ui.sampleButton)
    assert "could not be downloaded" in user.message and "network" in user.message


def test_estimate_before_and_measurement_after(user, crop, wait_until):
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model("Quick")
    wait_until(lambda: user.ui.estimateLabel.visible, 60)
    assert user.ui.estimateLabel.text.startswith("About ") and "memory" in user.ui.estimateLabel.text
    assert "windows" in user.ui.estimateLabel.toolTip
    assert user.segment(crop, "Quick") is not None
    card = user.ui.modelCard.toPlainText()
    assert " s on cpu for 0.2 million voxels" in card and "of memory" in card
    user.ui.volumeSelector.setCurrentNode(None)
    assert not user.ui.estimateLabel.visible


def test_devices_with_the_reason_why_one_is_off(user, crop, wait_until):
    from PySide6 import QtCore

    user.ui.volumeSelector.setCurrentNode(crop)
    wait_until(lambda: "CPU: " in user.ui.deviceSelector.itemText(1), 60)
    box = user.ui.deviceSelector
    rows = {box.itemData(row): row for row in range(box.count)}
    if "(not available)" not in box.itemText(rows.get("cuda", 0)):
        pytest.skip("this computer has a GPU")
    assert not box.model().flags(box.model().index(rows["cuda"], 0)) & QtCore.Qt.ItemIsEnabled
    assert "GPU (CUDA) is off: " in user.ui.deviceHintLabel.text
    assert box.itemData(box.currentIndex) == "auto"


def test_options_are_saved_with_the_scene(user, crop, tmp_path):
    import slicer
    from PySide6 import QtCore

    (other,) = copies(crop, 1)
    other.SetName("Other")
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model("Quick")
    user.ui.otherVolumesSelector.check(other)
    user.ui.smoothingSpinBox.value = 1.5
    user.ui.structureList.item(0).setCheckState(QtCore.Qt.Unchecked)
    scene_file = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(scene_file)
    slicer.mrmlScene.Clear(0)
    assert user.ui.smoothingSpinBox.value == 0 and not user.ui.otherVolumesSelector.checkedNodes()
    slicer.util.loadScene(scene_file)
    assert user.ui.smoothingSpinBox.value == 1.5 and user.panel.state.leftOut == ["Anterior hippocampus"]
    assert [node.GetName() for node in user.ui.otherVolumesSelector.checkedNodes()] == ["Other"]
    assert user.ui.structureList.item(0).checkState() == QtCore.Qt.Unchecked
