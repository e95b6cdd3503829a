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

from . import DoubtMap, Inputs, Regions, SceneFacts, SceneIO, SegmentVoxels
from .Jobs import Job, Listener, Problem
from .SegmentLogic import Options, SegmentLogic, jobParams


@dataclass
class _Run:
    """inputs: for each input of the model a sequence, or the one volume that goes with every frame."""

    listener: Listener
    volumeNode: object
    browser: object
    inputs: list
    moreInputs: tuple
    bundle: ModelBundle
    params: dict
    name: str
    hasDoubt: bool
    outputs: list[Path] = field(default_factory=list)
    doubts: list[Path] = field(default_factory=list)
    results: list[dict] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    job: Job | None = None

    @property
    def sequence(self):
        """Of the first input."""
        return self.inputs[0]

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
        bundle, nodes = self._segment.models.find(modelId), [volumeNode, *options.moreInputs]
        problem = Inputs.problem(bundle, nodes)
        if problem:
            raise problem
        bounds = Regions.bounds(options.roiNode, volumeNode)[0] if options.roiNode else None
        name = f"{volumeNode.GetName()} {bundle.title} segmentation"
        params = jobParams(bundle, options, bounds)
        inputs = _inputs(nodes)
        run = _Run(listener, volumeNode, browser, inputs, options.moreInputs, bundle, params, name, options.doubtMap)
        self._next(run)
        return lambda: run.job.cancel()

    def _next(self, run: _Run) -> None:
        """The next frame, or the end."""
        index = len(run.results)
        if index == run.frames:
            self._finish(run)
            return
        frames = [_frameOf(item, index) for item in run.inputs]
        problem = Inputs.problem(run.bundle, frames, areFrames=True)
        if problem:
            text = _("Frame {i} of {n}: {problem}").format(i=index + 1, n=run.frames, problem=problem.message)
            raise UserError(text, problem.hint)
        files = self._segment.files
        made = [files.newFile(f"frame_{i}.nrrd") for i, item in enumerate(run.inputs) if _isSequence(item)]
        own = iter(made)
        sources = [next(own) if _isSequence(item) else files.volumeFile(item) for item in run.inputs]
        for frame, source in zip(frames, sources, strict=True):
            if source in made:
                SceneIO.writeVolume(frame, source)
        self._start(run, sources, made)

    def _start(self, run: _Run, sources: list[Path], made: list[Path]) -> None:
        """The job of a frame; the files `made` for it go afterwards."""
        run.outputs.append(self._segment.files.newFile("frame.seg.nrrd"))
        if run.hasDoubt:
            run.doubts.append(self._segment.files.newFile("doubt.nrrd"))
        inner = replace(
            run.listener,
            onProgress=lambda done, of, label: self._onProgress(run, done / of if of else 0),
            onMessage=lambda text, level: self._onMessage(run, text, level),
            onFinished=lambda result: self._onFrame(run, made, result),
            onFailed=lambda found: (self._clear(run, made), run.listener.onFailed(found)),
            onCancelled=lambda reason: (self._clear(run, made), run.listener.onCancelled(reason)),
        )
        params = {**run.params, "input": [str(path) for path in sources], "output": str(run.outputs[-1])}
        params["uncertainty"] = str(run.doubts[-1]) if run.hasDoubt else None
        needs = [run.volumeNode, run.browser, *run.moreInputs, *run.inputs]
        run.job = Job(self._segment.worker, "segment", params, inner, needs)

    def _onProgress(self, run: _Run, share: float) -> None:
        text = _("Frame {i} of {n}").format(i=len(run.results) + 1, n=run.frames)
        run.listener.onProgress(len(run.results) + share, run.frames, text)

    def _onMessage(self, run: _Run, text: str, level: str) -> None:
        """What holds for one frame holds for most: every warning is told once."""
        if level != "warning" or text not in run.warnings:
            run.listener.onMessage(text, level)
        if level == "warning":
            run.warnings.add(text)

    def _onFrame(self, run: _Run, made: list[Path], result: dict) -> None:
        for path in made:
            self._segment.files.remove(path)
        run.results.append(result)
        try:
            self._next(run)
        except UserError as error:
            self._clear(run, made)
            run.listener.onFailed(Problem(error.message, error.hint))
        except Exception as error:  # PythonQt would swallow it, and the caller would wait for ever
            self._clear(run, made)
            problem = _("The frames could not be placed in the scene: {error}").format(error=error)
            run.listener.onFailed(Problem(problem, _("Send the details to the developers."), traceback.format_exc()))

    def _finish(self, run: _Run) -> None:
        node = _place(run)
        self._clear(run, [])
        run.listener.onFinished(node, run.results[-1])

    def _clear(self, run: _Run, made: list[Path]) -> None:
        for path in (*made, *run.outputs, *run.doubts):
            self._segment.files.remove(path)


def _inputs(nodes: list) -> list:
    """The sequence that each node shows a frame of, or the node itself. Raises UserError when the lengths differ."""
    found = [browser.GetSequenceNode(node) if (browser := SceneFacts.browserOf(node)) else node for node in nodes]
    frames = found[0].GetNumberOfDataNodes()
    for node, item in zip(nodes, found, strict=True):
        count = item.GetNumberOfDataNodes() if _isSequence(item) else frames
        if count != frames:
            raise UserError(
                _("Sequences of the same length are needed, but '{first}' has {n} frames and '{name}' has {m}.").format(
                    first=nodes[0].GetName(), n=frames, name=node.GetName(), m=count
                ),
                _("Shorten the longer one, or choose a single volume, which goes with every frame."),
            )
    return found


def _isSequence(item) -> bool:
    return item.IsA("vtkMRMLSequenceNode")


def _frameOf(item, index: int):
    return item.GetNthDataNode(index) if _isSequence(item) else item


def _place(run: _Run):
    """The sequence of segmentations, browsed together with the images; returns its proxy node."""
    aside = slicer.vtkMRMLScene()  # nothing shows before all frames could be read
    frames = []
    for path, result in zip(run.outputs, run.results, strict=True):
        frame = aside.AddNode(slicer.vtkMRMLSegmentationNode())
        SceneIO.readSegments(frame, path)
        frame.SetAttribute(SceneIO.RESULT_ATTRIBUTE, json.dumps(result, ensure_ascii=False))
        frames.append(frame)
    doubts = [
        DoubtMap.made(aside, SegmentVoxels.readLabels(path), run.sequence.GetNthDataNode(index), "doubt")
        for index, path in enumerate(run.doubts)
    ]
    node = _play(run, frames, slicer.mrmlScene.GenerateUniqueName(run.name))
    shown = run.results[max(0, run.browser.GetSelectedItemNumber())]
    node.SetAttribute(SceneIO.RESULT_ATTRIBUTE, json.dumps(shown, ensure_ascii=False))
    node.CreateDefaultDisplayNodes()
    SceneIO.placeBeside(node, run.volumeNode)
    Inputs.remember(node, run.moreInputs)
    if doubts:
        DoubtMap.show(_play(run, doubts, DoubtMap.nameFor(node)), run.volumeNode, node)
    return node


def _play(run: _Run, frames: list, name: str):
    """A sequence of these nodes, browsed together with the images; returns its proxy node, of that name."""
    scene = slicer.mrmlScene
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName(run.sequence.GetIndexName())
    sequence.SetIndexUnit(run.sequence.GetIndexUnit())
    sequence.SetIndexType(run.sequence.GetIndexType())
    for index, frame in enumerate(frames):
        frame.SetName(f"{name} {index + 1}")
        sequence.SetDataNodeAtValue(frame, run.sequence.GetNthIndexValue(index))
    run.browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(run.browser)
    node = run.browser.GetProxyNode(sequence)
    node.SetName(scene.GenerateUniqueName(name))
    return node
