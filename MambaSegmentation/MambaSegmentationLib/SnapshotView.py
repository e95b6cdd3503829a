"""The list of a segmentation's snapshots, Restore and Keep."""

from collections.abc import Callable

from slicer.i18n import tr as _

from . import Snapshots


class SnapshotView:
    """Args:
    saveForUndo: the Segment Editor's saveStateForUndo.
    onRestore: called before a snapshot is restored.
    """

    def __init__(self, ui, state, services, saveForUndo: Callable[[], None], onRestore: Callable[[], None]):
        self._ui, self._state, self._services = ui, state, services
        self._saveForUndo, self._onBeforeRestore = saveForUndo, onRestore
        ui.snapshotList.connect("currentRowChanged(int)", lambda row: self.update())
        ui.restoreSnapshotButton.connect("clicked()", self._onRestore)
        ui.takeSnapshotButton.connect("clicked()", self._onTake)

    def show(self) -> None:
        box, titles = self._ui.snapshotList, [Snapshots.title(node) for node in self._nodes()]
        if [box.item(row).text() for row in range(box.count)] != titles:
            box.clear()
            for title in titles:
                box.addItem(title)
        self.update()

    def update(self) -> None:
        ui = self._ui
        ui.restoreSnapshotButton.enabled = ui.snapshotList.currentRow >= 0 and not self._services.jobs.isRunning

    def _nodes(self) -> list:
        """Newest first; the first one of all is the last."""
        segmentation = self._state.resultSegmentation
        if segmentation is None:
            return []
        return [*Snapshots.later(segmentation), *filter(None, [Snapshots.first(segmentation)])]

    def _onRestore(self) -> None:
        chosen, segmentation = self._nodes()[self._ui.snapshotList.currentRow], self._state.resultSegmentation
        self._onBeforeRestore()
        Snapshots.take(segmentation, _("before going back"), keep=chosen)
        self._saveForUndo()
        Snapshots.restore(segmentation, chosen)
        self._services.refresh()

    def _onTake(self) -> None:
        Snapshots.take(self._state.resultSegmentation, _("kept by you"))
        self.show()
