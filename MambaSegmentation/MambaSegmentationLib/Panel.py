"""Wires the pages, the scene and the run area. Decides nothing; what a page does stands in the page."""

from collections.abc import Callable

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from .CorrectPage import CorrectPage
from .Dependencies import Dependencies
from .FineTunePage import FineTunePage
from .JobQueue import JobQueue
from .Page import Page, Services
from .PanelState import PanelState
from .ReviewPage import ReviewPage
from .RunArea import RunArea
from .RunView import RunView
from .SegmentLogic import SegmentLogic
from .SegmentPage import SegmentPage
from .SettingsPage import SettingsPage

# In the order of the work. Each has a .ui file of its own name.
PAGES = (SegmentPage, CorrectPage, FineTunePage, ReviewPage, SettingsPage)


class Panel(VTKObservationMixin):
    """The module's panel.

    Args:
        widget: the widget of MambaSegmentation.ui.
        logic: runs the segmentations.
        getParameterNode: gives the scene's parameter node of the module, a new one after the scene was closed.
        resourcePath: gives the path of a file in Resources.
    """

    def __init__(self, widget, logic: SegmentLogic, getParameterNode: Callable, resourcePath: Callable[[str], str]):
        VTKObservationMixin.__init__(self)
        self.ui = slicer.util.childWidgetVariables(widget)
        self._getParameterNode, self._resourcePath = getParameterNode, resourcePath
        self._isClosing = self._isVisible = False
        self.state = PanelState(getParameterNode())
        self.runView = RunView(self.ui)
        self.jobs = JobQueue(logic.worker)
        self.jobs.onChanged = self._onJobsChanged
        packages = Dependencies(self.jobs, logic.files, self.runView, resourcePath("requirements.txt"))
        self.runArea = RunArea(self.ui, self.jobs, self.runView, packages.offerFor)
        self.services = Services(
            *(logic.worker, self.jobs, logic.files, logic, logic.models),
            *(self.runView, self.showPage, self.refresh, self.isClosing, packages),
        )
        self._shown: Page | None = None
        self.pages: dict[str, Page] = {}
        self._areas: dict[str, object] = {}  # what scrolls each page
        for pageClass in PAGES:
            self._addPage(pageClass)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self._onSoon)
        self.ui.pageTabs.connect("currentChanged(int)", self._onTab)
        self._observeScene()
        self._bind()

    def page(self, name: str) -> Page:
        """The page of that class name, as "SegmentPage"."""
        return self.pages[name]

    def showPage(self, name: str) -> None:
        self.ui.pageTabs.setCurrentIndex(list(self.pages).index(name))

    def isClosing(self) -> bool:
        """Whether the scene is just being closed or imported, or the module has gone: what the selectors say of their
        nodes then is no choice of the user's."""
        return self._isClosing

    def refresh(self) -> None:
        """Something has changed: every page looks again what it can do."""
        for page in self.pages.values():
            page.refresh()

    def enter(self) -> None:
        """The user came (back) to the module."""
        self._isVisible = True
        self._show(self._currentPage())
        self.services.packages.look()

    def exit(self) -> None:
        """The user went to another module."""
        self._isVisible = False
        self._show(None)

    def cleanup(self) -> None:
        """The module goes away: end the worker for good and forget all jobs; calls nobody back."""
        self._isClosing = True  # after a reload the old widgets stay, hidden, and go on following the scene
        self.removeObservers()
        self._soon.stop()
        self._show(None)
        for page in self.pages.values():
            page.cleanup()
        self.jobs.forget()
        self.services.segment.close()
        self.runView.end()

    # Pages

    def _addPage(self, pageClass: type[Page]) -> None:
        widget = slicer.util.loadUI(self._resourcePath(f"UI/{pageClass.__name__}.ui"))
        area = qt.QScrollArea()  # the run area below it stays in sight, however long the page is
        area.setWidgetResizable(True)
        area.setFrameShape(qt.QFrame.NoFrame)
        area.setWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        ui = slicer.util.childWidgetVariables(widget)
        for section in (w for w in vars(ui).values() if w.className() == "ctkCollapsibleButton"):
            section.connect("contentsCollapsed(bool)", lambda isCollapsed, s=section: isCollapsed or _showContents(s))
        self.pages[pageClass.__name__] = pageClass(ui, self.state, self.services)
        self._areas[pageClass.__name__] = area
        index = self.ui.pageTabs.addTab(area, pageClass.title)
        self.ui.pageTabs.setTabToolTip(index, pageClass.toolTip)

    def _currentPage(self) -> Page:
        return list(self.pages.values())[self.ui.pageTabs.currentIndex]

    def _onTab(self, index: int) -> None:
        if self._isVisible:
            self._show(self._currentPage())

    def _show(self, page: Page | None) -> None:
        if self._shown is not page and self._shown is not None:
            self._shown.exit()
        self._shown = page
        if page is not None:
            page.enter()
            self._soon.start(0)  # the layout of a page is up to date only when it is shown

    def _fitWidth(self) -> None:
        """As wide as the page shown needs, as with modules of Slicer: its Segment Editor is wider than 350 points."""
        for name, area in self._areas.items():
            isShown = self.pages[name] is self._shown
            needed = [part.property("minimumSizeHint").width() for part in (area.widget(), area.verticalScrollBar())]
            area.setMinimumWidth(sum(needed) if isShown else 0)

    # Jobs

    def _onJobsChanged(self) -> None:
        self.runArea.showQueue()
        for page in self.pages.values():
            page.setRunning(self.jobs.isRunning)

    # The scene

    def _bind(self) -> None:
        """Show the parameter node of the scene as it is now."""
        self.state.node = self._getParameterNode()
        for page in self.pages.values():
            page.bind()

    def _observeScene(self) -> None:
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onNodeRemoved)
        self.addObserver(scene, scene.EndBatchProcessEvent, self._onBatchEnded)
        for event in (scene.StartCloseEvent, scene.StartImportEvent):
            self.addObserver(scene, event, self._onSceneChanging, priority=1.0)
        # At both ends the selectors drop their nodes and list those of the scene anew: after that it is our turn.
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self._onSceneChanged, priority=-1.0)

    def _onNodeAdded(self, caller, event) -> None:
        if not slicer.mrmlScene.IsBatchProcessing():
            self._soon.start(0)  # later, as the loader has not put the image in yet

    def _onNodeRemoved(self, caller, event) -> None:
        if not self._isClosing and not slicer.mrmlScene.IsBatchProcessing():
            self._soon.start(0)

    def _onBatchEnded(self, caller, event) -> None:
        """Nodes came and went unseen, and the Segment Editor has looked for a segmentation of its own."""
        self._soon.start(0)

    def _onSoon(self) -> None:
        if not slicer.mrmlScene.IsBatchProcessing():
            self.refresh()
        self._fitWidth()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        if not self._isClosing:
            for page in self.pages.values():
                page.nodeAboutToBeRemoved(node)

    def _onSceneChanging(self, caller, event) -> None:
        self._isClosing = True

    def _onSceneChanged(self, caller, event) -> None:
        self._isClosing = False
        self._bind()


def _showContents(section) -> None:
    """CTK leaves a section empty for good that came, folded, while another tab was shown.

    Shows what is not hidden on its own account.
    """
    for child in section.children():
        if child.inherits("QWidget") and child.isHidden() and child.property("visibilityToParent") in (None, True):
            child.show()
