"""The verb Segment: nodes -> job -> nodes. Needs no panel: scripts and other modules may use it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MambaSegLib import catalogue
from MambaSegLib.errors import UserError

from . import SceneIO
from .WorkerClient import WorkerClient

MODEL_FOLDERS_SETTING = "MambaSegmentation/modelFolders"


def modelFolders() -> list[str]:
    """Further folders with models, from Slicer's settings (one, or several separated by ';')."""
    return [f for f in slicer.util.settingsValue(MODEL_FOLDERS_SETTING, "", converter=str).split(";") if f.strip()]


@dataclass
class Problem:
    """Why a run failed: what was expected and came, what to do, and what a developer wants to see."""

    message: str
    hint: str = ""
    details: str = ""


def _ignore(*arguments) -> None:
    pass


@dataclass
class _Run:
    volumeNode: object
    volumeState: tuple
    output: Path
    title: str
    onProgress: Callable
    onMessage: Callable
    onFinished: Callable
    onFailed: Callable
    onCancelled: Callable
    requestId: str = ""


class SegmentLogic(VTKObservationMixin):
    """Segments a volume node with a model, in the background; one run at a time.

    >>> logic = SegmentLogic()
    >>> logic.start(volumeNode, "hippocampus", onFinished=lambda segmentationNode, result: print(result["segments"]))

    Callbacks, all in the GUI thread; after start exactly one of the last three is called:
        onProgress(done, of, label); onMessage(text, level "info" or "warning");
        onFinished(segmentationNode, result dict of the job); onFailed(Problem); onCancelled(reason text, may be "")
    """

    def __init__(self, worker: WorkerClient | None = None):
        VTKObservationMixin.__init__(self)
        self.worker = worker or WorkerClient()
        self.files = SceneIO.ExchangeFolder()
        self._run: _Run | None = None

    @property
    def isRunning(self) -> bool:
        return self._run is not None

    def start(
        self,
        volumeNode,
        modelId: str,
        roiNode=None,
        device: str = "auto",
        onProgress: Callable = _ignore,
        onMessage: Callable = _ignore,
        onFinished: Callable = _ignore,
        onFailed: Callable = _ignore,
        onCancelled: Callable = _ignore,
    ) -> None:
        """Start a run; modelId is a model's id or folder. What is wrong with the input arrives in onFailed, too."""
        if self.isRunning:
            onFailed(Problem(_("A segmentation is already running."), _("Wait for it, or cancel it first.")))
            return
        try:
            self._begin(volumeNode, modelId, roiNode, device, onProgress, onMessage, onFinished, onFailed, onCancelled)
        except UserError as error:
            onFailed(Problem(error.message, error.hint))
        except OSError as error:
            problem = _("The files for the job could not be written: {error}.").format(error=error)
            onFailed(Problem(problem, _("Make room on the disk of Slicer's temporary folder."), traceback.format_exc()))

    def cancel(self) -> None:
        """Stop the run; onCancelled follows within two seconds."""
        if self._run:
            self.worker.cancel(self._run.requestId)

    def close(self) -> None:
        """End the worker and remove all files: for the end of the module or the application. Calls nobody back."""
        self._forget()
        self.worker.quit()
        self.files.clear()

    def _begin(self, volumeNode, modelId, roiNode, device, *callbacks) -> None:
        bundle = catalogue.find(modelId, modelFolders())
        bounds, note = SceneIO.roiBounds(roiNode, volumeNode) if roiNode else (None, "")
        source = self.files.volumeFile(volumeNode)
        output = self.files.newFile("result.seg.nrrd")
        run = _Run(volumeNode, SceneIO.fingerprint(volumeNode), output, bundle.title, *callbacks)
        params = {
            "input": str(source),
            "model": str(bundle.folder),
            "output": str(output),
            "roi": bounds,
            "device": device,
        }
        run.requestId = self.worker.run("segment", params, lambda event: self._onEvent(run, event))
        self._run = run
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self._onNodeRemoved)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneClosed)
        if note:
            run.onMessage(note, "warning")

    def _onEvent(self, run: _Run, event: dict) -> None:
        kind = event["event"]
        if run is not self._run:  # given up; the worker just tells its end
            if kind in ("finished", "failed", "cancelled"):
                self.files.remove(run.output)
        elif kind == "progress":
            run.onProgress(event["done"], event["of"], event["label"])
        elif kind == "message":
            run.onMessage(event["text"], event["level"])
        elif kind == "failed":
            self._forget()
            self.files.remove(run.output)
            run.onFailed(Problem(event["message"], event["hint"], event["traceback"]))
        elif kind == "cancelled":
            self._forget()
            self.files.remove(run.output)
            run.onCancelled("")
        elif kind == "finished":
            self._forget()
            self._place(run, event["result"])

    def _place(self, run: _Run, result: dict) -> None:
        hasChanged = SceneIO.fingerprint(run.volumeNode) != run.volumeState
        name = f"{run.volumeNode.GetName()} {run.title} segmentation"
        try:
            node = SceneIO.importSegmentation(run.output, run.volumeNode, name, result)
        except UserError as error:
            run.onFailed(Problem(error.message, error.hint))
            return
        except Exception as error:  # PythonQt would swallow it, and the panel would wait for ever
            problem = _("The result could not be placed in the scene: {error}").format(error=error)
            run.onFailed(Problem(problem, _("Send the details to the developers."), traceback.format_exc()))
            return
        finally:
            self.files.remove(run.output)
        if hasChanged:
            run.onMessage(_("The volume has changed since; the result belongs to its earlier state."), "warning")
        run.onFinished(node, result)

    def _forget(self) -> None:
        self.removeObservers()
        self._run = None

    def _giveUp(self, reason: str) -> None:
        run = self._run
        self._forget()
        self.worker.cancel(run.requestId)
        run.onCancelled(reason)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node) -> None:
        if self._run and node is self._run.volumeNode:
            self._giveUp(_("The volume was removed from the scene, so its segmentation was stopped."))

    def _onSceneClosed(self, caller, event) -> None:
        if self._run:
            self._giveUp(_("The scene was closed, so the segmentation was stopped."))
