"""The list of models with its search, and the card of the chosen one."""

from collections.abc import Callable
from html import escape

import qt
from slicer.i18n import tr as _

from MambaSegLib import catalogue

_MAX_NAMED_STRUCTURES = 12


class ModelPicker:
    """Fills a QLineEdit, a QListWidget and a QTextBrowser from the catalogue; tells when the user chooses a model."""

    def __init__(self, search, listWidget, card, folders: Callable[[], list[str]], onChanged: Callable[[], None]):
        self._search, self._list, self._card = search, listWidget, card
        self._folders, self._onChanged = folders, onChanged
        self._entries: list[catalogue.Entry] = []
        self._chosen = ""
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
        self._entries = catalogue.entries(self._folders())
        self._fill()

    def choose(self, modelId: str) -> None:
        """Choose by id or folder; an unknown one or "" gives the first usable model. Tells nobody."""
        match = next((e for e in self._entries if modelId in (e.id, _key(e))), None)
        match = match or next((e for e in self._entries if e.bundle), None)
        self._chosen = _key(match) if match else ""
        self._fill()

    def _fill(self) -> None:
        found = {_key(e) for e in catalogue.search(self._search.text, self._folders())}
        self._list.blockSignals(True)
        self._list.clear()
        for entry in (e for e in self._entries if _key(e) in found):
            item = qt.QListWidgetItem(entry.title if entry.bundle else _("{name} (damaged)").format(name=entry.title))
            item.setData(qt.Qt.UserRole, _key(entry))
            item.setToolTip(entry.bundle.description if entry.bundle else entry.error.message)
            self._list.addItem(item)
            if _key(entry) == self._chosen:
                self._list.setCurrentItem(item)
        if self._entries and not found:
            nothing = qt.QListWidgetItem(_("No model matches '{text}'.").format(text=self._search.text))
            nothing.setFlags(qt.Qt.NoItemFlags)
            self._list.addItem(nothing)
        self._list.blockSignals(False)
        self._card.setHtml(_cardHtml(self.entry))

    def _onSearch(self, text: str) -> None:
        self._fill()

    def _onRow(self, row: int) -> None:
        item = self._list.item(row) if row >= 0 else None
        key = item.data(qt.Qt.UserRole) if item else None
        if key:
            self._chosen = key
            self._card.setHtml(_cardHtml(self.entry))
            self._onChanged()


def _key(entry: catalogue.Entry) -> str:
    return str(entry.folder)


def _cardHtml(entry: catalogue.Entry | None) -> str:
    """The card as a reader at the workstation needs it; colours are left to the palette."""
    if entry is None:
        folder = catalogue.user_folder()
        return _("<p><b>No model was found.</b></p><p>Copy the folder of a model into<br>{folder}</p>").format(
            folder=escape(str(folder))
        )
    if entry.bundle is None:
        return _("<p><b>This model cannot be used.</b></p><p>{message}</p><p>{hint}</p>").format(
            message=escape(entry.error.message), hint=escape(entry.error.hint)
        )
    data = entry.bundle.data
    rows = [
        (_("For"), escape(data["intended_use"])),
        (_("Finds"), escape(_names(data["labels"]))),
        (_("Input"), "<br>".join(escape(_inputText(i)) for i in data["inputs"])),
        (_("Measured"), _measured(data["metrics"])),
        (_("Limits"), escape(data["limitations"])),
        (_("Trained on"), escape(data["provenance"]["data"])),
        (_("Licence"), escape(_licence(data["licence"]))),
        (_("Version"), escape(f"{data['version']}  ({data['id']}, {data['network']['name']})")),
    ]
    body = "".join(
        f'<tr><td style="padding-right:10px"><b>{name}</b></td><td>{text}</td></tr>' for name, text in rows if text
    )
    return f'<p style="margin-top:2px">{escape(data["description"])}</p><table cellspacing="3">{body}</table>'


def _names(labels: list[dict]) -> str:
    names = [label["name"] for label in labels]
    more = len(names) - _MAX_NAMED_STRUCTURES
    text = ", ".join(names[:_MAX_NAMED_STRUCTURES])
    return text if more <= 0 else _("{names} and {n} more").format(names=text, n=more)


def _inputText(channel: dict) -> str:
    parts = [channel["modality"], channel["name"]]
    text = " ".join(dict.fromkeys(p for p in parts if p))
    return text if channel["description"] in ("", *parts) else f"{text}: {channel['description']}"


def _measured(metrics: dict) -> str:
    """One line per structure, with what it was measured on, or a plain statement that nobody has."""
    lines = []
    for value in metrics["values"]:
        if value["mean"] is None:
            continue
        spread = "" if value["sd"] is None else f" ± {value['sd']:.2f}"
        lines.append(f"{value['structure']}: {value['name']} {value['mean']:.2f}{spread} (n\u00a0=\u00a0{value['n']})")
    if not lines:
        return _("not measured yet")
    return "<br>".join(escape(line) for line in [*lines, *([metrics["protocol"]] if metrics["protocol"] else [])])


def _licence(licence: dict) -> str:
    return _("weights {weights}; data {data}; code {code}").format(**licence)
