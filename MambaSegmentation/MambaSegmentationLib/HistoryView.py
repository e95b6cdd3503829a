"""The versions of a model: which one is in use, use another one, go back, delete."""

from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib import model_store
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError

from .TableView import fitHeight, stretchFirst, textItem


class HistoryView:
    """Args:
    onChanged: called when another version came into use, or one was deleted.
    """

    def __init__(self, ui, services, onChanged: Callable[[], None]):
        self._ui, self._services, self._onChanged = ui, services, onChanged
        self._root, self._versions = Path(), []
        stretchFirst(ui.historyTable)
        ui.historyTable.connect("itemSelectionChanged()", self.update)
        ui.useVersionButton.connect("clicked()", self._onUse)
        ui.rollbackButton.connect("clicked()", self._onRollback)
        ui.deleteVersionButton.connect("clicked()", self._onDelete)

    def show(self, bundle: ModelBundle | None, root: Path | None) -> None:
        """The history of this model's lineage in the folder of models `root`; None, None without a model."""
        ui = self._ui
        self._root, self._versions = root, []
        if bundle:
            try:
                lineage = bundle.data["provenance"].get("lineage") or bundle.id
                self._versions = list(reversed(model_store.history(lineage, root)))
            except UserError:  # a model in a folder of its own has no history
                self._versions = []
        ui.historySection.visible = bool(self._versions)
        ui.historyTable.setRowCount(len(self._versions))
        for row, version in enumerate(self._versions):
            self._setRow(row, version)
        fitHeight(ui.historyTable)
        self.update()

    def _setRow(self, row: int, version) -> None:
        name = _("{name} (in use)").format(name=version.id) if version.is_active else version.id
        judged = _("first model") if version.parent is None else _("passed")
        if not version.is_accepted:
            judged = _("not passed")
        why = " ".join((version.decision or {}).get("reasons", []))
        for column, text in enumerate((name, version.date[:10], judged)):
            item = textItem(text, why or name)
            font = item.font()
            font.setBold(version.is_active)
            item.setFont(font)
            self._ui.historyTable.setItem(row, column, item)

    def update(self) -> None:
        ui, chosen, isRunning = self._ui, self._chosen(), self._services.jobs.isRunning
        isOther = chosen is not None and not chosen.is_active and not isRunning
        ui.useVersionButton.enabled = isOther
        ui.deleteVersionButton.enabled = isOther and not chosen.is_shipped
        ui.rollbackButton.enabled = not isRunning and any(v.is_active and v.parent for v in self._versions)

    def _chosen(self):
        row = self._ui.historyTable.currentRow()
        return self._versions[row] if 0 <= row < len(self._versions) else None

    def _onUse(self) -> None:
        version = self._chosen()
        if not version.is_accepted:
            text = _("{name} did not pass the comparison. Use it all the same?").format(name=version.id)
            if not slicer.util.confirmYesNoDisplay(text, _("Use a model that did not pass")):
                return
        self._do(lambda: model_store.promote(version.id, self._root, despite_gate=True))

    def _onRollback(self) -> None:
        self._do(lambda: model_store.rollback(self._versions[0].lineage, self._root))

    def _onDelete(self) -> None:
        version = self._chosen()
        text = _("Delete {name}? This cannot be undone.").format(name=version.id)
        if slicer.util.confirmYesNoDisplay(text, _("Delete a version")):
            self._do(lambda: model_store.remove(version.id, self._root))

    def _do(self, action: Callable[[], object]) -> None:
        try:
            action()
        except UserError as error:
            self._services.view.message("error", error.message, error.hint)
        self._onChanged()
