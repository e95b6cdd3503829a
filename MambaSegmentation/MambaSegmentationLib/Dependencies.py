"""The Python packages that the worker needs: says what is missing and how large it is, asks, installs, looks again.

Nothing here runs when the module is loaded, and nothing is downloaded before the user has agreed.
"""

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import FarComputer, InstallCauses, PackagePlan, Settings
from .Installation import Installation
from .JobQueue import JobQueue, Task
from .Jobs import Job, Listener, ignore
from .RunView import RunView
from .SceneIO import ExchangeFolder
from .WorkerClient import PYTHON_SETTING


class Dependencies:
    """`onExamined(findings of the job "packages")` is called whenever they are known anew."""

    def __init__(self, jobs: JobQueue, files: ExchangeFolder, view: RunView, requirementsFile: str):
        self._jobs, self._files, self._view = jobs, files, view
        self.requirements = PackagePlan.requirements(requirementsFile)
        self.onExamined: Callable[[dict], None] = ignore
        self._wasLooked = False

    def look(self) -> None:
        """Once, when the user first sees the panel: tell what is missing, without trying to import it.

        Not while another computer does the work: nothing is missing then.
        """
        if self._wasLooked or FarComputer.chosen():
            return
        self._wasLooked = True
        try:
            Job(self._jobs.worker, "packages", self._params(isTried=False), Listener(onFinished=self._onLooked))
        except UserError:  # no Python for the worker: the first run will say so
            return

    def examine(self, onFinished: Callable[[dict], None] = ignore) -> None:
        """In the run area: try every package; tells `onExamined`, then `onFinished`."""

        def finished(findings: dict) -> None:
            self.onExamined(findings)
            onFinished(findings)

        self._jobs.run(_("Check the packages"), "packages", self._params(isTried=True), onFinished=finished)

    def offer(self, folder: str = "") -> None:
        """Look what is missing, ask, and install it; from a folder of wheels if one is given."""
        self.examine(lambda findings: self._ask(findings, folder))

    def offerFor(self, package: str) -> None:
        """The same, with a package that a job has missed, also if most jobs do without."""
        extras = [text for text in PackagePlan.EXTRAS.get(package, ()) if text not in self.requirements]
        self.requirements += extras
        self.offer()

    def _params(self, isTried: bool) -> dict:
        return {"requirements": self.requirements, "keep": PackagePlan.KEPT, "try": isTried}

    def _onLooked(self, findings: dict) -> None:
        self.onExamined(findings)
        plan = PackagePlan.Plan.of(findings)
        if plan and not self._jobs.isRunning and not self._view.hasMessage:
            text = _("Before the first run, Python packages must be installed: {names}; about {size} to download.")
            text = text.format(names=", ".join(plan.sizesMb), size=PackagePlan.sizeText(plan.downloadMb))
            self._view.message("info", text, _("Press the button to start; you will be asked first."), canInstall=True)

    def _ask(self, findings: dict, folder: str) -> None:
        """Raises UserError: shown by the run area."""
        plan = PackagePlan.Plan.of(findings)
        if not plan:
            flaw = InstallCauses.flaw(findings)
            if flaw:
                self._view.message("warning", flaw.text, flaw.repair)
            else:
                self._view.message("info", _("All packages are there and work."))
            return
        self._refuse(findings, plan, folder)
        question = _("Install into {site}:\n\n{rows}\n\n{where}. What is installed and works stays as it is.")
        where = _("From the folder {folder}").format(folder=folder) if folder else _("About {size} to download")
        size = PackagePlan.sizeText(plan.downloadMb)
        text = question.format(site=findings["places"]["site"], rows=plan.text(), where=where.format(size=size))
        if not slicer.util.confirmOkCancelDisplay(text, _("Install Python packages")):
            return
        place = folder or str(self._files.newFile("wheels"))
        installation = Installation(self._jobs.worker, plan, place, bool(folder))
        self._jobs.add(Task(_("Install packages"), installation.begin, Listener(onFinished=self._onInstalled)))

    def _refuse(self, findings: dict, plan: PackagePlan.Plan, folder: str) -> None:
        chosen = Settings.text(PYTHON_SETTING)
        if chosen:
            names = " ".join(f'"{text}"' for text in (*plan.install, *plan.repair))
            raise UserError(
                _("Jobs run in the Python of your settings ({path}), which Slicer does not change.").format(
                    path=chosen
                ),
                _("Run there: {path} -m pip install {names}").format(path=chosen, names=names),
            )
        cause = InstallCauses.hindrance(findings, 0 if folder else plan.downloadMb)
        if cause:
            raise UserError(cause.text, cause.repair)

    def _onInstalled(self, result: dict) -> None:
        self._jobs.worker.quit()  # a new worker sees the new packages
        self.examine(self._onExaminedAfter)

    def _onExaminedAfter(self, findings: dict) -> None:
        bad = [f"{p['name']}: {p['problem'] or p['state']}" for p in findings["packages"] if p["state"] != "ok"]
        if bad:
            cause = InstallCauses.flaw(findings) or InstallCauses.recognise("\n".join(bad))
            raise UserError(cause.text + "\n" + "\n".join(bad), cause.repair)
        self._view.message("info", _("The packages are installed and work. Start again."))
