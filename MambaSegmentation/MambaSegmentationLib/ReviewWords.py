"""How the pages of the review call things, and table cells that look the same everywhere."""

import qt
from slicer.i18n import tr as _

from MambaSegLib import worklist

_SWATCH_PIXELS = 14
STATUS = {
    worklist.NOT_STARTED: _("new"),
    worklist.IN_PROGRESS: _("begun"),
    worklist.COMPLETED: _("accepted"),
    worklist.FLAGGED: _("flagged"),
}


def cell(text: str, toolTip: str = "", data=None):
    item = qt.QTableWidgetItem(text)
    item.setToolTip(toolTip or text)
    item.setData(qt.Qt.UserRole, data)
    return item


def number(text: str):
    item = cell(text)
    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    return item


def score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def swatch(color) -> object:
    """A cell with a patch of colour; `color` has red, green and blue from 0 to 1."""
    pixmap = qt.QPixmap(_SWATCH_PIXELS, _SWATCH_PIXELS)
    pixmap.fill(qt.QColor(*[round(255 * channel) for channel in color]))
    item = qt.QTableWidgetItem("")
    item.setIcon(qt.QIcon(pixmap))
    return item


def stretch(table, column: int) -> None:
    """This column takes the room that the others leave."""
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    for index in range(table.columnCount):
        header.setSectionResizeMode(
            index, qt.QHeaderView.Stretch if index == column else qt.QHeaderView.ResizeToContents
        )


def hold(table) -> None:
    """Keep all widths, until `stretch`."""
    header = table.horizontalHeader()
    for index in range(table.columnCount):
        header.setSectionResizeMode(index, qt.QHeaderView.Fixed)


def fitHeight(table, most: int) -> None:
    """As high as its rows, up to `most` of them."""
    rows = sum(table.rowHeight(row) for row in range(min(table.rowCount, most)))
    height = (rows or table.verticalHeader().defaultSectionSize) + table.horizontalHeader().height
    table.setFixedHeight(height + 2 * table.frameWidth + 2)
