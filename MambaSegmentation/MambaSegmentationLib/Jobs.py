"""A job of the worker as the panel meets it: who listens to it, and what happens when its nodes leave the scene."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .WorkerClient import WorkerClient


@dataclass
class Problem:
    """Why a run failed: what was expected and came, what to do, and what a developer wants to see.

    package: the Python package that is missing or damaged, if that is why.
    """

    message: str
    hint: str = ""
    details: str = ""
    package: str = ""


def ignore(*arguments) -> None:
    """For a listener that does not want to know."""


@dataclass
class Listener:
    """Callbacks of a run, all in the GUI thread; exactly one of the last three is called, once.

    onProgress(done, of, label); onMessage(text, level "info" or "warning"); onMetric(step, name, value or None);
    onPicture(step, path of a PNG that may go soon, text);
    onFinished(...) with what the run made; onFailed(Problem); onCancelled(reason text, may be "")
    """

    onProgress: Callable = ignore
    onMessage: Callable = ignore
    onMetric: Callable = ignore
    onPicture: Callable = ignore
    onFinished: Callable = ignore
    onFailed: Callable = ignore
    onCancelled: Callable = ignore


class Job(VTKObservationMixin):
    """One request to the worker, from start to end. It is given up when a node that it needs leaves the scene.

    Args:
        name, params: as in MambaSegLib.job; files and numbers only.
        listener: onFinished gets the job's result (dict). Its callbacks end with the job.
        needs: nodes; with any, closing the scene gives the job up as well.

    Raises UserError when there is no Python to run it with.
    """

    def __init__(self, worker: WorkerClient, name: str, params: dict, listener: Listener, needs: Iterable = ()):
        VTKObservationMixin.__init__(self)
        self._worker, self._listener, self._needs = worker, listener, list(needs)
        self._id = worker.run(name, params, self._onEvent)
        if self._needs:
            scene = slicer.mrmlScene
            self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeRemoved)
            self.addObserver(scene, scene.StartCloseEvent, self._onSceneClosed)

    def cancel(self) -> None:
        """onCancelled follows within two seconds."""
        self._worker.cancel(self._id)

    def forget(self) -> None:
        """Call nobody back any more."""
        self.removeObservers()
        self._listener = Listener()

    def _onEvent(self, event: dict) -> None:
        kind, listener = event["event"], self._listener
        if kind == "progress":
            listener.onProgress(event["done"], event["of"], event["label"])
        elif kind == "message":
            listener.onMessage(event["text"], event["level"])
        elif kind == "metric":
            listener.onMetric(event["step"], event["name"], event["value"])
        elif kind == "picture":
            listener.onPicture(event["step"], event["path"], event["text"])
        elif kind == "failed":
            self.forget()
            listener.onFailed(Problem(event["message"], event["hint"], event["traceback"], event.get("package", "")))
        elif kind == "cancelled":
            self.forget()
            listener.onCancelled("")
        elif kind == "finished":
            self.forget()
            listener.onFinished(event["result"])

    def _giveUp(self, reason: str) -> None:
        listener = self._listener
        self.forget()
        self.cancel()
        listener.onCancelled(reason)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node) -> None:
        if any(node is needed for needed in self._needs):
            self._giveUp(_("'{name}' was removed from the scene, so the run was stopped.").format(name=node.GetName()))

    def _onSceneClosed(self, caller, event) -> None:
        self._giveUp(_("The scene was closed, so the run was stopped."))
