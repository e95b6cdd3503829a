"""The worklist: which cases are shown, in which order, and how far one has come."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib import worklist
from MambaSegLib.review import Filter

from . import ReviewWords
from .ReviewLogic import Review

_MOST_ROWS = 8
_PAGE = 200  # rows in the table at a time: Qt is slow with thousands of them


class ReviewList:
    """Fills the filters and the table; a click on a row calls `onOpen(entry id)`, a filter `onFiltered()`.

    Of a long list the table holds the part with the open case; a search finds all others.
    """

    def __init__(self, ui, review: Review, onOpen: Callable[[str], None], onFiltered: Callable[[], None]):
        self._ui, self._review, self._onOpen, self._onFiltered = ui, review, onOpen, onFiltered
        self._isFilling = False
        self._rows: list[tuple] = []  # what stands in the table
        self._structures: list[str] | None = None  # what stands in their filter
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
            part = self._fillTable()
        finally:
            self._isFilling = False
        hasList = review.session is not None
        for widget in (ui.reviewStatusFilter, ui.reviewStructureFilter, ui.reviewSearch, ui.reviewTable):
            widget.visible = hasList
        ui.reviewCountsLabel.visible = hasList
        ui.reviewCountsLabel.text = self._counts() + part if hasList else ""

    def _fillStructures(self) -> None:
        box, structures = self._ui.reviewStructureFilter, self._review.structures()
        chosen = self._review.shown.structure
        if structures != self._structures:
            self._structures = structures
            box.clear()
            box.addItem(_("All structures"), "")
            for name in structures:
                box.addItem(name, name)
        box.setCurrentIndex(max(box.findData(chosen), 0))
        box.enabled = bool(structures)
        if chosen not in structures:
            self._review.shown = Filter(self._review.shown.statuses, "", text=self._review.shown.text)

    def _fillTable(self) -> str:
        """Returns which part of a long list is shown."""
        table, review = self._ui.reviewTable, self._review
        entries = review.entries()
        place = next((index for index, entry in enumerate(entries) if entry.id == review.here), None)
        first = (place or 0) // _PAGE * _PAGE
        rows = [self._texts(entry) for entry in entries[first : first + _PAGE]]
        ReviewWords.hold(table)  # else every new text measures all others
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            if row >= len(self._rows) or texts != self._rows[row]:
                self._setRow(row, *texts)
        self._rows = rows
        ReviewWords.stretch(table, 0)
        table.clearSelection()
        if place is not None:
            table.selectRow(place - first)
        ReviewWords.fitHeight(table, _MOST_ROWS)
        part = _(" {first} to {last} are in the table.").format(first=first + 1, last=first + len(rows))
        return part if len(entries) > _PAGE else ""

    def _texts(self, entry: worklist.Entry) -> tuple:
        tip = "\n".join([entry.title, *entry.images, entry.segmentation, *filter(None, [entry.comment])])
        score = ReviewWords.score(entry.score(self._review.shown.structure))
        return entry.id, entry.title, tip, score, ReviewWords.STATUS[entry.status], _statusTip(entry)

    def _setRow(self, row: int, entryId: str, title: str, tip: str, score: str, status: str, statusTip: str) -> None:
        table = self._ui.reviewTable
        table.setItem(row, 0, ReviewWords.cell(title, tip, entryId))
        table.setItem(row, 1, ReviewWords.number(score))
        table.setItem(row, 2, ReviewWords.cell(status, statusTip))

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
