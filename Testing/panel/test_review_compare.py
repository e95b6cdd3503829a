"""The page Review: segmentations of the same image side by side, named or blinded."""

import numpy as np
import pytest
from review_cases import labels_of_case, log_of, start_review


def second_segmentation(review_page, name: str, shift: int):
    """Another person's segmentation of the same image."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(review_page.review.case.volume)
    for value, label in enumerate(("liver", "kidney"), start=1):
        segment_id = node.GetSegmentation().AddEmptySegment("", label)
        mask = (labels_of_case(shift) == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, review_page.review.case.volume)
    return node


def compare(user, node) -> None:
    user.ui.reviewCompareSection.collapsed = False
    user.ui.reviewCompareSelector.check(node)
    user.click(user.ui.reviewCompareButton)
    user.until_idle()


def test_comparison_in_linked_views_with_overlay_and_table(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    other = second_segmentation(review_page, "Model B", 2)
    own, layout = review_page.review.case.segmentation, slicer.app.layoutManager().layout
    compare(user, other)
    ui, manager = user.ui, slicer.app.layoutManager()
    table = ui.reviewNumbersTable
    assert table.rowCount == 2 and table.item(1, 2).text() == "1.000"
    a, b = labels_of_case() == 1, labels_of_case(2) == 1
    assert float(table.item(0, 2).text()) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=6e-4)
    composites = [manager.sliceWidget(f"MambaCompare{i}").mrmlSliceCompositeNode() for i in (1, 2)]
    assert all(
        c.GetLinkedControl() and c.GetBackgroundVolumeID() == review_page.review.case.volume.GetID() for c in composites
    )
    assert own.GetDisplayNode().GetViewNodeIDs() == ("vtkMRMLSliceNodeMambaCompare1",)
    assert other.GetDisplayNode().GetViewNodeIDs() == ("vtkMRMLSliceNodeMambaCompare2",)
    (overlay,) = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n not in (own, other)]
    names = [overlay.GetSegmentation().GetNthSegment(i).GetName() for i in range(3)]
    assert names[:2] == ["Only in the first", "Only in the second"]
    first = slicer.util.arrayFromSegmentBinaryLabelmap(
        overlay, overlay.GetSegmentation().GetNthSegmentID(0), review_page.review.case.volume
    )
    assert first.sum() == (a & ~(labels_of_case(2) > 0)).sum()
    ui.reviewDifferenceCheckBox.checked = False
    assert not overlay.GetDisplayNode().GetVisibility()
    assert "1: " in ui.reviewCompareHint.text and "Model B" in ui.reviewCompareHint.text
    user.click(ui.reviewCompareButton)
    assert manager.layout == layout and own.GetDisplayNode().GetViewNodeIDs() == ()
    assert not slicer.mrmlScene.IsNodePresent(overlay) and not ui.reviewDifferenceCheckBox.visible


def test_three_are_compared_in_pairs(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    user.ui.reviewCompareSelector.check(second_segmentation(review_page, "Model B", 1))
    compare(user, second_segmentation(review_page, "Reader 2", 2))
    table = user.ui.reviewNumbersTable
    assert [table.item(row, 1).text() for row in range(6)] == ["1, 2", "1, 2", "1, 3", "1, 3", "2, 3", "2, 3"]
    assert not table.isColumnHidden(1) and slicer.app.layoutManager().sliceWidget("MambaCompare3") is not None
    user.click(user.ui.reviewChoice3Button)
    assert "Chosen: Reader 2." in user.ui.reviewCompareHint.text


def test_blinded_comparison_hides_the_names_until_the_choice(user, review_page, review_folder):
    user.ui.reviewBlindedCheckBox.checked = True
    start_review(user, review_folder)
    assert review_page.review.session.blinded is not None
    other = second_segmentation(review_page, "Model B", 2)
    compare(user, other)
    ui = user.ui
    assert "Model B" not in ui.reviewCompareHint.text and not ui.reviewCompareSelector.visible
    shown = [node.GetName() for node in review_page.compare._shown]
    assert sorted(shown) == sorted([review_page.review.case.segmentation.GetName(), "Model B"])
    user.click(ui.reviewChoice2Button)
    assert f"2: {shown[1]}" in ui.reviewCompareHint.text and f"Chosen: {shown[1]}" in ui.reviewCompareHint.text
    assert log_of(review_page)[-1]["decision"].startswith(f"{shown[1]} of ")
    assert review_page.review.entry.preference["chosen"] == shown[1]


def test_removed_candidate_ends_the_comparison(user, review_page, review_folder):
    import slicer

    start_review(user, review_folder)
    other = second_segmentation(review_page, "Model B", 1)
    compare(user, other)
    slicer.mrmlScene.RemoveNode(other)
    assert not review_page.compare.isShown and user.ui.reviewCompareButton.text == "Co&mpare"
