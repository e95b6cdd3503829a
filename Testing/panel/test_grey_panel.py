"""Grey pictures in the panel: for a model of grey pictures, and for the shipped one of colour pictures."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from library_python import run_python
from test_panel_segment import node_labels
from test_pictures import POLYP, correct_and_add, picture_file  # noqa: F401

HERE = Path(__file__).resolve().parent
RADIOGRAPH = "Radiograph"


@pytest.fixture
def radiograph(own_models, user):
    """The folder of a model with one input for pictures."""
    made = run_python(HERE / "make_picture_model.py", own_models)
    assert made.returncode == 0, made.stderr
    user.panel.refresh()
    user.panel.page("SegmentPage").enter()
    yield own_models / "radiograph"
    user.choose_model("Quick")


@pytest.fixture(scope="module")
def grey_file(picture_file, tmp_path_factory) -> Path:  # noqa: F811
    """The green of the colour picture as a grey PNG."""
    path = tmp_path_factory.mktemp("grey") / "Grey.png"
    sitk.WriteImage(sitk.VectorIndexSelectionCast(sitk.ReadImage(str(picture_file)), 1), str(path))
    return path


@pytest.fixture
def grey(module, grey_file):
    import slicer

    return slicer.util.loadVolume(str(grey_file), {"singleFile": True})


def by_command_line(path, model, folder) -> np.ndarray:
    output = folder / f"{Path(path).stem}.seg.nrrd"
    done = run_python("-m", "MambaSegLib.cli", "segment", path, "-m", model, "-o", output, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return sitk.GetArrayFromImage(sitk.ReadImage(str(output)))


def test_model_of_grey_pictures(user, radiograph, grey, grey_file, tmp_path):
    import slicer

    assert grey.GetClassName() == "vtkMRMLScalarVolumeNode" and grey.GetImageData().GetDimensions()[2] == 1
    expected = by_command_line(grey_file, radiograph, tmp_path)
    segmentation = user.segment(grey, RADIOGRAPH)
    assert segmentation is not None and user.message == ""
    assert np.array_equal(node_labels(segmentation, grey), expected) and len(np.unique(expected)) > 1
    axes = np.array([[0.0, -0.2, 0, 5], [0.2, 0, 0, -7], [0, 0, 1.5, 30], [0, 0, 0, 1]])
    grey.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(axes))
    assert np.array_equal(node_labels(user.segment(grey, RADIOGRAPH), grey), expected), "a detector's pixels"


def test_grey_picture_saved_in_colour(user, radiograph, grey_file, picture_file, tmp_path):  # noqa: F811
    import slicer

    image, path = sitk.ReadImage(str(grey_file)), tmp_path / "Scan.png"
    sitk.WriteImage(sitk.Compose(image, image, image), str(path))
    node = slicer.util.loadVolume(str(path), {"singleFile": True})
    expected = by_command_line(grey_file, radiograph, tmp_path)
    segmentation = user.segment(node, RADIOGRAPH)
    assert segmentation is not None, user.message
    found = np.zeros_like(expected)
    for value, segment_id in enumerate(segmentation.GetSegmentation().GetSegmentIDs(), start=1):
        found[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, node) > 0] = value
    assert np.array_equal(found, expected)
    colours = slicer.util.loadVolume(str(picture_file), {"singleFile": True})
    assert user.segment(colours, RADIOGRAPH) is None
    assert "needs a grey picture, but" in user.message and "has colours" in user.message


def test_model_of_colour_pictures(user, grey, grey_file, tmp_path):
    expected = by_command_line(grey_file, "polyp", tmp_path)
    segmentation = user.segment(grey, POLYP)
    assert segmentation is not None, user.message
    assert "was trained on colour pictures, but this one is grey" in user.message
    assert np.array_equal(node_labels(segmentation, grey), expected) and expected.any()
    items = [user.ui.modelList.item(row).text() for row in range(user.ui.modelList.count)]
    assert any("one slice" in text for text in items) and "one slice" in items[-1]


def test_what_does_not_fit(user, grey, crop):
    import slicer

    user.ui.volumeSelector.setCurrentNode(grey)
    user.choose_model("Quick")
    assert (
        f"A volume of several slices is needed, but '{grey.GetName()}' has 352 x 288 x 1 voxels"
        in user.ui.hintLabel.text
    )
    assert not user.ui.segmentButton.enabled
    user.choose_model(POLYP)
    assert user.ui.segmentButton.enabled, user.ui.hintLabel.text
    slicer.util.updateVolumeFromArray(grey, slicer.util.arrayFromVolume(grey).astype(np.int16) * 16)
    slicer.app.processEvents()
    assert "Grey values of 0 to 255 were expected" in user.ui.hintLabel.text
    user.ui.volumeSelector.setCurrentNode(crop)
    assert "is a volume of grey values" in user.ui.hintLabel.text


def test_grey_picture_is_corrected_and_taken_into_the_training_set_in_colour(user, grey, store):
    from MambaSegLib import corrections

    correct_and_add(user, grey)
    (case,) = corrections.cases(store)
    from MambaSegLib.image import read_volume

    assert read_volume(case.images[0]).array.shape == (3, 1, 288, 352), "as all cases of this model"
