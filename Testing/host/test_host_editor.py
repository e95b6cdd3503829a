"""The double of the Segment Editor on real nodes, and the checkable node list."""

import numpy as np
import pytest


@pytest.fixture
def editor(slicer_app):
    """A Segment Editor on a volume with two empty segments."""
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((12, 14, 16), np.int16), name="Image")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name in "ab":
        segmentation.GetSegmentation().AddEmptySegment(name, name)
    widget = slicer.qMRMLSegmentEditorWidget()
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    widget.setSegmentationNode(segmentation)
    return widget


def counts(editor) -> list[int]:
    import slicer

    node = editor.segmentationNode()
    return [
        int(slicer.util.arrayFromSegmentBinaryLabelmap(node, i, editor.sourceVolumeNode()).sum())
        for i in node.GetSegmentation().GetSegmentIDs()
    ]


def test_a_new_segmentation_brings_its_volume_and_first_segment(editor):
    assert editor.sourceVolumeNode().GetName() == "Image"
    assert editor.currentSegmentID() == "a"
    assert editor.mrmlSegmentEditorNode().GetSegmentationNode() is editor.segmentationNode()


def test_paint_erase_undo_redo(editor):
    from slicerhost.widgets_editor import paint

    paint(editor, "a", (7, 6, 5), 4)
    full = counts(editor)[0]
    assert full > 200
    paint(editor, "b", (9, 6, 5), 4)
    assert counts(editor)[0] < full and counts(editor)[1] == full, "b takes voxels of a"
    paint(editor, "b", (9, 6, 5), 2, erase=True)
    assert counts(editor)[1] < full
    editor.undo()
    editor.undo()
    assert counts(editor) == [full, 0]
    editor.redo()
    assert counts(editor)[1] == full


def test_a_segmentation_before_the_parameter_node_is_ignored(slicer_app):
    import slicer

    widget = slicer.qMRMLSegmentEditorWidget()
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setSegmentationNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    parameters = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    widget.setMRMLSegmentEditorNode(parameters)
    assert parameters.GetSegmentationNode() is None


def test_checked_nodes(slicer_app):
    import slicer

    box = slicer.qMRMLCheckableNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer.mrmlScene)
    first, second = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in "AB")
    calls = []
    box.connect("checkedNodesChanged()", lambda: calls.append(1))
    assert box.noneChecked()
    box.check(second)
    box.check(second)
    assert box.checkedNodes() == (second,) and box.uncheckedNodes() == (first,) and len(calls) == 1
    slicer.mrmlScene.RemoveNode(second)
    assert box.checkedNodes() == ()


def test_table_view_follows_its_node(slicer_app):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(node)
    slicer.util.updateTableFromArray(node, np.array([[1.0, 2.0], [3.0, 4.0]]), ["x", "y"])
    node.Modified()
    assert (view.rowCount, view.columnCount) == (2, 2) and view.item(1, 0).text() == "3"
