"""slicer.app, dialogs and module loading of the host, with a small scripted module."""

import pytest

MODULE = """
import slicer, qt
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin

class Tiny(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Tiny")

class TinyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.events = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.button = qt.QPushButton(_("Go"))
        self.layout.addWidget(self.button)
        self.button.connect("clicked()", lambda: self.events.append("clicked"))
        self.logic = TinyLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, lambda *_: self.events.append("closed"))

    def enter(self): self.events.append("enter")
    def exit(self): self.events.append("exit")
    def cleanup(self):
        self.removeObservers()
        self.events.append("cleanup")

class TinyLogic(ScriptedLoadableModuleLogic):
    pass
"""


@pytest.fixture
def tiny(slicer_app, tmp_path):
    (tmp_path / "Tiny.py").write_text(MODULE)
    return slicer_app.load_module(tmp_path / "Tiny.py")


def test_a_module_lives_from_load_to_unload(tiny, slicer_app, click):
    import slicer

    assert slicer.modules.tiny.title == "Tiny" and slicer.modules.TinyWidget is tiny
    assert slicer.util.getModuleWidget("Tiny") is tiny and slicer.util.getModuleLogic("Tiny") is tiny.logic
    assert tiny.resourcePath("UI/Tiny.ui").endswith("Resources/UI/Tiny.ui")
    click(tiny.button)
    slicer.mrmlScene.Clear(0)
    slicer_app.unload_modules()
    assert tiny.events == ["enter", "clicked", "closed", "exit", "cleanup"]
    assert not hasattr(slicer.modules, "tiny")


def test_click_refuses_what_a_user_cannot_do(tiny, click):
    tiny.button.enabled = False
    with pytest.raises(AssertionError, match="disabled"):
        click(tiny.button)


def test_the_parameter_node_is_one_per_scene(tiny):
    import slicer

    node = tiny.logic.getParameterNode()
    node.SetParameter("a", "1")
    assert tiny.logic.getParameterNode() is node and node.GetAttribute("ModuleName") == "Tiny"
    slicer.mrmlScene.Clear(0)
    assert tiny.logic.getParameterNode().GetParameter("a") == ""


def test_messages_are_recorded(slicer_app):
    import slicer

    slicer.util.infoDisplay("hello")
    slicer.util.errorDisplay("bad", detailedText="why")
    assert [(d.kind, d.text, d.detail) for d in slicer_app.dialogs] == [
        ("information", "hello", ""),
        ("critical", "bad", "why"),
    ]


def test_questions_are_answered_by_the_test(slicer_app):
    import qt
    import slicer

    slicer_app.dialogs.answer_next(qt.QMessageBox.Ok, qt.QMessageBox.No, "/a/b.nrrd")
    assert slicer.util.confirmOkCancelDisplay("sure?") is True
    assert slicer.util.confirmYesNoDisplay("really?") is False
    assert qt.QFileDialog.getOpenFileName(None, "Open", "") == "/a/b.nrrd"
    with slicer_app.problems.expected("dialog", "nobody answers"):
        assert slicer.util.confirmOkCancelDisplay("again?") is False


def test_an_exception_in_a_handler_is_shown_and_kept(slicer_app):
    import qt
    import slicer

    def handler():
        with slicer.util.tryWithErrorDisplay("It failed.", waitCursor=True):
            raise ValueError("because")

    button = qt.QPushButton()
    button.connect("clicked()", handler)
    with slicer_app.problems.expected("slot", "because"):
        button.click()
    assert slicer_app.dialogs.texts("critical") == ["It failed.\n\nbecause"]


def test_status_settings_urls_and_clipboard(slicer_app):
    import qt
    import slicer

    assert slicer.util.showStatusMessage("busy")
    assert slicer.util.mainWindow().statusBar().currentMessage() == "busy"
    slicer_app.userSettings().setValue("a/b", 3)
    assert slicer.util.settingsValue("a/b", 0, converter=int) == 3
    qt.QDesktopServices.openUrl(qt.QUrl("https://example.org"))
    assert slicer_app.opened_urls == ["https://example.org"]
    slicer_app.clipboard().setText("copied")
    assert slicer_app.clipboard().text() == "copied"


def test_packaging_installs_nothing(slicer_app, tmp_path):
    import slicer
    from slicer.packaging import load_requirements, pip_check, pip_ensure

    (tmp_path / "requirements.txt").write_text("# what we need\nmonai>=1.3\n-c x\nsafetensors>=0.4  # weights\n")
    requirements = load_requirements(tmp_path / "requirements.txt")
    assert [str(r) for r in requirements] == ["monai>=1.3", "safetensors>=0.4"]
    slicer.packaging.missing.add("monai")
    assert not pip_check(requirements) and pip_check("safetensors>=0.4")
    pip_ensure(requirements, requester="Test")
    assert slicer.packaging.calls == [("pip_ensure", ["monai>=1.3", "safetensors>=0.4"])]


def test_only_slicers_own_folder_is_the_package_slicer(slicer_app):
    import slicer

    assert not [path for path in slicer.__path__ if "Testing" in path]


def test_reset_forgets_everything(slicer_app):
    import slicer

    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "T")
    slicer_app.userSettings().setValue("x", 1)
    slicer_app.reset()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTextNode") == 0
    assert not slicer_app.userSettings().contains("x")


def test_slice_views_follow_the_volume(slicer_app):
    import numpy as np
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16))
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    red = slicer_app.layoutManager().sliceWidget("Red")
    assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    assert red.mrmlSliceNode().GetOrientation() == "Axial"


def test_screenshot(tiny, screenshot, tmp_path):
    import qt

    image = qt.QImage(str(screenshot(tiny.parent, tmp_path / "s.png", width=300, scale=2)))
    assert image.width() == 600
    colours = {image.pixel(x, y) for x in range(0, 600, 3) for y in range(0, image.height(), 3)}
    assert len(colours) > 5, "an empty picture"
