"""The application object `slicer.app` and all that hangs on it, for one process: `start()` makes it once."""

from __future__ import annotations

import importlib.util
import sys
import time
import types
from pathlib import Path

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from . import dialogs, errors, qt_module, sample_data, scripted_module, subject_hierarchy
from .home import make_home
from .io_manager import IOManager
from .layout import LayoutManager
from .ui_loader import DOUBLES

qt = qt_module.build()

# slicer.modules.<name>.logic(); all of them real.
LOGICS = {
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "models": "vtkSlicerModelsLogic",
    "cropvolume": "vtkSlicerCropVolumeLogic",
    "transforms": "vtkSlicerTransformLogic",
    "tables": "vtkSlicerTablesLogic",
    "texts": "vtkSlicerTextsLogic",
    "volumerendering": "vtkSlicerVolumeRenderingLogic",
    "plots": "vtkSlicerPlotsLogic",
    "cameras": "vtkSlicerCamerasModuleLogic",
    "sequences": "vtkSlicerSequencesLogic",
}


class ModuleManager(QtCore.QObject):
    """slicer.app.moduleManager()."""

    moduleAboutToBeUnloaded = Signal(str)
    CPP_SIGNALS = {"moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded"}  # noqa: RUF012

    def factoryManager(self):
        return self

    def loadedModuleNames(self) -> tuple[str, ...]:
        return tuple(m.name for m in vars(slicer.modules).values() if hasattr(m, "path"))

    def module(self, name: str):
        return getattr(slicer.modules, name.lower(), None)


class MainWindow(QtWidgets.QMainWindow):
    """Never shown; it has a status bar and remembers which module was selected."""

    def __init__(self):
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self.selectedModule = ""

    def moduleSelector(self):
        return self

    def selectModule(self, name: str) -> None:
        self.selectedModule = name


class CppModule:
    """slicer.modules.<name> of a module in C++."""

    def __init__(self, name: str, logic):
        self.name, self.path, self._logic = name, "", logic

    def logic(self):
        return self._logic


class Application(QtWidgets.QApplication):
    """slicer.app. `dialogs`, `problems` and `opened_urls` are for the tests."""

    DOUBLE_OF_CPP = False  # tests may hang things on it
    startupCompleted = Signal()

    def __init__(self, home: Path):
        super().__init__(["Slicer"])
        self.setStyle("Fusion")
        self.slicerHome, self.temporaryPath = str(home), str(home / "temp")
        self.majorVersion, self.minorVersion = 5, 12
        self.testing = False
        self.dialogs, self.problems, self.opened_urls = dialogs.dialogs, errors.problems, qt_module.opened_urls
        self._scene, self._logic = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
        self._manager, self._window = ModuleManager(), MainWindow()
        self._layout = self._io = None
        self._loaded: list[str] = []

    def start_managers(self) -> None:
        """Needs the module logics."""
        self._layout = LayoutManager(self._scene, self._logic)
        self._io = IOManager(self._scene, self._logic)

    def mrmlScene(self):
        return self._scene

    def applicationLogic(self):
        return self._logic

    def moduleLogic(self, name: str):
        return getattr(slicer.modules, name.lower()).logic()

    def layoutManager(self):
        return self._layout

    def coreIOManager(self):
        return self._io

    ioManager = coreIOManager

    def moduleManager(self):
        return self._manager

    def testingEnabled(self) -> bool:
        """False, so that dialogs come as for a user; `slicer.app.testing = True` gives Slicer's testing mode."""
        return self.testing

    def userSettings(self):
        return qt.QSettings()

    settings = revisionUserSettings = userSettings

    def startupEnvironment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    environment = startupEnvironment

    def pauseRender(self) -> None:
        """Nothing renders on its own here."""

    resumeRender = pauseRender

    def wait_until(self, condition, timeout_s: float = 30.0) -> None:
        """Run the event loop until condition() is true; AssertionError after timeout_s."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"still not true after {timeout_s} s: {condition}"
            self.processEvents(QtCore.QEventLoop.AllEvents, 50)
            time.sleep(0.002)

    def wait(self, seconds: float) -> None:
        """Run the event loop for that long."""
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() > end, seconds + 5)

    def load_module(self, path, enter: bool = True):
        """Load a scripted module as Slicer does: import, fill in slicer.modules, setup(); returns its widget object."""
        path = Path(path)
        name = path.stem
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        parent = scripted_module.qSlicerScriptedLoadableModule(name, path)
        setattr(slicer.modules, name.lower(), parent)
        setattr(slicer.modules, name + "Instance", getattr(module, name)(parent))
        frame = slicer.qMRMLWidget()
        frame.setLayout(QtWidgets.QVBoxLayout())
        frame.setMRMLScene(self._scene)
        widget = parent.widget = getattr(module, name + "Widget")(frame)
        setattr(slicer.modules, name + "Widget", widget)
        self._loaded.append(name)
        widget.setup()
        frame.show()
        if enter and hasattr(widget, "enter"):
            widget.enter()
        return widget

    def unload_modules(self) -> None:
        """Leave and clean up every scripted module that was loaded."""
        while self._loaded:
            name = self._loaded.pop()
            widget = getattr(slicer.modules, name + "Widget")
            if hasattr(widget, "exit"):
                widget.exit()
            self._manager.moduleAboutToBeUnloaded.emit(name)
            widget.parent.hide()
            widget.parent.deleteLater()
            for attribute in (name.lower(), name + "Instance", name + "Widget"):
                delattr(slicer.modules, attribute)
            del sys.modules[name]
        self.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)
        self.processEvents()

    def reset(self) -> None:
        """Empty scene and settings, no modules, nothing recorded; only `problems` stays: what went wrong on the way."""
        self.unload_modules()
        self._scene.Clear(0)
        self._scene.SetURL("")
        self.processEvents()
        QtCore.QSettings().clear()
        self.dialogs.forget()
        self.opened_urls.clear()
        slicer.packaging.calls.clear()
        slicer.packaging.missing.clear()
        sample_data.forget()
        self.testing = False


def _start_logics(app: Application, home: Path) -> None:
    scene, logic = app.mrmlScene(), app.applicationLogic()
    logic.SetMRMLScene(scene)
    logic.SetTemporaryPath(app.temporaryPath)
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    colors = logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    logic.SetModuleLogic("Colors", colors)
    slicer.modules = types.SimpleNamespace(colors=CppModule("colors", colors), sampleDataSources={})
    for name, class_name in LOGICS.items():
        module_logic = getattr(slicer, class_name)()
        # Before the scene: the terminology logic reads its files when it gets one.
        if hasattr(module_logic, "SetModuleShareDirectory"):
            module_logic.SetModuleShareDirectory((home / "share").as_posix())
        module_logic.SetMRMLApplicationLogic(logic)
        module_logic.SetMRMLScene(scene)
        logic.SetModuleLogic(name.capitalize(), module_logic)
        setattr(slicer.modules, name, CppModule(name, module_logic))
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    subject_hierarchy.observe(scene)


def _start_settings(home: Path) -> None:
    QtCore.QCoreApplication.setOrganizationName("NA-MIC")
    QtCore.QCoreApplication.setApplicationName("Slicer")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(home))


def _install_widgets() -> None:
    """Put the doubles into `ctk` and `slicer`; importing their modules registers them."""
    for name in ("widgets_ctk", "widgets_mrml", "widgets_segments", "widgets_editor", "widgets_tables"):
        importlib.import_module(f"slicerhost.{name}")
    ctk = sys.modules["ctk"] = types.ModuleType("ctk")
    for name, cls in DOUBLES.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, cls)


def start() -> Application:
    """The application of this process; the first call makes it."""
    existing = QtWidgets.QApplication.instance()
    if isinstance(existing, Application):
        return existing
    errors.catch_vtk_errors()
    errors.catch_qt_warnings()
    errors.catch_python_errors()
    home = make_home()
    _start_settings(home)
    app = slicer.app = Application(home)
    slicer.mrmlScene = app.mrmlScene()
    _install_widgets()
    scripted_module.install()
    sample_data.install()
    _start_logics(app, home)
    app.start_managers()
    return app
