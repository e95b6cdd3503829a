"""`qt` behaves as PythonQt 4.1 in Slicer 5.12 was seen to behave: each row is one observation of the real one."""

import numpy as np
import pytest


@pytest.fixture
def qt(slicer_app):
    import qt

    return qt


def assigned(widget, name, value):
    setattr(widget, name, value)
    return getattr(widget, name)


# (class, property, value given, value read back)
ASSIGNMENTS = [
    ("QPushButton", "text", "x", "x"),
    ("QPushButton", "enabled", False, False),
    ("QPushButton", "enabled", 1, True),
    ("QPushButton", "enabled", None, False),
    ("QPushButton", "enabled", "no", True),
    ("QPushButton", "enabled", [], False),
    ("QPushButton", "enabled", np.bool_(False), False),
    ("QPushButton", "toolTip", "t", "t"),
    ("QPushButton", "styleSheet", "color:red", "color:red"),
    ("QPushButton", "checkable", 1, True),
    ("QSpinBox", "value", 7.9, 7),
    ("QSpinBox", "value", np.int64(9), 9),
    ("QDoubleSpinBox", "value", np.float32(1.5), 1.5),
    ("QLabel", "text", 5, "5"),
    ("QLabel", "text", None, "None"),
    ("QLabel", "alignment", 2, 2),
    ("QLineEdit", "text", "abc", "abc"),
    ("QProgressBar", "value", 33.3, 33),
    ("QPlainTextEdit", "plainText", "x\ny", "x\ny"),
]


@pytest.mark.parametrize(("class_name", "name", "given", "read"), ASSIGNMENTS)
def test_properties_are_attributes_and_coerce(qt, class_name, name, given, read):
    found = assigned(getattr(qt, class_name)(), name, given)
    assert (type(found), found) == (type(read), read)


def test_setters_coerce_too(qt):
    spin, label, button = qt.QSpinBox(), qt.QLabel(), qt.QPushButton()
    spin.setValue(3.5)
    label.setText(5)
    button.setEnabled(None)
    label.setAlignment(1)
    assert (spin.value, label.text, button.enabled, label.alignment) == (3, "5", False, 1)
    spin.setValue(np.int64(4))
    spin.setRange(0, 100)
    assert (spin.value, spin.maximum) == (4, 100)


def test_what_python_code_gets_wrong_raises(qt):
    button, spin = qt.QPushButton("hi"), qt.QSpinBox()
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    with pytest.raises(AttributeError, match="'enable' does not exist on QPushButton"):
        button.enable = False
    with pytest.raises(AttributeError, match="does not accept an object of type str"):
        spin.value = "8"
    for missing in ("Signal", "Slot", "Property"):
        assert not hasattr(qt, missing)


def test_typos_raise_on_doubles_too(qt):
    import ctk
    import slicer

    for widget in (slicer.qMRMLNodeComboBox(), ctk.ctkSliderWidget(), ctk.ctkCollapsibleButton()):
        with pytest.raises(AttributeError, match="creating new attributes"):
            widget.noneEnable = True


def test_python_subclasses_are_free_and_override_virtuals(qt, slicer_app):
    events = []

    class Widget(qt.QWidget):
        def __init__(self, parent=None):
            qt.QWidget.__init__(self, parent)
            self.foo = 3

        def sizeHint(self):
            return qt.QSize(77, 66)

        def resizeEvent(self, event):
            events.append("resized")

    widget = Widget()
    widget.resize(50, 50)
    widget.show()
    slicer_app.processEvents()
    assert (widget.foo, widget.sizeHint().width(), events[:1]) == (3, 77, ["resized"])


def test_combo_box(qt):
    combo = qt.QComboBox()
    combo.addItem("a", {"k": 1})
    combo.addItem("b", 5)
    combo.addItems(["c", "d"])
    assert (combo.currentIndex, combo.count, combo.itemData(0), combo.findText("b")) == (0, 4, {"k": 1}, 1)
    combo.currentIndex = 1
    assert (combo.currentText, combo.currentData) == ("b", 5)
    with pytest.raises(TypeError, match="not callable"):
        combo.count()
    seen = []
    assert combo.connect("currentIndexChanged(int)", seen.append)
    assert combo.connect("currentTextChanged(QString)", seen.append)
    combo.currentIndex = 2
    assert sorted(map(str, seen)) == ["2", "c"]


def test_names_and_children(qt):
    parent, button = qt.QWidget(), qt.QPushButton("x")
    layout = qt.QVBoxLayout(parent)
    layout.addWidget(button)
    button.objectName = "bn"
    assert (button.name, button.className(), button.parent()) == ("bn", "QPushButton", parent)
    assert parent.findChild("QPushButton", "bn") is parent.findChild(qt.QPushButton, "bn") is button
    assert parent.children()[1] is button and parent.layout() is layout
    assert parent.findChild("QComboBox", "bn") is None
    assert button.inherits("QAbstractButton") and isinstance(button, qt.QPushButton)


def test_dynamic_properties(qt):
    button = qt.QPushButton()
    assert button.setProperty("SlicerParameterName", "abc") is False
    assert (button.property("SlicerParameterName"), button.SlicerParameterName) == ("abc", "abc")
    assert button.property("nope") is None


def test_enums_are_ints(qt):
    assert int(qt.Qt.AlignLeft | qt.Qt.AlignTop) == 33
    assert (int(qt.QMessageBox.Ok), int(qt.Qt.WaitCursor)) == (1024, 3)
    assert qt.QProcess.NormalExit == 0 and qt.QProcess.CrashExit == 1
    assert qt.QProcess.CrashExit != qt.QProcess.NormalExit
    assert {qt.QProcess.CrashExit: "x"}[qt.QProcess.CrashExit] == "x"


def test_settings(qt):
    settings = qt.QSettings()
    settings.setValue("b", True)
    settings.setValue("l", ["a", "b"])
    assert (settings.value("b"), settings.value("l"), settings.value("none")) == (True, ("a", "b"), None)
    assert (settings.value("none", "d"), settings.contains("b")) == ("d", True)


def test_items_and_sizes_have_methods(qt):
    table, listing = qt.QTableWidget(2, 2), qt.QListWidget()
    table.setItem(0, 0, qt.QTableWidgetItem("q"))
    listing.addItem("a")
    assert (table.item(0, 0).text(), table.rowCount) == ("q", 2)
    assert (listing.count, listing.currentRow, listing.item(0).text()) == (1, -1, "a")
    assert (qt.QSize(3, 4).width(), qt.QColor("red").name()) == (3, "#ff0000")
    assert qt.QPixmap("/nonexistent").isNull() and qt.QIcon().isNull()
