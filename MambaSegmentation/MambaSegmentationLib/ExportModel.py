"""The window Export model: the chosen model as one file for others, or for other programs."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from MambaSegLib import catalogue, provenance
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.wording import counted

from .Jobs import Problem
from .ModelDialog import ModelDialog
from .Page import Services

# format of the job "export" -> (name, ending, what it is)
_FORMATS = {
    "bundle": (
        _("For this program (.zip)"),
        ".zip",
        _("One file with weights, card and names of structures. Others add it by 'Add model' on the page Segment."),
    ),
    "monai": (
        _("MONAI bundle (a folder)"),
        "",
        _("For MONAI Label and MONAI Deploy: a new folder with weights, settings and the code that they need."),
    ),
    "onnx": (
        _("ONNX (.onnx)"),
        ".onnx",
        _("The network alone, for ONNX Runtime and others. A file beside it (.onnx.json) says how to prepare images."),
    ),
    "torch": (
        _("PyTorch (.pt2)"),
        ".pt2",
        _("The network alone, for torch.export.load. A file beside it (.pt2.json) says how to prepare images."),
    ),
}


class ExportModel(ModelDialog):
    def __init__(self, services: Services):
        ModelDialog.__init__(self, "ExportModelDialog")
        self._services, self._bundle, self._written = services, None, ""
        ui = self.ui
        for kind, (name, _ending, _about) in _FORMATS.items():
            ui.exportFormatSelector.addItem(name, kind)
        ui.exportFormatSelector.connect("currentIndexChanged(int)", self._onFormat)
        ui.exportStartButton.connect("clicked()", self._onExport)
        ui.exportShowButton.connect("clicked()", self._onShow)
        ui.exportCloseButton.connect("clicked()", self.close)

    def show(self, bundle: ModelBundle) -> None:
        """For this model."""
        self._bundle, self._written = bundle, ""
        names = provenance.private_names(bundle.data, catalogue.decision_of(bundle.folder))
        box, text = self.ui.exportNamesCheckBox, _("&Leave out the names of {cases}")
        box.visible, box.checked = bool(names), True
        box.text = text.format(cases=counted(len(names), _("case"), _("cases")))
        tip = _(
            "Such as '{name}'. They may be names of patients. Without them nobody can tell which images it has seen."
        )
        box.toolTip = tip.format(name=names[0] if names else "")
        about = _("{title}, version {version}. No images go with a model.")
        self.ui.exportModelLabel.text = about.format(title=bundle.title, version=bundle.version)
        self._say("")
        self._onFormat()
        self.open()

    def update(self) -> None:
        """A job began or ended."""
        self.ui.exportStartButton.enabled = not self._services.jobs.isRunning

    def _kind(self) -> str:
        box = self.ui.exportFormatSelector
        return box.itemData(box.currentIndex)

    def _onFormat(self) -> None:
        self.ui.exportFormatHint.text = _FORMATS[self._kind()][2]
        self.update()
        self.fit()

    def _onExport(self) -> None:
        kind = self._kind()
        name, ending, _about = _FORMATS[kind]
        suggested = Path.home() / f"{self._bundle.id}-{self._bundle.version}{ending or '-monai'}"
        title, kinds = _("Export model"), f"{name} (*{ending})" if ending else ""
        path = qt.QFileDialog.getSaveFileName(self.window, title, str(suggested), kinds)
        if not path:
            return
        if ending and not path.lower().endswith(ending):
            path += ending
        ui = self.ui
        request = {"model": str(self._bundle.folder), "output": path, "format": kind}
        request["case_names"] = not ui.exportNamesCheckBox.isHidden() and not ui.exportNamesCheckBox.checked
        self._say(_("Writing. The progress is in the panel, where it can be cancelled."))
        callbacks = {"onFinished": self._onFinished, "onFailed": self._onFailed, "onCancelled": self._onCancelled}
        self._services.jobs.run(_("Export the model"), "export", request, **callbacks)

    def _onFinished(self, result: dict) -> None:
        self._written = result["output"]
        text = _("Written: {path}").format(path=self._written)
        if result["withheld"]:
            cases = counted(result["withheld"], _("case"), _("cases"))
            text += "\n" + _("The names of {cases} were left out.").format(cases=cases)
        self._say(text)
        self._services.view.message("info", text)

    def _onFailed(self, problem: Problem) -> None:
        install = _("Press 'Install packages' in the panel, then export again.")
        self._say(f"{problem.message} {install if problem.package else problem.hint}")

    def _onCancelled(self, reason: str) -> None:
        self._say(_("Stopped. Nothing was written."))

    def _onShow(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(Path(self._written).parent)))

    def _say(self, text: str) -> None:
        ui = self.ui
        ui.exportStatusLabel.text = text
        ui.exportStatusLabel.visible = bool(text)
        ui.exportShowButton.visible = bool(self._written)
        self.fit()
