"""The list of models with its search, sorted by how they suit the image, and the card of the chosen one."""

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MambaSegLib import catalogue

from .ModelCard import cardHtml
from .Models import Models
from .Suggestion import ImageFacts, fit


class ModelPicker:
    """Fills a QLineEdit, a QListWidget and a QTextBrowser from the catalogue; tells when the user chooses a model."""

    def __init__(self, search, listWidget, card, models: Models, onChanged: Callable[[], None]):
        self._search, self._list, self._card, self._models = search, listWidget, card, models
        self._onChanged = onChanged
        self._entries: list[catalogue.Entry] = []
        self._chosen = ""
        self._facts: ImageFacts | None = None
        search.connect("textChanged(QString)", self._onSearch)
        listWidget.connect("currentRowChanged(int)", self._onRow)

    @property
    def entry(self) -> catalogue.Entry | None:
        """The chosen model; it stays chosen while the search hides it."""
        return next((e for e in self._entries if _key(e) == self._chosen), None)

    @property
    def chosen(self) -> str:
        """The id of the chosen model, "" if there is none; of two models with one id, the folder."""
        entry = self.entry
        if entry is None:
            return ""
        return entry.id if sum(e.id == entry.id for e in self._entries) == 1 else _key(entry)

    def refresh(self) -> None:
        """Read the catalogue again."""
        self._entries = self._models.entries()
        self._fill()

    def choose(self, modelId: str) -> None:
        """Choose by id or folder; an unknown one or "" gives the best usable model. Tells nobody."""
        match = next((e for e in self._entries if modelId in (e.id, _key(e))), None)
        match = match or next((e for e in self._sorted() if e.bundle), None)
        self._chosen = _key(match) if match else ""
        self._fill()

    def has(self, folder: str) -> bool:
        """Whether the model in this folder is in the list."""
        return any(_key(entry) == folder for entry in self._entries)

    def setImage(self, facts: ImageFacts | None) -> None:
        """Sort by how the models suit this image, and say why."""
        if facts != self._facts:
            self._facts = facts
            self._fill()

    def showCard(self) -> None:
        """Also after a run, whose time stands on the card."""
        bundle = self.entry.bundle if self.entry else None
        run, text = (self._models.lastRun(bundle), self._fitText(self.entry)) if bundle else (None, "")
        self._card.setHtml(cardHtml(self.entry, run, text))

    def _fitText(self, entry: catalogue.Entry) -> str:
        return fit(self._facts, entry.bundle).text if self._facts else ""

    def _sorted(self) -> list[catalogue.Entry]:
        return sorted(self._entries, key=lambda e: -fit(self._facts, e.bundle).score if e.bundle else 100)

    def _fill(self) -> None:
        found = {_key(e) for e in self._models.search(self._search.text)}
        self._list.blockSignals(True)
        self._list.clear()
        for entry in (e for e in self._sorted() if _key(e) in found):
            self._addItem(entry)
        if self._entries and not found:
            nothing = qt.QListWidgetItem(_("No model matches '{text}'.").format(text=self._search.text))
            nothing.setFlags(qt.Qt.NoItemFlags)
            self._list.addItem(nothing)
        self._list.blockSignals(False)
        self.showCard()

    def _addItem(self, entry: catalogue.Entry) -> None:
        title, tip = _("{name} (damaged)").format(name=entry.title), entry.error.message if entry.error else ""
        if entry.bundle:
            reason = self._fitText(entry)
            isSure = bool(fit(self._facts, entry.bundle).score)
            title = f"{entry.title}   ({reason})" if reason and isSure else entry.title
            tip = "\n".join(filter(None, [entry.title, entry.bundle.description, reason]))
        item = qt.QListWidgetItem(title)
        item.setData(qt.Qt.UserRole, _key(entry))
        item.setToolTip(tip)
        self._list.addItem(item)
        if _key(entry) == self._chosen:
            self._list.setCurrentItem(item)

    def _onSearch(self, text: str) -> None:
        self._fill()

    def _onRow(self, row: int) -> None:
        item = self._list.item(row) if row >= 0 else None
        key = item.data(qt.Qt.UserRole) if item else None
        if key:
            self._chosen = key
            self.showCard()
            self._onChanged()


def _key(entry: catalogue.Entry) -> str:
    return str(entry.folder)
