"""The verb Segment: nodes -> job -> nodes. Needs no panel: scripts and other modules may use it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError

from . import DoubtMap, Inputs, Regions, SceneIO, SegmentVoxels
from .JobQueue import diskHint
from .Jobs import Job, Listener, Problem
from .Models import Models
from .WorkerClient import WorkerClient


@dataclass(frozen=True)
class Options:
    """How to segment.

    Attributes:
        roiNode: markups ROI; nothing is labelled outside of it.
        device: "auto", "cpu", "cuda", "mps".
        moreInputs: the further volume nodes of a model with several inputs, in its order.
        structures: names; empty for all of the model.
        smoothingMm: 0 for none.
        largestComponent: keep only the largest connected part of every structure.
        doubtMap: also make a volume of the model's doubt.
    """

    roiNode: object = None
    device: str = "auto"
    moreInputs: tuple = ()
    structures: tuple[str, ...] = ()
    smoothingMm: float = 0.0
    largestComponent: bool = False
    doubtMap: bool = False


@dataclass
class _Run:
    """What the end of a job needs to know of its beginning."""

    listener: Listener
    volumeNode: object
    state: list[tuple]
    output: Path
    name: str
    nodes: list = field(default_factory=list)
    ijkToRas: object = None  # of volumeNode
    doubt: Path | None = None  # the file of the map of doubt


class SegmentLogic:
    """Segments a volume node with a model, in the background; one run at a time.

    >>> logic = SegmentLogic()
    >>> logic.start(volumeNode, "hippocampus", onFinished=lambda segmentationNode, result: print(result["segments"]))
    """

    def __init__(self, worker: WorkerClient | None = None, models: Models | None = None):
        self.worker, self.models = worker or WorkerClient(), models or Models()
        self.files = SceneIO.ExchangeFolder()
        self._job: Job | None = None

    @property
    def isRunning(self) -> bool:
        return self._job is not None

    def start(self, volumeNode, modelId: str, **arguments) -> None:
        """Start a run; modelId is a model's id or folder; `arguments` are those of Options and of Jobs.Listener.

        onFinished gets the segmentation node and the job's result (dict). What is wrong with the input arrives in
        onFailed, too.
        """
        known = {f.name for f in fields(Options)}
        listener = Listener(**{name: value for name, value in arguments.items() if name not in known})
        options = Options(**{name: value for name, value in arguments.items() if name in known})
        try:
            self.begin(listener, volumeNode, modelId, options)
        except UserError as error:
            listener.onFailed(Problem(error.message, error.hint))
        except OSError as error:
            problem = _("The files for the job could not be written: {error}.").format(error=error)
            listener.onFailed(Problem(problem, diskHint(error), traceback.format_exc()))

    def begin(self, listener: Listener, volumeNode, modelId: str, options: Options) -> Callable[[], None]:
        """As `start`, but what is wrong with the input is raised (UserError, OSError); returns what cancels it."""
        if self.isRunning:
            raise UserError(_("A segmentation is already running."), _("Wait for it, or cancel it first."))
        bundle, nodes = self.models.find(modelId), [volumeNode, *options.moreInputs]
        problem = Inputs.problem(bundle, nodes)
        if problem:
            raise problem
        bounds, note = Regions.bounds(options.roiNode, volumeNode) if options.roiNode else (None, "")
        sources = [str(self.files.volumeFile(node)) for node in nodes]
        output = self.files.newFile("result.seg.nrrd")
        name = f"{volumeNode.GetName()} {bundle.title} segmentation"
        run = _Run(listener, volumeNode, [SceneIO.fingerprint(node)[:2] for node in nodes], output, name, nodes)
        run.ijkToRas = SceneIO.ijkToRas(volumeNode)
        run.doubt = self.files.newFile("doubt.nrrd") if options.doubtMap else None
        inner = replace(
            listener,
            onFinished=lambda result: self._onFinished(run, result),
            onFailed=lambda problem: (self._end(run), listener.onFailed(problem)),
            onCancelled=lambda reason: (self._end(run), listener.onCancelled(reason)),
        )
        params = {**jobParams(bundle, options, bounds), "input": sources, "output": str(output)}
        params["uncertainty"] = str(run.doubt) if run.doubt else None
        self._job = Job(self.worker, "segment", params, inner, needs=nodes)
        if note:
            listener.onMessage(note, "warning")
        return self.cancel

    def estimate(self, volumeNode, modelId: str, options: Options, listener: Listener) -> Job:
        """Ask how long `begin` would take: onFinished gets {seconds, memory_mb, windows, how}. Raises UserError."""
        self.worker.ensureOpen()  # before a file is written that nobody would remove
        bundle = self.models.find(modelId)
        bounds = Regions.bounds(options.roiNode, volumeNode)[0] if options.roiNode else None
        path = self.files.geometryFile(volumeNode)
        inner = replace(
            listener,
            onFinished=lambda result: (self.files.remove(path), listener.onFinished(result)),
            onFailed=lambda problem: (self.files.remove(path), listener.onFailed(problem)),
            onCancelled=lambda reason: (self.files.remove(path), listener.onCancelled(reason)),
        )
        return Job(self.worker, "estimate", {**jobParams(bundle, options, bounds), "input": str(path)}, inner)

    def cancel(self) -> None:
        """Stop the run; onCancelled follows within two seconds."""
        if self._job:
            self._job.cancel()

    def close(self) -> None:
        """End the worker and remove all files: for the end of the module or the application. Calls nobody back."""
        if self._job:
            self._job.forget()
        self._job = None
        self.worker.close()
        self.files.clear()

    def _end(self, run: _Run) -> None:
        self._job = None
        for path in filter(None, (run.output, run.doubt)):
            self.files.remove(path)

    def _onFinished(self, run: _Run, result: dict) -> None:
        self._job = None
        try:
            doubt = SegmentVoxels.readLabels(run.doubt) if run.doubt else None
            hasChanged = [SceneIO.fingerprint(node)[:2] for node in run.nodes] != run.state
            node = SceneIO.importSegmentation(run.output, run.volumeNode, run.name, result)
            Inputs.remember(node, run.nodes[1:])
            isMoved = _moveAlong(node, run.ijkToRas, SceneIO.ijkToRas(run.volumeNode))
            if doubt is not None:
                DoubtMap.place(doubt, run.volumeNode, node)
        except UserError as error:
            run.listener.onFailed(Problem(error.message, error.hint))
            return
        except Exception as error:  # PythonQt would swallow it, and the caller would wait for ever
            problem = _("The result could not be placed in the scene: {error}").format(error=error)
            run.listener.onFailed(Problem(problem, _("Send the details to the developers."), traceback.format_exc()))
            return
        finally:
            self._end(run)
        if hasChanged:
            text = _("The volume has changed since; the result belongs to its earlier state.")
            run.listener.onMessage(text, "warning")
        if isMoved:
            text = _("The volume got another geometry meanwhile; the result was moved onto it.")
            run.listener.onMessage(text, "warning")
        run.listener.onFinished(node, result)


def _moveAlong(segmentationNode, before: np.ndarray, now: np.ndarray) -> bool:
    """Keep a segmentation on its voxels when the volume's geometry went from `before` to `now` (4x4, IJK to RAS), as
    by hardening a transform. Returns whether it had to move."""
    if np.allclose(before, now, rtol=0, atol=1e-6):
        return False
    segmentationNode.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(now @ np.linalg.inv(before)))
    return True


def jobParams(bundle: ModelBundle, options: Options, bounds: list[float] | None) -> dict:
    """The request of the jobs "segment" and "estimate", but for its files; bounds: the region in LPS mm."""
    return {
        "model": str(bundle.folder),
        "roi": bounds,
        "device": options.device,
        "labels": list(options.structures),
        "smoothing_mm": options.smoothingMm,
        "largest_component": options.largestComponent,
    }
