"""Nodes to files and back, without a worker."""

import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture
def scene_io(module):
    from MambaSegmentationLib import SceneIO

    return SceneIO


@pytest.fixture
def regions(module):
    from MambaSegmentationLib import Regions

    return Regions


@pytest.fixture
def folder(scene_io):
    made = scene_io.ExchangeFolder()
    yield made
    made.clear()


def volume_from(array, ijk_to_ras=None):
    """A scalar volume node; a fourth axis of the array becomes components."""
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[2::-1])
    components = array.shape[3] if array.ndim == 4 else 1
    image.GetPointData().SetScalars(numpy_to_vtk(array.reshape(-1, components), deep=True))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Volume")
    node.SetAndObserveImageData(image)
    if ijk_to_ras is not None:
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras))
    return node


def shifted(x: float):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[0, 3] = x
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def test_volume_file_has_the_volumes_voxels_and_own_geometry(scene_io, folder, crop, crop_file):
    crop.SetAndObserveTransformNodeID(shifted(25).GetID())
    path = folder.volumeFile(crop)
    written, original = sitk.ReadImage(str(path)), sitk.ReadImage(str(crop_file))
    assert np.array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(original))
    for field in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(written, field)(), getattr(original, field)(), atol=1e-6)
    assert path.name == "Left_hippocampus.nrrd"
    assert crop.GetStorageNode().GetFileName() == str(crop_file), "the volume's own file is not touched"


def test_volume_is_written_again_only_after_a_change(scene_io, folder, crop):
    import slicer

    first = folder.volumeFile(crop)
    crop.SetName("renamed")
    crop.GetDisplayNode().SetWindow(17)
    assert folder.volumeFile(crop) == first
    slicer.util.arrayFromVolume(crop)[3, 3, 3] += 1
    slicer.util.arrayFromVolumeModified(crop)
    second = folder.volumeFile(crop)
    assert second != first and not first.exists()
    crop.SetSpacing(1, 2, 3)
    assert folder.volumeFile(crop) != second


SHEAR = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("array", "matrix", "words"),
    [
        (np.zeros((4, 5, 6)), SHEAR, "right angles"),
        (np.zeros((5, 1, 6)), None, "several slices"),
        (np.zeros((4, 5, 6, 3), np.uint8), None, "One value per voxel"),
    ],
    ids=["sheared", "one slice", "three components"],
)
def test_unusable_volume_is_refused_before_anything_starts(user, scene_io, folder, array, matrix, words):
    node = volume_from(array, matrix)
    problem = scene_io.volumeProblem(node)
    assert words in problem.message and problem.hint
    from MambaSegLib.errors import UserError

    with pytest.raises(UserError, match=words):
        folder.volumeFile(node)
    user.ui.volumeSelector.setCurrentNode(node)
    assert not user.ui.segmentButton.enabled
    if user.ui.volumeSelector.currentNode() is node:
        assert words in user.ui.hintLabel.text and words in user.ui.segmentButton.toolTip


def test_volume_without_image(scene_io):
    import slicer

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert "no image" in scene_io.volumeProblem(empty).message


def test_roi_bounds(regions):
    import slicer

    volume = volume_from(np.zeros((40, 40, 40), np.float32))
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    with pytest.raises(Exception, match="no size"):
        regions.bounds(roi, volume)
    roi.SetXYZ(10, 20, 30)
    roi.SetRadiusXYZ(1, 2, 3)
    bounds, note = regions.bounds(roi, volume)
    assert np.allclose(bounds, [-11, -9, -22, -18, 27, 33]) and note == ""
    volume.SetAndObserveTransformNodeID(shifted(5).GetID())  # the volume's own coordinates are 5 mm to the left
    assert np.allclose(regions.bounds(roi, volume)[0], [-6, -4, -22, -18, 27, 33])
    roi.SetAndObserveTransformNodeID(shifted(-3).GetID())
    assert np.allclose(regions.bounds(roi, volume)[0], [-3, -1, -22, -18, 27, 33])


def test_roi_outside_the_volume(regions, crop):
    import slicer

    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Far away")
    roi.SetRadiusXYZ(5, 5, 5)
    roi.SetXYZ(300, 0, 0)
    with pytest.raises(Exception, match="'Far away' lies outside the volume 'Left hippocampus'"):
        regions.bounds(roi, crop)
    crop.SetAndObserveTransformNodeID(shifted(320).GetID())
    assert regions.bounds(roi, crop)


def test_turned_roi_becomes_the_box_around_it(regions):
    import slicer

    volume = volume_from(np.zeros((20, 20, 20), np.float32))
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetRadiusXYZ(10, 10, 5)
    roi.SetXYZ(0, 0, 0)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(np.pi / 4), -np.sin(np.pi / 4)], [np.sin(np.pi / 4), np.cos(np.pi / 4)]]
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn))
    bounds, note = regions.bounds(roi, volume)
    wide = 10 * np.sqrt(2)
    assert np.allclose(bounds, [-wide, wide, -wide, wide, -5, 5])
    assert "turned" in note


def test_fitted_roi_is_the_whole_volume(regions, crop):
    import slicer

    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    crop.SetAndObserveTransformNodeID(shifted(5).GetID())
    regions.fit(roi, crop)
    bounds, expected = np.zeros(6), np.zeros(6)
    roi.GetRASBounds(bounds)
    crop.GetRASBounds(expected)
    assert np.allclose(bounds, expected)


def test_unreadable_result_leaves_nothing_in_the_scene(scene_io, crop, tmp_path):
    import slicer

    from MambaSegLib.errors import UserError

    path = tmp_path / "broken.seg.nrrd"
    path.write_bytes(b"NRRD0004\nno header")
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(UserError, match="could not be read"):
        scene_io.importSegmentation(path, crop, "Result", {})
    assert slicer.mrmlScene.GetNumberOfNodes() == before
