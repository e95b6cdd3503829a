"""Surfaces for other programs: of the right size, in the right place, with names and colours; all or none."""

import json

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SHAPE = (40, 44, 36)  # K, J, I
SPACING = (0.8, 1.1, 1.6)


@pytest.fixture
def moved(module):
    """Two balls, one empty segment on an oblique volume under a transform that turns and moves; (node, masks, matrix
    from IJK to world RAS)."""
    import slicer

    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    toRas = np.eye(4)
    toRas[:3, :3], toRas[:3, 3] = turn * SPACING, (31.0, -47.0, 12.0)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    slicer.util.updateVolumeFromArray(volume, np.zeros(SHAPE, np.int16))
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(toRas))
    toWorld = vtk.vtkTransform()
    toWorld.Translate(100, -60, 30)
    toWorld.RotateWXYZ(40, 1, 2, 3)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(toWorld.GetMatrix())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "海馬")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    masks = {}
    for name, center, color in (("Höhle L/R", (14, 22, 12), (1, 0, 0)), ("海馬", (28, 20, 24), (0.2, 0.6, 0.4))):
        masks[name] = ball(center)
        segmentId = node.GetSegmentation().AddEmptySegment("", name, color)
        slicer.util.updateSegmentBinaryLabelmapFromArray(masks[name].astype(np.uint8), node, segmentId, volume)
    node.GetSegmentation().AddEmptySegment("", "nothing")
    for item in (volume, node):
        item.SetAndObserveTransformNodeID(transform.GetID())
    return node, masks, slicer.util.arrayFromVTKMatrix(toWorld.GetMatrix()) @ toRas


def ball(center, radius_mm=9.0):
    steps = np.array(SPACING[::-1])
    away = (np.indices(SHAPE) - np.array(center)[:, None, None, None]) * steps[:, None, None, None]
    return (away**2).sum(axis=0) < radius_mm**2


def check(points, triangles, mask, matrix):
    """Size and place of a mesh (LPS mm) against the voxels."""
    from MambaSegLib.surface_file import Surface

    voxels = mask.sum() * np.prod(SPACING)
    assert Surface("", (0, 0, 0), points, triangles).volume_mm3 == pytest.approx(voxels, rel=0.02)
    middle = np.argwhere(mask).mean(axis=0)[::-1]
    expected = (matrix @ [*middle, 1])[:3] * (-1, -1, 1)
    assert np.abs(points.mean(axis=0) - expected).max() < 0.3


def mesh_of(polydata):
    triangles = vtk_to_numpy(polydata.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(polydata.GetPoints().GetData()).astype(float), triangles


def read(reader, path):
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def test_stl(moved, tmp_path):
    from MambaSegmentationLib import SurfaceFiles

    node, masks, matrix = moved
    assert SurfaceFiles.export(node, tmp_path / "out") == ["nothing"]
    names = ("Höhle L_R.stl", "海馬.stl")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    for name, mask in zip(names, masks.values(), strict=True):
        reader = vtk.vtkSTLReader()
        check(*mesh_of(read(reader, tmp_path / "out" / name)), mask, matrix)
        assert "SPACE=LPS" in reader.GetHeader()


def test_obj_is_what_slicer_reads_back(moved, tmp_path):
    import slicer
    from MambaSegmentationLib import SurfaceFiles

    node, masks, matrix = moved
    SurfaceFiles.export(node, tmp_path / "out.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mtl", "out.obj"]
    lines = (tmp_path / "out.obj").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith(("mtllib", "o ", "usemtl"))] == [
        "mtllib out.mtl",
        *("o Höhle_L/R", "usemtl Höhle_L/R", "o 海馬", "usemtl 海馬"),
    ]
    assert "newmtl 海馬\nKd 0.2000 0.6000 0.4000" in (tmp_path / "out.mtl").read_text(encoding="utf-8")
    storage = slicer.vtkMRMLModelStorageNode()
    storage.SetFileName(str(tmp_path / "out.obj"))
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    assert storage.ReadData(model) and storage.GetCoordinateSystem() == slicer.vtkMRMLStorageNode.CoordinateSystemLPS
    points, triangles = mesh_of(model.GetPolyData())
    middles = points[triangles].mean(axis=1)  # RAS
    for mask in masks.values():
        centre = (matrix @ [*np.argwhere(mask).mean(axis=0)[::-1], 1])[:3]
        own = triangles[np.linalg.norm(middles - centre, axis=1) < 12]
        used, corners = np.unique(own, return_inverse=True)
        check(points[used] * (-1, -1, 1), corners.reshape(-1, 3), mask, matrix)


def test_glb_has_names_colours_metres_and_stands_upright(moved, tmp_path):
    from MambaSegmentationLib import SurfaceFiles

    node, masks, matrix = moved
    SurfaceFiles.export(node, tmp_path / "out.glb")
    reader = vtk.vtkGLTFReader()
    root = read(reader, tmp_path / "out.glb").GetBlock(0)
    meshes = [m for m in leaves(root) if m.GetNumberOfPoints()]
    assert len(meshes) == 2
    for mesh, mask in zip(meshes, masks.values(), strict=True):
        points, triangles = mesh_of(mesh)
        lps = points @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) * 1000  # x = L, y = S, z = A in metres
        check(lps, triangles, mask, matrix)
    text = (tmp_path / "out.glb").read_bytes()
    scene = json.loads(text[20 : 20 + int.from_bytes(text[12:16], "little")])
    assert [n["name"] for n in scene["nodes"]] == ["LPS, mm", "Höhle L/R", "海馬"]
    assert scene["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] == [1.0, 0.0, 0.0, 1.0]
    assert scene["materials"][1]["pbrMetallicRoughness"]["baseColorFactor"][1] == pytest.approx(0.3185, abs=1e-3)


def leaves(block):
    if block is None:
        return []
    if not block.IsA("vtkMultiBlockDataSet"):
        return [block]
    return [leaf for i in range(block.GetNumberOfBlocks()) for leaf in leaves(block.GetBlock(i))]


def test_mirrored_by_its_transform_it_still_looks_outwards(moved, tmp_path):
    import slicer
    from MambaSegmentationLib import SurfaceFiles

    node, masks, matrix = moved
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    parent = slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode())
    slicer.util.updateTransformMatrixFromArray(node.GetParentTransformNode(), mirror @ parent)
    SurfaceFiles.export(node, tmp_path / "out")
    mask = masks["海馬"]
    check(*mesh_of(read(vtk.vtkSTLReader(), tmp_path / "out" / "海馬.stl")), mask, mirror @ matrix)


def test_names_that_are_taken_and_folders_that_refuse(moved, tmp_path, monkeypatch):
    from MambaSegmentationLib import SurfaceFiles

    from MambaSegLib import surface_file
    from MambaSegLib.errors import UserError

    node = moved[0]
    (tmp_path / "out.mtl").write_text("mine")
    with pytest.raises(UserError, match=r"out\.mtl' is there"):
        SurfaceFiles.export(node, tmp_path / "out.obj")

    def full(folder, surfaces):
        (folder / "a.stl").write_text("part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(surface_file, "write_stl", full)
    with pytest.raises(UserError, match="No space left"):
        SurfaceFiles.export(node, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mtl"]
    node.GetSegmentation().RemoveAllSegments()
    with pytest.raises(UserError, match="No segment"):
        SurfaceFiles.export(node, tmp_path / "out.glb")


def test_equal_names_do_not_cover_each_other(moved, tmp_path):
    from MambaSegmentationLib import SurfaceFiles

    segmentation = moved[0].GetSegmentation()
    for index in range(2):
        segmentation.GetNthSegment(index).SetName("Nodule")
    SurfaceFiles.export(moved[0], tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["Nodule.stl", "Nodule_2.stl"]
