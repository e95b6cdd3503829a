"""What the user set once for all scenes, kept in Slicer's settings."""

import qt
import slicer

from MambaSegLib import corrections

AGREED_COMPUTERS_SETTING = "MambaSegmentation/agreedComputers"  # one per line
ANNOTATOR_SETTING = "MambaSegmentation/annotator"
COMPUTER_SETTING = "MambaSegmentation/computer"  # as MambaSegLib.remote_computer.parse takes it
COMPUTE_THERE_SETTING = "MambaSegmentation/computeThere"  # "there", or nothing for this computer
CORRECTIONS_FOLDER_SETTING = "MambaSegmentation/correctionsFolder"
DEVICE_SETTING = "MambaSegmentation/device"
THREADS_SETTING = "MambaSegmentation/threads"

# ctkPathLineEdit::Dirs: PythonQt 4.1 does not know flags of CTK by their names.
ONLY_FOLDERS = 0x001


def text(key: str) -> str:
    """The setting, "" when it was never set."""
    return slicer.util.settingsValue(key, "", converter=str)


def store(key: str, value: str) -> None:
    """Set it; "" forgets it."""
    settings = qt.QSettings()
    settings.setValue(key, value) if value else settings.remove(key)


def annotator() -> str:
    """The name given in the panel, else Slicer's user; "" if neither is known."""
    user = slicer.app.applicationLogic().GetUserInformation()
    return text(ANNOTATOR_SETTING) or (user.GetName() if user else "") or ""


def correctionsFolder() -> str:
    """Where corrected cases are collected."""
    return text(CORRECTIONS_FOLDER_SETTING) or str(corrections.default_folder())


def workerVariables() -> dict[str, str]:
    """Environment variables by which the background process obeys the settings."""
    threads, device = text(THREADS_SETTING), text(DEVICE_SETTING)
    found = {"OMP_NUM_THREADS": threads, "MAMBASEG_DEVICE": device}
    return {name: value for name, value in found.items() if value}
