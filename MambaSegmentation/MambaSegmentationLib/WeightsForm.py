"""The fields for somebody else's weights: what was told by the files stands in them, the rest is for the user."""

import math

import qt
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from .TableView import fitHeight, textItem

_MODALITIES = (
    (_("not stated"), ""),
    ("MR", "MR"),
    ("CT", "CT"),
    ("PET", "PT"),
    (_("Ultrasound"), "US"),
    (_("X-ray"), "DX"),
    (_("Endoscopy"), "ES"),
    (_("Other photographs"), "XC"),
)
# As MambaSegLib.normalisation names them.
_INTENSITIES = (
    (_("Mean 0, spread 1 (MR)"), {"name": "zscore"}),
    (_("The same, after clipping 0.5 % at both ends"), {"name": "percentile_zscore"}),
    (_("-1000 to 1000 HU become -1 to 1 (CT)"), {"name": "ct_clip", "lo": -1000, "hi": 1000}),
    (_("-175 to 250 HU become -1 to 1 (CT, abdomen)"), {"name": "ct_clip", "lo": -175, "hi": 250}),
    (_("Smallest to largest become 0 to 1"), {"name": "content_range"}),
    (_("0 to 255 become 0 to 1 (pictures)"), {"name": "divide", "by": 255}),
    (_("As they are"), {"name": "none"}),
)


class WeightsForm:
    """`onChanged()` is called when the user has changed something."""

    def __init__(self, ui, onChanged):
        self._ui, self._found, self._isReading = ui, {}, False
        self._onChanged = onChanged
        for text, modality in _MODALITIES:
            ui.addModalitySelector.addItem(text, modality)
        for text, _way in _INTENSITIES:
            ui.addIntensitiesSelector.addItem(text)
        table = ui.addStructuresTable
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)
        table.connect("cellChanged(int,int)", self._onCell)
        ui.addNetworkSelector.connect("currentIndexChanged(int)", self._onField)
        for field in (ui.addSpacingEdit, ui.addPatchEdit):
            field.connect("textChanged(QString)", self._onField)

    def show(self, found: dict) -> None:
        """What was told so far: as the job "inspect_weights" gives it, or {"labels", "inputs", "has_plan"} before."""
        self._found = found
        ui, dims = self._ui, found.get("dims", {})
        self._isReading = True
        try:
            ui.addNetworkSelector.clear()
            ui.addNetworkSelector.addItem(_("Choose one") if dims else _("Told by the weights"), "")
            for name in sorted(dims):
                text = _("{name} (recognised)").format(name=name) if name == found["network"] else name
                ui.addNetworkSelector.addItem(text, name)
            ui.addNetworkSelector.setCurrentIndex(max(0, ui.addNetworkSelector.findData(found.get("network", ""))))
            modality = next((item["modality"] for item in found["inputs"]), "")
            ui.addModalitySelector.setCurrentIndex(max(0, ui.addModalitySelector.findData(modality)))
            ui.addImagesSpinBox.value = found.get("channels") or 1
            ui.addImagesSpinBox.enabled = not found.get("channels")
            ui.addRecipeArea.visible = bool(dims) and not found["has_plan"]
            self._setNames(found["labels"] or self._usualNames(found.get("classes", 0)))
        finally:
            self._isReading = False

    def _usualNames(self, classes: int) -> list[str]:
        return [_("Structure {n}").format(n=value) for value in range(1, max(2, classes))]

    def _setNames(self, names: list[str]) -> None:
        """One row per structure; with an empty one below where the weights do not tell how many there are."""
        table, isOpen = self._ui.addStructuresTable, self._isOpenEnded()
        rows = [*names, ""] if isOpen else names
        table.setRowCount(len(rows))
        for row, name in enumerate(rows):
            value = textItem(str(row + 1))
            value.setFlags(qt.Qt.ItemIsEnabled)
            table.setItem(row, 0, value)
            table.setItem(row, 1, textItem(name, name or _("Type the name of a further structure, if there is one.")))
        fitHeight(table)

    def _isOpenEnded(self) -> bool:
        return bool(self._found.get("dims")) and not self._found.get("classes")

    def _onCell(self, row: int, column: int) -> None:
        if self._isReading or column != 1:
            return
        names = self._names()
        if self._isOpenEnded():
            self._isReading = True
            self._setNames([name for name in names if name])
            self._isReading = False
        self._onChanged()

    def _onField(self) -> None:
        if not self._isReading:
            self._onChanged()

    def _names(self) -> list[str]:
        table = self._ui.addStructuresTable
        return [table.item(row, 1).text().strip() for row in range(table.rowCount)]

    @property
    def _network(self) -> str:
        box = self._ui.addNetworkSelector
        return box.itemData(box.currentIndex) or ""

    def missing(self) -> str:
        """What the user still has to say; "" if nothing."""
        if not self._network:
            return _("Choose the network that the weights are of.")
        names = [name for name in self._names() if name] if self._isOpenEnded() else self._names()
        if not names or "" in names:
            return _("Give every structure a name.")
        if len(set(names)) < len(names):
            return _("Give every structure a name of its own.")
        if not self._found["has_plan"]:
            try:
                self._recipe()
            except UserError as error:
                return f"{error.message} {error.hint}"
        return ""

    def request(self) -> dict:
        """The fields of the job "import" that these say. Raises UserError."""
        settings = {} if self._found["has_plan"] else self._recipe()
        settings["inputs"] = self._inputs()
        names = [name for name in self._names() if name]
        request = {"network": self._network, "labels": names, "settings": settings}
        if not self._found.get("channels"):
            request["in_channels"] = self._ui.addImagesSpinBox.value
        return request | ({} if self._found.get("classes") else {"out_channels": len(names) + 1})

    def _inputs(self) -> list[dict]:
        box, count = self._ui.addModalitySelector, self._ui.addImagesSpinBox.value
        known = self._found["inputs"]
        names = [_("Image {n}").format(n=n) if count > 1 else _("Image") for n in range(1, count + 1)]
        known = known or [{"name": name, "modality": "", "description": ""} for name in names]
        isAsStated = box.itemData(box.currentIndex) == known[0]["modality"]
        return known if isAsStated else [item | {"modality": box.itemData(box.currentIndex)} for item in known]

    def _recipe(self) -> dict:
        """How images are prepared, in the order of ``bundle.json``."""
        ui, dims = self._ui, self._found["dims"][self._network]
        spacing = [None if word == "own" else _number(word) for word in ui.addSpacingEdit.text.split()]
        if len(spacing) == 2 and dims == 2:
            spacing.append(None)
        if len(spacing) != 3 or any(mm is not None and not mm > 0 for mm in spacing):
            example = "0.8 0.8 own" if dims == 2 else "1 1 1"
            raise UserError(_("Give the voxel size in mm."), _("Such as {example}.").format(example=example))
        patch = [_number(word) for word in ui.addPatchEdit.text.split()]
        if len(patch) != dims or not all(n >= 1 and n == int(n) for n in patch):
            example = "224 224" if dims == 2 else "96 96 96"
            raise UserError(_("Give the window in voxels."), _("Such as {example}.").format(example=example))
        normalisation = _INTENSITIES[ui.addIntensitiesSelector.currentIndex][1]
        return {
            "preprocessing": {"orientation": None, "spacing_mm": spacing, "normalisation": normalisation},
            "inference": {"patch": [int(n) for n in reversed(patch)]},
        }


def _number(word: str) -> float:
    """NaN for what is none, which is never larger than 0."""
    try:
        number = float(word.replace(",", "."))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
