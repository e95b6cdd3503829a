"""The rules that the host cannot check by running, and that the module keeps them."""

from pathlib import Path

import pytest

from slicerhost import lint

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "MambaSegmentation"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import threading", "threads"),
        ("from concurrent.futures import ThreadPoolExecutor", "threads"),
        ("def f(w):\n    return isinstance(w, qt.QWidget)", "inherits"),
        ("isinstance(w, (int, ctk.ctkSliderWidget))", "inherits"),
        ("label = qt.QLabel(text='x')", "keyword"),
    ],
)
def test_findings(source, word):
    assert [word in finding for finding in lint.check(source)] == [True]


def test_nothing_to_say():
    assert not lint.check("import json\nlabel = qt.QLabel('x')\nisinstance(w, int)\ndict(a=1)\nfrom . import threading")


def test_the_module_keeps_the_rules():
    sources = sorted(MODULE_FOLDER.rglob("*.py"))
    assert sources, f"no Python files in {MODULE_FOLDER}"
    assert not [finding for path in sources for finding in lint.check(path.read_text(encoding="utf-8"), path.name)]
