"""The table in which the user chooses the keys of the pages Review and Correct."""

import qt
from slicer.i18n import tr as _

from . import Settings
from .ReviewKeys import DEFAULTS, SETTING, keyOf

_TITLES = {
    "next": _("Review: next case"),
    "previous": _("Review: previous case"),
    "accept": _("Review: accept"),
    "flag": _("Review: flag"),
    "correct": _("Review: correct"),
    "compare": _("Review: compare"),
    "belongs": _("Correct: click where it belongs"),
    "belongsNot": _("Correct: click where it does not"),
}


class KeySettings:
    """Args:
    table: two columns: what, key; the key is typed as text, such as N or Ctrl+Right.
    onRefused: called with the reason when a key cannot be taken.
    """

    def __init__(self, table, resetButton, onRefused):
        self._table, self._onRefused = table, onRefused
        self._isShowing = False
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.connect("cellChanged(int,int)", self._onCellChanged)
        resetButton.connect("clicked()", self._onReset)

    def show(self) -> None:
        self._isShowing = True
        self._table.setRowCount(len(DEFAULTS))
        for row, action in enumerate(DEFAULTS):
            title = qt.QTableWidgetItem(_TITLES.get(action, action))
            title.setFlags(qt.Qt.ItemIsEnabled)
            self._table.setItem(row, 0, title)
            self._table.setItem(row, 1, qt.QTableWidgetItem(keyOf(action)))
        rows = sum(self._table.rowHeight(row) for row in range(self._table.rowCount))
        self._table.setFixedHeight(rows + self._table.horizontalHeader().height + 2 * self._table.frameWidth + 2)
        self._isShowing = False

    def _onCellChanged(self, row: int, column: int) -> None:
        if self._isShowing or column != 1:
            return
        action, typed = list(DEFAULTS)[row], self._table.item(row, 1).text().strip()
        key = qt.QKeySequence(typed).toString()
        taken = next((other for other in DEFAULTS if other != action and keyOf(other) == key), "")
        if not key:
            self._onRefused(_("'{typed}' is no key. Examples: N, F5, Ctrl+Right.").format(typed=typed))
        elif taken:
            self._onRefused(_("The key {key} is taken by '{other}'.").format(key=key, other=_TITLES.get(taken, taken)))
        else:
            Settings.store(f"{SETTING}/{action}", key)
        self.show()

    def _onReset(self) -> None:
        for action in DEFAULTS:
            Settings.store(f"{SETTING}/{action}", "")
        self.show()
