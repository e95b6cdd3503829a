"""Cells and heights of the panel's tables."""

import qt

_MOST_ROWS = 12


def textItem(text: str, tip: str = ""):
    item = qt.QTableWidgetItem(text)
    item.setToolTip(tip or text)
    return item


def numberItem(text: str, tip: str = ""):
    item = qt.QTableWidgetItem(text)
    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    item.setToolTip(tip)
    return item


def stretchFirst(table) -> None:
    """The first column takes the room that the others leave."""
    header = table.horizontalHeader()
    header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
    for column in range(1, table.columnCount):
        header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)


def fitHeight(table) -> None:
    """As high as its rows, up to a dozen of them."""
    rows = min(table.rowCount, _MOST_ROWS)
    height = sum(table.rowHeight(row) for row in range(rows)) + table.horizontalHeader().height
    table.setFixedHeight(height + 2 * table.frameWidth + 2)
