"""The map of doubt: its numbers, its place, how it is shown, and that it is no image to choose."""

import numpy as np
import pytest
import SimpleITK as sitk
from library_python import run_python
from test_panel_segment import linear_transform, turned_and_shifted


@pytest.fixture
def with_map(user):
    user.ui.doubtMapCheckBox.checked = True
    yield user
    user.ui.doubtMapCheckBox.checked = False


def doubt_of(segmentation):
    from MambaSegmentationLib import DoubtMap

    return DoubtMap.of(segmentation)


def test_map_equals_command_line_and_lies_on_the_image(with_map, crop, crop_file, model_folder, tmp_path):
    import slicer

    transform = linear_transform("Placed", turned_and_shifted())
    crop.SetAndObserveTransformNodeID(transform.GetID())
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "Patient"), "Study")
    tree.SetItemParent(tree.GetItemByDataNode(crop), study)
    segmentation = with_map.segment(crop)
    assert segmentation is not None, with_map.message
    node = doubt_of(segmentation)
    call = ("segment", crop_file, "-m", model_folder / "quick", "-o", tmp_path / "out.seg.nrrd", "--device", "cpu")
    done = run_python("-m", "MambaSegLib.cli", *call, "--uncertainty", tmp_path / "doubt.nrrd")
    assert done.returncode == 0, done.stderr
    found, expected = slicer.util.arrayFromVolume(node), sitk.ReadImage(str(tmp_path / "doubt.nrrd"))
    assert np.array_equal(found, sitk.GetArrayFromImage(expected)) and found.max() > 50
    ours, images = (slicer.util.arrayFromVTKMatrix(matrix_of(n)) for n in (node, crop))
    assert np.allclose(ours, images)
    assert node.GetParentTransformNode() is transform
    assert tree.GetItemParent(tree.GetItemByDataNode(node)) == study


def matrix_of(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_map_is_shown_over_the_image_with_fixed_limits(with_map, crop):
    import slicer
    from MambaSegmentationLib import SceneIO

    node = doubt_of(with_map.segment(crop))
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == node.GetID() and 0 < composite.GetForegroundOpacity() < 1
    display = node.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
    assert display.GetApplyThreshold() and display.GetLowerThreshold() > 0, "where there is no doubt the image is seen"
    assert display.GetColorNode() is not None
    assert node not in SceneIO.volumes()


def test_no_map_unless_one_asks(user, crop):
    import slicer

    segmentation = user.segment(crop)
    assert doubt_of(segmentation) is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_cancelled_run_leaves_no_map(with_map, crop):
    from test_interruptions import scene_content

    with_map.ui.volumeSelector.setCurrentNode(crop)
    before = scene_content()
    with_map.start_endless(crop)
    files = with_map.panel.services.files
    with_map.click(with_map.ui.cancelButton)
    with_map.until_idle()
    assert scene_content() == before
    assert not list(files._path.rglob("doubt.nrrd")) and not list(files._path.rglob("result.seg.nrrd"))
