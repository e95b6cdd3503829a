"""Make PySide6 objects behave like PythonQt 4.1 (Slicer 5.12): properties are attributes, setters coerce, typos raise.

The patch is global and cannot be undone: one process is either a host or plain PySide6.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import inspect
import sys
import types

from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets
from PySide6.QtCore import QObject

from . import qt_connect

QT_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools, QtNetwork)

# Virtual methods that are properties too: C++ calls them on Python subclasses, so they must stay methods.
_STAY_METHODS = {"sizeHint", "minimumSizeHint", "parent", "metaObject"}
_STAY_SETTERS = {"setVisible", "setModel", "setSelectionModel", "setRootIndex"}


def qt_names():
    """(name, value) of everything public in the Qt modules; dir() because PySide6 fills its modules on demand."""
    for module in QT_MODULES:
        for name in dir(module):
            if not name.startswith("_"):
                yield name, getattr(module, name)


def qobject_classes() -> list[type]:
    """All wrapped QObject classes, bases before derived."""
    found = {c for _, c in qt_names() if isinstance(c, type) and issubclass(c, QObject)}
    return sorted((c for c in found if hasattr(c, "staticMetaObject")), key=lambda c: len(c.__mro__))


def coerce(kind: str, value):
    """What PythonQt hands to a property of C++ type `kind` when Python gives `value`."""
    if kind == "bool":
        return bool(value)
    if kind == "QString":
        return value if isinstance(value, str) else str(value)
    if kind in ("int", "uint", "double"):
        if isinstance(value, (str, type(None))):
            given = f"{type(value).__name__} ({value!r})"
            raise AttributeError(f"Property of type '{kind}' does not accept an object of type {given}")
        return float(value) if kind == "double" else int(value)
    return value


def _property(cls: type, name: str, kind: str) -> property:
    def get(self):
        value = QObject.property(self, name)
        if isinstance(value, enum.Enum):
            return int(value.value)
        return tuple(value) if isinstance(value, list) else value

    def set_(self, value):
        QObject.setProperty(self, name, coerce(kind, value))

    return property(get, set_, doc=f"{cls.__name__}.{name}: {kind}")


def _own_properties(cls: type):
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        yield meta.property(index).name(), meta.property(index).typeName()


def _install_properties(classes: list[type]) -> None:
    for cls in classes:
        for name, kind in _own_properties(cls):
            if name not in _STAY_METHODS:
                setattr(cls, name, _property(cls, name, kind))
    QObject.name = property(lambda self: self.objectName, lambda self, value: self.setObjectName(value))
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = QObject.deleteLater


def is_cpp(cls: type) -> bool:
    """True for wrapped C++ classes and for our doubles of such, False for Python subclasses in the code under test."""
    return cls.__module__.startswith("PySide6") or getattr(cls, "DOUBLE_OF_CPP", False)


_loading_ui = False


@contextlib.contextmanager
def loading_ui():
    """PySide6's QUiLoader sets each child as an attribute of the top widget; Slicer's does not: drop these."""
    global _loading_ui
    _loading_ui = True
    try:
        yield
    finally:
        _loading_ui = False


def _strict_setattr(self, name: str, value) -> None:
    cls = type(self)
    known = hasattr(cls, name) or name.encode() in QObject.dynamicPropertyNames(self)
    if _loading_ui and not known and not name.startswith("_") and isinstance(value, QObject):
        return
    private = name.startswith("__") or (name.startswith("_") and not cls.__module__.startswith("PySide6"))
    if is_cpp(cls) and not known and not private:
        raise AttributeError(
            f"'{name}' does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
        )
    descriptor = inspect.getattr_static(cls, name, None)
    if isinstance(descriptor, QtCore.Property):  # of a double; it has no __set__ of its own
        meta = self.metaObject()
        QObject.setProperty(self, name, coerce(meta.property(meta.indexOfProperty(name)).typeName(), value))
    elif hasattr(type(descriptor), "__set__"):
        descriptor.__set__(self, value)
    elif name.encode() in QObject.dynamicPropertyNames(self):
        QObject.setProperty(self, name, value)
    else:
        self.__dict__[name] = value


def _getattribute(plain):
    def get(self, name: str):
        # PySide6 resolves these two on the instance before it looks at the class: answer first.
        if name == "connect":
            return types.MethodType(qt_connect.connect, self)
        if name == "disconnect":
            return types.MethodType(qt_connect.disconnect, self)
        try:
            value = plain(self, name)
            if type(value) is list and isinstance(inspect.getattr_static(type(self), name, None), QtCore.Property):
                return tuple(value)
            return value
        except AttributeError:
            if not name.startswith("__") and name.encode() in QObject.dynamicPropertyNames(self):
                return QObject.property(self, name)
            raise

    return get


def _install_attribute_access(classes: list[type]) -> None:
    # Wrapper types that exist already do not inherit these two from QObject, and each has its own original.
    originals = [(cls, cls.__getattribute__) for cls in classes]
    for cls, plain in originals:
        cls.__setattr__ = _strict_setattr
        cls.__getattribute__ = _getattribute(plain)


def _coercing_setter(original, name: str, kind: str):
    if kind in ("bool", "int", "QString", "double"):

        def call(self, value, *more):
            return original(self, coerce(kind, value), *more)

    else:

        def call(self, value, *more):
            try:
                return original(self, value, *more)
            except TypeError:
                if not isinstance(value, int):
                    raise
                return QObject.setProperty(self, name, value)  # an enum given as int

    call.__name__ = original.__name__
    return call


def _own_setters(cls: type) -> list[str]:
    methods = [n for n, value in vars(cls).items() if isinstance(value, types.MethodDescriptorType)]  # not static ones
    return [n for n in methods if n.startswith("set") and n[3:4].isupper() and n not in _STAY_SETTERS]


def _install_setters(classes: list[type]) -> None:
    for cls in classes:
        for setter in _own_setters(cls):
            name = setter[3].lower() + setter[4:]
            index = cls.staticMetaObject.indexOfProperty(name)
            if index >= 0:
                kind = cls.staticMetaObject.property(index).typeName()
                setattr(cls, setter, _coercing_setter(getattr(cls, setter), name, kind))


def _install_int_enums() -> None:
    """Enums of PythonQt are ints: int(value), value == 2, value | 1 work."""

    def equal(self, other):
        return self.value == other if type(other) is int else self is other or enum.Enum.__eq__(self, other) is True

    holders = [value for _, value in qt_names() if isinstance(value, type)]
    enums = {c for h in holders for c in (h, *vars(h).values()) if isinstance(c, type) and issubclass(c, enum.Enum)}
    for cls in enums:
        if issubclass(cls, int):
            continue
        cls.__int__ = cls.__index__ = lambda self: int(self.value)
        if not issubclass(cls, enum.Flag):
            cls.__eq__, cls.__hash__ = equal, lambda self: hash(self.value)


def _find_child(plain):
    def find(self, kind, name=""):
        if not isinstance(kind, str):
            return plain(self, kind, name)
        matching = (o for o in self.findChildren(QObject) if o.inherits(kind) and name in ("", o.objectName))
        return next(matching, None)

    return find


def _keep_constants_alive() -> None:
    """PySide6 6.12 gives up a reference to None with each None it returns: before Python 3.12, where None became
    immortal, the process aborts when its last one is gone, at the latest at exit; True and False likewise."""
    if sys.version_info < (3, 12) and sys.implementation.name == "cpython":
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


_installed = False


def install() -> None:
    """Patch PySide6, once per process."""
    global _installed
    if _installed:
        return
    _keep_constants_alive()
    classes = qobject_classes()
    _install_properties(classes)
    _install_attribute_access(classes)
    _install_setters(classes)
    _install_int_enums()
    QObject.connect, QObject.disconnect = qt_connect.connect, qt_connect.disconnect
    QObject.findChild = _find_child(QObject.findChild)
    QtCore.QTimer.singleShot = staticmethod(qt_connect.single_shot)
    _installed = True
