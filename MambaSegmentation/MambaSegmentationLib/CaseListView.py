"""The list of collected cases with their thumbnails, and its buttons."""

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib import corrections
from MambaSegLib.corrections import HOLD_OUT, CorrectedCase
from MambaSegLib.errors import UserError
from MambaSegLib.wording import counted

from . import FineTuneLogic, Settings

_THUMBNAIL_PIXELS = 48


class CaseListView:
    """Args:
    onChanged: called when a case was deleted.
    """

    def __init__(self, ui, services, onChanged: Callable[[], None]):
        self._ui, self._services, self._onChanged = ui, services, onChanged
        self.cases: list[CorrectedCase] = []
        ui.caseList.setIconSize(qt.QSize(_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
        ui.caseList.connect("currentRowChanged(int)", lambda row: self.update())
        ui.deleteCaseButton.connect("clicked()", self._onDelete)
        ui.openCasesButton.connect("clicked()", self._onOpen)

    def show(self) -> None:
        """Read the folder anew."""
        ui = self._ui
        try:
            self.cases = list(reversed(FineTuneLogic.cases()))
            ui.casesLabel.text = FineTuneLogic.summary(self.cases)
        except UserError as error:
            self.cases = []
            ui.casesLabel.text = f"{error.message} {error.hint}"
        ui.caseList.clear()
        for case in self.cases:
            ui.caseList.addItem(self._item(case))
        ui.caseList.visible = bool(self.cases)
        self.update()

    def update(self) -> None:
        ui = self._ui
        ui.deleteCaseButton.enabled = ui.caseList.currentRow >= 0 and not self._services.jobs.isRunning
        ui.deleteCaseButton.visible = ui.openCasesButton.visible = bool(self.cases)

    def _item(self, case: CorrectedCase):
        part = _("hold-out") if case.part == HOLD_OUT else _("training")
        slices = case.annotated["slices"]
        seen = _("all slices") if slices is None else counted(len(slices["indices"]), _("slice"), _("slices"))
        done = ", ".join(case.annotated["structures"])
        first = f"{case.title}  ({part})"
        second = f"{case.annotator}, {case.data['date'][:10]}, {seen}"
        item = qt.QListWidgetItem(f"{first}\n{second}\n{done}")
        item.setToolTip(f"{first}\n{second}\n{done}\n{case.id}")
        pixmap = qt.QPixmap(str(case.thumbnail))
        if not pixmap.isNull():
            side = _THUMBNAIL_PIXELS
            item.setIcon(qt.QIcon(pixmap.scaled(side, side, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation)))
        return item

    def _onDelete(self) -> None:
        case = self.cases[self._ui.caseList.currentRow]
        text = _("Delete '{title}' of {annotator}, with all its earlier versions? This cannot be undone.")
        text = text.format(title=case.title, annotator=case.annotator)
        if not slicer.util.confirmYesNoDisplay(text, _("Delete a case")):
            return
        try:
            corrections.remove(Settings.correctionsFolder(), case.id)
        except UserError as error:
            self._services.view.message("error", error.message, error.hint)
        self._onChanged()

    def _onOpen(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(Settings.correctionsFolder()))
