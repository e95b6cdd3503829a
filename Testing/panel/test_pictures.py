"""Colour pictures in the panel, with the shipped model of polyps on real colonoscopy pictures."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from library_python import run_python

ROOT = Path(__file__).resolve().parents[2]
POLYP = "Polyp (colonoscopy picture)"


@pytest.fixture(scope="module")
def picture_file(tmp_path_factory) -> Path:
    """A PNG of 352 x 288 pixels, cut from a picture of the validation part."""
    pictures = ROOT.parent / "shared" / "data" / "kvasir_seg_352" / "validation" / "images"
    if not pictures.is_dir():
        pytest.skip("needs the pictures of kvasir_seg_352")
    path = tmp_path_factory.mktemp("pictures") / "Colonoscopy.png"
    sitk.WriteImage(sitk.ReadImage(str(pictures / "10.jpg"))[:, :288], str(path))
    return path


@pytest.fixture(scope="module")
def expected(picture_file, tmp_path_factory) -> np.ndarray:
    """(1, Y, X) labels that the command line writes for the file itself."""
    output = tmp_path_factory.mktemp("cli") / "polyp.seg.nrrd"
    call = ("segment", picture_file, "-m", "polyp", "-o", output, "--device", "cpu")
    done = run_python("-m", "MambaSegLib.cli", *call)
    assert done.returncode == 0, done.stderr
    return sitk.GetArrayFromImage(sitk.ReadImage(str(output)))


@pytest.fixture
def picture(module, picture_file):
    import slicer

    return slicer.util.loadVolume(str(picture_file), {"singleFile": True})


def mask(segmentation, volume) -> np.ndarray:
    import slicer

    segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)


def test_picture_is_segmented_on_its_grid(user, picture, expected):
    assert picture.IsA("vtkMRMLVectorVolumeNode")
    segmentation = user.segment(picture, POLYP)
    assert segmentation is not None, user.message
    assert user.ui.volumeLabel.text == "Picture:" and not user.panel.page("SegmentPage").moreInputs.selectors
    assert segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole()) is picture
    found = mask(segmentation, picture)
    assert found.shape == (1, 288, 352) and 1000 < found.sum() < found.size / 2
    assert np.array_equal(found, expected)
    table = user.ui.resultTable
    assert table.horizontalHeaderItem(2).text() == "Area (pixels)" and table.isColumnHidden(3)
    assert table.item(0, 2).text() == str(found.sum())


def test_turned_picture_with_a_pixel_size_keeps_its_geometry(user, picture, expected):
    """As a photograph that was registered to a body: a place, a spacing and a direction of its own."""
    import slicer

    axes = np.array([[0.0, -0.2, 0, 5], [0.2, 0, 0, -7], [0, 0, 1.5, 30], [0, 0, 0, 1]])
    picture.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(axes))
    segmentation = user.segment(picture, POLYP)
    assert segmentation is not None, user.message
    assert np.array_equal(mask(segmentation, picture), expected)


def test_picture_with_opacity(user, picture, expected):
    import slicer
    from vtk.util import numpy_support

    image = picture.GetImageData()
    colours = slicer.util.arrayFromVolume(picture)
    opaque = np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=-1).reshape(-1, 4)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(opaque, deep=True))
    picture.Modified()
    segmentation = user.segment(picture, POLYP)
    assert segmentation is not None, user.message
    assert np.array_equal(mask(segmentation, picture), expected)


def test_grey_volume_and_picture_are_not_mixed_up(user, picture, crop, wait_until):
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model(POLYP)
    assert not user.ui.segmentButton.enabled
    assert "needs a colour picture, but 'Left hippocampus' is a volume of grey values" in user.ui.hintLabel.text
    user.ui.volumeSelector.setCurrentNode(picture)
    assert user.ui.segmentButton.enabled, user.ui.hintLabel.text
    assert user.ui.modelList.item(0).text() == f"{POLYP}   (fits: colour picture)"
    user.choose_model("Quick")
    assert not user.ui.segmentButton.enabled
    assert "needs a volume of grey values, but 'Colonoscopy' is a colour picture" in user.ui.hintLabel.text
    ends = []
    user.module.logic.segment(picture, "quick", onFailed=ends.append)  # a script is told the same
    assert "is a colour picture" in ends[0].message
    user.module.logic.segment(crop, "polyp", onFailed=ends.append)
    assert "is a volume of grey values" in ends[1].message


def test_estimate_for_a_picture(user, picture, wait_until):
    user.ui.volumeSelector.setCurrentNode(picture)
    user.choose_model(POLYP)
    wait_until(lambda: user.ui.estimateLabel.visible, 60)
    assert user.ui.estimateLabel.text.startswith("About ")


def test_region_in_a_picture(user, picture, expected):
    from test_panel_segment import add_roi

    bounds = np.zeros(6)
    picture.GetRASBounds(bounds)
    center, size = (bounds[::2] + bounds[1::2]) / 2, bounds[1::2] - bounds[::2]
    user.ui.roiSelector.setCurrentNode(add_roi(center, size * [0.5, 0.5, 1]))
    segmentation = user.segment(picture, POLYP)
    assert segmentation is not None, user.message
    found = mask(segmentation, picture)
    assert not found[:, :, :80].any() and not found[:, :, -80:].any() and found.shape == expected.shape


def test_pictures_in_the_queue(user, picture, crop, expected):
    import slicer

    second = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, picture, "Second")
    user.ui.otherVolumesSelector.check(second)
    user.ui.otherVolumesSelector.check(crop)
    user.start(picture, POLYP)
    user.until_idle()
    tasks = user.panel.jobs.tasks
    assert {task.title.split(":")[0]: task.state for task in tasks} == {
        **{"Colonoscopy": "done", "Second": "done"},
        "Left hippocampus": "failed",
    }
    assert any("volume of grey values" in task.problem for task in tasks)
    made = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert all(np.array_equal(mask(node, second), expected) for node in made) and len(made) == 2


def test_frames_of_a_video(user, picture):
    import slicer

    scene = slicer.mrmlScene
    frames = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Video")
    for index in range(2):
        slicer.util.arrayFromVolume(picture)[:] = slicer.util.arrayFromVolume(picture)[:, ::-1].copy()
        frames.SetDataNodeAtValue(picture, str(index))
    scene.RemoveNode(picture)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(frames)
    user.ui.volumeSelector.setCurrentNode(proxy)
    user.choose_model(POLYP)
    user.ui.allFramesCheckBox.checked = True
    segmentation = user.segment(proxy, POLYP)
    assert segmentation is not None, user.message
    first = mask(segmentation, proxy)
    browser.SetSelectedItemNumber(1)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    second = mask(segmentation, proxy)
    assert first.any() and second.any() and not np.array_equal(first, second)
    overlap = 2 * (first[:, ::-1] & second).sum() / (first.sum() + second.sum())
    assert overlap > 0.7, "the second frame is the first one upside down"


def correct_and_add(user, picture) -> None:
    """A part of what the polyp model found is erased, continued, accepted, and taken into the training set."""
    import slicer
    from MambaSegmentationLib import SegmentVoxels
    from PySide6 import QtCore

    segmentation = user.segment(picture, POLYP)
    user.open("CorrectPage")
    (segment_id,) = SegmentVoxels.segmentIds(segmentation)
    edited = mask(segmentation, picture) > 0
    middle = int(np.median(np.nonzero(edited[0])[1]))
    edited[0, :, middle : middle + 20] = False
    SegmentVoxels.setMask(segmentation, segment_id, picture, edited)
    slicer.app.processEvents()
    user.panel.runView.hideMessage()
    user.click(user.ui.correctButton)
    user.until_idle()
    assert user.ui.acceptCorrectionButton.visible, user.message
    user.click(user.ui.acceptCorrectionButton)
    assert not mask(segmentation, picture)[0, :, middle : middle + 20].any(), "what was edited stays"
    user.open("FineTunePage")
    user.ui.caseStructureList.item(0).setCheckState(QtCore.Qt.Checked)
    user.ui.casePatientEdit.text, user.ui.caseAnnotatorEdit.text = "P1", "Ann"
    user.click(user.ui.addCaseButton)
    user.until_idle()
    assert "The case was added" in user.message


def test_picture_is_corrected_and_added_to_the_training_set(user, picture, tmp_path):
    from MambaSegmentationLib import Settings

    Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, str(tmp_path / "corrections"))
    try:
        correct_and_add(user, picture)
        assert user.ui.caseList.count == 1
    finally:
        Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, "")
