"""The host's MRML is Slicer's own: geometry, segmentations, bundles, views."""

import numpy as np
import pytest

IJK_TO_RAS = np.array(
    [[-0.7 * 0.96, 0.9 * 0.28, 0, 12], [-0.7 * 0.28, -0.9 * 0.96, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]], float
)
TERMINOLOGY = (
    "Segmentation category and type - SlicerGeneralAnatomy"
    "~SCT^123037004^Anatomical Structure~SCT^5366008^Hippocampus~^^~~^^~^^"
)


def make_volume(name="vol"):
    """48 x 40 x 20 voxels, oblique, 0.7 x 0.9 x 2.5 mm, a bright ball in the middle."""
    import slicer

    z, y, x = np.mgrid[:20, :40, :48]
    ball = ((x - 24) * 0.7) ** 2 + ((y - 20) * 0.9) ** 2 + ((z - 10) * 2.5) ** 2 < 100
    voxels = (100 + 5 * x + 400 * ball).astype(np.int16)
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=slicer.util.vtkMatrixFromArray(IJK_TO_RAS), name=name)


def add_segmentation(volume, masks, name="seg"):
    """A segmentation node with one segment a mask: {name: mask}."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segment, mask in masks.items():
        node.GetSegmentation().AddEmptySegment(segment, segment, [1, 0.6, 0])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, volume)
    return node


def matrix(node):
    import slicer
    import vtk

    found = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(found)
    return slicer.util.arrayFromVTKMatrix(found)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".nrrd", 1e-9), (".nii.gz", 1e-5), (".mha", 1e-9)])
def test_a_volume_survives_its_file(slicer_app, tmp_path, suffix, tolerance):
    import slicer

    volume = make_volume()
    before = slicer.util.arrayFromVolume(volume).copy()
    assert slicer.util.saveNode(volume, str(tmp_path / f"vol{suffix}"))
    loaded = slicer.util.loadVolume(str(tmp_path / f"vol{suffix}"))
    assert loaded is not volume
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), before)
    assert np.allclose(matrix(loaded), IJK_TO_RAS, atol=tolerance)


def test_loading_nonsense_raises_and_is_recorded(slicer_app, tmp_path):
    import slicer

    (tmp_path / "bad.nrrd").write_text("no image")
    with slicer_app.problems.expected("vtk", "bad.nrrd"), pytest.raises(RuntimeError, match=r"bad\.nrrd"):
        slicer.util.loadVolume(str(tmp_path / "bad.nrrd"))


def test_a_segmentation_survives_seg_nrrd(slicer_app, tmp_path):
    import slicer

    volume = make_volume()
    voxels = slicer.util.arrayFromVolume(volume)
    masks = {"left": voxels > 450, "right": (voxels > 200) & (voxels < 300)}
    node = add_segmentation(volume, masks)
    node.GetSegmentation().GetSegment("left").SetTag("TerminologyEntry", TERMINOLOGY)
    assert slicer.util.saveNode(node, str(tmp_path / "s.seg.nrrd"))
    loaded = slicer.util.loadSegmentation(str(tmp_path / "s.seg.nrrd"))
    for name, mask in masks.items():
        assert mask.any()
        assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(loaded, name, volume) > 0, mask)
    assert loaded.GetSegmentation().GetSegment("left").GetTerminology() == TERMINOLOGY


def test_a_scene_survives_mrb(slicer_app, tmp_path):
    import slicer

    volume = make_volume()
    mask = slicer.util.arrayFromVolume(volume) > 450
    node = add_segmentation(volume, {"a": mask})
    node.GetSegmentation().GetSegment("a").SetTag("TerminologyEntry", TERMINOLOGY)
    parameters = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "P")
    parameters.SetParameter("roi", "96")
    parameters.SetNodeReferenceID("input", volume.GetID())
    assert slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    volume, node, parameters = (slicer.util.getNode(name) for name in ("vol", "seg", "P"))
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "a", volume) > 0, mask)
    assert node.GetSegmentation().GetSegment("a").GetTerminology() == TERMINOLOGY
    assert (parameters.GetParameter("roi"), parameters.GetNodeReference("input")) == ("96", volume)


def test_every_node_has_an_item_in_the_subject_hierarchy(slicer_app):
    import slicer

    volume = make_volume()
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(volume)
    assert item and hierarchy.GetItemName(item) == "vol"


def pixels(path):
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    return vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars()).astype(int)


def test_views_show_volume_and_segment(slicer_app, tmp_path):
    import slicer

    from slicerhost import views

    volume = make_volume()
    plain = pixels(views.save_slice_view(tmp_path / "plain.png", volume))
    node = add_segmentation(volume, {"ball": slicer.util.arrayFromVolume(volume) > 450})
    node.CreateClosedSurfaceRepresentation()
    with_segment = pixels(views.save_slice_view(tmp_path / "slice.png", volume))
    surface = pixels(views.save_3d_view(tmp_path / "3d.png"))

    def orange(rgb):
        return ((rgb[:, 0] > rgb[:, 2] + 60) & (rgb[:, 0] > rgb[:, 1] + 20)).sum()

    assert plain.max() > 100 and orange(plain) == 0
    assert orange(with_segment) > 1000
    assert orange(surface) > 1000
