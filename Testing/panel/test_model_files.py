"""Models come into the panel and leave it: real files, real jobs, and strangers' files that want to do harm."""

import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from library_python import run_python

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    """A folder with what make_weights.py writes."""
    folder = tmp_path_factory.mktemp("strangers")
    made = run_python(HERE / "make_weights.py", folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def files(user):
    """The page's ModelFiles; what a test has added goes again, and the windows close."""
    import shutil

    from MambaSegLib import catalogue

    user.open("SegmentPage")
    found = user.panel.page("SegmentPage").modelFiles
    yield found
    found.close()
    shutil.rmtree(catalogue.user_folder(), ignore_errors=True)
    user.panel.state.modelId = ""


def export(user, files, path, kind="bundle"):
    """Choose the format, press Export, name the place; returns what the window says then."""
    import slicer

    files.exportAction.trigger()
    ui = files.exportDialog.ui
    ui.exportFormatSelector.setCurrentIndex(ui.exportFormatSelector.findData(kind))
    slicer.app.dialogs.answer_next(str(path))
    user.click(ui.exportStartButton)
    user.until_idle()
    return ui.exportStatusLabel.text


def look(user, files, source):
    """Open the window and choose a file or folder by its button."""
    import slicer

    files.addAction.trigger()
    ui = files.addDialog.ui
    slicer.app.dialogs.answer_next(str(source))
    user.click(ui.addFolderButton if Path(source).is_dir() else ui.addFileButton)
    return ui


def add(user, ui):
    user.click(ui.addStartButton)
    user.until_idle()


def voxels(segmentation):
    import slicer

    inner = segmentation.GetSegmentation()
    ids = [inner.GetNthSegmentID(n) for n in range(inner.GetNumberOfSegments())]
    volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    return {
        inner.GetSegment(i).GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, i, volume) for i in ids
    }


def test_a_model_goes_and_comes_back_equal(user, files, crop, tmp_path):
    """Under another name, as the model itself is here already: its voxels are the same."""
    from slicerhost.qt_module import opened_urls

    user.choose_model("Hippocampus")
    said = export(user, files, tmp_path / "share" / "hippocampus.zip")
    ui = files.exportDialog.ui
    assert said == f"Written: {tmp_path / 'share' / 'hippocampus.zip'}" and user.message == said
    assert ui.exportNamesCheckBox.isHidden(), "public names only"
    user.click(ui.exportShowButton)
    assert opened_urls[-1] == (tmp_path / "share").as_uri()
    expected = voxels(user.segment(crop, "Hippocampus"))
    ui = look(user, files, tmp_path / "share" / "hippocampus.zip")
    assert "on this computer already" in ui.addFoundLabel.text
    ui.addNameEdit.text = "Räumlich mine"
    add(user, ui)
    assert user.message == "'Räumlich mine' was added and is chosen." and not files.addDialog.isOpen
    assert user.panel.page("SegmentPage").models.entry.title == "Räumlich mine"
    found = voxels(user.segment(crop, "Räumlich mine"))
    assert found.keys() == expected.keys() and any(array.any() for array in expected.values())
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_is_here_already_is_only_chosen(user, files, model_folder):
    from MambaSegLib import catalogue

    user.choose_model("Slow")
    add(user, look(user, files, model_folder / "quick"))
    assert "was here already" in user.message
    assert user.panel.page("SegmentPage").models.entry.title == "Quick hippocampus"
    assert not [path for path in catalogue.user_folder().glob("[!.]*")]


def test_nothing_is_overwritten(user, files, tmp_path):
    (tmp_path / "mine.zip").write_text("mine")
    user.choose_model("Quick")
    assert "exists already" in export(user, files, tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "mine" and "exists already" in user.message
    said = export(user, files, tmp_path / "other")
    assert said.endswith("other.zip") and (tmp_path / "other.zip").is_file(), "the ending is added"


def test_no_place_no_export(user, files):
    user.choose_model("Quick")
    assert export(user, files, "") == "" and files.exportDialog.ui.exportShowButton.isHidden()


def test_monai_bundle(user, files, tmp_path):
    user.choose_model("Quick")
    export(user, files, tmp_path / "quick-monai", "monai")
    described = json.loads((tmp_path / "quick-monai" / "configs" / "metadata.json").read_text())
    assert described["name"] == "Quick hippocampus"


def test_onnx(user, files, tmp_path):
    if run_python("-c", "import onnx, onnxruntime").returncode:
        pytest.skip("needs onnx and onnxruntime")
    user.choose_model("Quick")
    assert "Written" in export(user, files, tmp_path / "quick", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick.onnx", "quick.onnx.json"]


def test_cancelled_export_leaves_nothing(user, files, tmp_path):
    import slicer

    user.choose_model("Hippocampus")
    files.exportAction.trigger()
    ui = files.exportDialog.ui
    ui.exportFormatSelector.setCurrentIndex(ui.exportFormatSelector.findData("torch"))
    slicer.app.dialogs.answer_next(str(tmp_path / "hippocampus.pt2"))
    user.click(ui.exportStartButton)
    assert not ui.exportStartButton.enabled and "cancelled" in ui.exportStatusLabel.text
    user.click(user.ui.cancelButton)
    user.until_idle()
    assert ui.exportStatusLabel.text == "Stopped. Nothing was written." and not list(tmp_path.iterdir())
    assert ui.exportStartButton.enabled and ui.exportShowButton.isHidden()


def test_a_missing_package_is_offered(user, files, monkeypatch):
    """Only what the format needs beyond the usual is added to what is looked for and installed."""
    from MambaSegmentationLib.Jobs import Problem

    packages, asked = user.panel.services.packages, []
    monkeypatch.setattr(packages, "requirements", list(packages.requirements))
    monkeypatch.setattr(packages, "offer", lambda folder="": asked.append(packages._params(True)["requirements"]))
    user.choose_model("Quick")
    files.exportAction.trigger()
    problem = Problem("Writing ONNX needs 'onnx'.", "pip", "", "onnx")
    user.panel.jobs.watcher.onFailed(problem)
    files.exportDialog._onFailed(problem)
    assert "Install packages" in files.exportDialog.ui.exportStatusLabel.text
    user.click(user.ui.installButton)
    user.panel.jobs.watcher.onFailed(problem)
    user.click(user.ui.installButton)
    assert [text for text in asked[1] if text.startswith("onnx")] == ["onnx>=1.15", "onnxruntime>=1.17"]


def test_names_of_patients_stay_here(user, files, strangers, tmp_path):
    import slicer

    from MambaSegLib import model_store
    from MambaSegLib.bundle import open_bundle

    model_store.add(open_bundle(strangers / "child"))
    files.exportAction.trigger()
    box = files.exportDialog.ui.exportNamesCheckBox
    files.exportDialog.show(model_store.history("quick")[0].open())
    assert box.visible and box.checked and "1 case" in box.text and "Smith_John_1950" in box.toolTip
    files.exportDialog.ui.exportFormatSelector.setCurrentIndex(0)
    slicer.app.dialogs.answer_next(str(tmp_path / "quick.zip"))
    user.click(files.exportDialog.ui.exportStartButton)
    user.until_idle()
    assert "The names of 1 case were left out." in user.message
    with zipfile.ZipFile(tmp_path / "quick.zip") as archive:
        assert not any(b"Smith" in archive.read(name) for name in archive.namelist())


def hostile(info, content, how):
    if how == "climbs" and info.filename.endswith("README.md"):
        return "../../evil.md", content
    if how == "link" and info.filename.endswith(".safetensors"):
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    if how == "changed" and info.filename.endswith(".safetensors"):
        content = content[:-1] + bytes([content[-1] ^ 1])
    return info, content


@pytest.mark.parametrize("how,said", [("climbs", "leads out"), ("link", "is a link"), ("changed", "was changed")])
def test_hostile_files_are_refused(user, files, model_folder, tmp_path, how, said):
    from MambaSegLib import catalogue

    user.choose_model("Quick")
    export(user, files, tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as source, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for info in source.infolist():
            bad.writestr(*hostile(info, source.read(info), how))
    ui = look(user, files, tmp_path / "bad.zip")
    if how == "changed":  # seen only when the weights are read
        ui.addNameEdit.text = "Other"
        add(user, ui)
    assert said in ui.addStatusLabel.text and files.addDialog.isOpen
    assert how == "changed" or not ui.addStartButton.enabled
    assert not [path for path in catalogue.user_folder().glob("[!.]*")]


@pytest.mark.parametrize("scale", [1, 2], ids=["100 %", "200 %"])
def test_nothing_is_cut(user, files, strangers, host_application, scale):
    from PySide6 import QtWidgets
    from test_page_layout import cut, is_folded

    usual, font = host_application.font(), host_application.font()
    font.setPointSizeF(scale * usual.pointSizeF())
    host_application.setFont(font)
    try:
        user.choose_model("Quick")
        files.exportAction.trigger()
        ui = look(user, files, strangers / "plain.safetensors")
        user.until_idle()
        for widget in (ui.addTrustArea, ui.addUseCheckBox, files.exportDialog.ui.exportNamesCheckBox):
            widget.show()
        for dialog in (files.addDialog, files.exportDialog):
            dialog.fit()
            host_application.processEvents()
            assert dialog.window.minimumSizeHint().width() <= 420 * scale
            for widget in (w for w in dialog.window.findChildren(QtWidgets.QWidget) if w.visible and not is_folded(w)):
                assert not (problem := cut(widget)), f"{widget.objectName}: {problem}"
                if widget.inherits("QAbstractButton") and widget.objectName in vars(dialog.ui):
                    assert widget.toolTip, widget.objectName
    finally:
        host_application.setFont(usual)
