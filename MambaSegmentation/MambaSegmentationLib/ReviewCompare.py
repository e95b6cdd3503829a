"""The case beside other segmentations of the same image: linked views, what differs, numbers, and which one is best."""

from collections.abc import Callable

from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import CompareViews
from .Page import Services
from .ReviewLogic import Review, reviewer
from .ReviewNumbers import ReviewNumbers


class ReviewCompare:
    """`onChosen()` is called after the best one was named; `attempt(function)` shows a UserError."""

    def __init__(
        self, ui, review: Review, services: Services, numbers: ReviewNumbers, attempt: Callable, onChosen: Callable
    ):
        self._ui, self._review, self._services, self._numbers = ui, review, services, numbers
        self._attempt, self._onChosen = attempt, onChosen
        self.views = CompareViews.CompareViews()
        self._shown: list = []  # the candidates as they are shown
        self._names: list[str] = []  # in their own order
        self._choices = (ui.reviewChoice1Button, ui.reviewChoice2Button, ui.reviewChoice3Button)
        ui.reviewCompareButton.connect("toggled(bool)", self._onToggled)
        ui.reviewCompareSelector.connect("checkedNodesChanged()", self.update)
        ui.reviewDifferenceCheckBox.connect("toggled(bool)", self.views.setDifferenceShown)
        for index, button in enumerate(self._choices):
            button.connect("clicked()", lambda index=index: self._choose(index))
        ui.reviewChoiceNoneButton.connect("clicked()", lambda: self._choose(None))
        self.update()

    @property
    def isShown(self) -> bool:
        return self.views.isShown

    def others(self) -> list:
        """The ticked segmentations besides the case's own."""
        case = self._review.case
        own = case.segmentation if case else None
        return [node for node in self._ui.reviewCompareSelector.checkedNodes() if node is not own]

    def end(self) -> None:
        """Views and display as they were."""
        if self._shown:
            self._numbers.clear()
        self._shown, self._names = [], []
        self.views.end()
        self._ui.reviewCompareButton.blockSignals(True)
        self._ui.reviewCompareButton.checked = False
        self._ui.reviewCompareButton.blockSignals(False)
        self.update()

    def drop(self, node) -> None:
        """A node is going: what is compared with it is shown no more."""
        if any(node is shown for shown in self._shown):
            self.end()

    def update(self) -> None:
        ui, isShown, missing = self._ui, self.isShown, self._missing()
        ui.reviewCompareButton.enabled = isShown or not (missing or self._services.jobs.isRunning)
        ui.reviewCompareButton.text = _("End co&mparing") if isShown else _("Co&mpare")
        ui.reviewCompareLabel.visible = ui.reviewCompareSelector.visible = not isShown
        ui.reviewDifferenceCheckBox.visible = isShown
        ui.reviewFocusCheckBox.enabled = not (isShown and self._isHidden())  # it would tell which one is the case's own
        for index, button in enumerate((*self._choices, ui.reviewChoiceNoneButton)):
            button.visible = isShown and (index < len(self._shown) or button is ui.reviewChoiceNoneButton)
        ui.reviewCompareHint.text = self._legend() if isShown else missing
        ui.reviewCompareHint.visible = bool(ui.reviewCompareHint.text)

    def _missing(self) -> str:
        if not self._review.case:
            return _("Open a case to compare it.")
        if not self.others():
            return _("Tick another segmentation of the same image.")
        return _("Tick at most two others.") if len(self.others()) >= CompareViews.MOST else ""

    def _legend(self) -> str:
        if self._isHidden():
            return _("Which one is best? The names are shown after your choice.")
        names = [f"{place}: {node.GetName()}" for place, node in enumerate(self._shown, start=1)]
        chosen = self._preference()
        text = "\n".join(names)
        return text + "\n" + _("Chosen: {name}.").format(name=chosen["chosen"] or _("none")) if chosen else text

    def _preference(self) -> dict | None:
        """What was chosen among just these candidates."""
        entry = self._review.entry
        known = entry.preference if entry else None
        return known if known and known["candidates"] == self._names else None

    def _isHidden(self) -> bool:
        return self._review.session.blinded is not None and self._preference() is None

    def _onToggled(self, isOn: bool) -> None:
        if not isOn or not self._attempt(self._begin):
            self.end()

    def _begin(self) -> None:
        case = self._review.case
        if case is None or not case.isThere:
            raise UserError(_("No case is open."), _("Choose one in the list."))
        candidates = [case.segmentation, *self.others()]
        self._names = [node.GetName() for node in candidates]
        order = self._review.session.shown_order(case.entry.id, len(candidates))
        self._shown = [candidates[index] for index in order]
        if self._isHidden():
            self._ui.reviewFocusCheckBox.checked = False
        self.views.show(case.volume, self._shown, [str(place + 1) for place in range(len(self._shown))])
        self._measure(case.volume, self._shown)
        self.update()

    def _measure(self, volume, shown: list) -> None:
        overlay = self._services.files.newFile("difference.seg.nrrd")

        def measured(result: dict) -> None:
            self.views.showDifference(overlay, volume)
            self.views.setDifferenceShown(self._ui.reviewDifferenceCheckBox.checked)
            self.update()

        def names() -> list[str]:
            return [str(place) if self._isHidden() else node.GetName() for place, node in enumerate(shown, start=1)]

        self._numbers.measure(_("Compare"), volume, shown, names, measured, overlay)

    def _choose(self, place: int | None) -> None:
        def record() -> None:
            case, seconds = self._review.case, self._review.seconds()
            self._review.session.choose(case.entry.id, self._names, place, reviewer(), seconds)

        if self._attempt(record):
            self.update()
            self._onChosen()
