"""The table of structures with their volumes, as they are now, and the switch for their surfaces."""

import qt
from slicer.i18n import tr as _

from MambaSegLib.wording import counted

from . import SceneIO, SegmentNumbers, SegmentVoxels, TableView

_SWATCH_PIXELS = 14
_AMOUNT, _MEAN = 2, 3  # columns


class ResultView:
    """Shows the result that a segmentation node carries; hidden for any other node."""

    def __init__(self, section, label, table, copyButton):
        self._section, self._label, self._table, self._copyButton = section, label, table, copyButton
        self._node = self._result = None
        self._rows: list[dict] = []
        self._numbers = SegmentNumbers.SegmentNumbers()
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(_AMOUNT, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(_MEAN, qt.QHeaderView.ResizeToContents)
        copyButton.connect("clicked()", self._onCopy)
        self.show(None)

    def show(self, segmentationNode, isNew: bool = False) -> None:
        """isNew: just made by the model, so that its numbers hold."""
        self.stop()
        self._node, self._result = segmentationNode, SceneIO.resultOf(segmentationNode)
        self._section.visible = self._result is not None
        if self._result is None:
            return
        self._numbers.state = SegmentNumbers.stateOf(segmentationNode) if isNew else ()
        self._fill(self._result["segments"])
        self.follow()

    def follow(self) -> None:
        """Count anew what was edited since; the table changes a moment later."""
        if self._result is not None and SegmentNumbers.stateOf(self._node) != self._numbers.state:
            self._numbers.count(self._node, self._fill)

    def stop(self) -> None:
        self._numbers.stop()

    @property
    def _isFlat(self) -> bool:
        """Whether it is of a picture, whose pixels have no size in mm."""
        return self._result["size"][2] == 1

    def _fill(self, rows: list[dict]) -> None:
        self._rows, volume = rows, SegmentVoxels.volumeOf(self._node)
        isEdited = _sizes(rows) != _sizes(self._result["segments"])
        name = self._node.GetName()
        self._label.text = self._label.toolTip = _("{name}, as edited").format(name=name) if isEdited else name
        self._table.horizontalHeaderItem(_AMOUNT).setText(_("Area (pixels)") if self._isFlat else _("Volume (mL)"))
        # The mean of one colour says nothing.
        self._table.setColumnHidden(_MEAN, volume is not None and SceneIO.isPicture(volume))
        self._table.setRowCount(len(rows))
        for row, segment in enumerate(rows):
            self._setRow(row, segment, str(segment["voxels"]) if self._isFlat else f"{segment['volume_ml']:.2f}")
        TableView.fitHeight(self._table)

    def _setRow(self, row: int, segment: dict, amount: str) -> None:
        pixmap = qt.QPixmap(_SWATCH_PIXELS, _SWATCH_PIXELS)
        pixmap.fill(qt.QColor(*segment["color"]))
        swatch = qt.QTableWidgetItem("")
        swatch.setIcon(qt.QIcon(pixmap))
        isFound = segment["voxels"] > 0
        tip = counted(segment["voxels"], _("voxel"), _("voxels"))
        volume = TableView.numberItem(amount if isFound else _("not found"), tip)
        mean = TableView.numberItem(_meanText(segment.get("mean_intensity")))
        for column, item in enumerate((swatch, TableView.textItem(segment["name"]), volume, mean)):
            self._table.setItem(row, column, item)

    def _onCopy(self) -> None:
        """All numbers, for a spreadsheet."""
        hasMean = not self._table.isColumnHidden(_MEAN)
        heads = [_("Structure"), _("Voxels"), *([] if self._isFlat else [_("Volume (mL)")])]
        lines = [[*heads, *([_("Mean")] if hasMean else [])]]
        for row in self._rows:
            volume = [] if self._isFlat else [row["volume_ml"]]
            lines.append([row["name"], row["voxels"], *volume, *([row.get("mean_intensity")] if hasMean else [])])
        qt.QApplication.clipboard().setText(TableView.separated(lines))


def _sizes(rows: list[dict]) -> list[tuple]:
    return [(row["name"], row["voxels"]) for row in rows]


def _meanText(mean: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.1f}" if abs(mean) >= 10 else f"{mean:.3g}"
