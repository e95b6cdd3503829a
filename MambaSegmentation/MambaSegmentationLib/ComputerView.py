"""The settings where to compute: here or on another computer, and whether that one works."""

from slicer.i18n import tr as _

from . import FarComputer, Settings
from .Page import Services


class ComputerView:
    """Widgets <-> settings."""

    def __init__(self, ui, services: Services):
        self._ui, self._services = ui, services
        self._isReading = False
        self._tested = ""  # what the last trial of the computer has found
        ui.computeOnSelector.addItem(_("This computer"), "")
        ui.computeOnSelector.addItem(_("Another computer (ssh)"), "there")
        ui.computeOnSelector.connect("currentIndexChanged(int)", self._onChanged)
        ui.computerEdit.connect("editingFinished()", self._onChanged)
        ui.tryComputerButton.connect("clicked()", self._onTry)

    def show(self) -> None:
        """Show the settings as they are."""
        self._isReading = True
        isThere = Settings.text(Settings.COMPUTE_THERE_SETTING)
        self._ui.computeOnSelector.setCurrentIndex(max(0, self._ui.computeOnSelector.findData(isThere)))
        self._ui.computerEdit.text = Settings.text(Settings.COMPUTER_SETTING)
        self._isReading = False
        self._update()

    def setEnabled(self, isEnabled: bool) -> None:
        for widget in (self._ui.computeOnSelector, self._ui.computerEdit, self._ui.tryComputerButton):
            widget.enabled = isEnabled

    def _onChanged(self) -> None:
        if self._isReading:
            return
        box, old = self._ui.computeOnSelector, FarComputer.chosen()
        Settings.store(Settings.COMPUTE_THERE_SETTING, box.itemData(box.currentIndex))
        Settings.store(Settings.COMPUTER_SETTING, self._ui.computerEdit.text.strip())
        if FarComputer.chosen() != old:
            self._tested = ""
            self._services.worker.quit()  # and the connection with it
            self._services.refresh()
        self._update()

    def _update(self) -> None:
        ui, isThere = self._ui, bool(Settings.text(Settings.COMPUTE_THERE_SETTING))
        for widget in (ui.computerLabel, ui.computerEdit, ui.tryComputerButton, ui.computerHintLabel):
            widget.visible = isThere
        missing = _("Write the computer to use; until then, jobs run on this one.")
        sent = _(
            "Images and models are sent there to segment and correct; nothing is sent before you have agreed. The "
            "same version of mambaseg must be installed there, and ssh must log in with a key."
        )
        ui.computerHintLabel.text = (self._tested or sent) if FarComputer.chosen() else missing

    def _onTry(self) -> None:
        self._onChanged()  # Alt and a letter do not take the focus out of the field
        computer = FarComputer.chosen()
        if computer:
            title = _("Try {computer}").format(computer=FarComputer.nameOf(computer))
            params = {"computer": computer, "job": "devices"}
            self._services.jobs.run(title, "remote", params, onFinished=self._onTried, onFailed=self._onFailed)

    def _onTried(self, result: dict) -> None:
        gpus = [device["title"] for device in result["devices"] if device["usable"] and device["name"] != "cpu"]
        reasons = [device["why_not"] for device in result["devices"] if device["name"] == "cuda"]
        found = ", ".join(gpus) or _("no GPU ({why})").format(why=" ".join(reasons))
        text = _("It works: {found}. Version {version}, answers in {ms} ms.")
        ms = max(1, round(1000 * result["round_trip_s"]))
        self._tested = text.format(found=found, version=result["version"], ms=ms)
        self._update()

    def _onFailed(self, problem) -> None:
        self._tested = ""  # the message below the page says why
        self._update()
