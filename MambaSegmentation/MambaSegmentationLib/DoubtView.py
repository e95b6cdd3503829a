"""Previous and next through the places that the model doubts."""

from slicer.i18n import tr as _

from MambaSegLib.wording import counted

from . import DoubtfulPlaces


class DoubtView:
    """Args:
    selectSegment: called with the ID of the segment that the shown place belongs to.
    """

    def __init__(self, ui, state, selectSegment):
        self._ui, self._state, self._selectSegment = ui, state, selectSegment
        self._index = -1
        ui.previousDoubtButton.connect("clicked()", lambda: self._go(self._index - 1 if self._index >= 0 else -1))
        ui.nextDoubtButton.connect("clicked()", lambda: self._go(self._index + 1))

    def restart(self) -> None:
        """Another segmentation: its first place is the next one."""
        self._index = -1

    def show(self) -> None:
        ui, places = self._ui, DoubtfulPlaces.ranked(self._state.resultSegmentation)
        for button in (ui.previousDoubtButton, ui.nextDoubtButton):
            button.visible = bool(places)
        if not places:
            ui.doubtLabel.text = _("The model had no doubt worth a look, or no model made this segmentation.")
        elif not 0 <= self._index < len(places):
            ui.doubtLabel.text = _("{places}, the most doubtful first.").format(
                places=counted(len(places), _("place"), _("places"))
            )
        else:
            place = places[self._index]
            text = _("{i} of {n}: {structure}, doubt {percent} %, {volume} mL")
            values = {"percent": round(100 * place.score), "volume": f"{place.volume_ml:.2f}"}
            ui.doubtLabel.text = text.format(i=self._index + 1, n=len(places), structure=place.structure, **values)

    def _go(self, index: int) -> None:
        segmentation = self._state.resultSegmentation
        places = DoubtfulPlaces.ranked(segmentation)
        self._index = index % len(places)
        place = places[self._index]
        DoubtfulPlaces.show(place, segmentation)
        segmentId = segmentation.GetSegmentation().GetSegmentIdBySegmentName(place.structure)
        if segmentId:
            self._selectSegment(segmentId)
        self.show()
