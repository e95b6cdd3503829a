"""The choice where to compute; the worker says which devices there are, and why others are off."""

import sys
from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import FarComputer
from .Jobs import Job, Listener, Problem, ignore
from .WorkerClient import WorkerClient

_DISABLED = 0  # Qt.NoItemFlags
_FLAGS_ROLE_OFFSET = 1  # QComboBox keeps an item's flags in the role before Qt.UserRole


def _kinds() -> list[tuple[str, str]]:
    """(text, device) before the worker has been asked."""
    gpu = (_("GPU (Apple Metal)"), "mps") if sys.platform == "darwin" else (_("GPU (CUDA)"), "cuda")
    return [(_("Automatic"), "auto"), gpu, (_("CPU"), "cpu")]


class DeviceChoice:
    """Fills a combo box and a label beside it. `onAnswered` is called when the devices are known."""

    def __init__(self, selector, hint, worker: WorkerClient, onAnswered: Callable[[], None] = ignore):
        self._selector, self._hint, self._worker, self._onAnswered = selector, hint, worker, onAnswered
        self._asked: str | None = None  # the computer that was asked, "" for this one
        self._listed: str | None = None  # the one whose devices are listed
        self._isUnreachable = False
        self._showKinds()

    @property
    def device(self) -> str:
        return self._selector.itemData(self._selector.currentIndex)

    def choose(self, device: str) -> None:
        self._selector.setCurrentIndex(max(0, self._selector.findData(device)))

    def ask(self) -> None:
        """Ask the worker, once per computer; a later answer comes by itself."""
        computer = FarComputer.chosen()
        if self._asked == computer:
            return
        if self._listed != computer:
            self._showKinds()
        self._asked, self._isUnreachable = computer, False
        listener = Listener(
            onFinished=lambda result: self._onFinished(computer, result),
            onFailed=lambda problem: self._onFailed(computer, problem),
            onCancelled=lambda reason: self._forget(computer),
        )
        try:
            Job(self._worker, "devices", {}, listener)
        except UserError as error:  # no Python, or the module goes: a run would tell it
            self._onFailed(computer, Problem(error.message, error.hint))

    def askAgain(self) -> None:
        """The user has come back: a computer that did not answer may do so now."""
        if self._isUnreachable:
            self._asked = None

    def _showKinds(self) -> None:
        """Before any computer has said what it has."""
        self._listed = None
        chosen = self.device if self._selector.count else "auto"
        self._selector.blockSignals(True)
        self._selector.clear()
        for text, device in _kinds():
            self._selector.addItem(text, device)
        self.choose(chosen)
        self._selector.blockSignals(False)
        self._hint.hide()

    def _forget(self, computer: str) -> None:
        if self._asked == computer:
            self._asked = None

    def _onFailed(self, computer: str, problem: Problem) -> None:
        if self._asked != computer:
            return
        if not computer:
            self._asked = None  # torch is missing, perhaps: it may come
            return
        self._isUnreachable = True  # and not asked again by itself: it would be called all the time
        self._hint.text = f"{problem.message} {problem.hint}"
        self._hint.show()

    def _onFinished(self, computer: str, result: dict) -> None:
        if self._asked != computer:
            return
        self._listed = computer
        chosen, reasons = self.device, []
        self._selector.blockSignals(True)
        self._selector.clear()
        self._selector.addItem(_("Automatic"), "auto")
        for device in result["devices"]:
            name = _name(device["name"])
            if device["name"] == "mps" and not device["usable"] and sys.platform != "darwin":
                continue  # nobody asks for it there
            if device["usable"]:
                self._selector.addItem(f"{name}: {device['title']}", device["name"])
            else:
                self._addDisabled(name, device)
                reasons.append(_("{name} is off: {why}.").format(name=name, why=device["why_not"]))
        self.choose(chosen)
        self._selector.blockSignals(False)
        self._hint.text = " ".join(reasons)
        self._hint.visible = bool(reasons)
        self._onAnswered()

    def _addDisabled(self, name: str, device: dict) -> None:
        self._selector.addItem(_("{name} (not available)").format(name=name), device["name"])
        row = self._selector.count - 1
        self._selector.setItemData(row, _DISABLED, int(qt.Qt.UserRole) - _FLAGS_ROLE_OFFSET)
        self._selector.setItemData(row, device["why_not"], qt.Qt.ToolTipRole)


def _name(device: str) -> str:
    kind, _colon, index = device.partition(":")
    names = {"cpu": _("CPU"), "cuda": _("GPU (CUDA)"), "mps": _("GPU (Apple Metal)")}
    return names[kind] + (f" {index}" if index else "")
