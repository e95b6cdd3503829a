"""Doubles of the CTK widgets: same properties, signals and look in outline (CTK's own headers were the model)."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from .ui_loader import double


def stored(kind, name: str, default, signal: str = ""):
    """A Qt property kept in the object; on change it calls _<name>_changed(value), if there, and emits the signal."""

    def get(self):
        return self.__dict__.get("_" + name, default)

    def set_(self, value):
        if value == get(self):
            return
        self.__dict__["_" + name] = value
        react = getattr(self, f"_{name}_changed", None)
        if react is not None:
            react(value)
        if signal:
            getattr(self, signal).emit(value)

    return Property(kind, get, set_)


def setter_slots(*names: str):
    """Class decorator: these properties have a setter that is a slot, readOnly -> setReadOnly(value).

    PythonQt shows of a class of CTK and Slicer only properties, slots, signals and Q_INVOKABLE methods: setters that
    are none of these cannot be called.
    """

    def add(cls: type) -> type:
        for name in names:
            setter = "set" + name[0].upper() + name[1:]
            setattr(cls, setter, lambda self, value, name=name: setattr(self, name, value))
        return cls

    return add


class _Collapsing:
    """Shows or hides the direct children, and remembers which of them were hidden on their own account."""

    def _collapsed_changed(self, collapsed: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and not child.isWindow():
                if collapsed:
                    child.setProperty("visibilityToParent", not child.isHidden())
                    child.hide()
                elif child.property("visibilityToParent") in (None, True):
                    child.show()
        self.updateGeometry()


@double
class ctkCollapsibleButton(_Collapsing, QtWidgets.QAbstractButton):
    contentsCollapsed = Signal(bool)
    CPP_SIGNALS = {"contentsCollapsed(bool)": "contentsCollapsed"}  # noqa: RUF012
    collapsed = stored(bool, "collapsed", False, "contentsCollapsed")
    flat = stored(bool, "flat", False)
    collapsedHeight = stored(int, "collapsedHeight", 14)
    contentsFrameShape = stored(int, "contentsFrameShape", 0)
    contentsLineWidth = stored(int, "contentsLineWidth", 1)

    def __init__(self, *arguments):
        text = next((a for a in arguments if isinstance(a, str)), "")
        super().__init__(next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None))
        self.text, self.checkable, self.checked = text, True, True
        self.setContentsMargins(0, self._header(), 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(lambda shown: setattr(self, "collapsed", not shown))

    def _collapsed_changed(self, collapsed: bool) -> None:
        self.checked = not collapsed
        self.setMaximumHeight(self._header() if collapsed else 16777215)
        super()._collapsed_changed(collapsed)

    def _header(self) -> int:
        return QtGui.QFontMetrics(self.font).height() + 9

    def hitButton(self, position) -> bool:
        return position.y() < self._header()

    def sizeHint(self) -> QtCore.QSize:
        width = QtGui.QFontMetrics(self.font).horizontalAdvance(self.text) + 40
        layout = None if self.collapsed else self.layout()
        return layout.sizeHint() if layout else QtCore.QSize(width, self._header())

    def paintEvent(self, event) -> None:
        painter, option = QtGui.QPainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._header())
        self.style().drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option, painter, self)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, (self._header() - 12) // 2, 12, 12)
        style = QtWidgets.QStyle
        kind = style.PE_IndicatorArrowRight if self.collapsed else style.PE_IndicatorArrowDown
        self.style().drawPrimitive(kind, arrow, painter, self)
        area = QtCore.QRect(24, 0, self.width - 24, self._header())
        painter.drawText(area, int(QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft), self.text)
        painter.end()


@double
class ctkCollapsibleGroupBox(_Collapsing, QtWidgets.QGroupBox):
    collapsed = stored(bool, "collapsed", False)
    collapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.checkable, self.checked = True, True
        self.toggled.connect(lambda shown: setattr(self, "collapsed", not shown))

    def _collapsed_changed(self, collapsed: bool) -> None:
        self.checked = not collapsed
        super()._collapsed_changed(collapsed)


@double
@setter_slots("currentUserDataAsString")
class ctkComboBox(QtWidgets.QComboBox):
    defaultText = stored(str, "defaultText", "")
    forceDefault = stored(bool, "forceDefault", False)
    currentUserDataAsString = Property(
        str,
        lambda self: str(self.currentData or ""),
        lambda self, data: self.setCurrentIndex(self.findData(data)),
    )

    def _defaultText_changed(self, text: str) -> None:
        self.setPlaceholderText(text)


@double
@setter_slots("value", "decimals", "spinBoxVisible")
class ctkSliderWidget(QtWidgets.QWidget):
    """Slider and spin box. A minimum above the value moves the value, which is announced."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    CPP_SIGNALS = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}  # noqa: RUF012

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._box_moved)
        self._slider.valueChanged.connect(self._slider_moved)
        self._update_slider()

    def _steps(self) -> int:
        return 10**self._box.decimals

    def _update_slider(self) -> None:
        self._slider.blockSignals(True)
        self._slider.setRange(round(self._box.minimum * self._steps()), round(self._box.maximum * self._steps()))
        self._slider.setValue(round(self._box.value * self._steps()))
        self._slider.blockSignals(False)

    def _box_moved(self, value: float) -> None:
        self._update_slider()
        self.valueChanged.emit(value)

    def _slider_moved(self, position: int) -> None:
        self._box.setValue(position / self._steps())

    def _box_property(kind, name: str):
        def set_(self, value):
            setattr(self._box, name, value)
            self._update_slider()

        return Property(kind, lambda self: getattr(self._box, name), set_)

    value = _box_property(float, "value")
    minimum = _box_property(float, "minimum")
    maximum = _box_property(float, "maximum")
    singleStep = _box_property(float, "singleStep")
    decimals = _box_property(int, "decimals")
    prefix = _box_property(str, "prefix")
    suffix = _box_property(str, "suffix")
    pageStep = stored(float, "pageStep", 10.0)
    tickInterval = stored(float, "tickInterval", 0.0)
    tracking = stored(bool, "tracking", True)
    spinBoxVisible = stored(bool, "spinBoxVisible", True)

    def _spinBoxVisible_changed(self, visible: bool) -> None:
        self._box.setVisible(visible)


@double
@setter_slots("currentPath")
class ctkPathLineEdit(QtWidgets.QWidget):
    """A path in a line edit. An empty text is not valid, and not announced.

    filters are bits (1 Dirs, 2 Files, ...); PythonQt 4.1 passes over flags, so they have no names there.
    """

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    CPP_SIGNALS = {"currentPathChanged(QString)": "currentPathChanged", "validInputChanged(bool)": "validInputChanged"}  # noqa: RUF012

    def __init__(self, parent=None):
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit(self)
        self._browse = QtWidgets.QToolButton(self)
        self._browse.text = "..."
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(self._browse)
        self._is_valid = False
        self._edit.textChanged.connect(self._text_changed)

    def _text_changed(self, text: str) -> None:
        was_valid, self._is_valid = self._is_valid, bool(text)
        if text:
            self.currentPathChanged.emit(text)
        if self._is_valid != was_valid:
            self.validInputChanged.emit(self._is_valid)

    currentPath = Property(str, lambda self: self._edit.text, lambda self, path: self._edit.setText(path))
    label = stored(str, "label", "")
    settingKey = stored(str, "settingKey", "")
    filters = stored(int, "filters", 0x6057)
    options = stored(int, "options", 0)
    nameFilters = stored("QStringList", "nameFilters", [])
    showBrowseButton = stored(bool, "showBrowseButton", True)
    showHistoryButton = stored(bool, "showHistoryButton", True)
    sizeAdjustPolicy = stored(int, "sizeAdjustPolicy", 2)
    minimumContentsLength = stored(int, "minimumContentsLength", 0)

    def addCurrentPathToHistory(self) -> None:
        key = f"ctkPathLineEdit/{self.settingKey}"
        if self.settingKey:
            QtCore.QSettings().setValue(key, self.currentPath)


@double
class ctkSearchBox(QtWidgets.QLineEdit):
    showSearchIcon = stored(bool, "showSearchIcon", False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self.placeholderText = "Search..."
        self.clearButtonEnabled = True


@double
@setter_slots("dontShowAgain")
class ctkMessageBox(QtWidgets.QMessageBox):
    dontShowAgain = stored(bool, "dontShowAgain", False)
    dontShowAgainVisible = stored(bool, "dontShowAgainVisible", False)
    dontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")
