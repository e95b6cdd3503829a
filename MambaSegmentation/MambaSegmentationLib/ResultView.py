"""The table of structures with their volumes, as they are now, and the switch for their surfaces."""

import qt
from slicer.i18n import tr as _

from MambaSegLib.wording import counted

from . import SceneIO, SegmentNumbers, SegmentVoxels, TableView
from .PanelState import PanelState

_SWATCH_PIXELS = 14
_AMOUNT, _MEAN = 2, 3  # columns


class ResultView:
    """Shows the result that a segmentation node carries; hidden for any other node."""

    def __init__(self, ui, state: PanelState):
        self._section, self._label, self._table = ui.resultSection, ui.resultLabel, ui.resultTable
        self._surfaceBox, self._state = ui.showSurfaceCheckBox, state
        self._isReading = False
        self._node = self._result = None
        self._rows: list[dict] = []
        self._numbers = SegmentNumbers.SegmentNumbers()
        header = self._table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(_AMOUNT, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(_MEAN, qt.QHeaderView.ResizeToContents)
        ui.copyResultButton.connect("clicked()", self._onCopy)
        self._surfaceBox.connect("toggled(bool)", self._onShowSurface)
        self._show(None, isNew=False)

    def bind(self) -> None:
        """Show what the state says."""
        self._isReading = True
        self._surfaceBox.checked = self._state.showSurface
        self._isReading = False
        self._show(self._state.resultSegmentation, isNew=False)

    def take(self, segmentationNode) -> None:
        """A result that the model has just made: its numbers hold."""
        self._state.resultSegmentation = segmentationNode
        if self._state.showSurface:
            SceneIO.showSurface(segmentationNode, True)
        self._show(segmentationNode, isNew=True)

    def drop(self, node) -> None:
        """The node goes."""
        if node is self._state.resultSegmentation:
            self._state.resultSegmentation = None
        if node is self._node:
            self._show(None, isNew=False)

    def _show(self, segmentationNode, isNew: bool) -> None:
        self.stop()
        self._node, self._result = segmentationNode, SceneIO.resultOf(segmentationNode)
        self._section.visible = self._result is not None
        if self._result is None:
            return
        self._numbers.state = SegmentNumbers.stateOf(segmentationNode) if isNew else ()
        self._fill(self._result["segments"])
        self.follow()

    def _onShowSurface(self, isShown: bool) -> None:
        self._state.showSurface = isShown
        if self._state.resultSegmentation and not self._isReading:
            SceneIO.showSurface(self._state.resultSegmentation, isShown)

    def follow(self) -> None:
        """Another one may have been chosen; count anew what was edited since. The table changes a moment later."""
        if self._node is not self._state.resultSegmentation:
            self._show(self._state.resultSegmentation, isNew=False)
        elif self._result is not None and SegmentNumbers.stateOf(self._node) != self._numbers.state:
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
