"""The models on this computer, and what the last runs with them took here."""

import json

import qt
import slicer

from MambaSegLib import catalogue
from MambaSegLib.bundle import ModelBundle

MODEL_FOLDERS_SETTING = "MambaSegmentation/modelFolders"
LAST_MODEL_SETTING = "MambaSegmentation/lastModel"
_RUNS_SETTING = "MambaSegmentation/runs"


def modelFolders() -> list[str]:
    """Further folders with models, from Slicer's settings (one, or several separated by ';')."""
    return [f for f in slicer.util.settingsValue(MODEL_FOLDERS_SETTING, "", converter=str).split(";") if f.strip()]


class Models:
    """The catalogue with this user's folders, and notes about runs kept in Slicer's settings."""

    def entries(self) -> list[catalogue.Entry]:
        return catalogue.entries(modelFolders())

    def search(self, text: str) -> list[catalogue.Entry]:
        return catalogue.search(text, modelFolders())

    def find(self, idOrFolder: str) -> ModelBundle:
        """Raises UserError when unknown, broken or ambiguous.

        The weights of a model in the list are not verified here, in the GUI thread: the job does it.
        """
        offered = [e.bundle for e in self.entries() if e.bundle and idOrFolder in (e.id, str(e.folder))]
        return offered[0] if len(offered) == 1 else catalogue.find(idOrFolder, modelFolders())

    @property
    def last(self) -> str:
        """The model that was chosen last, in any scene; "" if none was."""
        return slicer.util.settingsValue(LAST_MODEL_SETTING, "", converter=str)

    @last.setter
    def last(self, idOrFolder: str) -> None:
        qt.QSettings().setValue(LAST_MODEL_SETTING, idOrFolder)

    def noteRun(self, result: dict, memoryMb: float) -> None:
        """Keep what a run of the job "segment" took: seconds, device, voxels, and the estimated memory (MB)."""
        x, y, z = result["size"]
        note = {"time_s": round(result["time_s"], 1), "device": result["device"], "voxels": x * y * z}
        qt.QSettings().setValue(_key(result["model_sha256"]), json.dumps({**note, "memory_mb": round(memoryMb)}))

    def lastRun(self, bundle: ModelBundle) -> dict | None:
        """{time_s, device, voxels, memory_mb} of the last run on this computer, None before the first."""
        text = slicer.util.settingsValue(_key(bundle.sha256), "", converter=str)
        return json.loads(text) if text else None


def _key(sha256: str) -> str:
    return f"{_RUNS_SETTING}/{sha256[:16]}"
