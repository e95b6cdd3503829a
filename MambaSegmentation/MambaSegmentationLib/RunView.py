"""What one sees of a run: the bar with percent, the step, the time left, the log, and messages in a coloured frame."""

import time

import qt
from slicer.i18n import tr as _

_COLOURS = {"error": (200, 60, 50), "warning": (220, 150, 20), "info": (60, 130, 200)}
# The frame's tint is translucent and nothing but the ground is coloured: text and buttons follow Slicer's light or dark
# palette, also when the user changes it.
_TINT_ALPHA = 40
_MIN_SECONDS_TO_JUDGE = 1.0


class RemainingTime:
    """Estimates the seconds left from the rate of progress since the current stage began."""

    def __init__(self):
        self._of = None
        self._first = self._last = (0.0, 0.0)

    def update(self, done: float, of: float, now: float) -> None:
        """A report at time `now` (seconds of any clock); another `of` or a step back begins a new stage."""
        if of != self._of or done < self._last[0]:
            self._of, self._first = of, (done, now)
        self._last = (done, now)

    def seconds(self, now: float) -> float | None:
        """None while too little is known."""
        done, elapsed = self._last[0] - self._first[0], self._last[1] - self._first[1]
        if done <= 0 or elapsed < _MIN_SECONDS_TO_JUDGE:
            return None
        return max(0.0, (self._of - self._last[0]) * elapsed / done - (now - self._last[1]))


def timeText(seconds: float | None) -> str:
    """'about 2 min left'; "" when unknown."""
    if seconds is None:
        return ""
    if seconds >= 90:
        return _("about {n} min left").format(n=round(seconds / 60))
    return _("about {n} s left").format(n=max(1, round(seconds)))


def _colour(widget, ground) -> None:
    palette = qt.QPalette()
    palette.setColor(qt.QPalette.Window, ground)
    widget.setPalette(palette)
    widget.setAutoFillBackground(True)


class RunView:
    """Shows a run in the widgets of the .ui file; knows nothing of jobs."""

    def __init__(self, ui):
        self._ui = ui
        self._remaining = RemainingTime()
        self._details = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(500)
        self._timer.connect("timeout()", self._tick)
        ui.copyDetailsButton.connect("clicked()", self._onCopyDetails)
        ui.dismissButton.connect("clicked()", self.hideMessage)
        ui.progressArea.hide()
        self.hideMessage()

    def begin(self, text: str) -> None:
        """A busy bar until the first progress comes."""
        self._remaining = RemainingTime()
        self.hideMessage()
        self._ui.progressBar.setRange(0, 0)
        self.step(text)
        self._ui.timeLabel.text = ""
        self._ui.progressArea.show()
        self._timer.start()

    def progress(self, done: float, of: float, label: str) -> None:
        self._remaining.update(done, of, time.monotonic())
        self._ui.progressBar.setRange(0, 100)
        self._ui.progressBar.setValue(int(100 * done / of) if of > 0 else 0)
        self._ui.stepLabel.text = self._ui.stepLabel.toolTip = label
        self._tick()

    def step(self, text: str) -> None:
        """A step without known length has begun."""
        self._ui.stepLabel.text = self._ui.stepLabel.toolTip = text
        self.log(text)

    def end(self) -> None:
        self._timer.stop()
        self._ui.progressArea.hide()

    def message(self, level: str, text: str, hint: str = "", details: str = "", canInstall: bool = False) -> None:
        """Show a message in the panel; level is "error", "warning" or "info"."""
        _colour(self._ui.messageFrame, qt.QColor(*_COLOURS[level], _TINT_ALPHA))
        _colour(self._ui.messageBar, qt.QColor(*_COLOURS[level]))
        self._ui.messageLabel.setTextFormat(qt.Qt.PlainText)
        self._ui.messageLabel.text = "\n".join(filter(None, [text, hint]))
        self._details = "\n".join(filter(None, [text, hint, details]))
        self._ui.copyDetailsButton.visible = level == "error"
        self._ui.installButton.visible = canInstall
        self._ui.messageFrame.show()
        self.log(f"{text} {hint}".strip().replace("\n", " "))
        for line in details.splitlines():
            self.log("    " + line)

    @property
    def hasMessage(self) -> bool:
        return not self._ui.messageFrame.isHidden()

    def hideMessage(self) -> None:
        self._ui.messageFrame.hide()

    def log(self, line: str) -> None:
        self._ui.logText.appendPlainText(f"{time.strftime('%H:%M:%S')}  {line}")

    def _tick(self) -> None:
        self._ui.timeLabel.text = timeText(self._remaining.seconds(time.monotonic()))

    def _onCopyDetails(self) -> None:
        log = self._ui.logText.toPlainText()
        qt.QApplication.clipboard().setText(f"{self._details}\n\n{_('Log:')}\n{log}")
