"""How a review begins or goes on: where the cases are, who reviews, blinded or not."""

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from MambaSegLib import review

from . import ReviewLogic, ReviewSources, Settings
from .PanelState import PanelState
from .ReviewLogic import Review

_NAMES = {
    ReviewSources.SCENE: _("Open scene"),
    ReviewSources.FOLDER: _("Folder"),
    ReviewSources.TABLE: _("Table (CSV)"),
    ReviewSources.DICOM: _("DICOM database"),
}
_DIRECTORIES, _FILES = 0x1, 0x2  # filters of a ctkPathLineEdit


class ReviewStart:
    """`onBegun(warnings)` is called with the session open; `attempt(function)` shows a UserError."""

    def __init__(self, ui, state: PanelState, review: Review, attempt: Callable, onBegun: Callable):
        self._ui, self._state, self._review, self._onBegun = ui, state, review, onBegun
        self._isReading = False
        ui.reviewSourceSelector.connect("currentIndexChanged(int)", self._onSource)
        ui.reviewPathEdit.connect("currentPathChanged(QString)", self._onSource)
        ui.reviewReviewerEdit.connect("editingFinished()", self._storeReviewer)
        ui.reviewStartButton.connect("clicked()", lambda: attempt(self._start))
        ui.reviewOpenButton.connect("clicked()", lambda: attempt(self._resume))

    def show(self) -> None:
        """What the scene and the settings say; the DICOM database is offered where there is one."""
        ui, state = self._ui, self._state
        self._isReading = True
        try:
            ui.reviewSourceSelector.clear()
            for source, name in _NAMES.items():
                if source != ReviewSources.DICOM or ReviewSources.dicomDatabase():
                    ui.reviewSourceSelector.addItem(name, source)
            ui.reviewSourceSelector.setCurrentIndex(max(ui.reviewSourceSelector.findData(state.reviewSource), 0))
            ui.reviewPathEdit.currentPath = state.reviewPlace
            ui.reviewReviewerEdit.text = ReviewLogic.reviewer()
        finally:
            self._isReading = False
        self.update()

    def update(self) -> None:
        ui, session, source = self._ui, self._review.session, self._source()
        ui.reviewPathEdit.visible = source in (ReviewSources.FOLDER, ReviewSources.TABLE)
        ui.reviewPathEdit.filters = _DIRECTORIES if source == ReviewSources.FOLDER else _FILES
        ui.reviewBlindedCheckBox.enabled = session is None
        if session is not None:
            ui.reviewBlindedCheckBox.checked = session.blinded is not None

    def _source(self) -> str:
        box = self._ui.reviewSourceSelector
        return box.itemData(box.currentIndex) or ReviewSources.SCENE

    def _onSource(self) -> None:
        if self._isReading:
            return
        source, place = self._source(), self._ui.reviewPathEdit.currentPath
        if (source, place) != (self._state.reviewSource, self._state.reviewPlace) and self._review.session:
            self._ui.reviewBlindedCheckBox.enabled = True  # another list is another review
        self._state.reviewSource, self._state.reviewPlace = source, place
        self._ui.reviewPathEdit.visible = source in (ReviewSources.FOLDER, ReviewSources.TABLE)
        self._ui.reviewPathEdit.filters = _DIRECTORIES if source == ReviewSources.FOLDER else _FILES

    def _storeReviewer(self) -> None:
        Settings.store(Settings.ANNOTATOR_SETTING, self._ui.reviewReviewerEdit.text.strip())

    def _start(self) -> None:
        """Begin with the chosen source, or go on with it."""
        self._storeReviewer()
        source, place, warnings = self._source(), self._ui.reviewPathEdit.currentPath, []
        file = self._state.reviewFile if source == ReviewSources.SCENE and self._isOfScene() else ""
        with slicer.util.WaitCursor():  # a list of ten thousand cases takes a second
            self._review.begin(source, place, file, self._ui.reviewBlindedCheckBox.checked, warnings.append)
        self._began(warnings)

    def _isOfScene(self) -> bool:
        """Whether the review that the scene remembers is one of its own segmentations."""
        return bool(self._state.reviewFile) and ReviewSources.isSceneSession(self._state.reviewFile)

    def _resume(self) -> None:
        kinds = f"{_('Review')} (*{review.ENDING})"
        file = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Go on with a review"), "", kinds)
        if file:
            self._storeReviewer()
            self._review.resume(file)
            self._began([])

    def _began(self, warnings: list[str]) -> None:
        self._state.reviewFile = str(self._review.session.path)
        self.update()
        self._onBegun(warnings)
