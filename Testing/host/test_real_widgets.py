"""The doubles against a record of the real widgets, made in PythonQt with CTK and the qMRML widgets of Slicer 5.12.

`real_widgets.json` holds per class, up to its first base of Qt: properties {name: [C++ type, default]}, the signatures
of its signals, public slots and Q_INVOKABLE methods, and those of its enumerators that PythonQt knows. Nothing else of
a class can be reached from Python.
"""

import inspect
import json
from pathlib import Path

import pytest

RECORD = json.loads((Path(__file__).parent / "real_widgets.json").read_text(encoding="utf-8"))
_KINDS = {"bool": (bool,), "int": (int,), "double": (int, float), "QString": (str,), "QStringList": (list, tuple)}


def own_classes(cls: type) -> list[type]:
    """The double and those of its bases that are doubles, too: what they define stands for the C++ class."""
    return [base for base in cls.__mro__ if base.__module__.startswith("slicerhost.")]


def double(name: str) -> type:
    from slicerhost.ui_loader import DOUBLES

    return DOUBLES[name]


def names_of(signatures: list[str]) -> set[str]:
    return {signature.split("(")[0] for signature in signatures}


def test_every_double_is_recorded(slicer_app):
    from slicerhost.ui_loader import DOUBLES

    assert set(DOUBLES) == set(RECORD)


@pytest.mark.parametrize("name", sorted(RECORD))
def test_a_double_offers_nothing_that_the_real_one_lacks(slicer_app, name):
    real, cls = RECORD[name], double(name)
    signals = [signature for base in own_classes(cls) for signature in vars(base).get("CPP_SIGNALS", {})]
    assert set(signals) <= set(real["signals"])
    qt_base = next(base for base in cls.__mro__ if base.__module__.startswith("PySide6"))
    known = set(real["properties"]) | set(real["enums"])
    for kind in ("signals", "slots", "invokables"):
        known |= names_of(real[kind])
    aliases = {alias for base in own_classes(cls) for alias in vars(base).get("CPP_SIGNALS", {}).values()}
    offered = {attribute for base in own_classes(cls) for attribute in vars(base) if not attribute.startswith("_")}
    offered -= aliases | {"CPP_SIGNALS", "DOUBLE_OF_CPP", "staticMetaObject"}
    assert not {attribute for attribute in offered - known if not hasattr(qt_base, attribute)}


@pytest.mark.parametrize("name", sorted(RECORD))
def test_properties_have_the_type_and_the_default_of_the_real_one(slicer_app, name):
    from PySide6 import QtCore

    cls, real = double(name), RECORD[name]["properties"]
    widget, different = cls(), {}
    for base in own_classes(cls):
        for attribute, value in vars(base).items():
            # "...Visible" and undoEnabled tell whether a part is on the screen just now: false before it is shown.
            if isinstance(value, QtCore.Property) and not attribute.endswith("Visible") and attribute != "undoEnabled":
                kind, default = real[attribute]
                is_value = getattr(widget, attribute)
                is_value = list(is_value) if isinstance(is_value, tuple) else is_value
                if not isinstance(is_value, _KINDS.get(kind, (int,))) or is_value != default:
                    different[attribute] = (is_value, default)
    assert not different, "double, real"


def test_methods_of_doubles_take_the_arguments_of_the_real_ones(slicer_app):
    wrong = []
    for name, real in RECORD.items():
        for base in own_classes(double(name)):
            for attribute, value in vars(base).items():
                signatures = [s for k in ("slots", "invokables") for s in real[k] if s.startswith(attribute + "(")]
                if not signatures or not inspect.isfunction(value) or value.__name__ == "<lambda>":
                    continue
                counts = [len([a for a in s.split("(", 1)[1][:-1].split(",") if a]) for s in signatures]
                parameters = list(inspect.signature(value).parameters.values())[1:]
                if any(p.kind is p.VAR_POSITIONAL for p in parameters):
                    continue
                needed = sum(p.default is p.empty for p in parameters)
                if len(parameters) > max(counts) or needed < min(counts):
                    wrong.append((name, attribute, signatures, [str(p) for p in parameters]))
    assert not wrong
