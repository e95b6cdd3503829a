"""The window Add model: a model that somebody exported, or somebody's weights."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from MambaSegLib import bundle_archive, catalogue, model_add
from MambaSegLib.errors import UserError
from MambaSegLib.import_source import find_source
from MambaSegLib.nnunet_plan import inputs_of, labels_of
from MambaSegLib.wording import counted

from .Jobs import Problem
from .ModelDialog import ModelDialog
from .Models import modelFolders
from .Page import Services
from .WeightsForm import WeightsForm

_NOTHING, _MODEL, _WEIGHTS = "", "model", "weights"


class AddModel(ModelDialog):
    """`onAdded(folder)` is called when a model has been added, or was there already."""

    def __init__(self, services: Services, onAdded):
        ModelDialog.__init__(self, "AddModelDialog")
        self._services, self._onAdded = services, onAdded
        self._kind, self._source, self._isPickle, self._isInspected = _NOTHING, "", False, False
        self._message, self._hasFamily = "", False
        self.form = WeightsForm(self.ui, self.update)
        ui = self.ui
        ui.addSourceEdit.connect("editingFinished()", lambda: self.look(ui.addSourceEdit.text.strip()))
        ui.addFileButton.connect("clicked()", self._onFile)
        ui.addFolderButton.connect("clicked()", self._onFolder)
        ui.addTrustCheckBox.connect("toggled(bool)", self._onTrust)
        ui.addNameEdit.connect("textChanged(QString)", self.update)
        ui.addStartButton.connect("clicked()", self._onAdd)
        ui.addCloseButton.connect("clicked()", self.close)

    def show(self) -> None:
        """With nothing chosen."""
        self.look("")
        self.open()

    def update(self) -> None:
        """A job began or ended, or a field was changed."""
        ui, isRunning, missing = self.ui, self._services.jobs.isRunning, self._missing()
        ui.addStartButton.enabled = not isRunning and not missing
        text = "\n".join(filter(None, [self._message, missing if self._kind and not isRunning else ""]))
        ui.addStatusLabel.text, ui.addStatusLabel.visible = text, bool(text)
        ui.addStartButton.toolTip = missing or _("Check the model, copy it into your folder of models, and choose it.")
        for widget in (ui.addSourceEdit, ui.addFileButton, ui.addFolderButton, ui.addTrustCheckBox):
            widget.enabled = not isRunning

    def look(self, source: str) -> None:
        """Find out what this is, as far as nothing in it that could do harm is opened."""
        if source and source == self._source and self._kind:
            return
        self._kind, self._source, self._isPickle, self._isInspected = _NOTHING, source, False, False
        ui, problem = self.ui, ""
        ui.addSourceEdit.text = source
        ui.addTrustCheckBox.checked = False
        ui.addFoundLabel.text = ""
        try:
            if source and bundle_archive.is_model(source):
                self._showModel(bundle_archive.describe(source))
            elif source:
                self._showWeights(find_source(source))
        except UserError as error:
            problem = f"{error.message} {error.hint}"
        ui.addFoundLabel.visible = bool(ui.addFoundLabel.text)
        ui.addTrustArea.visible = self._kind == _WEIGHTS and self._isPickle
        ui.addWeightsArea.visible = self._kind == _WEIGHTS
        ui.addUseCheckBox.visible = self._kind == _MODEL and self._hasFamily
        ui.addNameArea.visible = bool(self._kind)
        self._say(problem)
        if self._kind == _WEIGHTS and not self._isPickle:
            self._inspect()

    def _onFile(self) -> None:
        kinds = _("Models and weights (*.zip *.pth *.pt *.safetensors)")
        self._choose(qt.QFileDialog.getOpenFileName(self.window, _("Add model"), str(Path.home()), kinds))

    def _onFolder(self) -> None:
        self._choose(qt.QFileDialog.getExistingDirectory(self.window, _("Add model"), str(Path.home())))

    def _choose(self, path: str) -> None:
        if path:
            self._source = ""  # the same one again is a new try, as after packages were installed
            self.look(path)

    # What it is

    def _showModel(self, found: bundle_archive.Description) -> None:
        data, ui = found.data, self.ui
        parent, lineage = data["provenance"]["parent"], data["provenance"].get("lineage") or data["id"]
        here, isId = model_add.same_model(data, modelFolders()), model_add.free_id(data["id"], modelFolders())
        names = ", ".join(label["name"] for label in data["labels"])
        lines = [_("{title}, version {version}. Finds: {names}.").format(names=names, **data)]
        lines.append(_("Licence of the weights: {licence}.").format(licence=data["licence"]["weights"]))
        if here:
            lines.append(_("This model is on this computer already: it will only be chosen."))
        elif parent is not None:
            lines.append(_("It was made from the model '{lineage}', and is a version of it.").format(lineage=lineage))
        elif isId != data["id"]:
            text = _("Another model here has the id '{id}': this one gets '{new}'. Nothing is overwritten.")
            lines.append(text.format(id=data["id"], new=isId))
        ui.addFoundLabel.text = "\n".join(lines)
        ui.addNameEdit.text, ui.addNameEdit.enabled = data["title"], parent is None
        self._hasFamily = parent is not None and model_add.has_family(data, modelFolders())
        ui.addUseCheckBox.checked = bool(found.decision and found.decision["accepted"])
        self._kind = _MODEL

    def _showWeights(self, source) -> None:
        ui, labels = self.ui, list(labels_of(source.dataset).values())
        name = source.plans.get("dataset_name") or source.weights.stem
        self._isPickle = source.weights.suffix != ".safetensors"
        trained = _("A folder trained by nnU-Net: {name}, {file}.") if source.plans else _("Weights: {file}.")
        lines = [trained.format(name=name, file=source.weights.name), *source.notes]
        if labels:
            lines.append(_("It says what it finds: {names}.").format(names=", ".join(labels)))
        ui.addFoundLabel.text = "\n".join(lines)
        ui.addNameEdit.text, ui.addNameEdit.enabled = name.replace("_", " "), True
        self.form.show({"labels": labels, "inputs": inputs_of(source.dataset), "has_plan": bool(source.plans)})
        self._kind = _WEIGHTS

    def _onTrust(self, isTrusted: bool) -> None:
        if isTrusted and not self._isInspected:
            self._inspect()
        self.update()

    def _inspect(self) -> None:
        """Read the weights in the background: which network, how many structures."""
        source = self._source
        request = {"checkpoint": source, "trust": self.ui.addTrustCheckBox.checked}
        self._say(_("Reading the weights. The progress is in the panel."))
        self._run(_("Read the weights"), "inspect_weights", request, lambda found: self._onInspected(source, found))

    def _onInspected(self, source: str, found: dict) -> None:
        if source != self._source:  # another one was chosen meanwhile
            return
        self._isInspected = True
        self.form.show(found)
        text = _("Recognised: {network}, {structures}, {images}.").format(
            network=found["network"],
            structures=counted(found["classes"] - 1, _("structure"), _("structures")),
            images=counted(found["channels"], _("image"), _("images")),
        )
        unknown = _("The network was not recognised by the names of its weights: choose it, and say what it finds.")
        self._say(text if found["network"] else unknown)

    # Adding

    def _missing(self) -> str:
        """Why it cannot be added yet, "" if it can."""
        ui = self.ui
        if not self._kind:
            return _("Choose a file or folder.")
        if not ui.addNameEdit.text.strip():
            return _("Give the model a name.")
        if self._kind == _MODEL:
            return ""
        if self._isPickle and not ui.addTrustCheckBox.checked:
            return _("The file is not opened until you say that you trust where it comes from.")
        return self.form.missing() if self._isInspected else _("The weights were not read yet.")

    def _onAdd(self) -> None:
        ui, name = self.ui, self.ui.addNameEdit.text.strip()
        if self._kind == _MODEL:
            request = {"source": self._source, "use": not ui.addUseCheckBox.isHidden() and ui.addUseCheckBox.checked}
            request |= {"name": name} if ui.addNameEdit.enabled else {}
            self._run(_("Add the model"), "add_model", request, self._onDone)
        else:
            request = self.form.request() | {"checkpoint": self._source, "trust": ui.addTrustCheckBox.checked}
            request["settings"] |= {"title": name, "id": model_add.id_of(name)}
            self._run(_("Import the weights"), "import", request, self._onDone)
        self._say(_("Adding. The progress is in the panel, where it can be cancelled."))

    def _run(self, title: str, job: str, request: dict, onFinished) -> None:
        request["folders"] = modelFolders()
        callbacks = {"onFinished": onFinished, "onFailed": self._onFailed, "onCancelled": self._onCancelled}
        self._services.jobs.run(title, job, request, **callbacks)

    def _onDone(self, result: dict) -> None:
        self.close()
        notes = result.get("notes", [])
        text = _("'{name}' was added and is chosen.").format(name=result.get("title") or self.ui.addNameEdit.text)
        if result.get("was_there"):
            text = _("'{name}' was here already, and is chosen.").format(name=result["title"])
        if not result.get("in_use", True):
            text = _("'{name}' is here, but another version of it is in use: see the history on the page Fine-tune.")
            text = text.format(name=result["title"])
        self._onAdded(result["bundle"])
        self._services.view.message("warning" if notes else "info", "\n".join([text, *notes]))

    def _onFailed(self, problem: Problem) -> None:
        install = _("Press 'Install packages' in the panel, then try again.")
        self._say(f"{problem.message} {install if problem.package else problem.hint}")

    def _onCancelled(self, reason: str) -> None:
        self.ui.addTrustCheckBox.checked = self.ui.addTrustCheckBox.checked and self._isInspected
        self._say(_("Stopped. Nothing was added to {folder}.").format(folder=catalogue.user_folder()))

    def _say(self, text: str) -> None:
        self._message = text
        self.update()
        self.fit()
