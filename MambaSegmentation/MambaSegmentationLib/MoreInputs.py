"""One selector per further input of a model with several (T1 and T2, for example)."""

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle

from . import Inputs, SceneFacts, SceneIO
from .InputSuggestion import Candidate, suggested
from .PanelState import PanelState


class MoreInputs:
    """Fills a QFormLayout with a row per input after the first."""

    def __init__(self, area, firstLabel, state: PanelState, isClosing: Callable[[], bool], onChanged: Callable):
        self._area, self._firstLabel, self._state, self._onChanged = area, firstLabel, state, onChanged
        self._isClosing = isClosing
        self._layout = area.layout()
        self._wanted: list[dict] = []  # all inputs, the first one included
        self._rows: list[tuple] = []
        self._proposedLabel = qt.QLabel(_("Proposed by name: please check."))
        self._layout.addRow("", self._proposedLabel)
        self._proposedLabel.hide()
        self._first = None  # the volume that the places were filled for
        self._isReading = False
        area.hide()

    @property
    def selectors(self) -> list:
        return [selector for _label, selector in self._rows]

    def setModel(self, bundle: ModelBundle | None) -> None:
        """Rows for the images that it wants beside the first one."""
        wanted = Inputs.wanted(bundle) if bundle else [{"name": _("Volume")}]
        inputs = [item["name"] for item in wanted]
        isNamed = bundle is not None and (len(inputs) > 1 or bundle.is_for_pictures)
        self._firstLabel.text = f"{inputs[0]}:" if isNamed else _("&Volume:")
        # Another scene has another state, although the model is the same.
        self._state.moreInputs = [*self._state.moreInputs, *[None] * len(inputs)][: len(inputs) - 1]
        if wanted != self._wanted:
            self._wanted = wanted
            self._build()
            self._show()

    def propose(self, first) -> None:
        """Choose for every free place the volume whose name tells that it belongs to `first`.

        With another first volume all places are free: it may be another patient's.
        """
        if self._first is not None and first is not self._first:
            self._state.moreInputs = [None] * len(self._rows)
        self._first = first
        chosen = self._state.moreInputs
        if first is None or None not in chosen:
            return
        nodes = [n for n in SceneIO.volumes() if n is not first and n not in chosen and Inputs.isOnGrid(n, first)]
        indices = suggested(self._wanted, _candidate(first), [_candidate(node) for node in nodes])
        found = [None if index is None else nodes[index] for index in indices]
        self._state.moreInputs = [node or other for node, other in zip(chosen, found, strict=True)]
        if self._state.moreInputs != chosen:
            self._proposedLabel.show()
        self._show()

    def bind(self) -> None:
        """Another scene, or the same with other choices."""
        self._first = None
        self._show()

    def _show(self) -> None:
        self._isReading = True
        for selector, node in zip(self.selectors, self._state.moreInputs, strict=False):
            selector.setCurrentNode(node)
        self._isReading = False

    def drop(self, node) -> None:
        """The node goes: its selector would silently take another one."""
        for selector in self.selectors:
            if selector.currentNode() is node:
                selector.setCurrentNode(None)

    def _build(self) -> None:
        for widget in (w for row in self._rows for w in row):
            widget.hide()
            self._layout.removeWidget(widget)
            widget.deleteLater()
        self._rows = [self._row(index, item) for index, item in enumerate(self._wanted[1:])]
        self._proposedLabel.hide()
        self._area.visible = bool(self._rows)

    def _row(self, index: int, wanted: dict) -> tuple:
        label, selector = qt.QLabel(f"{wanted['name']}:"), slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)  # however long the names are
        selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.addEnabled = selector.removeEnabled = selector.renameEnabled = False
        selector.toolTip = wanted["description"] or _(
            "The image for this input of the model, on the same grid as the first."
        )
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._write)
        self._layout.insertRow(index, label, selector)
        return label, selector

    def _write(self) -> None:
        if not self._isReading and not self._isClosing():
            self._proposedLabel.hide()
            self._state.moreInputs = [selector.currentNode() for selector in self.selectors]
            self._onChanged()


def _candidate(node) -> Candidate:
    return Candidate(node.GetName(), SceneFacts.dicomModality(node), SceneFacts.dicomPatient(node))
