"""The page Review: go through many segmentations, the most doubtful first, and decide on each."""

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from MambaSegLib import review
from MambaSegLib.errors import UserError

from . import ReviewKeys, ReviewWords
from .Page import Page
from .ReviewCompare import ReviewCompare
from .ReviewList import ReviewList
from .ReviewLogic import Review
from .ReviewNumbers import ReviewNumbers
from .ReviewOutput import ReviewOutput
from .ReviewStart import ReviewStart
from .ReviewStructures import ReviewStructures

_TIPS = {
    "next": _("Go to the next case of the list."),
    "previous": _("Go to the previous case of the list."),
    "accept": _("The segmentation is good: go on with the next case."),
    "flag": _("Something is wrong with it: go on with the next case."),
    "correct": _("Correct it on the page Correct, and come back."),
    "compare": _("Show the ticked segmentations side by side in linked views."),
}


class ReviewPage(Page):
    title = _("Review")
    toolTip = _("Go through many segmentations, the most doubtful first, and accept or flag each.")

    def __init__(self, ui, state, services):
        Page.__init__(self, ui, state, services)
        self.review = Review()
        self.start = ReviewStart(ui, state, self.review, self._attempt, self._onBegun)
        self.list = ReviewList(ui, self.review, self._open, self._update)
        self.numbers = ReviewNumbers(ui, self.review, services)
        self.compare = ReviewCompare(ui, self.review, services, self.numbers, self._attempt, self._onDecided)
        self.structures = ReviewStructures(ui, self.review, self.compare.views.jump)
        self.output = ReviewOutput(ui, self.review, self.numbers, services, self._attempt)
        self._buttons = {
            "next": ui.reviewNextButton,
            "previous": ui.reviewPreviousButton,
            "accept": ui.reviewAcceptButton,
            "flag": ui.reviewFlagButton,
            "correct": ui.reviewCorrectButton,
            "compare": ui.reviewCompareButton,
        }
        self.keys = ReviewKeys.ReviewKeys({name: button.click for name, button in self._buttons.items()})
        self._connect()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, lambda caller, event: self._leaveCase())

    def _connect(self) -> None:
        ui = self.ui
        ui.reviewNextButton.connect("clicked()", lambda: self._step(1))
        ui.reviewPreviousButton.connect("clicked()", lambda: self._step(-1))
        ui.reviewAcceptButton.connect("clicked()", lambda: self._decide(review.COMPLETED))
        ui.reviewFlagButton.connect("clicked()", lambda: self._decide(review.FLAGGED))
        ui.reviewCorrectButton.connect("clicked()", self._correct)
        ui.reviewCommentEdit.connect("editingFinished()", self._note)
        for section in (ui.reviewCompareSection, ui.reviewNumbersSection, ui.reviewExportSection, ui.reviewLogSection):
            section.connect("contentsCollapsed(bool)", self.refresh)  # it shows all that is in it when it opens

    def enter(self) -> None:
        self.start.show()
        self._showKeys()
        self.keys.install()
        self.structures.show()
        self.structures.showAlone()
        self._update()

    def exit(self) -> None:
        self.keys.remove()
        self._showAsBefore()

    def _showAsBefore(self) -> None:
        self.compare.end()
        self.numbers.clear()
        self.structures.restore()

    def cleanup(self) -> None:
        self.exit()
        Page.cleanup(self)
        self._attempt(self.review.leave)

    def bind(self) -> None:
        """Another scene: go on with the review that it remembers."""
        known, wanted = self.review.session, self.state.reviewFile
        if not (known and wanted == str(known.path)):  # else a scene was only added to the one that is reviewed
            self._showAsBefore()
            self._attempt(self.review.end)
            if wanted:
                self._attempt(lambda: self.review.resume(wanted))
        self.start.show()
        self._showCase()

    def refresh(self) -> None:
        self.compare.update()
        self._update()

    def setRunning(self, isRunning: bool) -> None:
        self.compare.update()
        self.numbers.update()
        self.output.update()

    def nodeAboutToBeRemoved(self, node) -> None:
        self.compare.drop(node)
        case = self.review.case
        if case and (node is case.volume or node is case.segmentation):
            self._leaveCase()
            self._showCase()

    def _onBegun(self, warnings: list[str]) -> None:
        self.output.forgetCheck()
        for warning in warnings:
            self.services.view.message("warning", warning, "")
        self._goTo(self.review.first())

    def _open(self, entryId: str) -> None:
        if self.review.case and self.review.case.isThere and self.review.case.entry.id == entryId:
            return
        self._showAsBefore()
        self.output.forgetExport()
        self._note()
        self._attempt(lambda: self._openNow(entryId))
        self._showCase()

    def _note(self) -> None:
        if self.review.case:
            self._attempt(lambda: self.review.note(self.ui.reviewCommentEdit.text))

    def _openNow(self, entryId: str) -> None:
        case = self.review.open(entryId)
        slicer.util.setSliceViewerLayers(background=case.volume, fit=True)
        self.structures.showAlone()
        self.ui.reviewCommentEdit.text = case.entry.comment

    def _step(self, step: int) -> None:
        entry = self.review.neighbour(step) if self.review.session else None
        if entry:
            self._open(entry.id)
        elif self.review.session:
            self._say(_("This is the last case.") if step > 0 else _("This is the first case."))

    def _decide(self, status: str) -> None:
        segmentId = self.structures.inFocus
        outcome: list[bool] = []
        comment = self.ui.reviewCommentEdit.text
        if not self._attempt(lambda: outcome.append(self.review.decide(status, comment, segmentId))):
            return
        self._onDecided()
        if outcome[0]:
            self._goTo(self.review.next())
        else:
            status = self.review.case.status
            open_ = [i for i in self.structures.ids if status(i) not in (review.COMPLETED, review.FLAGGED)]
            self.structures.choose(open_[0])

    def _goTo(self, entry) -> None:
        """Open the case that waits for a decision, else tell that there is none."""
        if entry:
            self._open(entry.id)
        else:
            self._showCase()
            self._say(_("All cases of this list are reviewed."))

    def _correct(self) -> None:
        case = self.review.case
        if case and case.isThere:  # the key works without a case, too
            self.state.inputVolume, self.state.resultSegmentation = case.volume, case.segmentation
            self.services.refresh()
            self.services.showPage("CorrectPage")
            case.segmentation.SetDisplayVisibility(True)

    def _onDecided(self) -> None:
        self.output.forgetCheck()
        self.list.show()
        self.structures.show()

    def _showCase(self) -> None:
        self.list.show()
        self.structures.show()
        if self.structures.ids:
            self.structures.choose(self.structures.ids[0])
        self.compare.update()
        self._update()

    def _update(self) -> None:
        ui, case = self.ui, self.review.case
        hasCase = bool(case and case.isThere)
        ui.reviewHintLabel.text = _hint(self.review)
        ui.reviewHintLabel.visible = bool(ui.reviewHintLabel.text)
        for section in (ui.reviewCaseSection, ui.reviewCompareSection, ui.reviewNumbersSection, ui.reviewExportSection):
            section.visible = hasCase
        ui.reviewLogSection.visible = self.review.session is not None
        if hasCase:
            ui.reviewCaseLabel.text = _title(self.review)
        self.numbers.update()
        self.output.update()

    def _showKeys(self) -> None:
        for name, button in self._buttons.items():
            key = ReviewKeys.keyOf(name)
            button.toolTip = f"{_TIPS[name]} ({_('key')} {key})" if key else _TIPS[name]

    def _say(self, text: str) -> None:
        self.services.view.message("info", text, "")

    def _attempt(self, action: Callable) -> bool:
        """Do it; what the user can put right is shown."""
        try:
            action()
        except UserError as error:
            self.services.view.message("error", error.message, error.hint)
            return False
        except OSError as error:
            hint = _("Check the rights of the folder and the room on the disk.")
            self.services.view.message("error", str(error), hint)
            return False
        return True

    def _leaveCase(self) -> None:
        """Its nodes go; what was changed in a case from a file is kept."""
        self._showAsBefore()
        if self.review.case:
            self._attempt(self.review.keep)
            self.review.forget()


def _title(review_: Review) -> str:
    """Of the open case, and what somebody else did with it."""
    entry = review_.case.entry
    if not review_.isOthers(entry):
        return entry.title
    words = _("{status} by {name}").format(status=ReviewWords.STATUS[entry.status], name=entry.reviewer)
    return "\n".join(filter(None, [entry.title, words, entry.comment]))


def _hint(review_: Review) -> str:
    if review_.session is None:
        return _("Choose where the cases are and press Start. Decisions are kept; you can stop at any time.")
    if not review_.entries():
        return _("No case passes the filter.")
    return "" if review_.case else _("Click a case to open it.")
