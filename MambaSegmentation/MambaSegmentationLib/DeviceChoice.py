"""The choice where to compute; the worker says which devices there are, and why others are off."""

import sys

import qt
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from .Jobs import Job, Listener
from .WorkerClient import WorkerClient

_DISABLED = 0  # Qt.NoItemFlags
_FLAGS_ROLE_OFFSET = 1  # QComboBox keeps an item's flags in the role before Qt.UserRole


def _kinds() -> list[tuple[str, str]]:
    """(text, device) before the worker has been asked."""
    gpu = (_("GPU (Apple Metal)"), "mps") if sys.platform == "darwin" else (_("GPU (CUDA)"), "cuda")
    return [(_("Automatic"), "auto"), gpu, (_("CPU"), "cpu")]


class DeviceChoice:
    """Fills a combo box and a label beside it."""

    def __init__(self, selector, hint, worker: WorkerClient):
        self._selector, self._hint, self._worker = selector, hint, worker
        self._isAsked = False
        for text, device in _kinds():
            selector.addItem(text, device)
        hint.hide()

    @property
    def device(self) -> str:
        return self._selector.itemData(self._selector.currentIndex)

    def choose(self, device: str) -> None:
        self._selector.setCurrentIndex(max(0, self._selector.findData(device)))

    def ask(self) -> None:
        """Ask the worker, once; a later answer comes by itself."""
        if not self._isAsked:
            self._isAsked = True
            try:
                Job(self._worker, "devices", {}, Listener(onFinished=self._onFinished, onFailed=self._onFailed))
            except UserError as error:  # no Python, or the module goes: a run would tell it
                self._onFailed(error)

    def _onFailed(self, problem) -> None:
        self._isAsked = False  # torch is missing, perhaps: it may come

    def _onFinished(self, result: dict) -> None:
        chosen, reasons = self.device, []
        self._selector.blockSignals(True)
        self._selector.clear()
        self._selector.addItem(_("Automatic"), "auto")
        for device in result["devices"]:
            name = _name(device["name"])
            if device["name"] == "mps" and sys.platform != "darwin":
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

    def _addDisabled(self, name: str, device: dict) -> None:
        self._selector.addItem(_("{name} (not available)").format(name=name), device["name"])
        row = self._selector.count - 1
        self._selector.setItemData(row, _DISABLED, int(qt.Qt.UserRole) - _FLAGS_ROLE_OFFSET)
        self._selector.setItemData(row, device["why_not"], qt.Qt.ToolTipRole)


def _name(device: str) -> str:
    kind, _colon, index = device.partition(":")
    names = {"cpu": _("CPU"), "cuda": _("GPU (CUDA)"), "mps": _("GPU (Apple Metal)")}
    return names[kind] + (f" {index}" if index else "")
