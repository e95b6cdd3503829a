"""The section Options of the page Segment: device, structures, smoothing, largest part, further volumes."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle

from .DeviceChoice import DeviceChoice
from .PanelState import PanelState
from .SegmentLogic import Options
from .WorkerClient import WorkerClient


class SegmentOptions:
    """Widgets <-> state. `onChanged` is called after the user changed something."""

    def __init__(self, ui, state: PanelState, worker: WorkerClient, onChanged: Callable[[], None]):
        self._ui, self._state, self._onChanged = ui, state, onChanged
        self._isReading = False
        self._structures: tuple[str, ...] = ()
        self.devices = DeviceChoice(ui.deviceSelector, ui.deviceHintLabel, worker, self._onDevices)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._write)
        ui.structureList.connect("itemChanged(QListWidgetItem*)", self._write)
        ui.allStructuresButton.connect("clicked()", self._onAll)
        ui.noStructuresButton.connect("clicked()", self._onNone)
        ui.smoothingSpinBox.connect("valueChanged(double)", self._write)
        ui.largestComponentCheckBox.connect("toggled(bool)", self._write)
        ui.doubtMapCheckBox.connect("toggled(bool)", self._write)

    def bind(self) -> None:
        """Show what the state says."""
        self._isReading = True
        self.devices.choose(self._state.device)
        self._ui.smoothingSpinBox.value = self._state.smoothingMm
        self._ui.largestComponentCheckBox.checked = self._state.largestComponent
        self._ui.doubtMapCheckBox.checked = self._state.doubtMap
        self._isReading = False
        self._fillStructures()

    def setModel(self, bundle: ModelBundle | None) -> None:
        """Offer its structures; those left out stay left out as long as the model has them."""
        names = tuple(label.name for label in bundle.labels) if bundle else ()
        if names == self._structures:
            return
        self._structures = names
        self._state.leftOut = [name for name in self._state.leftOut if name in names]
        self._fillStructures()

    @property
    def chosen(self) -> tuple[str, ...]:
        """The structures to look for; () for all of them."""
        leftOut = self._state.leftOut
        return tuple(name for name in self._structures if name not in leftOut) if leftOut else ()

    @property
    def missing(self) -> str:
        """What the user still has to choose here; "" if nothing."""
        isNothing = bool(self._structures) and not self.chosen and bool(self._state.leftOut)
        return _("Tick at least one structure in the options.") if isNothing else ""

    def request(self) -> Options:
        """All choices of the page but image and model, as they are now."""
        state = self._state
        return Options(
            roiNode=state.roi,
            device=state.device,
            moreInputs=tuple(state.moreInputs),
            structures=self.chosen,
            smoothingMm=state.smoothingMm,
            largestComponent=state.largestComponent,
            doubtMap=state.doubtMap,
        )

    def setEnabled(self, isEnabled: bool) -> None:
        for widget in (
            *(self._ui.deviceSelector, self._ui.structureList, self._ui.smoothingSpinBox),
            *(self._ui.allStructuresButton, self._ui.noStructuresButton, self._ui.largestComponentCheckBox),
            self._ui.doubtMapCheckBox,
        ):
            widget.enabled = isEnabled

    def _fillStructures(self) -> None:
        box, leftOut = self._ui.structureList, self._state.leftOut
        box.blockSignals(True)
        box.clear()
        for name in self._structures:
            item = qt.QListWidgetItem(name)
            item.setToolTip(name)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsSelectable)
            item.setCheckState(qt.Qt.Unchecked if name in leftOut else qt.Qt.Checked)
            box.addItem(item)
        box.blockSignals(False)
        rows = min(max(len(self._structures), 1), 6)
        box.setFixedHeight(rows * max(box.sizeHintForRow(0), 14) + 2 * box.frameWidth + 2)
        self._showCount()

    def _showCount(self) -> None:
        n, left = len(self._structures), len(self._state.leftOut)
        text = _("S&tructures:") if not left else _("S&tructures ({n} of {all}):").format(n=n - left, all=n)
        self._ui.structuresLabel.text = text

    def _onAll(self) -> None:
        self._check(qt.Qt.Checked)

    def _onNone(self) -> None:
        self._check(qt.Qt.Unchecked)

    def _check(self, checkState) -> None:
        box = self._ui.structureList
        box.blockSignals(True)
        for row in range(box.count):
            box.item(row).setCheckState(checkState)
        box.blockSignals(False)
        self._write()

    def _onDevices(self) -> None:
        """They are listed anew: what was chosen stays chosen if it is there, or it becomes Automatic."""
        self._isReading = True
        self.devices.choose(self._state.device)
        self._isReading = False
        self._write()

    def _write(self) -> None:
        if self._isReading:
            return
        ui, state = self._ui, self._state
        items = [ui.structureList.item(row) for row in range(ui.structureList.count)]
        state.device = self.devices.device
        state.leftOut = [item.text() for item in items if int(item.checkState()) == int(qt.Qt.Unchecked)]
        state.smoothingMm = ui.smoothingSpinBox.value
        state.largestComponent = ui.largestComponentCheckBox.checked
        state.doubtMap = ui.doubtMapCheckBox.checked
        self._showCount()
        self._onChanged()
