"""What the selectors say while a scene is imported, or after a reload of the module, is no choice of the user's."""

import numpy as np
import pytest


@pytest.fixture
def foreign_scene(tmp_path) -> str:
    """A scene file of somebody else: one text node."""
    import slicer

    scene = slicer.vtkMRMLScene()
    scene.AddNewNodeByClass("vtkMRMLTextNode", "Foreign")
    path = str(tmp_path / "foreign.mrml")
    scene.SetURL(path)
    assert scene.Commit(path)
    return path


def add_scene(path: str) -> None:
    import slicer

    slicer.mrmlScene.SetURL(path)
    slicer.mrmlScene.Import()
    slicer.app.processEvents()
    assert slicer.mrmlScene.GetFirstNodeByName("Foreign")


def test_choices_stay_when_a_scene_is_added(user, crop, foreign_scene):
    import qt
    import slicer

    other = slicer.util.addVolumeFromArray(np.zeros((5, 5, 5), np.float32), name="Other")
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    user.ui.volumeSelector.setCurrentNode(crop)
    user.ui.roiSelector.setCurrentNode(roi)
    user.ui.otherVolumesSelector.setCheckState(other, qt.Qt.Checked)
    add_scene(foreign_scene)
    state, ui = user.panel.state, user.ui
    assert (state.inputVolume, state.roi, state.otherVolumes) == (crop, roi, [other])
    assert (ui.volumeSelector.currentNode(), ui.roiSelector.currentNode()) == (crop, roi)
    assert list(ui.otherVolumesSelector.checkedNodes()) == [other]
    assert ui.segmentButton.enabled


def test_further_inputs_stay_when_a_scene_is_added(user, crop, foreign_scene):
    import slicer

    second = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, crop, "Second")
    user.ui.volumeSelector.setCurrentNode(crop)
    user.choose_model("Pair of images")
    (selector,) = user.panel.page("SegmentPage").moreInputs.selectors
    selector.setCurrentNode(second)
    add_scene(foreign_scene)
    assert user.panel.state.moreInputs == [second] and selector.currentNode() is second


def test_nodes_of_a_batch_are_seen_at_its_end(user, wait_until):
    import slicer

    scene = slicer.mrmlScene
    assert user.ui.volumeSelector.currentNode() is None
    scene.StartState(scene.BatchProcessState)
    volume = slicer.util.addVolumeFromArray(np.zeros((5, 5, 5), np.float32), name="Of a batch")
    slicer.app.processEvents()
    scene.EndState(scene.BatchProcessState)
    wait_until(lambda: user.ui.volumeSelector.currentNode() is volume, 2)


def test_widgets_of_a_module_that_has_gone_write_nothing(slicer_app):
    """Slicer hides the old widgets when it reloads a module; they go on following the scene."""
    import slicer

    from slicerhost.fixtures import MODULE

    volume = slicer.util.addVolumeFromArray(np.zeros((5, 5, 5), np.float32), name="Volume")
    old = slicer_app.load_module(MODULE)
    old.ui.volumeSelector.setCurrentNode(volume)
    node = old.panel.state.node
    assert node.GetNodeReference("inputVolume") is volume
    old.cleanup()
    old.ui.volumeSelector.setCurrentNode(None)
    old.ui.largestComponentCheckBox.click()
    assert node.GetNodeReference("inputVolume") is volume
