"""The verb Segment: nodes -> job -> nodes. Needs no panel: scripts and other modules may use it."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib import catalogue
from MambaSegLib.errors import UserError

from . import SceneIO
from .Jobs import Job, Listener, Problem
from .WorkerClient import WorkerClient

MODEL_FOLDERS_SETTING = "MambaSegmentation/modelFolders"


def modelFolders() -> list[str]:
    """Further folders with models, from Slicer's settings (one, or several separated by ';')."""
    return [f for f in slicer.util.settingsValue(MODEL_FOLDERS_SETTING, "", converter=str).split(";") if f.strip()]


class SegmentLogic:
    """Segments a volume node with a model, in the background; one run at a time.

    >>> logic = SegmentLogic()
    >>> logic.start(volumeNode, "hippocampus", onFinished=lambda segmentationNode, result: print(result["segments"]))
    """

    def __init__(self, worker: WorkerClient | None = None):
        self.worker = worker or WorkerClient()
        self.files = SceneIO.ExchangeFolder()
        self._job: Job | None = None

    @property
    def isRunning(self) -> bool:
        return self._job is not None

    def start(self, volumeNode, modelId: str, roiNode=None, device: str = "auto", **callbacks: Callable) -> None:
        """Start a run; modelId is a model's id or folder; callbacks are those of Jobs.Listener.

        onFinished gets the segmentation node and the job's result (dict). What is wrong with the input arrives in
        onFailed, too.
        """
        listener = Listener(**callbacks)
        try:
            self.begin(listener, volumeNode, modelId, roiNode, device)
        except UserError as error:
            listener.onFailed(Problem(error.message, error.hint))
        except OSError as error:
            problem = _("The files for the job could not be written: {error}.").format(error=error)
            hint = _("Make room on the disk of Slicer's temporary folder.")
            listener.onFailed(Problem(problem, hint, traceback.format_exc()))

    def begin(self, listener: Listener, volumeNode, modelId: str, roiNode=None, device: str = "auto") -> None:
        """As `start`, but what is wrong with the input is raised (UserError, OSError)."""
        if self.isRunning:
            raise UserError(_("A segmentation is already running."), _("Wait for it, or cancel it first."))
        bundle = catalogue.find(modelId, modelFolders())
        bounds, note = SceneIO.roiBounds(roiNode, volumeNode) if roiNode else (None, "")
        source = self.files.volumeFile(volumeNode)
        output = self.files.newFile("result.seg.nrrd")
        params = {
            "input": str(source),
            "model": str(bundle.folder),
            "output": str(output),
            "roi": bounds,
            "device": device,
        }
        state, name = SceneIO.fingerprint(volumeNode), f"{volumeNode.GetName()} {bundle.title} segmentation"
        inner = replace(
            listener,
            onFinished=lambda result: self._onFinished(listener, volumeNode, state, output, name, result),
            onFailed=lambda problem: (self._end(output), listener.onFailed(problem)),
            onCancelled=lambda reason: (self._end(output), listener.onCancelled(reason)),
        )
        self._job = Job(self.worker, "segment", params, inner, needs=[volumeNode])
        if note:
            listener.onMessage(note, "warning")

    def cancel(self) -> None:
        """Stop the run; onCancelled follows within two seconds."""
        if self._job:
            self._job.cancel()

    def close(self) -> None:
        """End the worker and remove all files: for the end of the module or the application. Calls nobody back."""
        if self._job:
            self._job.forget()
        self._job = None
        self.worker.quit()
        self.files.clear()

    def _end(self, output: Path) -> None:
        self._job = None
        self.files.remove(output)

    def _onFinished(self, listener: Listener, volumeNode, state: tuple, output: Path, name: str, result: dict) -> None:
        self._job = None
        hasChanged = SceneIO.fingerprint(volumeNode) != state
        try:
            node = SceneIO.importSegmentation(output, volumeNode, name, result)
        except UserError as error:
            listener.onFailed(Problem(error.message, error.hint))
            return
        except Exception as error:  # PythonQt would swallow it, and the caller would wait for ever
            problem = _("The result could not be placed in the scene: {error}").format(error=error)
            listener.onFailed(Problem(problem, _("Send the details to the developers."), traceback.format_exc()))
            return
        finally:
            self.files.remove(output)
        if hasChanged:
            listener.onMessage(_("The volume has changed since; the result belongs to its earlier state."), "warning")
        listener.onFinished(node, result)
