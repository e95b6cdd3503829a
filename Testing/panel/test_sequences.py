"""Sequences: every frame, of one or several inputs, and the map of doubt of each."""

import numpy as np
import pytest
from test_panel_segment import linear_transform, node_labels
from test_segment_page import copies

PAIR = "Pair of images"


def make_sequence(name: str, node, shifts: list[int]):
    """A sequence of the node's image, rolled by so many voxels, in a browser; returns the proxy and the browser."""
    import slicer

    scene, clone = slicer.mrmlScene, slicer.modules.volumes.logic().CloneVolume
    frames = scene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{name} frames")
    for index, shift in enumerate(shifts):
        frame = clone(scene, node, f"{name} {index}")
        slicer.util.arrayFromVolume(frame)[:] = np.roll(slicer.util.arrayFromVolume(node), shift, axis=1)
        slicer.util.arrayFromVolumeModified(frame)
        frames.SetDataNodeAtValue(frame, str(index))
        scene.RemoveNode(frame)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{name} browser")
    browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(frames)
    proxy.SetName(name)
    return proxy, browser


@pytest.fixture
def series(crop):
    """Two frames of the crop, "T1", and its browser; the crop itself is left."""
    return make_sequence("T1", crop, [0, 9])


def go_to(browser, index: int) -> None:
    import slicer

    browser.SetSelectedItemNumber(index)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    slicer.app.processEvents()


def alone(user, volumes, model: str = PAIR) -> np.ndarray:
    """What the model finds in copies of the volumes as they are now."""
    import slicer

    clone = slicer.modules.volumes.logic().CloneVolume
    first, *others = [clone(slicer.mrmlScene, node, f"Copy of {node.GetName()}") for node in volumes]
    user.ui.volumeSelector.setCurrentNode(first)
    user.choose_model(model)
    for selector, node in zip(user.panel.page("SegmentPage").moreInputs.selectors, others, strict=True):
        selector.setCurrentNode(node)
    return node_labels(user.segment(first, model), first)


def choose_pair(user, first, second) -> None:
    user.ui.volumeSelector.setCurrentNode(first)
    user.choose_model(PAIR)
    user.panel.page("SegmentPage").moreInputs.selectors[0].setCurrentNode(second)
    assert user.ui.allFramesCheckBox.visible
    user.ui.allFramesCheckBox.checked = True


def run(user):
    user.panel.state.resultSegmentation = None
    user.click(user.ui.segmentButton)
    user.until_idle()
    return user.panel.state.resultSegmentation


def test_two_sequences_go_frame_by_frame(user, crop, series):
    from MambaSegmentationLib import Inputs

    from MambaSegLib.bundle import open_bundle

    (first, browser), (second, other) = series, make_sequence("T2", crop, [5, 17])
    choose_pair(user, first, second)
    segmentation = run(user)
    assert segmentation is not None, user.message
    assert browser.GetSequenceNode(segmentation).GetNumberOfDataNodes() == 2
    bundle = open_bundle(user.panel.services.models.find("pair").folder)
    assert Inputs.further(segmentation, bundle, []) == [second], "a correction looks at both"
    found = []
    for index in range(2):
        go_to(browser, index), go_to(other, index)
        found.append(node_labels(segmentation, first))
        assert np.array_equal(found[-1], alone(user, [first, second])), f"frame {index}"
    assert not np.array_equal(*found) and found[1].any()
    assert not list(user.panel.services.files._path.rglob("frame*")), "the files of the frames are gone"


def test_a_single_volume_goes_with_every_frame(user, crop, series):
    first, browser = series
    crop.SetName("T2")
    transform = linear_transform("Placed", np.diag([-1.0, -1, 1, 1])).GetID()
    for node in (first, crop):
        node.SetAndObserveTransformNodeID(transform)
    choose_pair(user, first, crop)
    segmentation = run(user)
    assert segmentation is not None, user.message
    go_to(browser, 1)
    assert np.array_equal(node_labels(segmentation, first), alone(user, [first, crop]))


def test_sequences_that_do_not_go_together(user, crop, series):
    import slicer

    first, _browser = series
    longer, _other = make_sequence("T2", crop, [1, 2, 3])
    choose_pair(user, first, longer)
    assert run(user) is None
    assert "'T1' has 2 frames and 'T2' has 3" in user.message
    moved, _other = make_sequence("Moved", crop, [1, 2])
    frame = _other.GetSequenceNode(moved).GetNthDataNode(1)
    frame.SetOrigin(1.0, 2.0, 3.0)
    choose_pair(user, first, moved)
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert run(user) is None
    assert "Frame 2 of 2: 'Moved 1' has not the same voxels" in user.message
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_map_of_doubt_of_every_frame(user, crop, series):
    import slicer
    from MambaSegmentationLib import DoubtMap, SceneIO

    first, browser = series
    user.ui.doubtMapCheckBox.checked = user.ui.allFramesCheckBox.checked = True
    try:
        segmentation = user.segment(first)
        assert segmentation is not None, user.message
        node = DoubtMap.of(segmentation)
        assert browser.GetSequenceNode(node).GetNumberOfDataNodes() == 2
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        assert composite.GetForegroundVolumeID() == node.GetID()
        display = node.GetDisplayNode()
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
        assert np.allclose(SceneIO.ijkToRas(node), SceneIO.ijkToRas(first))
        go_to(browser, 1)
        assert node not in SceneIO.volumes() and node.GetDisplayNode() is display
        second = slicer.util.arrayFromVolume(node).copy()
        copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, first, "Second frame alone")
        user.ui.allFramesCheckBox.checked = False
        expected = slicer.util.arrayFromVolume(DoubtMap.of(user.segment(copy)))
        assert np.array_equal(second, expected) and expected.max() > 50
    finally:
        user.ui.doubtMapCheckBox.checked = user.ui.allFramesCheckBox.checked = False


def test_cancelled_sequence_leaves_no_map(user, series):
    from test_interruptions import scene_content

    first, _browser = series
    user.ui.volumeSelector.setCurrentNode(first)
    user.ui.doubtMapCheckBox.checked = user.ui.allFramesCheckBox.checked = True
    before = scene_content()
    try:
        user.start_endless(first)
        user.click(user.ui.cancelButton)
        user.until_idle()
    finally:
        user.ui.doubtMapCheckBox.checked = user.ui.allFramesCheckBox.checked = False
    assert scene_content() == before
    assert not list(user.panel.services.files._path.rglob("doubt.nrrd"))


def test_a_warning_of_every_frame_is_told_once(user, crop):
    import slicer

    slicer.util.updateVolumeFromArray(crop, slicer.util.arrayFromVolume(crop)[8:20, 8:20, 8:20].copy())
    crop.SetSpacing(4.0, 4.0, 4.0)  # much coarser than what the model was trained on
    first, _browser = make_sequence("T1", crop, [0, 9, 3])
    slicer.mrmlScene.RemoveNode(crop)
    user.ui.volumeSelector.setCurrentNode(first)
    user.ui.allFramesCheckBox.checked = True
    try:
        assert user.segment(first) is not None, user.message
    finally:
        user.ui.allFramesCheckBox.checked = False
    assert user.message.count("much coarser") == 1


@pytest.fixture
def sequence(crop):
    """Two frames of the crop in a browser; returns the proxy volume and the browser."""
    import slicer

    scene = slicer.mrmlScene
    frames = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Frames")
    for index, node in enumerate([crop, *copies(crop, 1)]):
        frames.SetDataNodeAtValue(node, str(10 * index))
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        scene.RemoveNode(node)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser.GetProxyNode(frames), browser


def test_every_frame_of_a_sequence(user, sequence):
    import slicer

    proxy, browser = sequence
    user.ui.volumeSelector.setCurrentNode(proxy)
    assert user.ui.allFramesCheckBox.visible and "2 frames" in user.ui.allFramesCheckBox.text
    user.ui.allFramesCheckBox.checked = True
    segmentation = user.segment(proxy)
    assert segmentation is not None, user.message
    result = browser.GetSequenceNode(segmentation)
    assert result.GetNumberOfDataNodes() == 2 and result.GetNthIndexValue(1) == "10"
    first = node_labels(segmentation, proxy)
    browser.SetSelectedItemNumber(1)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    second = node_labels(segmentation, proxy)
    assert not np.array_equal(first, second) and second.any()
    alone = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, proxy, "Second frame alone")
    assert np.array_equal(second, node_labels(user.segment(alone), alone))


def test_cancelled_sequence_leaves_the_scene_alone(user, sequence):
    from test_interruptions import scene_content

    proxy, _browser = sequence
    user.ui.volumeSelector.setCurrentNode(proxy)
    user.ui.allFramesCheckBox.checked = True
    user.choose_model("Endless")
    before = scene_content()
    user.click(user.ui.segmentButton)
    user.until_progress()
    assert user.ui.stepLabel.text == "Frame 1 of 2"
    user.click(user.ui.cancelButton)
    user.until_idle()
    assert scene_content() == before
