"""connect() and disconnect() of PythonQt: by C++ signature, False instead of an exception, arguments trimmed."""

from __future__ import annotations

import inspect

from PySide6 import QtCore
from PySide6.QtCore import QMetaObject

from .errors import problems

_connections: dict[tuple, list] = {}


def normalized(signature: str) -> str:
    """'finished( int, QProcess::ExitStatus )' -> 'finished(int,QProcess::ExitStatus)'."""
    text = QMetaObject.normalizedSignature(signature)
    return text if isinstance(text, str) else bytes(text).decode()


def accepted_arguments(function) -> int | None:
    """How many positional arguments a callable takes; None: any number, or not known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def slot(function, argument_count: int):
    """A function of exactly that many arguments, by which PySide6 picks the overload; errors are kept, not raised."""
    accepted = accepted_arguments(function)

    def call(*arguments):
        try:
            function(*(arguments if accepted is None else arguments[:accepted]))
        except Exception as error:
            problems.add_exception("slot", error)

    exact = (
        lambda: call(),
        lambda a: call(a),
        lambda a, b: call(a, b),
        lambda a, b, c: call(a, b, c),
    )
    return exact[argument_count]


def _signal(sender, signature: str):
    """(signal object, number of arguments), or None if the sender has no such signal.

    Doubles of widgets with signals of VTK types list them in a class attribute CPP_SIGNALS {C++ signature: attribute}.
    """
    declared = getattr(type(sender), "CPP_SIGNALS", {})
    if signature in declared:
        name = declared[signature]
    elif sender.metaObject().indexOfSignal(signature) >= 0:
        name = signature.split("(")[0]
    else:
        return None
    arguments = signature.split("(", 1)[1].rstrip(")")
    count = len(arguments.split(",")) if arguments else 0
    return overload(getattr(sender, name), arguments), count


def overload(signal, arguments: str):
    """The overload of a PySide6 signal with these C++ argument types, or the signal as it is."""
    try:
        return signal[arguments] if arguments else signal
    except (KeyError, IndexError, TypeError):
        return signal


def _key(sender, signature: str, function) -> tuple:
    return id(sender), signature, getattr(function, "__func__", function), id(getattr(function, "__self__", None))


def _callable(receiver, member: str | None):
    return receiver if member is None else getattr(receiver, member.lstrip("12").split("(")[0])


def connect(self, signature: str, receiver, member: str | None = None) -> bool:
    """sender.connect("clicked(bool)", callable) or sender.connect("clicked()", object, "close()"); False if refused."""
    function, name = _callable(receiver, member), normalized(signature)
    found = _signal(self, name) if "(" in name else None
    if found is None:
        class_name = self.metaObject().className()
        problems.add("connect", f"QObject::connect() signal '{signature}' does not exist on {class_name}")
        return False
    signal, count = found
    adapter = slot(function, count)
    signal.connect(adapter)
    _connections.setdefault(_key(self, name, function), []).append((signal, adapter))
    return True


def disconnect(self, signature: str, receiver=None, member: str | None = None) -> bool:
    """Undo connect(); without a receiver, all Python connections of that signal. True if there was one."""
    name = normalized(signature)
    if receiver is None:
        keys = [key for key in _connections if key[:2] == (id(self), name)]
    else:
        keys = [_key(self, name, _callable(receiver, member))]
    found = [pair for key in keys for pair in _connections.pop(key, [])]
    for signal, adapter in found:
        signal.disconnect(adapter)
    return bool(found)


def single_shot(milliseconds, receiver, member: str | None = None) -> None:
    """QTimer.singleShot(ms, callable)."""
    timer = QtCore.QTimer(QtCore.QCoreApplication.instance())
    QtCore.QTimer.setSingleShot(timer, True)
    timer.timeout.connect(slot(_callable(receiver, member), 0))
    timer.timeout.connect(timer.deleteLater)
    timer.start(int(milliseconds))
