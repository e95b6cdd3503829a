"""The table of structures with their volumes, and the switch for their surfaces."""

import qt
from slicer.i18n import tr as _

from MambaSegLib.wording import counted

from . import SceneIO

_SWATCH_PIXELS = 14


class ResultView:
    """Shows the result that a segmentation node carries; hidden for any other node."""

    def __init__(self, section, label, table, surfaceBox):
        self._section, self._label, self._table, self._surfaceBox = section, label, table, surfaceBox
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(3, qt.QHeaderView.ResizeToContents)
        self.show(None)

    def show(self, segmentationNode) -> None:
        result = SceneIO.resultOf(segmentationNode)
        self._section.visible = result is not None
        if result is None:
            return
        self._label.text = self._label.toolTip = segmentationNode.GetName()
        segments, isPicture = result["segments"], result["size"][2] == 1  # whose pixels have no size in mm
        self._table.horizontalHeaderItem(2).setText(_("Area (pixels)") if isPicture else _("Volume (mL)"))
        self._table.setColumnHidden(3, isPicture)  # the mean of one colour says nothing
        self._table.setRowCount(len(segments))
        for row, segment in enumerate(segments):
            self._setRow(row, segment, str(segment["voxels"]) if isPicture else f"{segment['volume_ml']:.2f}")
        self._fitHeight()

    def _setRow(self, row: int, segment: dict, amount: str) -> None:
        pixmap = qt.QPixmap(_SWATCH_PIXELS, _SWATCH_PIXELS)
        pixmap.fill(qt.QColor(*segment["color"]))
        swatch = qt.QTableWidgetItem("")
        swatch.setIcon(qt.QIcon(pixmap))
        name = qt.QTableWidgetItem(segment["name"])
        name.setToolTip(segment["name"])
        isFound = segment["voxels"] > 0
        volume = _number(amount if isFound else _("not found"))
        volume.setToolTip(counted(segment["voxels"], _("voxel"), _("voxels")))
        mean = segment.get("mean_intensity")
        for column, item in enumerate((swatch, name, volume, _number(_meanText(mean)))):
            self._table.setItem(row, column, item)

    def _fitHeight(self) -> None:
        """As high as its rows, up to a dozen of them."""
        rows = min(self._table.rowCount, 12)
        height = sum(self._table.rowHeight(row) for row in range(rows)) + self._table.horizontalHeader().height
        self._table.setFixedHeight(height + 2 * self._table.frameWidth + 2)


def _number(text: str):
    item = qt.QTableWidgetItem(text)
    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    return item


def _meanText(mean: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.1f}" if abs(mean) >= 10 else f"{mean:.3g}"
