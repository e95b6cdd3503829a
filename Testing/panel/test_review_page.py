"""The page Review, driven as a user does: lists, decisions, focus, keys, comparison, export, log."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SIZE = (20, 24, 28)  # Z, Y, X
SPACING = (0.8, 0.9, 2.0)


def _ball(center, radius) -> np.ndarray:
    z, y, x = np.indices(SIZE)
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 < radius**2


def _labels(shift: int = 0) -> np.ndarray:
    """Liver 1, kidney 2."""
    labels = np.zeros(SIZE, np.uint8)
    labels[_ball((10, 12, 8 + shift), 5)] = 1
    labels[_ball((10, 12, 20), 4)] = 2
    return labels


def _table():
    from MambaSegLib.bundle import Label

    return (Label(1, "liver", (200, 60, 40), {}), Label(2, "kidney", (60, 160, 60), {}))


def _write_case(folder: Path, name: str, scores: dict[str, float]) -> None:
    from MambaSegLib import scores_file
    from MambaSegLib.label_file import write_labels
    from MambaSegLib.volume import Volume

    image = Volume(np.random.default_rng(3).normal(size=SIZE).astype(np.float32), SPACING, (5.0, -3.0, 11.0))
    sitk.WriteImage(image.to_sitk(), str(folder / f"{name}.nrrd"))
    path = write_labels(folder / f"{name}.seg.nrrd", image.with_array(_labels()), _table())
    place = {"position_mm": [5.0 + 8 * 0.8, -3.0 + 12 * 0.9, 11.0 + 10 * 2.0], "score": 0.5, "volume_ml": 1.0}
    rows = [{"structure": s, "score": v, "places": [place] if s == "liver" else []} for s, v in scores.items()]
    result = {
        "model": "quick",
        "model_sha256": "ab" * 32,
        "review": rows,
        "segments": [],
        "time_s": 1.0,
        "warnings": [],
    }
    scores_file.write(path, result)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three cases; their doubt orders them b, c, a; for the kidney it is c, a, b."""
    folder = tmp_path / "Studie ü"
    folder.mkdir()
    _write_case(folder, "a", {"liver": 0.1, "kidney": 0.2})
    _write_case(folder, "b", {"liver": 0.9, "kidney": 0.05})
    _write_case(folder, "c", {"liver": 0.3, "kidney": 0.4})
    return folder


@pytest.fixture
def page(user):
    """The page, shown, with a reviewer's name."""
    import slicer

    slicer.app.userSettings().setValue("MambaSegmentation/annotator", "Dr. Ada")
    user.open("ReviewPage")
    yield user.panel.page("ReviewPage")
    user.panel.page("ReviewPage").compare.end()
    user.panel.page("ReviewPage").review.end()
    user.panel.state.reviewFile = ""
    slicer.app.dialogs.forget()
    user.ui.reviewFocusCheckBox.checked = False
    user.ui.reviewBlindedCheckBox.checked = False
    for box in (user.ui.reviewStatusFilter, user.ui.reviewStructureFilter):
        box.setCurrentIndex(0)
    user.ui.reviewSearch.text = ""


def _start(user, folder) -> None:
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("folder"))
    ui.reviewPathEdit.currentPath = str(folder)
    user.click(ui.reviewStartButton)


def _listed(user) -> list[str]:
    table = user.ui.reviewTable
    return [table.item(row, 0).text() for row in range(table.rowCount)]


def _statuses(user) -> list[str]:
    return [user.ui.reviewTable.item(row, 2).text() for row in range(user.ui.reviewTable.rowCount)]


def _log(page) -> list[dict]:
    from MambaSegLib import audit

    return audit.records(page.review.session.log)


def _erase(page, segment: str, count: int) -> None:
    """The reviewer erases that many voxels of a structure."""
    import slicer

    node, volume = page.review.case.segmentation, page.review.case.volume
    segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(segment)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
    array[tuple(np.argwhere(array)[:count].T)] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segment_id, volume)


def _status_in_segment_editor(page, structure: str) -> str:
    import slicer

    logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, page.review.case.segmentation.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(structure))
    return logic.GetSegmentStatusAsMachineReadableString(logic.GetSegmentStatus(segment))


def test_empty_page_says_what_to_do(user, page):
    ui = user.ui
    assert "press Start" in ui.reviewHintLabel.text and ui.reviewHintLabel.visible
    assert not ui.reviewCaseSection.visible and not ui.reviewTable.visible and not ui.reviewLogSection.visible
    assert ui.reviewReviewerEdit.text == "Dr. Ada"
    user.click(ui.reviewStartButton)
    assert "no segmentation with an image" in user.message


def test_folder_is_listed_worst_first_and_the_worst_is_opened(user, page, folder):
    _start(user, folder)
    assert _listed(user) == ["b", "c", "a"]
    assert [user.ui.reviewTable.item(row, 1).text() for row in range(3)] == ["0.90", "0.40", "0.20"]
    assert user.ui.reviewCaseLabel.text == "b" and _statuses(user) == ["begun", "new", "new"]
    structures = user.ui.reviewStructureTable
    assert [structures.item(row, 1).text() for row in range(2)] == ["liver", "kidney"]
    assert user.ui.reviewCountsLabel.text == "0 of 3 reviewed."


def test_filters_by_status_structure_and_text(user, page, folder):
    _start(user, folder)
    ui = user.ui
    ui.reviewStructureFilter.setCurrentIndex(ui.reviewStructureFilter.findData("kidney"))
    assert _listed(user) == ["c", "a", "b"]
    ui.reviewSearch.text = "c.seg"
    assert _listed(user) == ["c"] and "1 shown" in ui.reviewCountsLabel.text
    ui.reviewSearch.text = ""
    ui.reviewStatusFilter.setCurrentIndex(ui.reviewStatusFilter.findData("in_progress"))
    assert _listed(user) == ["b"]
    ui.reviewStatusFilter.setCurrentIndex(ui.reviewStatusFilter.findData("flagged"))
    assert _listed(user) == [] and "No case passes" in ui.reviewHintLabel.text


def test_worst_place_is_shown_in_all_slice_views(user, page, folder):
    import slicer

    _start(user, folder)
    matrix = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([-11.4, -7.8, 31.0], abs=1.0)
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == page.review.case.volume.GetID()


def test_accept_goes_on_and_is_logged_with_model_and_time(user, page, folder):
    _start(user, folder)
    user.ui.reviewCommentEdit.text = "fine, for once"
    user.click(user.ui.reviewAcceptButton)
    assert user.ui.reviewCaseLabel.text == "c" and _statuses(user) == ["accepted", "begun", "new"]
    (record,) = _log(page)
    assert (record["user"], record["decision"], record["comment"]) == ("Dr. Ada", "completed", "fine, for once")
    assert record["model"] == {"id": "quick", "sha256": "ab" * 32} and record["seconds"] > 0 and record["voxels"] == {}
    user.click(user.ui.reviewFlagButton)
    assert _statuses(user) == ["accepted", "flagged", "begun"]
    user.click(user.ui.reviewAcceptButton)
    assert "All cases of this list are reviewed" in user.message
    assert user.ui.reviewCountsLabel.text == "3 of 3 reviewed, 1 of them flagged."


def test_changed_voxels_are_counted_and_kept_as_a_new_version(user, page, folder):
    _start(user, folder)
    before = (folder / "b.seg.nrrd").read_bytes()
    _erase(page, "kidney", 7)
    user.click(user.ui.reviewFlagButton)
    assert _log(page)[0]["voxels"] == {"kidney": {"added": 0, "removed": 7}}
    (kept,) = (folder / "reviewed").glob("*.seg.nrrd")
    assert kept.name.startswith("b ") and kept.name.endswith(" v1.seg.nrrd")
    assert (folder / "b.seg.nrrd").read_bytes() == before
    user.click(user.ui.reviewPreviousButton)  # what was changed is what one comes back to
    import slicer

    node = page.review.case.segmentation
    kidney = node.GetSegmentation().GetSegmentIdBySegmentName("kidney")
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, kidney, page.review.case.volume).sum()
    assert voxels == (_labels() == 2).sum() - 7
    assert _status_in_segment_editor(page, "kidney") == "flagged"


def test_leaving_an_undecided_case_keeps_its_changes_and_removes_its_nodes(user, page, folder):
    import slicer

    _start(user, folder)
    _erase(page, "liver", 3)
    user.click(user.ui.reviewNextButton)
    assert len(list((folder / "reviewed").glob("b *.seg.nrrd"))) == 1
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    _erase(page, "liver", 2)
    slicer.mrmlScene.Clear(0)
    assert len(list((folder / "reviewed").glob("c *.seg.nrrd"))) == 1


def test_next_and_previous_stop_at_the_ends(user, page, folder):
    _start(user, folder)
    user.click(user.ui.reviewPreviousButton)
    assert user.ui.reviewCaseLabel.text == "b" and "first case" in user.message
    user.click(user.ui.reviewNextButton)
    user.click(user.ui.reviewNextButton)
    assert user.ui.reviewCaseLabel.text == "a"
    user.click(user.ui.reviewNextButton)
    assert user.ui.reviewCaseLabel.text == "a" and "last case" in user.message


def test_resumes_where_one_left_off(user, page, folder):
    import slicer

    _start(user, folder)
    user.click(user.ui.reviewAcceptButton)
    file = user.panel.state.reviewFile
    assert Path(file).parent == folder
    page.review.end()
    _start(user, folder)
    assert user.ui.reviewCaseLabel.text == "c" and _statuses(user) == ["accepted", "begun", "new"]
    page.review.end()
    slicer.app.dialogs.answer_next(file)
    user.click(user.ui.reviewOpenButton)
    assert user.ui.reviewCaseLabel.text == "c"


def test_scene_is_listed_and_remembered_with_the_scene(user, page, crop, tmp_path):
    import slicer

    user.open("SegmentPage")
    node = user.segment(crop)
    user.open("ReviewPage")
    user.ui.reviewSourceSelector.setCurrentIndex(user.ui.reviewSourceSelector.findData("scene"))
    user.click(user.ui.reviewStartButton)
    assert _listed(user) == [node.GetName()] and page.review.case.segmentation is node
    assert page.review.case.entry.scores and page.review.case.entry.model["id"]
    user.click(user.ui.reviewAcceptButton)
    bundle = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(bundle)
    slicer.mrmlScene.Clear(0)
    assert page.review.session is None
    slicer.util.loadScene(bundle)
    assert _statuses(user) == ["accepted"]
    user.ui.reviewTable.cellClicked.emit(0, 0)
    assert page.review.case.volume.GetName() == "Left hippocampus"


def test_table_lists_what_it_names(user, page, folder):
    table = folder.parent / "list.csv"
    table.write_text("case;image;segmentation\nFirst;Studie ü/a.nrrd;Studie ü/a.seg.nrrd\n", encoding="utf-8")
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("table"))
    ui.reviewPathEdit.currentPath = str(table)
    user.click(ui.reviewStartButton)
    assert _listed(user) == ["First"] and page.review.session.path.parent == table.parent


def test_one_structure_in_focus_fades_the_others_and_decides_alone(user, page, folder):
    _start(user, folder)
    display = page.review.case.segmentation.GetDisplayNode()
    liver, kidney = page.structures.ids
    display.SetSegmentOpacity2DFill(kidney, 0.8)
    user.ui.reviewFocusCheckBox.checked = True
    assert display.GetSegmentOpacity2DFill(liver) == 1.0
    assert display.GetSegmentOpacity2DFill(kidney) == pytest.approx(0.12)
    user.click(user.ui.reviewFlagButton)
    assert page.structures.chosen == kidney and user.ui.reviewCaseLabel.text == "b"
    assert _status_in_segment_editor(page, "liver") == "flagged"
    assert _status_in_segment_editor(page, "kidney") == "inprogress"
    assert display.GetSegmentOpacity2DFill(kidney) == 0.8
    user.ui.reviewFocusCheckBox.checked = False
    assert [display.GetSegmentOpacity2DFill(i) for i in (liver, kidney)] == [1.0, 0.8]
    user.ui.reviewFocusCheckBox.checked = True
    user.click(user.ui.reviewAcceptButton)
    assert _statuses(user)[0] == "flagged" and _log(page)[0]["decision"] == "flagged"


def test_keys_work_only_while_the_page_is_shown(user, page, folder, host_application):
    import slicer
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    _start(user, folder)
    window = slicer.util.mainWindow()
    window.show()
    window.activateWindow()
    host_application.wait_until(lambda: window.isActiveWindow)

    def press(key) -> None:
        QTest.keyClick(window, key)
        host_application.processEvents()

    try:
        page.review.leave()
        press(QtCore.Qt.Key_E)
        assert page.review.case is None and user.panel._currentPage() is page
        page._open(page.review.first().id)
        press(QtCore.Qt.Key_N)
        assert user.ui.reviewCaseLabel.text == "c"
        press(QtCore.Qt.Key_P)
        assert user.ui.reviewCaseLabel.text == "b"
        press(QtCore.Qt.Key_A)
        press(QtCore.Qt.Key_F)
        assert _statuses(user) == ["accepted", "flagged", "begun"]
        user.open("SegmentPage")
        press(QtCore.Qt.Key_P)
        assert user.ui.reviewCaseLabel.text == "a"
    finally:
        window.hide()
    user.open("ReviewPage")
    assert "(key A)" in user.ui.reviewAcceptButton.toolTip


def _second(page, name: str, shift: int):
    """Another person's segmentation of the same image."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(page.review.case.volume)
    for value, label in enumerate(("liver", "kidney"), start=1):
        segment_id = node.GetSegmentation().AddEmptySegment("", label)
        mask = (_labels(shift) == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, page.review.case.volume)
    return node


def _compare(user, node) -> None:
    user.ui.reviewCompareSection.collapsed = False
    user.ui.reviewCompareSelector.check(node)
    user.click(user.ui.reviewCompareButton)
    user.until_idle()


def test_comparison_in_linked_views_with_overlay_and_table(user, page, folder):
    import slicer

    _start(user, folder)
    other = _second(page, "Model B", 2)
    own, layout = page.review.case.segmentation, slicer.app.layoutManager().layout
    _compare(user, other)
    ui, manager = user.ui, slicer.app.layoutManager()
    assert ui.reviewCompareTable.rowCount == 2 and ui.reviewCompareTable.item(1, 2).text() == "1.000"
    a, b = _labels() == 1, _labels(2) == 1
    assert float(ui.reviewCompareTable.item(0, 2).text()) == pytest.approx(
        2 * (a & b).sum() / (a.sum() + b.sum()), abs=6e-4
    )
    composites = [manager.sliceWidget(f"MambaCompare{i}").mrmlSliceCompositeNode() for i in (1, 2)]
    assert all(
        c.GetLinkedControl() and c.GetBackgroundVolumeID() == page.review.case.volume.GetID() for c in composites
    )
    assert own.GetDisplayNode().GetViewNodeIDs() == ("vtkMRMLSliceNodeMambaCompare1",)
    assert other.GetDisplayNode().GetViewNodeIDs() == ("vtkMRMLSliceNodeMambaCompare2",)
    (overlay,) = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n not in (own, other)]
    names = [overlay.GetSegmentation().GetNthSegment(i).GetName() for i in range(3)]
    assert names[:2] == ["Only in the first", "Only in the second"]
    first = slicer.util.arrayFromSegmentBinaryLabelmap(
        overlay, overlay.GetSegmentation().GetNthSegmentID(0), page.review.case.volume
    )
    assert first.sum() == (a & ~(_labels(2) > 0)).sum()
    ui.reviewDifferenceCheckBox.checked = False
    assert not overlay.GetDisplayNode().GetVisibility()
    assert "1: " in ui.reviewCompareHint.text and "Model B" in ui.reviewCompareHint.text
    user.click(ui.reviewCompareButton)
    assert manager.layout == layout and own.GetDisplayNode().GetViewNodeIDs() == ()
    assert not slicer.mrmlScene.IsNodePresent(overlay) and not ui.reviewDifferenceCheckBox.visible


def test_three_are_compared_in_pairs(user, page, folder):
    import slicer

    _start(user, folder)
    user.ui.reviewCompareSelector.check(_second(page, "Model B", 1))
    _compare(user, _second(page, "Reader 2", 2))
    table = user.ui.reviewCompareTable
    assert [table.item(row, 1).text() for row in range(6)] == ["1, 2", "1, 2", "1, 3", "1, 3", "2, 3", "2, 3"]
    assert not table.isColumnHidden(1) and slicer.app.layoutManager().sliceWidget("MambaCompare3") is not None
    user.click(user.ui.reviewChoice3Button)
    assert "Chosen: Reader 2." in user.ui.reviewCompareHint.text


def test_blinded_comparison_hides_the_names_until_the_choice(user, page, folder):
    user.ui.reviewBlindedCheckBox.checked = True
    _start(user, folder)
    assert page.review.session.blinded is not None
    other = _second(page, "Model B", 2)
    _compare(user, other)
    ui = user.ui
    assert "Model B" not in ui.reviewCompareHint.text and not ui.reviewCompareSelector.visible
    shown = [node.GetName() for node in page.compare._shown]
    assert sorted(shown) == sorted([page.review.case.segmentation.GetName(), "Model B"])
    user.click(ui.reviewChoice2Button)
    assert f"2: {shown[1]}" in ui.reviewCompareHint.text and f"Chosen: {shown[1]}" in ui.reviewCompareHint.text
    assert _log(page)[-1]["decision"].startswith(f"{shown[1]} of ")
    assert page.review.entry.preference["chosen"] == shown[1]


def test_removed_candidate_ends_the_comparison(user, page, folder):
    import slicer

    _start(user, folder)
    other = _second(page, "Model B", 1)
    _compare(user, other)
    slicer.mrmlScene.RemoveNode(other)
    assert not page.compare.isShown and user.ui.reviewCompareButton.text == "Co&mpare"


def test_log_is_verified_exported_and_tampering_is_told(user, page, folder, tmp_path):
    import slicer

    _start(user, folder)
    assert not user.ui.reviewVerifyButton.enabled
    user.click(user.ui.reviewAcceptButton)
    user.click(user.ui.reviewFlagButton)
    user.ui.reviewLogSection.collapsed = False
    user.click(user.ui.reviewVerifyButton)
    assert user.ui.reviewLogLabel.text.startswith("2 records, none changed")
    slicer.app.dialogs.answer_next(str(tmp_path / "log.csv"))
    user.click(user.ui.reviewLogExportButton)
    assert "Dr. Ada" in (tmp_path / "log.csv").read_text(encoding="utf-8-sig")
    log = page.review.session.log
    lines = log.read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"decision": "flagged"})
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    user.click(user.ui.reviewVerifyButton)
    assert "Record 1 was changed" in user.ui.reviewLogLabel.text


def _export(user, ending: str, path: Path) -> None:
    import slicer

    ui = user.ui
    ui.reviewExportSection.collapsed = False
    ui.reviewFormatSelector.setCurrentIndex(ui.reviewFormatSelector.findData(ending))
    slicer.app.dialogs.answer_next(str(path))
    user.click(ui.reviewExportButton)
    user.until_idle()


def test_exports_files_and_never_overwrites(user, page, folder, tmp_path):
    _start(user, folder)
    _export(user, ".seg.nrrd", tmp_path / "out.seg.nrrd")
    _export(user, ".nii.gz", tmp_path / "out")  # the ending is added
    labels = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(labels), _labels())
    assert labels.GetOrigin() == pytest.approx((5.0, -3.0, 11.0)) and labels.GetSpacing() == pytest.approx(SPACING)
    _export(user, "", tmp_path / "surfaces")
    assert len(list((tmp_path / "surfaces").glob("*.stl"))) == 2
    before = (tmp_path / "out.nii.gz").read_bytes()
    _export(user, ".nii.gz", tmp_path / "out.nii.gz")
    assert "is there already" in user.message and (tmp_path / "out.nii.gz").read_bytes() == before


def test_missing_file_and_unwritable_folder_are_told(user, page, folder):
    _start(user, folder)
    (folder / "c.nrrd").unlink()
    user.click(user.ui.reviewNextButton)
    assert "c.nrrd" in user.message and not user.ui.reviewCaseSection.visible
    user.ui.reviewTable.cellClicked.emit(2, 0)
    assert user.ui.reviewCaseLabel.text == "a"
