"""The page Settings: packages, folders, computing, name, keys, and the examination of this computer."""

import qt
from slicer.i18n import tr as _

from . import Settings
from .ComputerView import ComputerView
from .KeySettings import KeySettings
from .Models import MODEL_FOLDERS_SETTING, modelFolders
from .PackagesView import PackagesView
from .Page import Page

_DEVICES = ((_("Automatic"), ""), (_("CPU"), "cpu"), (_("GPU (CUDA)"), "cuda"), (_("GPU (Apple Metal)"), "mps"))


class SettingsPage(Page):
    title = "\N{GEAR}"  # the word would not fit beside the four steps in a panel of 350 points
    toolTip = _("Settings: packages, folders, computing and keys; they hold for all scenes.")

    def __init__(self, ui, state, services):
        Page.__init__(self, ui, state, services)
        self._isReading = False
        self.packagesView = PackagesView(ui, services.packages)
        self.keys = KeySettings(ui.keysTable, ui.resetKeysButton, lambda text: services.view.message("warning", text))
        self.computer = ComputerView(ui, services)
        for text, device in _DEVICES:
            ui.defaultDeviceSelector.addItem(text, device)
        ui.correctionsFolderEdit.filters = Settings.ONLY_FOLDERS
        ui.copyDoctorButton.enabled = False
        self._connect()

    def enter(self) -> None:
        self._read()

    def bind(self) -> None:
        self._read()

    def setRunning(self, isRunning: bool) -> None:
        ui = self.ui
        self.packagesView.setEnabled(not isRunning)
        self.computer.setEnabled(not isRunning)
        for widget in (ui.threadsSpinBox, ui.defaultDeviceSelector, ui.doctorButton):
            widget.enabled = not isRunning

    def _connect(self) -> None:
        ui = self.ui
        ui.addModelFolderButton.connect("clicked()", self._onAddFolder)
        ui.removeModelFolderButton.connect("clicked()", self._onRemoveFolder)
        ui.modelFoldersList.connect("itemSelectionChanged()", self._updateFolderButton)
        ui.correctionsFolderEdit.connect("currentPathChanged(QString)", self._onCorrectionsFolder)
        ui.correctionsFolderEdit.connect("validInputChanged(bool)", self._onCorrectionsFolder)  # all that "" tells
        ui.threadsSpinBox.connect("valueChanged(int)", self._onComputing)
        ui.defaultDeviceSelector.connect("currentIndexChanged(int)", self._onComputing)
        ui.annotatorEdit.connect("editingFinished()", self._onAnnotator)
        ui.doctorButton.connect("clicked()", self._onDoctor)
        ui.copyDoctorButton.connect("clicked()", self._onCopyDoctor)

    def _read(self) -> None:
        """Show the settings as they are; another Slicer or page may have changed them."""
        ui = self.ui
        self._isReading = True
        try:
            ui.modelFoldersList.clear()
            for folder in modelFolders():
                ui.modelFoldersList.addItem(folder)
                ui.modelFoldersList.item(ui.modelFoldersList.count - 1).setToolTip(folder)
            ui.correctionsFolderEdit.currentPath = Settings.correctionsFolder()
            ui.threadsSpinBox.value = int(Settings.text(Settings.THREADS_SETTING) or 0)
            device = Settings.text(Settings.DEVICE_SETTING)
            ui.defaultDeviceSelector.setCurrentIndex(max(0, ui.defaultDeviceSelector.findData(device)))
            ui.annotatorEdit.text = Settings.text(Settings.ANNOTATOR_SETTING)
            self.computer.show()
            self.keys.show()
        finally:
            self._isReading = False
        self._updateFolderButton()

    # Folders

    def _onAddFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder with models"))
        if folder and folder not in modelFolders():
            self._storeFolders([*modelFolders(), folder])

    def _onRemoveFolder(self) -> None:
        row = self.ui.modelFoldersList.currentRow
        self._storeFolders([folder for index, folder in enumerate(modelFolders()) if index != row])

    def _storeFolders(self, folders: list[str]) -> None:
        Settings.store(MODEL_FOLDERS_SETTING, ";".join(folders))
        self._read()
        self.services.refresh()

    def _updateFolderButton(self) -> None:
        self.ui.removeModelFolderButton.enabled = bool(self.ui.modelFoldersList.selectedItems())

    def _onCorrectionsFolder(self) -> None:
        if not self._isReading:
            Settings.store(Settings.CORRECTIONS_FOLDER_SETTING, self.ui.correctionsFolderEdit.currentPath.strip())

    # Computing and name

    def _onComputing(self) -> None:
        if self._isReading:
            return
        ui = self.ui
        threads = ui.threadsSpinBox.value
        Settings.store(Settings.THREADS_SETTING, str(threads) if threads else "")
        device = ui.defaultDeviceSelector.itemData(ui.defaultDeviceSelector.currentIndex)
        Settings.store(Settings.DEVICE_SETTING, device)
        self.services.worker.quit()  # the next one starts with these values

    def _onAnnotator(self) -> None:
        Settings.store(Settings.ANNOTATOR_SETTING, self.ui.annotatorEdit.text.strip())

    # Doctor

    def _onDoctor(self) -> None:
        self.services.jobs.run(_("Examine this computer"), "doctor", {}, onFinished=self._onExamined)

    def _onExamined(self, result: dict) -> None:
        self.ui.doctorText.setPlainText(result["text"])
        self.ui.copyDoctorButton.enabled = True

    def _onCopyDoctor(self) -> None:
        qt.QApplication.clipboard().setText(self.ui.doctorText.toPlainText())
