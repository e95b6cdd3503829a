"""Segments as numbers on an image's voxels: the fast way gives what Slicer's own merging gives."""

import numpy as np
import pytest

SHAPE = (12, 16, 20)


@pytest.fixture
def node(module):
    """On an oblique volume: one segment in a corner, one that reaches the edge, one empty; (segmentation, volume)."""
    import slicer

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    slicer.util.updateVolumeFromArray(volume, np.zeros(SHAPE, np.int16))
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn * np.sign(np.linalg.det(turn)) * (1, 2, 3), (5, -7, 9)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    boxes = {"a": np.s_[1:4, 2:6, 3:9], "b": np.s_[6:12, 8:16, 10:20], "empty": np.s_[0:0]}
    for name, box in boxes.items():
        put(node, volume, name, box)
    return node, volume


def put(node, volume, name, box) -> str:
    import slicer

    segmentId = node.GetSegmentation().AddEmptySegment("", name)
    mask = np.zeros(SHAPE, np.uint8)
    mask[box] = 1
    if mask.any():
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, volume)
    return segmentId


def merged(node, volume):
    from MambaSegmentationLib import SegmentationFiles, SegmentVoxels

    ids = list(node.GetSegmentation().GetSegmentIDs())
    return SegmentationFiles._merged(node, SegmentVoxels.gridOf(node, volume), ids)


def same(node, volume) -> list[str]:
    from MambaSegmentationLib import SegmentationFiles

    array, covered = SegmentationFiles.numbers(node, volume)
    assert np.array_equal(array, merged(node, volume)) and array.any()
    return covered


def test_segments_of_one_layer(node):
    assert same(*node) == []
    node[0].GetSegmentation().CollapseBinaryLabelmaps(False)
    assert same(*node) == []


def test_numbers_that_are_not_those_of_the_layer(node):
    segmentation = node[0].GetSegmentation()
    segmentation.CollapseBinaryLabelmaps(False)
    segmentation.ReorderSegments(list(segmentation.GetSegmentIDs())[::-1])
    assert same(*node) == []


@pytest.mark.parametrize("both", [True, False])
def test_under_a_transform(node, both):
    import slicer
    import vtk
    from MambaSegmentationLib import SegmentationFiles

    before = SegmentationFiles.numbers(*node)[0]
    matrix = vtk.vtkTransform()
    matrix.RotateWXYZ(30, 1, 1, 0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix.GetMatrix())
    for item in node if both else node[1:]:
        item.SetAndObserveTransformNodeID(transform.GetID())
    same(*node)
    assert np.array_equal(SegmentationFiles.numbers(*node)[0], before) == both


def test_the_worker_reads_what_is_meant(node, tmp_path):
    from MambaSegmentationLib import SegmentationFiles, SegmentVoxels

    from MambaSegLib.image import read_labels

    SegmentationFiles.writeForWorker(*node, tmp_path / "fast.nrrd")
    SegmentationFiles.writeLabels(*node, tmp_path / "kept.seg.nrrd")
    fast, kept = read_labels(tmp_path / "fast.nrrd"), read_labels(tmp_path / "kept.seg.nrrd")
    assert fast.same_grid(kept) and np.array_equal(fast.array, kept.array) and fast.array.max() == 2
    many = np.full(SHAPE, 300, np.uint16)
    SegmentVoxels.writeLabels(many, node[1], tmp_path / "many.nrrd")
    assert np.array_equal(read_labels(tmp_path / "many.nrrd").array, many)


def test_overlapping_segments(node):
    put(*node, "inside b", np.s_[8:10, 9:12, 12:15])
    assert same(*node) == ["b"]


def test_segments_beyond_the_image_are_cut_off(node):
    import slicer

    segmentation, volume = node
    small = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "part")
    slicer.util.updateVolumeFromArray(small, np.zeros((8, 10, 12), np.int16))
    small.CopyOrientation(volume)
    from MambaSegmentationLib import SegmentationFiles

    array, covered = SegmentationFiles.numbers(segmentation, small)
    assert array.shape == (8, 10, 12) and covered == []
    assert np.array_equal(array, merged(segmentation, volume)[:8, :10, :12])


def test_no_segment_has_a_voxel(module, node):
    from MambaSegmentationLib import SegmentationFiles

    segmentation, volume = node
    for segmentId in list(segmentation.GetSegmentation().GetSegmentIDs())[:2]:
        segmentation.GetSegmentation().RemoveSegment(segmentId)
    array, covered = SegmentationFiles.numbers(segmentation, volume)
    assert array.shape == SHAPE and not array.any() and covered == []
