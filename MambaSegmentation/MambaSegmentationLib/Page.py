"""What every page of the panel is, and what it gets to work with."""

from collections.abc import Callable
from dataclasses import dataclass

from slicer.util import VTKObservationMixin

from .Dependencies import Dependencies
from .JobQueue import JobQueue
from .Models import Models
from .PanelState import PanelState
from .RunView import RunView
from .SceneIO import ExchangeFolder
from .SegmentLogic import SegmentLogic
from .WorkerClient import WorkerClient


@dataclass
class Services:
    """What the pages share.

    Attributes:
        worker: the one warm process; pages use it through `jobs`.
        jobs: runs jobs and tasks one after the other and shows them in the run area below the pages.
        files: the folder in which nodes and the worker exchange files.
        segment: the verb Segment, also for scripts.
        models: the models on this computer.
        view: the run area: message, log.
        showPage: shows the page of that class name ("CorrectPage").
        refresh: all pages look again at the state; for a page that changed it.
        isClosing: whether the scene is just being closed.
        packages: the Python packages of the worker: what is missing, and installing it.
    """

    worker: WorkerClient
    jobs: JobQueue
    files: ExchangeFolder
    segment: SegmentLogic
    models: Models
    view: RunView
    showPage: Callable[[str], None]
    refresh: Callable[[], None]
    isClosing: Callable[[], bool]
    packages: Dependencies


class Page(VTKObservationMixin):
    """A step of the work: one .ui file, one class. `Resources/UI/<class name>.ui` holds its widgets.

    A page decides nothing about images and starts long work through `services.jobs` only.

    Args:
        ui: the widgets of its .ui file by name, their MRML scene set.
        state: what the scene remembers; `state.node` changes when the scene is closed or loaded.
    """

    title = ""
    toolTip = ""

    def __init__(self, ui, state: PanelState, services: Services):
        VTKObservationMixin.__init__(self)
        self.ui, self.state, self.services = ui, state, services

    def bind(self) -> None:
        """Another scene: show what `state` says now."""

    def refresh(self) -> None:
        """Nodes, jobs or models have changed: what may be pressed, and what is shown of them."""

    def setRunning(self, isRunning: bool) -> None:
        """A job began or the last one ended, of this page or another one."""

    def nodeAboutToBeRemoved(self, node) -> None:
        """Called before the node goes; not while the scene is closing."""

    def enter(self) -> None:
        """The user sees the page from now on."""

    def exit(self) -> None:
        """The user sees it no more."""

    def cleanup(self) -> None:
        """The module goes away."""
        self.removeObservers()
