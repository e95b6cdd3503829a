"""The only code that turns nodes into files and back. RAS lives here and nowhere else; files and jobs are LPS."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

RESULT_ATTRIBUTE = "MambaSegmentation.result"
DERIVED_ATTRIBUTE = "MambaSegmentation.derived"  # of nodes of ours that are no image and no case, as a map of doubt
_ANGLE_TOLERANCE = 1e-3
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_VOLUMES = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")  # the latter holds a colour picture
_COLOURS = (3, 4)  # the fourth is opacity


def volumes() -> list:
    """The volumes and pictures of the scene that a user can choose; label maps and maps of doubt are none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    images = [n for n in nodes if n.GetClassName() in _VOLUMES and not n.GetHideFromEditors()]
    return [n for n in images if not n.GetAttribute(DERIVED_ATTRIBUTE)]


def isPicture(volumeNode) -> bool:
    """Whether the volume is a colour picture, as Slicer loads it from PNG or JPEG: one slice of bytes."""
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfScalarComponents() not in _COLOURS:
        return False
    return image.GetDimensions()[2] == 1 and image.GetScalarType() == vtk.VTK_UNSIGNED_CHAR


def volumeProblem(volumeNode) -> UserError | None:
    """Why this volume cannot be segmented, as far as can be told without looking at its voxels."""
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return UserError(
            _("The volume '{name}' has no image in it.").format(name=volumeNode.GetName()), _("Choose another volume.")
        )
    if isPicture(volumeNode):
        return _geometryProblem(volumeNode)
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        return UserError(
            _("One value per voxel is needed, but '{name}' has {n} (colour, vector or several time points).").format(
                name=volumeNode.GetName(), n=components
            ),
            _("Extract one channel or time point and choose that."),
        )
    if min(image.GetDimensions()[:2]) < 2:
        return sliceProblem(volumeNode)
    return _geometryProblem(volumeNode)


def isSlice(volumeNode) -> bool:
    """Whether the volume has one slice, as a radiograph or a picture has."""
    image = volumeNode.GetImageData()
    return image is not None and image.GetDimensions()[2] == 1


def sliceProblem(volumeNode) -> UserError:
    """For an image that has not the slices which are needed."""
    size = " x ".join(map(str, volumeNode.GetImageData().GetDimensions()))
    return UserError(
        _("A volume of several slices is needed, but '{name}' has {size} voxels.").format(
            name=volumeNode.GetName(), size=size
        ),
        _("Load the whole 3-D series, or choose a model for pictures."),
    )


def _geometryProblem(volumeNode) -> UserError | None:
    axes = ijkToRas(volumeNode)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or lengths.min() <= 0:
        return UserError(
            _("The voxels of '{name}' have no size.").format(name=volumeNode.GetName()),
            _("Correct the spacing in the Volumes module."),
        )
    directions = axes / lengths
    if np.abs(directions.T @ directions - np.eye(3)).max() > _ANGLE_TOLERANCE:
        return UserError(
            _("The axes of '{name}' are not at right angles (a tilted gantry, for example).").format(
                name=volumeNode.GetName()
            ),
            _("Resample it first, for example with the module Resample Scalar/Vector/DWI Volume."),
        )
    return None


def ijkToRas(volumeNode) -> np.ndarray:
    """(4, 4), the volume's own geometry, without its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def ijkToLps(volumeNode) -> np.ndarray:
    """(3, 4), the same geometry as files have it."""
    return RAS_TO_LPS[:, None] * ijkToRas(volumeNode)[:3]


def lpsBounds(volumeNode, low, high) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest LPS mm of the box between two places among the volume's voxels, (I, J, K) each."""
    ends = np.array(np.meshgrid(*zip(low, high, strict=True), [1.0], indexing="ij")).reshape(4, -1)
    corners = ijkToLps(volumeNode) @ ends
    return corners.min(axis=1), corners.max(axis=1)


def lpsGeometry(volumeNode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(spacing in mm, origin in LPS mm, direction (3, 3)) of the volume as files have them."""
    matrix = ijkToLps(volumeNode)
    spacing_mm = np.linalg.norm(matrix[:, :3], axis=0)
    return spacing_mm, matrix[:, 3], matrix[:, :3] / spacing_mm


def fingerprint(volumeNode) -> tuple:
    """Changes when the voxels or the geometry of the volume change, and only then."""
    image = volumeNode.GetImageData()
    return volumeNode.GetID(), image.GetMTime() if image else 0, ijkToRas(volumeNode).tobytes()


class ExchangeFolder:
    """Files for the worker, in a folder of their own below Slicer's temporary one; removed by `clear`."""

    def __init__(self):
        self._path: Path | None = None
        self._volumes: dict[str, tuple[tuple, Path]] = {}  # node ID -> what was written, where
        self._count = 0

    def newFile(self, name: str) -> Path:
        """A path that was never used before."""
        if self._path is None or not self._path.is_dir():
            self._path = Path(tempfile.mkdtemp(prefix="MambaSegmentation-", dir=slicer.app.temporaryPath))
            self._volumes.clear()
        self._count += 1
        folder = self._path / str(self._count)
        folder.mkdir()
        return folder / name

    def volumeFile(self, volumeNode) -> Path:
        """The volume as a .nrrd file, written only if it has changed since the last time. Raises UserError."""
        problem = volumeProblem(volumeNode)
        if problem:
            raise problem
        now = fingerprint(volumeNode)
        known, path = self._volumes.get(volumeNode.GetID(), (None, None))
        if known == now and path.is_file():
            return path
        if path:
            shutil.rmtree(path.parent, ignore_errors=True)
        safeName = re.sub(r"[^A-Za-z0-9._-]+", "_", volumeNode.GetName() or "")[:60] or "volume"
        path = self.newFile(safeName + ".nrrd")
        writeVolume(volumeNode, path)
        self._volumes[volumeNode.GetID()] = now, path
        return path

    def geometryFile(self, volumeNode) -> Path:
        """The header of the volume as a .nrrd file without voxels: for jobs that only ask where and how large it is.

        Raises UserError.
        """
        problem = volumeProblem(volumeNode)
        if problem:
            raise problem
        path = self.newFile("geometry.nrrd")
        path.write_text(nrrdHeader(volumeNode), encoding="ascii")
        return path

    def remove(self, path: Path) -> None:
        """Delete a file of `newFile`, if it is still there."""
        shutil.rmtree(path.parent, ignore_errors=True)

    def clear(self) -> None:
        if self._path:
            shutil.rmtree(self._path, ignore_errors=True)
        self._path = None
        self._volumes.clear()


def nrrdHeader(volumeNode, number: str = "float") -> str:
    """What stands before the voxels, numbers of that type, in a file with the volume's geometry."""
    columns = ijkToLps(volumeNode).T
    vectors = ["({})".format(",".join(repr(float(value)) for value in column)) for column in columns]
    size = " ".join(map(str, volumeNode.GetImageData().GetDimensions()))
    return (
        f"NRRD0004\ntype: {number}\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {size}\nspace directions: {' '.join(vectors[:3])}\nkinds: domain domain domain\n"
        f"endian: little\nencoding: raw\nspace origin: {vectors[3]}\n\n"
    )


def writeVolume(volumeNode, path: Path) -> None:
    """The volume as a file, without its parent transform. Raises UserError when the disk refuses."""
    # A storage node outside the scene: the volume's own one keeps pointing at the user's file.
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    # The writer does not notice every full disk: the size of the file, which is not compressed, tells.
    if not storage.WriteData(volumeNode) or not _holds(path, volumeNode.GetImageData()):
        shutil.rmtree(path.parent, ignore_errors=True)
        raise UserError(
            _("The volume could not be written to {path}.").format(path=path),
            _("Make room on the disk, or set another temporary folder in Slicer's settings."),
        )


def _holds(path: Path, image) -> bool:
    values = image.GetNumberOfPoints() * image.GetNumberOfScalarComponents()
    return path.is_file() and path.stat().st_size >= values * image.GetScalarSize()


def importSegmentation(path: Path, volumeNode, name: str, result: dict):
    """A new segmentation node from a .seg.nrrd on the volume's grid. Nothing is left in the scene if that fails.

    It gets the volume as reference geometry, its parent transform and its place in the subject hierarchy; `result` (of
    the job) stays with it as an attribute.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name))
    try:
        readSegments(node, path)
        node.CreateDefaultDisplayNodes()
        placeBeside(node, volumeNode)
    except Exception:
        slicer.mrmlScene.RemoveNode(node)
        raise
    node.SetAttribute(RESULT_ATTRIBUTE, json.dumps(result, ensure_ascii=False))
    return node


def readSegments(node, path: Path) -> None:
    """Fill a segmentation node from a .seg.nrrd. Raises UserError."""
    storage = slicer.vtkMRMLSegmentationStorageNode()  # not in the scene: saving shall ask for a place of the user's
    storage.SetFileName(str(path))
    if not _isImage(path) or not storage.ReadData(node):
        raise UserError(
            _("The result could not be read from {path}.").format(path=path),
            _("Try again; if it happens again, send the log to the developers."),
        )


def _isImage(path: Path) -> bool:
    """Looks at the header first: the storage node ends the whole application when there is none."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return True


def placeBeside(node, volumeNode) -> None:
    """Same transform and reference geometry as the volume, and the same parent in the subject hierarchy: the study,
    if it came from DICOM."""
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    fileBeside(node, volumeNode)


def fileBeside(node, volumeNode) -> None:
    """Same transform, and the same parent in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode) if hierarchy else 0
    if not volumeItem:
        return
    parent = hierarchy.GetItemParent(volumeItem)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def resultOf(segmentationNode) -> dict | None:
    """What the job reported about a segmentation made by `importSegmentation`; None for any other."""
    text = segmentationNode.GetAttribute(RESULT_ATTRIBUTE) if segmentationNode else None
    return json.loads(text) if text else None


def showSurface(segmentationNode, isShown: bool) -> None:
    """Make and show the closed surface of every segment in the 3D views, or take it away."""
    if isShown:
        segmentationNode.CreateClosedSurfaceRepresentation()
    else:
        segmentationNode.RemoveClosedSurfaceRepresentation()
    display = segmentationNode.GetDisplayNode()
    if display:
        display.SetVisibility3D(isShown)
