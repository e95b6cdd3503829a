"""Structures in numbers, of the open case or of what is compared: measured by the worker, shown, copied."""

from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from MambaSegLib.safe_file import write_text

from . import ReviewWords, SceneIO, SegmentationFiles, TableView
from .Page import Services
from .ReviewLogic import Review

_MOST_LINES = 16
_AIR = 6  # points between the texts of two rows
_PAIR, _DICE, _HD95, _ASSD, _ML, _MEAN, _SD = range(1, 8)  # columns; 0 is the structure
_KEYS = ("structure", "first", "second", "dice", "hd95_mm", "assd_mm", "first_ml", "second_ml", "difference_ml")
_KEYS += ("first_mean", "second_mean", "first_sd", "second_sd")


class ReviewNumbers:
    """`measure` fills the table; it is emptied by `clear`, when what it tells of is shown no more."""

    def __init__(self, ui, review: Review, services: Services):
        self._ui, self._review, self._services = ui, review, services
        self._rows: list[dict] = []
        self._names: Callable[[], list[str]] = list
        self._run = 0
        self._isComparison = False
        ReviewWords.stretch(ui.reviewNumbersTable, 0)
        ui.reviewQuantifyButton.connect("clicked()", lambda: self.quantify())
        ui.reviewCopyButton.connect("clicked()", self._copy)
        self.clear()

    def update(self) -> None:
        ui = self._ui
        # While readings are compared blindly, the numbers of the case alone would tell which one it is.
        isFree = not (self._isComparison or self._services.jobs.isRunning)
        ui.reviewQuantifyButton.enabled = bool(self._review.case) and isFree
        ui.reviewCopyButton.enabled = ui.reviewNumbersTable.visible = bool(self._rows)

    def clear(self) -> None:
        self._run += 1
        self._isComparison = False
        self._rows, self._names = [], list
        self._ui.reviewNumbersTable.setRowCount(0)
        self._chooseColumns([])
        self.update()

    def quantify(self, onDone: Callable[[], None] = lambda: None) -> None:
        """Measure the open case as it is now; `onDone()` is called when its numbers are shown."""
        case = self._review.case
        if case and case.isThere:
            name = case.segmentation.GetName()
            self.measure(_("Quantify"), case.volume, [case.segmentation], lambda: [name], lambda result: onDone())

    def measure(self, title: str, volume, nodes: list, names: Callable, onDone: Callable, overlay: Path | None = None):
        """Measure segmentations of a volume, several also against each other.

        Args:
            names: gives the names to copy, in the order of `nodes`.
            onDone: is told the job's result, unless `clear` or another measurement came first.
            overlay: what differs between the first two is written there; it is deleted after `onDone`.
        """
        self.clear()
        self._isComparison = len(nodes) > 1
        run, files = self._run, self._services.files
        places = [str(index) for index in range(1, len(nodes) + 1)]
        paths: list[Path] = []
        covered: list[str] = []

        def params() -> dict:
            for node, place in zip(nodes, places, strict=True):
                paths.append(files.newFile(f"{place}.nrrd"))
                covered.extend(SegmentationFiles.writeForWorker(node, volume, paths[-1]))
            request = {"segmentations": list(map(str, paths)), "names": places, "overlay": overlay and str(overlay)}
            request["structures"] = [SegmentationFiles.structures(node) for node in nodes]
            hasValues = not SceneIO.isPicture(volume) and SceneIO.volumeProblem(volume) is None
            return request | ({"image": str(files.volumeFile(volume))} if hasValues else {})

        def tidy(*_reason) -> None:
            for path in filter(None, (*paths, overlay)):
                files.remove(path)

        def finished(result: dict) -> None:
            try:
                if run == self._run:
                    self._show(_suiting(volume, result["rows"]), names)
                    onDone(result)
                    if covered:
                        self._services.view.message("warning", SegmentationFiles.coveredWarning(covered), "")
            finally:
                tidy()

        callbacks = {"onFinished": finished, "onFailed": tidy, "onCancelled": tidy}
        self._services.jobs.run(title, "compare", params, needs=[volume, *nodes], **callbacks)

    def whenThere(self, action: Callable[[], None]) -> None:
        """Call `action()` with the numbers shown; those of the open case are measured when there are none."""
        if self._rows:
            action()
        else:
            self.quantify(action)

    def save(self, path: Path) -> None:
        """The numbers as CSV, separated by commas. Raises UserError."""
        write_text(path, "\ufeff" + self._text(","))  # the mark tells Excel that it is UTF-8

    def _copy(self) -> None:
        qt.QApplication.clipboard().setText(self._text("\t"))

    def _text(self, separator: str) -> str:
        """A line per row, of all that was measured."""
        keys = [key for key in _KEYS if any(key in row for row in self._rows)]
        named = dict(enumerate(self._names(), start=1))
        lines = [keys]
        for row in self._rows:
            known = row | {key: named[int(row[key])] for key in ("first", "second") if key in row}
            lines.append([known.get(key) for key in keys])
        return TableView.separated(lines, separator)

    def _show(self, rows: list[dict], names: Callable[[], list[str]]) -> None:
        self._rows, self._names = rows, names
        table, isPair = self._ui.reviewNumbersTable, any("second" in row for row in rows)
        table.setRowCount(len(rows))
        for index, row in enumerate(rows):
            pair = f"{row['first']}, {row['second']}" if isPair else ""
            texts = [pair, _text(row.get("dice"), 3), _text(row.get("hd95_mm"), 1), _text(row.get("assd_mm"), 2)]
            texts += [_stacked(row, key, isPair) for key in ("ml", "mean", "sd")]
            table.setItem(index, 0, ReviewWords.cell(row["structure"]))
            for column, text in enumerate(texts, start=1):
                table.setItem(index, column, ReviewWords.number(text))
        self._chooseColumns(rows)
        table.resizeRowsToContents()
        for index in range(len(rows)):
            table.setRowHeight(index, table.rowHeight(index) + _AIR)
        ReviewWords.fitHeight(table, _MOST_LINES // (2 if isPair else 1))
        self._ui.reviewNumbersSection.collapsed = False
        self.update()

    def _chooseColumns(self, rows: list[dict]) -> None:
        """Show only what was measured; what 350 points hold."""
        table, isPair = self._ui.reviewNumbersTable, any("second" in row for row in rows)
        for column in (_DICE, _HD95, _ASSD):
            table.setColumnHidden(column, not isPair)
        table.setColumnHidden(_PAIR, len({(row["first"], row.get("second")) for row in rows}) < 2)
        table.setColumnHidden(_ML, bool(rows) and "first_ml" not in rows[0])
        hasMeans = any("first_mean" in row for row in rows)
        table.setColumnHidden(_MEAN, not hasMeans)
        table.setColumnHidden(_SD, isPair or not hasMeans)


def _suiting(volume, rows: list[dict]) -> list[dict]:
    """Without volumes for a picture: it has areas, and often no size in mm."""
    if not SceneIO.isSlice(volume):
        return rows
    return [{key: value for key, value in row.items() if not key.endswith("_ml")} for row in rows]


def _stacked(row: dict, key: str, isPair: bool) -> str:
    """The first one's number, of a pair above the second one's."""
    places = ("first", "second") if isPair else ("first",)
    return "\n".join(_rounded(row.get(f"{place}_{key}")) for place in places)


def _rounded(value: float | None) -> str:
    return _text(value, 1) if value is None or abs(value) >= 10 else _text(value, 2)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
