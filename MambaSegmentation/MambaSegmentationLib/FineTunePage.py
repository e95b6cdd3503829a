"""The page Fine-tune: collect corrected cases, teach the model, compare, keep or go back."""

import qt
from slicer.i18n import tr as _

from . import FineTuneLogic
from .AddCaseView import AddCaseView
from .CaseListView import CaseListView
from .HistoryView import HistoryView
from .Page import Page
from .TrainingView import TrainingView


class FineTunePage(Page):
    title = _("Fine-tune")
    toolTip = _("Teach the model with your corrected cases, and keep it only if it got better.")

    def __init__(self, ui, state, services):
        Page.__init__(self, ui, state, services)
        self._isShown = False
        self.addCase = AddCaseView(ui, state, services, self._onCasesChanged)
        self.caseList = CaseListView(ui, services, self._onCasesChanged)
        self.training = TrainingView(ui, state, services, lambda: len(self.caseList.cases), self._onModelChanged)
        self.history = HistoryView(ui, services, self._onModelChanged)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self.refresh)

    def enter(self) -> None:
        self._isShown = True
        self._showAll()

    def exit(self) -> None:
        self._isShown = False

    def cleanup(self) -> None:
        self._soon.stop()
        Page.cleanup(self)

    def bind(self) -> None:
        self._showAll()

    def refresh(self) -> None:
        self._observe()
        self.addCase.show()
        self.training.update()

    def setRunning(self, isRunning: bool) -> None:
        self.addCase.update()
        self.caseList.update()
        self.training.update()
        self.history.update()

    def nodeAboutToBeRemoved(self, node) -> None:
        if node is self.state.resultSegmentation:
            self._soon.start(0)

    def _showAll(self) -> None:
        """What is on disk as well, if somebody sees it."""
        if self._isShown:
            self.caseList.show()
            self._showHistory()
        self.refresh()

    def _showHistory(self) -> None:
        bundle = self.training.bundle()
        self.history.show(bundle, FineTuneLogic.modelsFolder(self.services.models, bundle) if bundle else None)

    def _observe(self) -> None:
        """Segments may come, go and be renamed elsewhere."""
        self.removeObservers(self._onModified)
        segmentation = self.state.resultSegmentation
        if segmentation:
            inner = segmentation.GetSegmentation()
            for event in (inner.SegmentAdded, inner.SegmentRemoved, inner.SegmentModified):
                self.addObserver(inner, event, self._onModified)

    def _onModified(self, caller, event) -> None:
        self._soon.start(0)

    def _onCasesChanged(self) -> None:
        self.caseList.show()
        self.training.update()

    def _onModelChanged(self) -> None:
        self._showHistory()
        self.services.refresh()
