"""The table of the result follows what the user edits, and can be copied."""

import numpy as np
import pytest


@pytest.fixture
def result(user, crop):
    segmentation = user.segment(crop)
    assert segmentation is not None, user.message
    return segmentation


def table(user) -> list[list[str]]:
    box = user.ui.resultTable
    return [[box.item(row, column).text() for column in range(1, box.columnCount)] for row in range(box.rowCount)]


def expected(segmentation, volume) -> list[list[str]]:
    """Name, mL and mean of every segment, by brute force."""
    import slicer
    from MambaSegmentationLib.ResultView import _meanText

    rows, image = [], slicer.util.arrayFromVolume(volume)
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0
        volume_ml = mask.sum() * np.prod(volume.GetSpacing()) / 1000
        mean = _meanText(image[mask].mean()) if mask.any() else ""
        name = segmentation.GetSegmentation().GetSegment(segment_id).GetName()
        rows.append([name, f"{volume_ml:.2f}" if mask.any() else "not found", mean])
    return rows


def edit(segmentation, volume, number: int, change) -> None:
    import slicer
    from MambaSegmentationLib import SegmentVoxels

    segment_id = segmentation.GetSegmentation().GetNthSegmentID(number)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0
    SegmentVoxels.setMask(segmentation, segment_id, volume, change(mask))


def upper_half(mask):
    mask[: len(mask) // 2] = False
    return mask


def come_back(user) -> None:
    user.open("CorrectPage")
    user.open("SegmentPage")


def test_edits_are_counted_when_one_comes_back(user, result, crop, wait_until):
    import slicer

    before = expected(result, crop)
    assert table(user) == before and user.ui.resultLabel.text == result.GetName()
    user.open("CorrectPage")
    edit(result, crop, 0, upper_half)
    result.GetSegmentation().GetNthSegment(1).SetName("Tail")
    added = result.GetSegmentation().AddEmptySegment("", "Cyst")
    slicer.app.processEvents()
    user.open("SegmentPage")
    wait_until(lambda: table(user) != before, 10)
    assert table(user) == expected(result, crop) and len(table(user)) == 3
    assert table(user)[1][0] == "Tail" and table(user)[2] == ["Cyst", "not found", ""]
    assert user.ui.resultLabel.text == f"{result.GetName()}, as edited"
    assert float(table(user)[0][1]) < float(before[0][1])
    result.GetSegmentation().RemoveSegment(added)
    come_back(user)
    wait_until(lambda: len(table(user)) == 2, 10)


def test_another_one_is_chosen_on_another_page(user, result, crop, wait_until):
    import slicer

    second = user.segment(crop)
    user.open("CorrectPage")
    user.ui.correctSegmentationSelector.setCurrentNode(result)
    user.open("SegmentPage")
    assert user.ui.resultLabel.text == result.GetName()
    slicer.mrmlScene.RemoveNode(second)
    assert user.ui.resultSection.visible
    slicer.mrmlScene.RemoveNode(result)
    assert not user.ui.resultSection.visible


def test_what_changes_while_it_is_counted(user, result, crop, wait_until):
    from MambaSegmentationLib.SegmentNumbers import SegmentNumbers

    numbers, told = SegmentNumbers(), []
    numbers.count(result, told.append)
    numbers._step()
    edit(result, crop, 0, np.zeros_like)
    wait_until(lambda: told, 10)
    (rows,) = told
    assert rows[0]["voxels"] == 0 and rows[1]["voxels"] > 0
    numbers.count(result, told.append)
    numbers.stop()
    from PySide6.QtTest import QTest

    QTest.qWait(50)
    assert len(told) == 1


def test_a_part_of_the_grid_and_another_grid(user, result, crop, wait_until):
    """The Segment Editor keeps only the part of the grid that it needs; a segment may also have voxels of its own."""
    import slicer
    from MambaSegmentationLib import SegmentVoxels

    edit(result, crop, 0, lambda mask: np.pad(mask[8:-8, 9:-9, 7:-7], ((8, 8), (9, 9), (7, 7))))
    segment_id = result.GetSegmentation().GetNthSegmentID(0)
    whole = result.GetSegmentation().GetSegment(segment_id).GetRepresentation(SegmentVoxels.REPRESENTATION)
    x, y, z = crop.GetImageData().GetDimensions()
    part = slicer.vtkOrientedImageData()
    extent = (7, x - 8, 9, y - 10, 8, z - 9)
    slicer.vtkOrientedImageDataResample.CopyImage(whole, part, extent)
    result.GetSegmentation().GetSegment(segment_id).AddRepresentation(SegmentVoxels.REPRESENTATION, part)
    assert part.GetExtent() == extent
    user.panel.page("SegmentPage").resultView.bind()
    wait_until(lambda: table(user) == expected(result, crop), 10)
    assert table(user)[0][2]
    crop.SetSpacing(0.5, 0.5, 0.5)
    come_back(user)
    wait_until(lambda: not table(user)[0][2], 10)
    assert table(user)[0][1] == expected(result, crop)[0][1] or float(table(user)[0][1]) > 0


def test_edited_numbers_after_loading_the_scene(user, result, crop, tmp_path, wait_until):
    import slicer

    edit(result, crop, 1, upper_half)
    rows, file = expected(result, crop), str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear(0)
    assert not user.ui.resultSection.visible
    slicer.util.loadScene(file)
    wait_until(lambda: user.ui.resultSection.visible and table(user) == rows, 10)


def test_table_is_copied_for_a_spreadsheet(user, result, crop, wait_until):
    import slicer

    result.GetSegmentation().GetNthSegment(0).SetName("=1+1")
    come_back(user)
    wait_until(lambda: table(user)[0][0] == "=1+1", 10)
    user.click(user.ui.copyResultButton)
    lines = [line.split("\t") for line in slicer.app.clipboard().text().splitlines()]
    assert lines[0] == ["Structure", "Voxels", "Volume (mL)", "Mean"]
    assert [line[0] for line in lines[1:]] == ["'=1+1", "Posterior hippocampus"], "it must not run as a formula"
    shown = expected(result, crop)
    for line, row in zip(lines[1:], shown, strict=True):
        assert f"{float(line[2]):.2f}" == row[1] and float(line[3]) == pytest.approx(float(row[2]), abs=0.051)
        assert int(line[1]) * np.prod(crop.GetSpacing()) / 1000 == pytest.approx(float(line[2]), rel=1e-4)
