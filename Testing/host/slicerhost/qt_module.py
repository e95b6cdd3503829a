"""The module `qt` that Slicer's Python code imports: one flat namespace over QtCore, QtGui, QtWidgets, QtNetwork."""

from __future__ import annotations

import sys
import types

from PySide6 import QtCore, QtGui, QtWidgets

from . import dialogs, qt_semantics
from .ui_loader import UiLoader

# Names of PySide6 that PythonQt does not have (before 4.0, so Slicer 5.10).
_NOT_IN_PYTHONQT = {"Signal", "Slot", "Property", "ClassInfo", "QEnum", "QFlag", "SignalInstance"}

opened_urls: list[str] = []


class Settings(QtCore.QSettings):
    """QSettings.value() gives tuples for lists, as PythonQt does."""

    def value(self, key, default=None):
        value = super().value(key, default)
        return tuple(value) if isinstance(value, list) else value


def _add_old_names() -> None:
    """What Qt 5 and PythonQt call differently from PySide6."""
    for cls in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QEventLoop, QtCore.QCoreApplication):
        cls.exec_ = cls.exec
    QtCore.QFile.ReadOnly = QtCore.QIODevice.ReadOnly
    plain_write = QtCore.QIODevice.write

    def write(self, data):
        return plain_write(self, data.encode() if isinstance(data, str) else data)

    QtCore.QIODevice.write = write
    QtGui.QDesktopServices.openUrl = staticmethod(lambda url: opened_urls.append(url.toString()) or True)


def build() -> types.ModuleType:
    """Patch PySide6, make `qt` and put it into sys.modules."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    qt_semantics.install()
    _add_old_names()
    dialogs.install()
    qt = types.ModuleType("qt", __doc__)
    for name, value in qt_semantics.qt_names():
        if name not in _NOT_IN_PYTHONQT:
            setattr(qt, name, value)
    qt.QUiLoader, qt.QSettings = UiLoader, Settings
    sys.modules["qt"] = qt
    return qt
