"""Models that look at several images at once: selectors, proposals, what does not fit, and the right result."""

import numpy as np
import pytest
import SimpleITK as sitk
from library_python import run_python
from test_panel_segment import linear_transform, node_labels

PAIR = "Pair of images"


def test_proposals_by_name_and_modality(module):
    from MambaSegmentationLib.InputSuggestion import Candidate, suggested

    def proposed(inputs: str, first: str, others: list[str]) -> list[int | None]:
        wanted = [{"name": name, "modality": "MR"} for name in inputs.split()]
        return suggested(wanted, Candidate(first), [Candidate(name) for name in others])

    case = ["BraTS_001_flair", "BraTS_002_t2", "BraTS_001_t1ce", "BraTS_001_t2", "BraTS_002_t1ce"]
    assert proposed("T1 T1ce T2 FLAIR", "BraTS_001_t1", case) == [2, 3, 0]
    assert proposed("T1 T2", "case7_0000", ["case8_0001", "case7_0001", "case7_0002"]) == [1]
    assert proposed("T1 T2", "head T1", ["T2 FLAIR head", "head T2"]) == [1], "the one with nothing else in its name"
    assert proposed("T1 T2", "T1", ["a T2", "b T2"]) == [None], "two that fit equally well are a question"
    assert proposed("T1 T2", "head", ["thorax"]) == [None]
    assert proposed("T1 T2", "Case 7 T1", ["Case 8 T2"]) == [None], "another patient's"
    both = [{"name": "PET", "modality": "PT"}, {"name": "Low dose", "modality": "CT"}]
    others = [Candidate("Series 4", "MR"), Candidate("Series 5", "CT")]
    assert suggested(both, Candidate("Series 3", "PT"), others) == [1]
    assert suggested(both, Candidate("Series 3", "PT"), [*others, Candidate("Series 6", "CT")]) == [None]
    assert suggested(both, Candidate("PET"), [Candidate("Low dose", "MR")]) == [None], "DICOM says something else"
    brain = [{"name": "T1", "modality": "MR"}, {"name": "T2", "modality": "MR"}]
    first, second = Candidate("3: t1 mprage", "MR", "P1"), Candidate("5: t2 tse", "MR", "P1")
    assert suggested(brain, first, [second]) == [0], "DICOM knows that they are of one patient"
    assert suggested(brain, first, [Candidate("3: t2 mprage", "MR", "P2")]) == [None]


@pytest.fixture
def images(crop, tmp_path):
    """The crop as "Case 1 T1", and another image on its grid, "Case 1 T2", each with its file."""
    import slicer

    crop.SetName("Case 1 T1")
    second = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, crop, "Case 1 T2")
    slicer.util.arrayFromVolume(second)[:] = 500 - np.roll(slicer.util.arrayFromVolume(crop), 4, axis=1) // 2
    slicer.util.arrayFromVolumeModified(second)
    slicer.app.processEvents()
    return crop, second


def rows(user) -> list:
    return user.panel.page("SegmentPage").moreInputs.selectors


def plain(label) -> str:
    return label.text.replace("&", "")


def segment_pair(user, first):
    user.ui.volumeSelector.setCurrentNode(first)
    user.choose_model(PAIR)
    assert user.ui.segmentButton.enabled, user.ui.hintLabel.text
    user.click(user.ui.segmentButton)
    user.until_idle()
    return user.panel.state.resultSegmentation


def test_result_equals_command_line_and_depends_on_the_order(user, images, crop_file, tmp_path, model_folder):
    import slicer

    first, second = images
    user.ui.volumeSelector.setCurrentNode(first)
    user.choose_model(PAIR)
    assert plain(user.ui.volumeLabel) == "T1:" and rows(user)[0].visible
    assert rows(user)[0].currentNode() is second, "proposed by its name"
    assert user.panel.page("SegmentPage").moreInputs._proposedLabel.visible
    segmentation = segment_pair(user, first)
    assert segmentation is not None, user.message
    found = node_labels(segmentation, first)

    files = [tmp_path / "t1.nrrd", tmp_path / "t2.nrrd"]
    for node, path in zip(images, files, strict=True):
        image = sitk.GetImageFromArray(slicer.util.arrayFromVolume(node))
        image.CopyInformation(sitk.ReadImage(str(crop_file)))
        sitk.WriteImage(image, str(path))
    output = tmp_path / "pair.seg.nrrd"
    call = ("segment", *files, "-m", model_folder / "pair", "-o", output, "--device", "cpu")
    done = run_python("-m", "MambaSegLib.cli", *call)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(found, sitk.GetArrayFromImage(sitk.ReadImage(str(output))))
    assert len(np.unique(found)) > 1

    user.ui.volumeSelector.setCurrentNode(second)
    rows(user)[0].setCurrentNode(first)
    user.click(user.ui.segmentButton)
    user.until_idle()
    swapped = node_labels(user.panel.state.resultSegmentation, first)
    assert not np.array_equal(found, swapped)


def test_missing_and_duplicate_images(user, images):
    import slicer

    first, second = images
    second.SetName("Whatever")
    user.ui.volumeSelector.setCurrentNode(first)
    user.choose_model(PAIR)
    assert rows(user)[0].currentNode() is None
    assert user.ui.hintLabel.text.startswith("Choose the volume for the input 'T2'.")
    assert not user.ui.segmentButton.enabled
    rows(user)[0].setCurrentNode(first)
    assert "'Case 1 T1' is chosen for both 'T1' and 'T2'" in user.ui.hintLabel.text
    assert not user.ui.segmentButton.enabled
    rows(user)[0].setCurrentNode(second)
    assert user.ui.segmentButton.enabled and user.panel.state.moreInputs == [second]
    slicer.mrmlScene.RemoveNode(second)
    assert user.panel.state.moreInputs == [None]
    user.choose_model("Quick")
    assert not rows(user) and plain(user.ui.volumeLabel) == "Volume:"


def test_image_on_another_grid(user, images):
    import slicer

    first, second = images
    user.ui.volumeSelector.setCurrentNode(first)
    user.choose_model(PAIR)
    assert user.ui.segmentButton.enabled
    x, y, z = second.GetOrigin()
    second.SetOrigin(x, y, z + 0.5)
    slicer.app.processEvents()
    assert "'Case 1 T2' has not the same voxels in the same places as 'Case 1 T1'" in user.ui.hintLabel.text
    assert not user.ui.segmentButton.enabled
    second.SetOrigin(*first.GetOrigin())
    second.SetAndObserveTransformNodeID(linear_transform("Moved", np.diag([-1.0, -1, 1, 1])).GetID())
    slicer.app.processEvents()
    assert not user.ui.segmentButton.enabled, "they lie on each other in the file, but not in the scene"
    first.SetAndObserveTransformNodeID(second.GetTransformNodeID())
    slicer.app.processEvents()
    assert user.ui.segmentButton.enabled, user.ui.hintLabel.text


def test_a_script_is_told_what_is_missing(module, images):
    first, second = images
    ends = []
    module.logic.segment(first, "pair", onFailed=ends.append)
    module.logic.segment(first, "pair", moreInputs=(second, second), onFailed=ends.append)
    module.logic.segment(first, "quick", moreInputs=(second,), onFailed=ends.append)
    assert "for the input 'T2'" in ends[0].message and "T1, T2" in ends[0].hint
    assert "needs 2 images, but 3 came" in ends[1].message and "needs 1 image, but 2 came" in ends[2].message


def test_the_images_of_another_patient_are_not_kept(user, images):
    import slicer

    clone = slicer.modules.volumes.logic().CloneVolume
    other = [clone(slicer.mrmlScene, node, node.GetName().replace("1", "2", 1)) for node in images]
    user.ui.volumeSelector.setCurrentNode(images[0])
    user.choose_model(PAIR)
    assert rows(user)[0].currentNode() is images[1]
    user.ui.volumeSelector.setCurrentNode(other[0])
    assert rows(user)[0].currentNode() is other[1] and user.panel.state.moreInputs == [other[1]]
    other[1].SetName("Renamed")
    user.ui.volumeSelector.setCurrentNode(images[1])
    user.ui.volumeSelector.setCurrentNode(other[0])
    assert rows(user)[0].currentNode() is None


def test_choices_are_saved_with_the_scene_and_a_result_knows_its_images(user, images, tmp_path, model_folder):
    import slicer
    from MambaSegmentationLib import Inputs

    from MambaSegLib.bundle import open_bundle

    first, second = images
    segmentation = segment_pair(user, first)
    bundle = open_bundle(model_folder / "pair")
    assert Inputs.further(segmentation, bundle, []) == [second]
    scene_file = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(scene_file)
    slicer.mrmlScene.Clear(0)
    assert not rows(user) or rows(user)[0].currentNode() is None
    slicer.util.loadScene(scene_file)
    assert user.panel.state.modelId == "pair" and rows(user)[0].currentNode().GetName() == "Case 1 T2"
    segmentation = user.panel.state.resultSegmentation
    (noted,) = Inputs.further(segmentation, bundle, [])
    assert noted.GetName() == "Case 1 T2"
    slicer.mrmlScene.RemoveNode(noted)
    with pytest.raises(Exception, match="input 'T2' of this segmentation is not in the scene"):
        Inputs.further(segmentation, bundle, [])


def test_correction_looks_at_all_images_of_the_result(user, images, monkeypatch):
    """Also when another model and another volume are chosen on the page Segment meanwhile."""
    import slicer

    from slicerhost.widgets_editor import paint

    first, _second = images
    segmentation = segment_pair(user, first)
    user.choose_model("Quick")
    user.open("CorrectPage")
    page = user.panel.page("CorrectPage")
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    paint(page.editor.widget, ids[0], (20, 30, 25), 5.0, True)
    paint(page.editor.widget, ids[1], (20, 30, 25), 4.0, False)
    slicer.app.processEvents()
    sent = []
    monkeypatch.setattr(page.services.worker, "run", lambda job, params, onEvent: sent.append(params) or "1")
    user.click(user.ui.correctButton)
    written = [sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in sent[-1]["input"]]
    expected = [slicer.util.arrayFromVolume(node) for node in images]
    assert len(written) == 2 and all(np.array_equal(a, b) for a, b in zip(written, expected, strict=True))
    user.panel.jobs.forget()


def test_an_image_that_was_proposed_when_it_came_is_watched(user, crop):
    """It was not chosen by anybody: the model was, before it was loaded."""
    import slicer

    crop.SetName("Case 1 T1")
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model(PAIR)
    second = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, crop, "Case 1 T2")
    slicer.app.processEvents()
    assert rows(user)[0].currentNode() is second and user.ui.segmentButton.enabled
    x, y, z = second.GetOrigin()
    second.SetOrigin(x, y, z + 0.5)
    slicer.app.processEvents()
    assert "has not the same voxels" in user.ui.hintLabel.text and not user.ui.segmentButton.enabled
