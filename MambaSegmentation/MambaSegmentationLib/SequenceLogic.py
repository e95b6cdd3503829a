"""Segmenting every frame of a sequence: the result is a sequence of segmentations beside that of the images."""

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError

from . import Inputs, Regions, SceneFacts, SceneIO
from .Jobs import Job, Listener, Problem
from .SegmentLogic import Options, SegmentLogic, jobParams


@dataclass
class _Run:
    listener: Listener
    volumeNode: object
    browser: object
    sequence: object
    bundle: ModelBundle
    params: dict
    name: str
    outputs: list[Path] = field(default_factory=list)
    results: list[dict] = field(default_factory=list)
    job: Job | None = None

    @property
    def frames(self) -> int:
        return self.sequence.GetNumberOfDataNodes()


class SequenceLogic:
    """One job per frame; nothing enters the scene before the last one is done.

    Args:
        segment: gives the worker, the models and the files.
    """

    def __init__(self, segment: SegmentLogic):
        self._segment = segment

    def begin(self, listener: Listener, volumeNode, modelId: str, options: Options) -> Callable[[], None]:
        """onFinished gets the proxy segmentation node and the result of the last frame. Returns what cancels it.

        Raises UserError for what is wrong with the input.
        """
        browser = SceneFacts.browserOf(volumeNode)
        if browser is None:
            raise UserError(
                _("'{name}' is no frame of a sequence.").format(name=volumeNode.GetName()),
                _("Load the images as a sequence, or segment this volume alone."),
            )
        bundle = self._segment.models.find(modelId)
        bounds = Regions.bounds(options.roiNode, volumeNode)[0] if options.roiNode else None
        name = f"{volumeNode.GetName()} {bundle.title} segmentation"
        params = jobParams(bundle, options, bounds)
        run = _Run(listener, volumeNode, browser, browser.GetSequenceNode(volumeNode), bundle, params, name)
        self._next(run)
        return lambda: run.job.cancel()

    def _next(self, run: _Run) -> None:
        """The next frame, or the end."""
        index = len(run.results)
        if index == run.frames:
            self._finish(run)
            return
        frame = run.sequence.GetNthDataNode(index)
        problem = Inputs.problem(run.bundle, [frame])
        if problem:
            raise problem
        source, output = self._segment.files.newFile("frame.nrrd"), self._segment.files.newFile("frame.seg.nrrd")
        SceneIO.writeVolume(frame, source)
        run.outputs.append(output)
        needs = [run.volumeNode, run.browser, run.sequence]
        inner = replace(
            run.listener,
            onProgress=lambda done, of, label: self._onProgress(run, done / of if of else 0),
            onFinished=lambda result: self._onFrame(run, source, result),
            onFailed=lambda found: (self._clear(run, source), run.listener.onFailed(found)),
            onCancelled=lambda reason: (self._clear(run, source), run.listener.onCancelled(reason)),
        )
        params = {**run.params, "input": str(source), "output": str(output)}
        run.job = Job(self._segment.worker, "segment", params, inner, needs)

    def _onProgress(self, run: _Run, share: float) -> None:
        text = _("Frame {i} of {n}").format(i=len(run.results) + 1, n=run.frames)
        run.listener.onProgress(len(run.results) + share, run.frames, text)

    def _onFrame(self, run: _Run, source: Path, result: dict) -> None:
        self._segment.files.remove(source)
        run.results.append(result)
        try:
            self._next(run)
        except UserError as error:
            self._clear(run, source)
            run.listener.onFailed(Problem(error.message, error.hint))
        except Exception as error:  # PythonQt would swallow it, and the caller would wait for ever
            self._clear(run, source)
            problem = _("The frames could not be placed in the scene: {error}").format(error=error)
            run.listener.onFailed(Problem(problem, _("Send the details to the developers."), traceback.format_exc()))

    def _finish(self, run: _Run) -> None:
        node = _place(run)
        for path in run.outputs:
            self._segment.files.remove(path)
        run.listener.onFinished(node, run.results[-1])

    def _clear(self, run: _Run, source: Path) -> None:
        for path in (source, *run.outputs):
            self._segment.files.remove(path)


def _place(run: _Run):
    """The sequence of segmentations, browsed together with the images; returns its proxy node."""
    scene, aside = slicer.mrmlScene, slicer.vtkMRMLScene()  # nothing shows before all frames could be read
    frames = []
    for path, result in zip(run.outputs, run.results, strict=True):
        frame = aside.AddNode(slicer.vtkMRMLSegmentationNode())
        SceneIO.readSegments(frame, path)
        frame.SetAttribute(SceneIO.RESULT_ATTRIBUTE, json.dumps(result, ensure_ascii=False))
        frames.append(frame)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(run.name))
    sequence.SetIndexName(run.sequence.GetIndexName())
    sequence.SetIndexUnit(run.sequence.GetIndexUnit())
    sequence.SetIndexType(run.sequence.GetIndexType())
    for index, frame in enumerate(frames):
        frame.SetName(f"{run.name} {index + 1}")
        sequence.SetDataNodeAtValue(frame, run.sequence.GetNthIndexValue(index))
    run.browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(run.browser)
    node = run.browser.GetProxyNode(sequence)
    node.SetName(scene.GenerateUniqueName(run.name))
    shown = run.results[max(0, run.browser.GetSelectedItemNumber())]
    node.SetAttribute(SceneIO.RESULT_ATTRIBUTE, json.dumps(shown, ensure_ascii=False))
    node.CreateDefaultDisplayNodes()
    SceneIO.placeBeside(node, run.volumeNode)
    return node
