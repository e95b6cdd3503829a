"""The worklist: which cases are shown, in which order, and how far one has come."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib import worklist
from MambaSegLib.review import Filter

from . import ReviewWords
from .ReviewLogic import Review

_MOST_ROWS = 8


class ReviewList:
    """Fills the filters and the table; a click on a row calls `onOpen(entry id)`, a filter `onFiltered()`."""

    def __init__(self, ui, review: Review, onOpen: Callable[[str], None], onFiltered: Callable[[], None]):
        self._ui, self._review, self._onOpen, self._onFiltered = ui, review, onOpen, onFiltered
        self._isFilling = False
        ReviewWords.stretch(ui.reviewTable, 0)
        ui.reviewStatusFilter.addItem(_("All cases"), "")
        for status, word in ReviewWords.STATUS.items():
            ui.reviewStatusFilter.addItem(_("Only {status}").format(status=word), status)
        ui.reviewStatusFilter.connect("currentIndexChanged(int)", self._onFilter)
        ui.reviewStructureFilter.connect("currentIndexChanged(int)", self._onFilter)
        ui.reviewSearch.connect("textChanged(QString)", self._onFilter)
        ui.reviewTable.connect("cellClicked(int,int)", self._onRow)
        ui.reviewTable.connect("cellActivated(int,int)", self._onRow)

    def show(self) -> None:
        """The session as it is now."""
        ui, review = self._ui, self._review
        self._isFilling = True
        try:
            self._fillStructures()
            self._fillTable()
        finally:
            self._isFilling = False
        hasList = review.session is not None
        for widget in (ui.reviewStatusFilter, ui.reviewStructureFilter, ui.reviewSearch, ui.reviewTable):
            widget.visible = hasList
        ui.reviewCountsLabel.visible = hasList
        ui.reviewCountsLabel.text = self._counts() if hasList else ""

    def _fillStructures(self) -> None:
        box, structures = self._ui.reviewStructureFilter, self._review.structures()
        chosen = self._review.shown.structure
        box.clear()
        box.addItem(_("All structures"), "")
        for name in structures:
            box.addItem(name, name)
        box.setCurrentIndex(max(box.findData(chosen), 0))
        box.enabled = bool(structures)
        if chosen not in structures:
            self._review.shown = Filter(self._review.shown.statuses, "", text=self._review.shown.text)

    def _fillTable(self) -> None:
        table, review = self._ui.reviewTable, self._review
        entries = review.entries()
        table.setRowCount(len(entries))
        current = review.case.entry.id if review.case else review.session and review.session.current
        table.clearSelection()
        for row, entry in enumerate(entries):
            tip = "\n".join([entry.title, *entry.images, entry.segmentation, *filter(None, [entry.comment])])
            table.setItem(row, 0, ReviewWords.cell(entry.title, tip, entry.id))
            table.setItem(row, 1, ReviewWords.number(ReviewWords.score(entry.score(review.shown.structure))))
            table.setItem(row, 2, ReviewWords.cell(ReviewWords.STATUS[entry.status], _statusTip(entry)))
            if entry.id == current:
                table.selectRow(row)
        ReviewWords.fitHeight(table, _MOST_ROWS)

    def _counts(self) -> str:
        counts = self._review.session.counts()
        shown, every = len(self._review.entries()), sum(counts.values())
        text = _("{done} of {every} reviewed").format(
            done=counts[worklist.COMPLETED] + counts[worklist.FLAGGED], every=every
        )
        if counts[worklist.FLAGGED]:
            text += _(", {n} of them flagged").format(n=counts[worklist.FLAGGED])
        return text + (_(". {n} shown.").format(n=shown) if shown < every else ".")

    def _onFilter(self) -> None:
        if self._isFilling:
            return
        ui = self._ui
        status = ui.reviewStatusFilter.itemData(ui.reviewStatusFilter.currentIndex)
        structure = ui.reviewStructureFilter.itemData(ui.reviewStructureFilter.currentIndex) or ""
        self._review.shown = Filter((status,) if status else (), structure, text=ui.reviewSearch.text)
        self.show()
        self._onFiltered()

    def _onRow(self, row: int) -> None:
        item = self._ui.reviewTable.item(row, 0)
        if item:
            self._onOpen(item.data(qt.Qt.UserRole))


def _statusTip(entry: worklist.Entry) -> str:
    return ", ".join(filter(None, [ReviewWords.STATUS[entry.status], entry.reviewer, entry.comment]))
