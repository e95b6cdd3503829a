"""Fixtures of the panel's tests: the host, models with random weights, a real head, and the module itself."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, os.environ.get("MAMBASEG_TEST_HOST") or str(HERE.parent / "host"))

from library_python import python_with_torch, run_python  # noqa: E402

from slicerhost.fixtures import *  # noqa: E402, F403


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A folder with the models 'quick', 'slow', 'endless' and 'pair'."""
    folder = tmp_path_factory.mktemp("models")
    made = run_python(HERE / "make_models.py", folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def command_line_labels(model_folder, tmp_path_factory):
    """(image, model, *options) -> label values (Z, Y, X) that `mambaseg segment` writes; the same call is made once."""
    import SimpleITK as sitk

    known: dict[tuple, np.ndarray] = {}

    def labels(image: Path, model: str, *options: str) -> np.ndarray:
        key = (image, model, *options)
        if key not in known:
            output = tmp_path_factory.mktemp("cli") / "cli.seg.nrrd"
            call = ("segment", image, "-m", model_folder / model, "-o", output, "--device", "cpu", *options)
            done = run_python("-m", "MambaSegLib.cli", *call)
            assert done.returncode == 0, done.stderr
            known[key] = sitk.GetArrayFromImage(sitk.ReadImage(str(output)))
        return known[key]

    return labels


@pytest.fixture(scope="session")
def head_file() -> Path:
    """The MNI152 T1 volume, 1 mm, that nilearn carries: 197 x 233 x 189 voxels."""
    found = run_python("-c", "import importlib.util as u; print(u.find_spec('nilearn').submodule_search_locations[0])")
    if found.returncode:
        pytest.skip("needs the package nilearn for its head")
    (path,) = (Path(found.stdout.strip()) / "datasets" / "data").glob("mni_icbm152_t1_*.nii.gz")
    return path


@pytest.fixture(scope="session")
def crop_file(head_file, tmp_path_factory) -> Path:
    """48 x 64 x 52 voxels of that head around the left hippocampus, turned and with unequal spacing, as .nrrd."""
    import SimpleITK as sitk

    head = sitk.ReadImage(str(head_file))
    # 8 degrees about the superior axis, then 5 about the left axis: nothing lies along a coordinate axis any more.
    turn = sitk.Euler3DTransform([0.0, 0.0, 0.0], 0.087, 0.0, 0.14)
    grid = sitk.Image(48, 64, 52, sitk.sitkInt16)
    grid.SetSpacing((0.9, 1.0, 1.2))
    grid.SetDirection(turn.GetMatrix())
    grid.SetOrigin((2.0, -10.0, -50.0))
    path = tmp_path_factory.mktemp("crop") / "Left hippocampus.nrrd"
    crop = sitk.Resample(head, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    sitk.WriteImage(sitk.Cast(crop, sitk.sitkInt16), str(path))
    return path


def load_module(application, model_folder: Path):
    """The module with our models, set up and entered; the worker runs in this Python or MAMBASEG_TEST_PYTHON."""
    application.reset()
    settings = application.userSettings()
    settings.setValue("MambaSegmentation/modelFolders", str(model_folder))
    if "MAMBASEG_TEST_PYTHON" in os.environ:
        settings.setValue("MambaSegmentation/pythonExecutable", python_with_torch())
    return application.load_module(ROOT / "MambaSegmentation" / "MambaSegmentation.py")


@pytest.fixture(scope="module")
def loaded_module(host_application, model_folder, tmp_path_factory):
    """One module and one warm worker for all tests of a file, as in a Slicer that stays open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("home")))
        yield load_module(host_application, model_folder)
        host_application.reset()


@pytest.fixture
def module(loaded_module, slicer_app_scene):
    """The module's widget in an empty scene."""
    loaded_module.panel.showPage("SegmentPage")
    loaded_module.ui.modelSearch.text = ""
    loaded_module.panel.runView.hideMessage()
    loaded_module.ui.logText.clear()
    return loaded_module


@pytest.fixture
def slicer_app_scene(host_application):
    """An empty scene before and after."""
    import slicer

    slicer.mrmlScene.Clear(0)
    yield
    slicer.mrmlScene.Clear(0)
    host_application.processEvents()


@pytest.fixture
def wait_until(host_application):
    """wait_until(condition, timeout_s=30): run the event loop until condition() is true."""
    return host_application.wait_until


class Driver:
    """What a user does, in one line each."""

    def __init__(self, module, application):
        self.module, self.panel, self.ui = module, module.panel, module.ui  # the widgets of all pages
        self._application, self._wait_until = application, application.wait_until

    def click(self, widget) -> None:
        """A real mouse click in the middle, if a user could do it."""
        from PySide6 import QtCore
        from PySide6.QtTest import QTest

        assert widget.visible and widget.enabled, f"{widget.objectName} cannot be clicked"
        QTest.mouseClick(widget, QtCore.Qt.LeftButton)
        self._application.processEvents()

    def open(self, name: str) -> None:
        """Show the page of that class name."""
        self.panel.showPage(name)
        self._application.processEvents()

    def choose_model(self, title: str) -> None:
        (row,) = (r for r in range(self.ui.modelList.count) if self.ui.modelList.item(r).text().startswith(title))
        self.ui.modelList.setCurrentRow(row)

    def start(self, volume, model: str) -> None:
        self.ui.volumeSelector.setCurrentNode(volume)
        self.choose_model(model)
        self.click(self.ui.segmentButton)

    def until_progress(self) -> None:
        self._wait_until(lambda: self.ui.progressBar.maximum == 100 and self.ui.progressBar.value > 0, 120)

    def until_idle(self) -> None:
        self._wait_until(lambda: not self.panel.jobs.isRunning, 180)

    def segment(self, volume, model: str = "Quick"):
        """Runs to the end; the new segmentation node, None after a failure."""
        self.panel.state.resultSegmentation = None
        self.start(volume, model)
        self.until_idle()
        return self.panel.state.resultSegmentation

    def start_endless(self, volume) -> None:
        """A run that is well under way and will not end by itself within a test."""
        self.start(volume, "Endless")
        self.until_progress()

    @property
    def message(self) -> str:
        return self.ui.messageLabel.text if self.ui.messageFrame.visible else ""


@pytest.fixture
def user(module, host_application) -> Driver:
    return Driver(module, host_application)


@pytest.fixture
def crop(module, crop_file):
    """The crop as a volume node."""
    import slicer

    return slicer.util.loadVolume(str(crop_file))


@pytest.fixture
def review_folder(tmp_path) -> Path:
    """Three cases; their doubt orders them b, c, a; for the kidney it is c, a, b."""
    from review_cases import write_case

    folder = tmp_path / "Studie ü"
    folder.mkdir()
    write_case(folder, "a", {"liver": 0.1, "kidney": 0.2})
    write_case(folder, "b", {"liver": 0.9, "kidney": 0.05})
    write_case(folder, "c", {"liver": 0.3, "kidney": 0.4})
    return folder


@pytest.fixture
def review_page(user):
    """The page Review, shown, with a reviewer's name."""
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


@pytest.fixture
def store(tmp_path, module):
    """An empty training set of this test."""
    from MambaSegmentationLib import Settings

    Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, str(tmp_path / "corrections"))
    Settings.store(Settings.ANNOTATOR_SETTING, "")
    module.ui.caseAnnotatorEdit.text = ""
    yield tmp_path / "corrections"
    Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, "")


@pytest.fixture
def own_models(model_folder):
    """What a test adds to the models goes again."""
    before = set(model_folder.iterdir())
    yield model_folder
    for path in set(model_folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
