"""The page Review hides and fades what is not looked at, and leaves everything as it was before."""

import pytest
from review_cases import start_review
from test_panel_segment import node_labels


def others(count: int = 3) -> list:
    """Segmentations of the user's own: seen, hidden, and half transparent."""
    import slicer

    made = []
    for index in range(count):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Own {index}")
        node.GetSegmentation().AddEmptySegment("a", "a")
        node.CreateDefaultDisplayNodes()
        made.append(node)
    made[1].SetDisplayVisibility(False)
    made[2].GetDisplayNode().SetOpacity(0.4)
    made[2].GetDisplayNode().SetSegmentOpacity3D("a", 0.3)
    return made


def looks(nodes) -> list[tuple]:
    displays = [node.GetDisplayNode() for node in nodes]
    return [
        (
            d.GetVisibility(),
            d.GetOpacity(),
            d.GetOpacity2DFill(),
            d.GetSegmentOpacity3D("a"),
            d.GetSegmentOpacity2DFill("a"),
        )
        for d in displays
    ]


@pytest.mark.parametrize("leave", ["page", "module", "case removed"])
def test_everything_looks_as_before_after_leaving(user, review_page, review_folder, leave):
    import slicer

    own = others()
    before = looks(own)
    start_review(user, review_folder)
    user.ui.reviewFocusCheckBox.checked = True
    assert [node.GetDisplayVisibility() for node in own] == [0, 0, 0]
    user.click(user.ui.reviewNextButton)  # what was hidden for the first case is not taken for hidden by the user
    if leave == "page":
        user.open("SegmentPage")
    elif leave == "module":
        user.panel.exit()
    else:
        slicer.mrmlScene.RemoveNode(review_page.review.case.segmentation)
    assert looks(own) == before
    if leave == "page":
        user.open("ReviewPage")
        assert [node.GetDisplayVisibility() for node in own] == [0, 0, 0], "the case is open still"
        assert review_page.review.case.segmentation.GetDisplayVisibility()
    user.panel.enter()


def test_what_the_user_shows_meanwhile_stays(user, review_page, review_folder):
    own = others()
    start_review(user, review_folder)
    own[1].SetDisplayVisibility(True)
    user.open("SegmentPage")
    assert [node.GetDisplayVisibility() for node in own] == [1, 1, 1]


def test_after_the_scene_was_closed_nothing_is_left(user, review_page, review_folder):
    import slicer

    others()
    start_review(user, review_folder)
    user.ui.reviewFocusCheckBox.checked = True
    slicer.mrmlScene.Clear(0)
    (own,) = others(3)[:1]
    before = looks([own])
    user.open("SegmentPage")
    assert looks([own]) == before


def test_the_case_is_seen_on_the_page_correct(user, review_page, crop):
    """A case of the scene that was hidden when the review began."""
    import slicer

    user.open("SegmentPage")
    first, second = user.segment(crop), user.segment(crop)
    assert node_labels(first, crop).any()
    for node in (first, second):
        node.SetDisplayVisibility(False)
    user.open("ReviewPage")
    user.ui.reviewSourceSelector.setCurrentIndex(user.ui.reviewSourceSelector.findData("scene"))
    user.click(user.ui.reviewStartButton)
    case = review_page.review.case.segmentation
    user.click(user.ui.reviewCorrectButton)
    assert case.GetDisplayVisibility() and user.panel.state.resultSegmentation is case
    assert [node.GetDisplayVisibility() for node in (first, second) if node is not case] == [0]
    assert slicer.mrmlScene.IsNodePresent(case)
