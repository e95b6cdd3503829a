"""One selector per further input of a model with several (T1 and T2, for example)."""

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle

from . import Inputs
from .PanelState import PanelState


class MoreInputs:
    """Fills a QFormLayout with a row per input after the first."""

    def __init__(self, area, firstLabel, state: PanelState, onChanged: Callable[[], None]):
        self._area, self._firstLabel, self._state, self._onChanged = area, firstLabel, state, onChanged
        self._layout = area.layout()
        self._names: tuple[str, ...] = ()
        self._rows: list[tuple] = []
        self._isReading = False
        area.hide()

    @property
    def selectors(self) -> list:
        return [selector for _label, selector in self._rows]

    def setModel(self, bundle: ModelBundle | None) -> None:
        """Rows for its inputs."""
        wanted = Inputs.wanted(bundle) if bundle else [{"name": _("Volume")}]
        inputs = [item["name"] for item in wanted]
        isNamed = bundle is not None and (len(inputs) > 1 or bundle.is_for_pictures)
        self._firstLabel.text = f"{inputs[0]}:" if isNamed else _("&Volume:")
        if tuple(inputs[1:]) == self._names:
            return
        self._names = tuple(inputs[1:])
        self._build([item["description"] for item in wanted[1:]])
        self._state.moreInputs = [*self._state.moreInputs, *[None] * len(self._names)][: len(self._names)]
        self.bind()

    def bind(self) -> None:
        self._isReading = True
        for selector, node in zip(self.selectors, self._state.moreInputs, strict=False):
            selector.setCurrentNode(node)
        self._isReading = False

    def drop(self, node) -> None:
        """The node goes: its selector would silently take another one."""
        for selector in self.selectors:
            if selector.currentNode() is node:
                selector.setCurrentNode(None)

    def _build(self, descriptions: list[str]) -> None:
        for widget in (w for row in self._rows for w in row):
            widget.hide()
            self._layout.removeWidget(widget)
            widget.deleteLater()
        self._rows = [self._row(name, text) for name, text in zip(self._names, descriptions, strict=False)]
        self._area.visible = bool(self._rows)

    def _row(self, name: str, description: str) -> tuple:
        label, selector = qt.QLabel(f"{name}:"), slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.addEnabled = selector.removeEnabled = selector.renameEnabled = False
        selector.toolTip = description or _("The image for this input of the model, on the same grid as the first.")
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._write)
        self._layout.addRow(label, selector)
        return label, selector

    def _write(self) -> None:
        if not self._isReading:
            self._state.moreInputs = [selector.currentNode() for selector in self.selectors]
            self._onChanged()
