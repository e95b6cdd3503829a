"""pytest fixtures of the host; Testing/host/README.md says how to use them in a conftest.py."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path

import pytest

__all__ = [
    "click",
    "host_application",
    "no_swallowed_errors",
    "panel",
    "screenshot",
    "slicer_app",
    "wait_until",
    "worker_python",
]

ROOT = Path(__file__).resolve().parents[3]
MODULE = ROOT / "MambaSegmentation" / "MambaSegmentation.py"


@contextlib.contextmanager
def _without_our_own_slicer_folder():
    """slicer-core imports every module in folders called slicer on sys.path, and Testing/slicer is one."""
    before = sys.path[:]
    sys.path[:] = [
        p for p in before if not (Path(p) / "slicer").is_dir() or (Path(p) / "slicer" / "__init__.py").is_file()
    ]
    try:
        yield
    finally:
        sys.path[:] = before


def _require(name: str, hint: str) -> None:
    try:
        with _without_our_own_slicer_folder():
            importlib.import_module(name)
    except ImportError as error:  # not installed, or a system library such as libEGL is missing
        pytest.skip(f"the Slicer stand-in needs {hint}: {error}")


@pytest.fixture(scope="session")
def host_application():
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    _require("slicer.slicer_core", "slicer-core")
    _require("PySide6.QtWidgets", "PySide6-Essentials and libEGL, libGL, libxkbcommon")
    from slicerhost import application

    return application.start()


@pytest.fixture
def slicer_app(host_application):
    """The application (slicer.app) with an empty scene and empty settings; `host_application` is it as it stands."""
    host_application.reset()
    yield host_application
    host_application.reset()


@pytest.fixture(autouse=True)
def no_swallowed_errors(request):
    """Fail a test in which Slicer would only have printed: a slot's exception, a refused connect(), a VTK error, ..."""
    yield
    if "host_application" in request.fixturenames:
        from slicerhost.errors import problems

        problems.check()


@pytest.fixture
def panel(slicer_app):
    """The module's widget object, set up and entered, in an empty scene."""
    return slicer_app.load_module(MODULE)


@pytest.fixture
def worker_python(slicer_app):
    """A Python with torch for the worker: this one, or that of MAMBASEG_TEST_PYTHON through the panel's own setting."""
    python = os.environ.get("MAMBASEG_TEST_PYTHON")
    if python is None:
        if importlib.util.find_spec("torch") is None:
            pytest.skip("no torch in this Python; MAMBASEG_TEST_PYTHON may name one that has it")
        return sys.executable
    slicer_app.userSettings().setValue("MambaSegmentation/pythonExecutable", python)
    return python


@pytest.fixture
def wait_until(host_application):
    """wait_until(condition, timeout_s=30): run the event loop until condition() is true."""
    return host_application.wait_until


@pytest.fixture
def click(host_application):
    """click(widget): a real mouse click in its middle, after a check that a user could do it."""
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    def press(widget) -> None:
        assert widget.visible, f"{widget.objectName} is not visible"
        assert widget.enabled, f"{widget.objectName} is disabled"
        QTest.mouseClick(widget, QtCore.Qt.LeftButton)
        host_application.processEvents()

    return press


@pytest.fixture
def screenshot(host_application):
    """screenshot(widget, path, width=420, scale=1.0): PNG of a widget at that width (points) and pixel ratio."""
    from PySide6 import QtCore, QtGui

    def save(widget, path, width: int = 420, scale: float = 1.0) -> Path:
        widget.resize(width, max(widget.sizeHint().height(), 10))
        widget.show()
        host_application.processEvents()
        pixmap = QtGui.QPixmap(widget.size * scale)
        pixmap.setDevicePixelRatio(scale)
        pixmap.fill(widget.palette.window().color())
        widget.render(pixmap, QtCore.QPoint(0, 0))
        assert pixmap.save(str(path)), f"cannot write {path}"
        return Path(path)

    return save
