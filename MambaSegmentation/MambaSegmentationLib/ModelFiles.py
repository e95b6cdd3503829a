"""The button by which models come into the panel and leave it."""

import qt
from slicer.i18n import tr as _

from .AddModel import AddModel
from .ExportModel import ExportModel
from .ModelPicker import ModelPicker
from .Page import Services


class ModelFiles:
    """Puts a menu on a QPushButton; its windows are made when they are first opened.

    Args:
        picker: whose chosen model is exported.
        onAdded: called with the folder of a model that has come.
    """

    def __init__(self, button, picker: ModelPicker, services: Services, onAdded):
        self._picker, self._services, self._onAdded = picker, services, onAdded
        self.addDialog: AddModel | None = None
        self.exportDialog: ExportModel | None = None
        self._menu = qt.QMenu(button)
        self._menu.toolTipsVisible = True
        self.addAction = self._action(_("&Add model..."), self._onAdd)
        self.addAction.toolTip = _("A model that somebody exported, or other people's weights.")
        self.exportAction = self._action(_("&Export model..."), self._onExport)
        self.exportAction.toolTip = _("The chosen model as one file to share, or for other programs.")
        button.setMenu(self._menu)

    def update(self) -> None:
        """A job began or ended, or another model was chosen."""
        self.exportAction.enabled = bool(self._picker.entry and self._picker.entry.bundle)
        for dialog in (self.addDialog, self.exportDialog):
            if dialog and dialog.isOpen:
                dialog.update()

    def close(self) -> None:
        for dialog in (self.addDialog, self.exportDialog):
            if dialog:
                dialog.close()

    def _action(self, text: str, onTriggered):
        action = self._menu.addAction(text)
        action.connect("triggered()", onTriggered)
        return action

    def _onAdd(self) -> None:
        self.addDialog = self.addDialog or AddModel(self._services, self._onAdded)
        self.addDialog.show()

    def _onExport(self) -> None:
        self.exportDialog = self.exportDialog or ExportModel(self._services)
        self.exportDialog.show(self._picker.entry.bundle)
