"""Findings in Python source that work in this host but not in the real PythonQt, where the host cannot tell them."""

from __future__ import annotations

import ast

_THREADS = {"threading", "concurrent", "multiprocessing", "_thread"}
_QT = {"qt", "ctk"}


def _qt_name(node) -> str:
    """'qt.QLabel' for that expression, else ''."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _QT:
        return f"{node.value.id}.{node.attr}"
    return ""


def _imported(node) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [(node.module or "").split(".")[0]]
    return []


def _finding(node) -> str:
    if _THREADS.intersection(_imported(node)):
        return "Python threads starve while Qt's loop idles in Slicer: use the worker process"
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Name) and node.func.id == "isinstance" and len(node.args) == 2:
        kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
        if any(_qt_name(kind) for kind in kinds):
            return "isinstance() knows only the exact class in PythonQt: use inherits('QWidget')"
    name = _qt_name(node.func)
    if name and name.split(".")[1][:1].isalpha() and node.keywords:
        return f"{name}() takes no keyword arguments in PythonQt"
    return ""


def check(source: str, path: str = "<source>") -> list[str]:
    """['path:line: what', ...], empty if there is nothing to say."""
    found = ((node.lineno, _finding(node)) for node in ast.walk(ast.parse(source)) if hasattr(node, "lineno"))
    return [f"{path}:{line}: {text}" for line, text in found if text]
