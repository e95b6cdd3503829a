"""What runs in a stand-in for Slicer but fails in the real one (PythonQt), or must not be in its process at all."""

import ast
from pathlib import Path

import pytest
from test_imports import TORCH_FREE

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "MambaSegmentation").rglob("*.py"), *(ROOT / "Testing" / "slicer").rglob("*.py")])
HEAVY = {"torch", "monai", "MambaSegTraining"}


def _dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _imported(tree: ast.AST):
    """(line, dotted name) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _is_qt_class(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 2 and parts[0] in ("qt", "ctk") and parts[1][:1] in "Qc" and parts[1] not in ("QSettings",)


def problems_of(source: str) -> list[str]:
    """One sentence per problem, with its line."""
    tree, found = ast.parse(source), []
    for line, name in _imported(tree):
        package = name.split(".")[0]
        if package in ("threading", "multiprocessing", "concurrent", "asyncio"):
            found.append(
                f"{line}: {package}: threads starve while Slicer's event loop idles; use the worker or a QTimer"
            )
        if package in HEAVY:
            found.append(f"{line}: {package} must not be imported into Slicer's process")
        if package == "MambaSegLib" and name.split(".")[1] not in TORCH_FREE:
            found.append(f"{line}: {name} is not one of the torch-free modules")
    for node in ast.walk(tree):
        name = _dotted(node)
        if name in ("qt.Signal", "qt.Slot", "qt.Property"):
            found.append(f"{node.lineno}: {name}: use a plain callable")
        if not isinstance(node, ast.Call):
            continue
        function = _dotted(node.func)
        if function == "isinstance" and any(_dotted(n).startswith(("qt.", "ctk.")) for n in ast.walk(node.args[1])):
            found.append(f"{node.lineno}: isinstance with a Qt base class is False in PythonQt; use inherits()")
        if _is_qt_class(function) and node.keywords:
            found.append(f"{node.lineno}: {function} takes no keyword arguments in PythonQt")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_no_construct_that_fails_in_slicer(path):
    assert problems_of(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import threading",
        "from concurrent.futures import ThreadPoolExecutor",
        "import torch",
        "def f():\n    import torch.nn",
        "from MambaSegLib.inference import predict",
        "from MambaSegLib import segment",
        "done = qt.Signal()",
        "isinstance(b, qt.QWidget)",
        "isinstance(b, (str, ctk.ctkComboBox))",
        "qt.QLabel(text='x')",
    ],
)
def test_the_lint_finds(source):
    assert len(problems_of(source)) == 1


def test_connections_are_written_with_signatures():
    """connect('clicked', f) returns False in PythonQt and says so only on stderr."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
                signature = node.args[0]
                if isinstance(signature, ast.Constant):
                    assert signature.value.endswith(")"), f"{path.name}:{node.lineno}"
