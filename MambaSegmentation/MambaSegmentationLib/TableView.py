"""Cells and heights of the panel's tables, and what is copied out of them."""

import csv
import io

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


def _plain(value) -> str:
    """A value for a spreadsheet: numbers with six digits, and no text that it would run as a formula."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def separated(rows: list[list], separator: str = "\t") -> str:
    """A line per row; by default with tabs, as spreadsheets take it from the clipboard."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows([_plain(v) for v in row] for row in rows)
    return text.getvalue()
