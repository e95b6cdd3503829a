"""Segment, from the click to the node: voxels, names, geometry, progress, responsiveness."""

import time

import numpy as np


def node_labels(segmentation, volume) -> np.ndarray:
    """(Z, Y, X) label values in the order of the segments, on the volume's grid."""
    import slicer

    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, int)
    for value, segment_id in enumerate(segmentation.GetSegmentation().GetSegmentIDs(), start=1):
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0] = value
    return labels


def linear_transform(name: str, matrix: np.ndarray):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def turned_and_shifted() -> np.ndarray:
    c, s = np.cos(0.5), np.sin(0.5)
    return np.array([[c, -s, 0, 30], [s, c, 0, -20], [0, 0, 1, 10], [0, 0, 0, 1.0]])


def test_result_equals_command_line(user, crop, crop_file, command_line_labels):
    segmentation = user.segment(crop)
    assert user.message == ""
    found = node_labels(segmentation, crop)
    expected = command_line_labels(crop_file, "quick")
    assert len(np.unique(expected)) > 1
    assert np.array_equal(found, expected)


def test_names_colours_terminology_and_place(user, crop):
    import slicer
    import vtk

    segmentation = user.segment(crop)
    assert segmentation.GetName() == "Left hippocampus Quick hippocampus segmentation"
    first, second = (segmentation.GetSegmentation().GetNthSegment(i) for i in range(2))
    assert [first.GetName(), second.GetName()] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert np.allclose(np.array(first.GetColor()) * 255, [220, 120, 60], atol=0.01)
    entry = vtk.reference("")
    first.GetTag(first.GetTerminologyEntryTagName(), entry)
    assert str(entry).split("~")[1:4] == [
        "SCT^123037004^Anatomical Structure",
        "SCT^5366008^Hippocampus",
        "SCT^255549009^Anterior",
    ]
    reference = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    assert reference is crop
    assert segmentation.GetStorageNode() is None, "saving must ask for a place, not write into a temporary folder"
    assert segmentation.GetDisplayNode() is not None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_result_is_filed_under_the_study(user, crop):
    import slicer

    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "Patient"), "Study")
    tree.SetItemParent(tree.GetItemByDataNode(crop) or tree.CreateItem(study, crop), study)
    segmentation = user.segment(crop)
    assert tree.GetItemParent(tree.GetItemByDataNode(segmentation)) == study


def test_result_table(user, crop):
    import slicer

    segmentation = user.segment(crop)
    table = user.ui.resultTable
    assert user.ui.resultSection.visible and table.rowCount == 2
    assert table.item(0, 1).text() == "Anterior hippocampus"
    voxels = (node_labels(segmentation, crop) == 1).sum()
    volume_ml = voxels * np.prod(crop.GetSpacing()) / 1000
    assert abs(float(table.item(0, 2).text()) - volume_ml) <= 0.005
    image = table.item(0, 0).icon().pixmap(8, 8).toImage()
    assert image.pixelColor(4, 4).getRgb()[:3] == (220, 120, 60)
    slicer.mrmlScene.RemoveNode(segmentation)
    assert not user.ui.resultSection.visible


def test_parent_transform_is_shared_and_changes_no_voxel(user, crop, crop_file, command_line_labels):
    transform = linear_transform("Placed", turned_and_shifted())
    crop.SetAndObserveTransformNodeID(transform.GetID())
    segmentation = user.segment(crop)
    assert segmentation.GetParentTransformNode() is transform
    expected = command_line_labels(crop_file, "quick")
    assert np.array_equal(node_labels(segmentation, crop), expected)


def add_roi(center_ras, size_mm):
    import slicer

    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    roi.SetXYZ(*center_ras)
    roi.SetRadiusXYZ(*(np.array(size_mm) / 2))
    return roi


def box_in_volume(crop):
    """Centre (RAS) and size of a box well inside the crop."""
    bounds = np.zeros(6)
    crop.GetRASBounds(bounds)
    return (bounds[::2] + bounds[1::2]) / 2, np.array([18.0, 24.0, 20.0])


def lps_option(center, size) -> list[str]:
    low, high = center - size / 2, center + size / 2
    bounds = [-high[0], -low[0], -high[1], -low[1], low[2], high[2]]
    return ["--roi=" + ",".join(f"{value:.9g}" for value in bounds)]


def test_region_equals_command_line(user, crop, crop_file, command_line_labels):
    center, size = box_in_volume(crop)
    user.ui.roiSelector.setCurrentNode(add_roi(center, size))
    segmentation = user.segment(crop)
    expected = command_line_labels(crop_file, "quick", *lps_option(center, size))
    found = node_labels(segmentation, crop)
    assert 0 < np.count_nonzero(found) < found.size / 4
    assert np.array_equal(found, expected)


def test_region_under_the_same_transform_means_the_same_voxels(user, crop, crop_file, command_line_labels):
    center, size = box_in_volume(crop)
    roi = add_roi(center, size)
    transform = linear_transform("Placed", turned_and_shifted())
    for node in (crop, roi):
        node.SetAndObserveTransformNodeID(transform.GetID())
    user.ui.roiSelector.setCurrentNode(roi)
    segmentation = user.segment(crop)
    expected = command_line_labels(crop_file, "quick", *lps_option(center, size))
    assert np.array_equal(node_labels(segmentation, crop), expected)
    assert user.message == ""


def test_turned_region_is_announced(user, crop):
    center, size = box_in_volume(crop)
    roi = add_roi(center, size)
    crop.SetAndObserveTransformNodeID(linear_transform("Placed", turned_and_shifted()).GetID())
    roi.SetXYZ(*(turned_and_shifted() @ [*center, 1])[:3])
    user.ui.roiSelector.setCurrentNode(roi)
    assert user.segment(crop) is not None
    assert "turned" in user.message


def test_region_outside_is_a_clear_message(user, crop):
    import slicer

    user.ui.roiSelector.setCurrentNode(add_roi(np.array([500.0, 500, 500]), np.array([20.0, 20, 20])))
    assert user.segment(crop) is None
    assert "outside" in user.message.lower()
    assert user.ui.segmentButton.enabled
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_second_run_makes_a_second_node_and_writes_no_second_file(user, crop):
    import slicer

    first = user.segment(crop)
    before = node_labels(first, crop)
    first.GetSegmentation().GetNthSegment(0).SetName("edited by the user")
    written = user.panel.services.files.volumeFile(crop)
    stamp, worker = written.stat().st_mtime_ns, user.panel.services.worker.processId
    second = user.segment(crop)
    assert second is not first and second.GetName() != first.GetName()
    assert first.GetSegmentation().GetNthSegment(0).GetName() == "edited by the user"
    assert np.array_equal(node_labels(first, crop), before)
    assert np.array_equal(node_labels(second, crop), before)
    assert user.panel.services.files.volumeFile(crop) == written and written.stat().st_mtime_ns == stamp
    assert user.panel.services.worker.processId == worker, "the warm worker is used again"
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2


def test_changed_volume_is_segmented_anew(user, crop):
    import slicer

    before = node_labels(user.segment(crop), crop)
    slicer.util.arrayFromVolume(crop)[:] = slicer.util.arrayFromVolume(crop)[::-1].copy()
    slicer.util.arrayFromVolumeModified(crop)
    after = node_labels(user.segment(crop), crop)
    assert not np.array_equal(after, before)


def test_progress_and_responsiveness(user, crop, record_property):
    """Percent rises to the end, the time left is told, and the event loop never waits long for us."""
    import qt

    percents, times, ticks = [], [], []
    timer = qt.QTimer()
    timer.setInterval(5)

    def tick():
        ticks.append(time.monotonic())
        if user.ui.progressBar.maximum == 100:
            percents.append(user.ui.progressBar.value)
        times.append(user.ui.timeLabel.text)

    timer.connect("timeout()", tick)
    timer.start()
    assert user.segment(crop, "Slow") is not None
    timer.stop()
    gap_s = max(np.diff(ticks))
    record_property("longest_gap_ms", round(1000 * gap_s))
    print(f"longest gap between two ticks of the event loop: {1000 * gap_s:.0f} ms over {ticks[-1] - ticks[0]:.1f} s")
    assert len(set(percents)) > 10 and percents == sorted(percents) and max(percents) == 100
    assert any("left" in text for text in times)
    assert gap_s < 0.5
    assert not user.ui.progressArea.visible and not user.ui.cancelButton.enabled


def test_surface_on_request(user, crop):
    segmentation = user.segment(crop)
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    user.ui.showSurfaceCheckBox.checked = True
    points = segmentation.GetClosedSurfaceInternalRepresentation(
        segmentation.GetSegmentation().GetNthSegmentID(0)
    ).GetNumberOfPoints()
    assert points > 0
    user.ui.showSurfaceCheckBox.checked = False
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    user.ui.showSurfaceCheckBox.checked = True
    assert user.segment(crop).GetSegmentation().ContainsRepresentation("Closed surface"), "it stays switched on"


def test_without_the_panel(module, crop, wait_until):
    """As another module or a script would do it."""
    ends = []
    module.logic.segment(crop, "quick", device="cpu", onFinished=lambda node, result: ends.append((node, result)))
    wait_until(lambda: ends, 120)
    node, result = ends[0]
    assert node.GetSegmentation().GetNumberOfSegments() == 2 and result["model"] == "quick"
