"""The page Review: every structure in numbers, to look at, to copy, and as a table."""

import csv
import io

import numpy as np
import pytest
from review_cases import SPACING, erase, labels_of_case, start_review
from test_review_compare import compare, second_segmentation

VOXEL_ML = np.prod(SPACING) / 1000


def header_and_rows(text: str, delimiter: str = "\t"):
    rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    return list(rows[0]), {row["structure"]: row for row in rows}


def copied(user):
    import qt

    qt.QApplication.clipboard().setText("")
    user.click(user.ui.reviewCopyButton)
    return header_and_rows(qt.QApplication.clipboard().text())


def shown(table) -> list[str]:
    columns = [column for column in range(table.columnCount) if not table.isColumnHidden(column)]
    return [table.horizontalHeaderItem(column).text() for column in columns]


def image_of(page) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVolume(page.review.case.volume).astype(float)


def test_open_case_in_numbers(user, review_page, review_folder, tmp_path):
    import slicer

    start_review(user, review_folder)
    ui = user.ui
    ui.reviewNumbersSection.collapsed = False
    assert not ui.reviewCopyButton.enabled and not ui.reviewNumbersTable.visible
    user.click(ui.reviewQuantifyButton)
    user.until_idle()
    table = ui.reviewNumbersTable
    assert shown(table) == ["Structure", "mL", "Mean", "SD"]
    assert [table.item(row, 0).text() for row in range(2)] == ["liver", "kidney"]
    inside = image_of(review_page)[labels_of_case() == 1]
    assert (
        table.item(0, 5).text() == f"{inside.size * VOXEL_ML:.2f}" and table.item(0, 6).text() == f"{inside.mean():.2f}"
    )
    keys, rows = copied(user)
    assert keys == ["structure", "first", "first_ml", "first_mean", "first_sd"]
    assert rows["liver"]["first"] == review_page.review.case.segmentation.GetName()
    numbers = [float(rows["liver"][key]) for key in keys[2:]]
    assert numbers == pytest.approx([inside.size * VOXEL_ML, inside.mean(), inside.std()], rel=1e-4)
    user.click(ui.reviewNextButton)
    assert not ui.reviewNumbersTable.visible and not ui.reviewCopyButton.enabled
    ui.reviewExportSection.collapsed = False
    ui.reviewFormatSelector.setCurrentIndex(ui.reviewFormatSelector.findData(".csv"))
    slicer.app.dialogs.answer_next(str(tmp_path / "numbers"))
    erase(review_page, "kidney", 10_000)
    user.click(ui.reviewExportButton)
    user.until_idle()
    _, rows = header_and_rows((tmp_path / "numbers.csv").read_text(encoding="utf-8-sig"), ",")
    assert (rows["kidney"]["first_ml"], rows["kidney"]["first_mean"]) == ("0", "")
    assert ui.reviewNumbersTable.item(1, 6).text() == "-"


def test_compared_readings_stand_above_each_other(user, review_page, review_folder):
    start_review(user, review_folder)
    other = second_segmentation(review_page, "=Model B", 2)
    compare(user, other)
    table = user.ui.reviewNumbersTable
    assert [table.isColumnHidden(column) for column in range(8)] == [
        False,
        True,
        False,
        False,
        False,
        False,
        False,
        True,
    ]
    masks = [labels_of_case(shift) == 1 for shift in (0, 2)]
    image = image_of(review_page)
    assert table.item(0, 5).text() == "\n".join(f"{mask.sum() * VOXEL_ML:.2f}" for mask in masks)
    assert table.item(0, 6).text() == "\n".join(f"{image[mask].mean():.2f}" for mask in masks)
    assert table.rowHeight(0) >= 1.7 * table.fontMetrics().height()
    _, rows = copied(user)
    liver, kidney = rows["liver"], rows["kidney"]
    assert liver["second"] == "'=Model B" and kidney["dice"] == "1" and kidney["assd_mm"] == "0"
    assert 0 < float(liver["assd_mm"]) < float(liver["hd95_mm"])
    assert float(liver["second_sd"]) == pytest.approx(image[masks[1]].std(), rel=1e-4)
    user.click(user.ui.reviewCompareButton)
    assert not table.visible and table.rowCount == 0 and user.ui.reviewQuantifyButton.enabled


def test_blinded_names_are_not_copied_before_the_choice(user, review_page, review_folder):
    user.ui.reviewBlindedCheckBox.checked = True
    start_review(user, review_folder)
    compare(user, second_segmentation(review_page, "Model B", 2))
    row = copied(user)[1]["liver"]
    assert (row["first"], row["second"]) == ("1", "2") and not user.ui.reviewQuantifyButton.enabled
    user.click(user.ui.reviewChoice1Button)
    row = copied(user)[1]["liver"]
    assert "Model B" in (row["first"], row["second"])


def test_pictures_have_no_volume(user, review_page, tmp_path):
    """A colour picture with two readings of it."""
    import SimpleITK as sitk

    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "skin.png"))
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 10:30] = 1
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "skin_mask.png"))
    start_review(user, tmp_path)
    case = review_page.review.case
    assert case is not None, user.message
    other = second_reading(case, mask)
    compare(user, other)
    assert not user.message, user.message
    assert shown(user.ui.reviewNumbersTable)[:4] == ["Structure", "Dice", "HD95", "ASSD"]
    keys, rows = copied(user)
    assert not [key for key in keys if key.endswith(("_ml", "_mean"))]
    assert float(next(iter(rows.values()))["dice"]) == pytest.approx(2 * 190 / 390, abs=1e-4)


def second_reading(case, mask):
    """The same, without a column."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Reader 2")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(case.volume)
    segmentId = node.GetSegmentation().AddEmptySegment("", next(iter(case.segments().values())).GetName())
    changed = mask.copy()[None]
    changed[:, :, 10] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, segmentId, case.volume)
    return node
