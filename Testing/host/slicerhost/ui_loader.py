"""QUiLoader for Slicer's .ui files: knows the doubles, makes connections of VTK types, refuses unknown names."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from .errors import problems
from .qt_connect import normalized
from .qt_semantics import loading_ui

# Real class name -> double. Filled by the widget modules through @double.
DOUBLES: dict[str, type] = {}


def double(cls: type) -> type:
    """Class decorator: this class stands for the C++ class of the same name."""
    cls.DOUBLE_OF_CPP = True
    DOUBLES[cls.__name__] = cls
    return cls


class UiLoader(QtUiTools.QUiLoader):
    """Like Slicer's qt.QUiLoader(): load(QFile) -> widget."""

    def __init__(self, parent=None):
        super().__init__()
        for cls in DOUBLES.values():
            self.registerCustomWidget(cls)

    def load(self, qfile, parent=None):
        path = qfile.fileName()
        root = ElementTree.parse(path).getroot()
        for class_name in {w.get("class") for w in root.iter("widget")}:
            if class_name not in DOUBLES and not hasattr(QtWidgets, class_name):
                problems.add("ui", f"{path}: unknown widget class {class_name}")
        connections = root.find("connections")
        vtk_free = _without_connections(root)
        with loading_ui():
            widget = super().load(vtk_free, parent)
        if widget is None:
            problems.add("ui", f"{path}: {self.errorString()}")
            return None
        objects = {o.objectName: o for o in [widget, *widget.findChildren(QtCore.QObject)]}
        _check_properties(path, root, objects)
        for connection in connections if connections is not None else ():
            _connect(path, connection, objects)
        return widget


def _without_connections(root) -> QtCore.QBuffer:
    """The file as a buffer, but its connections, which PySide6 cannot make when they carry VTK types."""
    for found in root.findall("connections"):
        root.remove(found)
    buffer = QtCore.QBuffer()
    buffer.setData(ElementTree.tostring(root))
    buffer.open(QtCore.QIODevice.ReadOnly)
    return buffer


def _check_properties(path: str, root, objects: dict) -> None:
    for element in root.iter("widget"):
        widget = objects.get(element.get("name"))
        if widget is None:
            continue
        for item in element.findall("property"):
            name = item.get("name")
            if name == "buddy":  # set by the loader after all widgets are there; no property of Qt
                continue
            if item.get("stdset") != "0" and widget.metaObject().indexOfProperty(name) < 0:
                problems.add("ui", f"{path}: {element.get('class')} has no property {name}")


def _connect(path: str, connection, objects: dict) -> None:
    sender, signal, receiver, slot = (connection.findtext(k) for k in ("sender", "signal", "receiver", "slot"))
    if sender not in objects or receiver not in objects:
        problems.add("ui", f"{path}: connection between unknown widgets {sender} and {receiver}")
        return
    target = getattr(objects[receiver], normalized(slot).split("(")[0], None)
    if not callable(target):
        problems.add("ui", f"{path}: {receiver} has no slot {slot}")
        return
    objects[sender].connect(signal, target)
