"""Doubles of Slicer's Python layer: slicer.ScriptedLoadableModule, slicer.i18n, slicer.packaging, the module object."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
import unittest
from pathlib import Path

import slicer

from .qt_module import build

qt = build()


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        for extension in (".svg", ".png"):
            icon = self.resourcePath(f"Icons/{self.moduleName}{extension}")
            if os.path.isfile(icon):
                parent.icon = qt.QIcon(icon)
                break

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def getDefaultModuleDocumentationLink(self, page=None) -> str:
        return f'<a href="https://slicer.readthedocs.io/{page or self.moduleName}">online documentation</a>'


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self) -> None:
        """The real one adds the developer section here."""

    def onReload(self) -> None:
        """Only the first step of the real one: the module's file is loaded again."""
        spec = importlib.util.spec_from_file_location(self.moduleName, slicer.util.modulePath(self.moduleName))
        sys.modules[self.moduleName] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[self.moduleName])

    def cleanup(self) -> None:
        """For overriding: the module goes away."""

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.AddNode(self.createParameterNode())
        node.SetAttribute("ModuleName", self.moduleName)
        return node

    def createParameterNode(self):
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message, requestedDelay=None, msec=None) -> None:
        slicer.app.processEvents()


class qSlicerScriptedLoadableModuleWidget:
    """What slicer.modules.<name>.widgetRepresentation() returns."""

    def __init__(self, widget):
        self._widget = widget

    def self(self):
        return self._widget


class qSlicerScriptedLoadableModule:
    """The `parent` that a scripted module fills in, later slicer.modules.<name>."""

    def __init__(self, name: str, path: Path):
        self.name, self.path = name, str(path)
        self.title = self.helpText = self.acknowledgementText = ""
        self.categories, self.dependencies, self.contributors = [], [], []
        self.icon, self.hidden, self.widget = qt.QIcon(), False, None

    def widgetRepresentation(self):
        return qSlicerScriptedLoadableModuleWidget(self.widget)


class Packaging(types.ModuleType):
    """slicer.packaging that installs nothing: `calls` lists what was asked for, `missing` what pip_check denies.

    Without blocking, pip_install tells the lines of `log` and then `returnCode`, later, from the event loop; with it,
    another returnCode than 0 is a CalledProcessError.
    """

    def __init__(self):
        super().__init__("slicer.packaging")
        self.calls: list[tuple[str, list[str]]] = []
        self.missing: set[str] = set()
        self.log: list[str] = []
        self.returnCode = 0

    @staticmethod
    def _names(requirements) -> list[str]:
        return [requirements] if isinstance(requirements, str) else [str(r) for r in requirements]

    def load_requirements(self, path) -> list[str]:
        lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line and not line.startswith("-")]

    def pip_check(self, requirements) -> bool:
        return not any(r.startswith(tuple(self.missing)) for r in self._names(requirements) if self.missing)

    def pip_ensure(self, requirements, **options) -> list[str]:
        self.calls.append(("pip_ensure", self._names(requirements)))
        return []

    def pip_install(
        self,
        requirements,
        constraints=None,
        no_deps_requirements=None,
        skip_packages=None,
        blocking=True,
        show_progress=True,
        requester=None,
        parent=None,
        logCallback=None,
        completedCallback=None,
    ) -> None:
        if not isinstance(requirements, (str, list)):
            raise ValueError("pip_install requirement input must be string or list")
        self.calls.append(("pip_install", self._names(requirements)))
        if slicer.app.testingEnabled() or blocking:  # in testing mode it always waits, and calls nobody
            if self.returnCode:
                raise subprocess.CalledProcessError(self.returnCode, "pip")
            return

        def end() -> None:
            for line in self.log:
                logCallback(line)
            completedCallback(self.returnCode)

        qt.QTimer.singleShot(20, end)

    def pip_uninstall(self, requirements, **options) -> None:
        self.calls.append(("pip_uninstall", self._names(requirements)))

    def isPipInstallInProgress(self) -> bool:
        return False


def install() -> None:
    """Put the doubles where `import slicer...` finds them."""
    layer = types.ModuleType("slicer.ScriptedLoadableModule")
    layer.__all__ = [f"ScriptedLoadableModule{suffix}" for suffix in ("", "Widget", "Logic", "Test")]
    for name in layer.__all__:
        setattr(layer, name, globals()[name])
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    for module in (layer, i18n, Packaging()):
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.split(".")[1], module)
    for cls in (qSlicerScriptedLoadableModule, qSlicerScriptedLoadableModuleWidget):
        setattr(slicer, cls.__name__, cls)
