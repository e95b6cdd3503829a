"""48 ways in which an image can lie: out through a file and back as a segmentation, every voxel where it was."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from test_scene_io import volume_from

from MambaSegLib.bundle import Label
from MambaSegLib.image import read_volume
from MambaSegLib.label_file import write_labels

SIGNED = [
    np.diag(signs) @ np.eye(3)[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
SPACING = np.array([0.7, 1.1, 2.5])


def phantom() -> np.ndarray:
    """(Z, Y, X), no symmetry: every corner has its own value."""
    voxels = np.zeros((4, 6, 9), np.int16)
    voxels[1:3, 1:4, 2:7] = 7
    voxels[0, 0, 0], voxels[-1, 0, 0], voxels[0, -1, 0], voxels[0, 0, -1] = 1, 2, 3, 4
    return voxels


def placed(axes: np.ndarray, turn: np.ndarray | None = None) -> np.ndarray:
    """(4, 4) IJK to RAS: these axes, unequal spacing, an origin off zero."""
    matrix = np.eye(4)
    matrix[:3, :3] = (turn if turn is not None else np.eye(3)) @ axes * SPACING
    matrix[:3, 3] = (-12.5, 30.25, 7.0)
    return matrix


@pytest.fixture(scope="module")
def files(host_application):
    """Without the panel, whose pages would look at every volume."""
    host_application.reset()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "MambaSegmentation"))
    from MambaSegmentationLib import SceneIO

    folder = SceneIO.ExchangeFolder()
    yield SceneIO, folder
    folder.clear()


def there_and_back(files, matrix: np.ndarray) -> None:
    import slicer

    scene_io, folder = files
    volume = volume_from(phantom(), matrix)
    assert scene_io.volumeProblem(volume) is None
    path = folder.volumeFile(volume)
    image = sitk.ReadImage(str(path))
    i, j, k = 8, 0, 0
    at = (matrix @ (i, j, k, 1))[:3] * (-1, -1, 1)
    assert np.allclose(image.TransformIndexToPhysicalPoint((i, j, k)), at, atol=1e-5) and image[i, j, k] == 4
    read = read_volume(path)
    output = folder.newFile("labels.seg.nrrd")
    values = [1, 2, 3, 4, 7]
    parts = [Label(value, f"part {value}", (10 * value, 0, 0), None) for value in values]
    write_labels(output, replace(read, array=read.array.astype(np.uint8)), parts)
    node = scene_io.importSegmentation(output, volume, "Back", {})
    found = np.zeros(phantom().shape, int)
    for value in values:
        segment = node.GetSegmentation().GetSegmentIdBySegmentName(f"part {value}")
        found[slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume) > 0] = value
    assert np.array_equal(found, phantom())


def name_of(axes: np.ndarray) -> str:
    return "".join("xyz"[np.argmax(abs(column))] + "+-"[int(column.sum() < 0)] for column in axes.T)


@pytest.mark.parametrize("axes", SIGNED, ids=name_of)
def test_every_axis_orientation(slicer_app_scene, files, axes):
    """Half of them are left-handed: a negative spacing in some file formats."""
    there_and_back(files, placed(axes))


def test_oblique_and_under_a_transform(slicer_app_scene, files):
    c, s = np.cos(0.3), np.sin(0.3)
    there_and_back(files, placed(SIGNED[5], np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])))
