"""The page Review: the log of decisions, and files for other programs."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from review_cases import SPACING, erase, labels_of_case, start_review


def test_log_is_verified_exported_and_tampering_is_told(user, review_page, review_folder, tmp_path):
    import slicer

    start_review(user, review_folder)
    assert not user.ui.reviewVerifyButton.enabled
    user.click(user.ui.reviewAcceptButton)
    user.click(user.ui.reviewFlagButton)
    user.ui.reviewLogSection.collapsed = False
    user.click(user.ui.reviewVerifyButton)
    assert user.ui.reviewLogLabel.text.startswith("2 records, none changed")
    slicer.app.dialogs.answer_next(str(tmp_path / "log.csv"))
    user.click(user.ui.reviewLogExportButton)
    assert "Dr. Ada" in (tmp_path / "log.csv").read_text(encoding="utf-8-sig")
    log = review_page.review.session.log
    lines = log.read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"decision": "flagged"})
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    user.click(user.ui.reviewVerifyButton)
    assert "Record 1 was changed" in user.ui.reviewLogLabel.text


def export(user, ending: str, path: Path) -> None:
    import slicer

    ui = user.ui
    ui.reviewExportSection.collapsed = False
    ui.reviewFormatSelector.setCurrentIndex(ui.reviewFormatSelector.findData(ending))
    slicer.app.dialogs.answer_next(str(path))
    user.click(ui.reviewExportButton)
    user.until_idle()


def test_exports_files_and_never_overwrites(user, review_page, review_folder, tmp_path):
    start_review(user, review_folder)
    export(user, ".seg.nrrd", tmp_path / "out.seg.nrrd")
    export(user, ".nii.gz", tmp_path / "out")  # the ending is added
    labels = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(labels), labels_of_case())
    assert labels.GetOrigin() == pytest.approx((5.0, -3.0, 11.0)) and labels.GetSpacing() == pytest.approx(SPACING)
    export(user, "", tmp_path / "surfaces")
    assert len(list((tmp_path / "surfaces").glob("*.stl"))) == 2
    export(user, ".glb", tmp_path / "scene")
    assert (tmp_path / "scene.glb").read_bytes()[:4] == b"glTF" and "scene.glb" in user.ui.reviewExportLabel.text
    erase(review_page, "kidney", 10_000)
    export(user, ".obj", tmp_path / "model.obj")
    assert "no voxel: kidney" in user.message and (tmp_path / "model.mtl").is_file()
    before = (tmp_path / "out.nii.gz").read_bytes()
    export(user, ".nii.gz", tmp_path / "out.nii.gz")
    assert "is there already" in user.message and (tmp_path / "out.nii.gz").read_bytes() == before
