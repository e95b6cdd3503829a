"""The surfaces of a segmentation into files for other programs; Slicer makes them, as it shows them."""

import os
import shutil
import tempfile
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from MambaSegLib import surface_file
from MambaSegLib.errors import UserError

from . import SceneIO

STL, OBJ, GLB = "", ".obj", ".glb"  # endings; the first one is a folder of files


def export(segmentationNode, path: Path) -> list[str]:
    """Write all segments in world coordinates (LPS, mm) to a new .obj or .glb file, else a new folder of .stl files.

    Returns:
        The names of the segments without a voxel, which have no surface.

    Raises:
        UserError: a name is taken, no segment has a surface, or the disk refuses; nothing is left then.
    """
    kind = path.suffix.lower()
    wanted = [path, path.with_suffix(".mtl")] if kind == OBJ else [path]
    for taken in (file for file in wanted if file.exists()):
        raise UserError(_("'{path}' is there already.").format(path=taken), _("Choose a new name."))
    surfaces, empty = _surfaces(segmentationNode)
    if not surfaces:
        raise UserError(
            _("No segment of '{name}' has a voxel.").format(name=segmentationNode.GetName()), _("Draw one.")
        )
    try:
        _write(surfaces, path, kind)
    except OSError as error:
        raise UserError(
            _("The surfaces could not be written to '{path}': {error}.").format(path=path, error=error.strerror),
            _("Choose another folder, or make room on the disk."),
        ) from error
    return empty


def _write(surfaces: list, path: Path, kind: str) -> None:
    """All files, complete, or none."""
    unfinished = Path(tempfile.mkdtemp(dir=path.parent, prefix=".unfinished-"))
    try:
        if kind in (OBJ, GLB):
            write = surface_file.write_obj if kind == OBJ else surface_file.write_glb
            for file in reversed(write(unfinished / path.name, surfaces)):  # the colours come before who needs them
                os.rename(file, path.with_name(file.name))
        else:
            folder = unfinished / path.name
            folder.mkdir()
            surface_file.write_stl(folder, surfaces)
            os.rename(folder, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _surfaces(segmentationNode) -> tuple[list, list[str]]:
    """(surfaces of the segments, names of those that have none)."""
    segmentation, found, empty = segmentationNode.GetSegmentation(), [], []
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        mesh = vtk.vtkPolyData()
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        done = logic.GetSegmentClosedSurfaceRepresentation(segmentationNode, segmentId, mesh)  # with the transforms
        if done and mesh.GetNumberOfPolys():
            found.append(_surface(segment, mesh))
        else:
            empty.append(segment.GetName())
    return found, empty


def _surface(segment, mesh) -> surface_file.Surface:
    triangulated = vtk.vtkTriangleFilter()
    triangulated.PassVertsOff()
    triangulated.PassLinesOff()
    triangulated.SetInputData(mesh)
    triangulated.Update()
    output = triangulated.GetOutput()
    points = vtk_to_numpy(output.GetPoints().GetData()) * SceneIO.RAS_TO_LPS
    corners = vtk_to_numpy(output.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    color = [round(255 * channel) for channel in segment.GetColor()]
    return surface_file.Surface(segment.GetName(), color, points, corners).outwards()
