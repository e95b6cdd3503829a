"""The slices that the user calls done: which view's slice is meant, Slice is done, Clear."""

import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import DoneSlices, SegmentVoxels


class DoneView:
    """Fills doneLabel and doneViewSelector; marks are of `state.resultSegmentation`."""

    def __init__(self, ui, state, services):
        self._ui, self._state, self._services = ui, state, services
        ui.doneSliceButton.connect("clicked()", self._onDone)
        ui.clearDoneButton.connect("clicked()", self._onClear)

    def enter(self) -> None:
        """The views may be others than before."""
        manager = slicer.app.layoutManager()  # None in a Slicer without a main window
        names = list(manager.sliceViewNames()) if manager else []
        box = self._ui.doneViewSelector
        if [box.itemText(row) for row in range(box.count)] != names:
            box.clear()
            for name in names:
                box.addItem(name)

    def update(self, isUsable: bool) -> None:
        segmentation = self._state.resultSegmentation
        done = DoneSlices.describe(segmentation, SegmentVoxels.volumeOf(segmentation)) if isUsable else ""
        self._ui.doneLabel.text = _("Done slices: {slices}").format(slices=done or _("none yet"))
        self._ui.clearDoneButton.enabled = bool(done)

    def _onDone(self) -> None:
        segmentation = self._state.resultSegmentation
        try:
            shown = DoneSlices.sliceShown(self._ui.doneViewSelector.currentText, SegmentVoxels.volumeOf(segmentation))
        except UserError as error:
            self._services.view.message("error", error.message, error.hint)
            return
        DoneSlices.mark(segmentation, shown[0], [shown[1]])
        self._services.refresh()

    def _onClear(self) -> None:
        DoneSlices.clear(self._state.resultSegmentation)
        self._services.refresh()
