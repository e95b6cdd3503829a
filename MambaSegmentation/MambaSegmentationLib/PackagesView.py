"""The section Packages of the page Settings: what is installed, what is wrong, and the buttons that put it right."""

import qt
from slicer.i18n import tr as _

from . import InstallCauses
from .Dependencies import Dependencies
from .PackagePlan import Plan, pythonName, sizeText

_STATES = {"ok": _("works"), "missing": _("missing"), "old": _("too old"), "broken": _("damaged")}


class PackagesView:
    def __init__(self, ui, packages: Dependencies):
        self._ui, self._packages = ui, packages
        packages.onExamined = self.show
        ui.packagesTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        ui.packagesTable.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        ui.checkPackagesButton.connect("clicked()", lambda: packages.examine())
        ui.installPackagesButton.connect("clicked()", lambda: packages.offer())
        ui.installFolderButton.connect("clicked()", self._onFolder)
        tip = _("Without internet: choose a folder with the wheels of all packages for {python}.")
        ui.installFolderButton.toolTip = tip.format(python=pythonName())
        self._fill([(text, _("not checked yet"), "") for text in packages.requirements])
        ui.packagesHint.hide()

    def setEnabled(self, isEnabled: bool) -> None:
        for button in (self._ui.checkPackagesButton, self._ui.installPackagesButton, self._ui.installFolderButton):
            button.enabled = isEnabled

    def show(self, findings: dict) -> None:
        """Show the findings of the job "packages"."""
        rows = []
        for package in findings["packages"]:
            state = f"{package['installed']} {_STATES[package['state']]}".strip()
            rows.append((package["requirement"].split(";")[0], state, package["problem"]))
        self._fill(rows)
        flaw, plan = InstallCauses.flaw(findings), Plan.of(findings)
        lines = [flaw.text + " " + flaw.repair] if flaw else []
        if plan:
            lines.append(_("About {size} to download.").format(size=sizeText(plan.downloadMb)))
        self._ui.packagesHint.text = "\n".join(lines)
        self._ui.packagesHint.visible = bool(lines)

    def _fill(self, rows: list[tuple[str, str, str]]) -> None:
        table = self._ui.packagesTable
        table.setRowCount(len(rows))
        for row, (name, state, problem) in enumerate(rows):
            for column, text in enumerate((name, state)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(f"{text}\n{problem}".strip())
                table.setItem(row, column, item)
        heights = sum(table.rowHeight(row) for row in range(len(rows)))
        table.setFixedHeight(heights + table.horizontalHeader().height + 2 * table.frameWidth + 2)

    def _onFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of wheels"))
        if folder:
            self._packages.offer(folder)
