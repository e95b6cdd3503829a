"""One installation of packages: torch's build is chosen by the PyTorch extension, slicer.packaging installs.

The wheels are downloaded first, by the worker: that takes long and may be cancelled at any moment. Putting them in
place takes about a minute and is not interrupted, as half a package is worse than none.
"""

import importlib
from collections.abc import Callable
from subprocess import CalledProcessError

import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

from . import InstallCauses
from .Jobs import Job, Listener, Problem
from .PackagePlan import Plan
from .WorkerClient import WorkerClient

_TITLE = "MambaSegmentation"


class Installation:
    """Args:
    plan: what to install.
    wheels: a new folder for the downloads, or the user's folder of wheels.
    isOffline: whether `wheels` is the user's: nothing is downloaded.
    """

    def __init__(self, worker: WorkerClient, plan: Plan, wheels: str, isOffline: bool):
        self._worker, self._plan, self._wheels, self._isOffline = worker, plan, wheels, isOffline
        self._steps: list[list[str]] = []
        self._log: list[str] = []
        self._listener = Listener()

    def begin(self, listener: Listener) -> Callable[[], None]:
        """Start; returns what cancels it. Raises UserError. onFinished gets {}."""
        self._listener = listener
        if self._isOffline:
            places = ["--no-index", "--find-links", self._wheels]
            repair = [*self._plan.repair, "--no-deps", "--ignore-installed", *places]
            self._place([[*self._plan.install, *self._plan.keep, *places], repair])
            return self._explainWait
        if self._plan.hasTorch:
            prepareTorch()
        params = {"requirements": self._plan.install, "repair": self._plan.repair, "keep": self._plan.keep}
        inner = Listener(
            onProgress=listener.onProgress,
            onMessage=listener.onMessage,
            onFinished=self._onDownloaded,
            onFailed=self._onNotDownloaded,
            onCancelled=listener.onCancelled,
        )
        job = Job(self._worker, "download_packages", {**params, "folder": self._wheels}, inner)
        self._cancel = job.cancel
        return lambda: self._cancel()

    def _onDownloaded(self, result: dict) -> None:
        self._cancel = self._explainWait
        places = ["--no-deps", "--no-index", "--find-links", self._wheels]
        self._place([[*result["install"], *places], [*result["repair"], "--ignore-installed", *places]])

    def _onNotDownloaded(self, problem: Problem) -> None:
        cause = InstallCauses.recognise(f"{problem.message}\n{problem.hint}")
        self._fail(cause, "\n".join([problem.message, problem.hint, problem.details]))

    def _explainWait(self) -> None:
        text = _("The packages are just put in place; this cannot be interrupted without damage.")
        self._listener.onMessage(text, "info")

    def _place(self, steps: list[list[str]]) -> None:
        """Install the wheels, step by step; a step without a package is left out."""
        self._steps = [step for step in steps if not step[0].startswith("-")]
        self._listener.onMessage(_("Putting the packages in place"), "info")
        self._next()

    def _next(self) -> None:
        if not self._steps:
            importlib.invalidate_caches()
            self._listener.onFinished({})
            return
        try:
            _pipInstall(self._steps.pop(0), self._onLine, self._onEnded)
        except (CalledProcessError, OSError, RuntimeError, ValueError) as error:
            self._onLine(str(error))
            self._onEnded(1)

    def _onLine(self, line: str) -> None:
        self._log.append(line)

    def _onEnded(self, code: int) -> None:
        if code:
            self._fail(InstallCauses.recognise("\n".join(self._log)), "\n".join(self._log))
        else:
            self._next()

    def _fail(self, cause: InstallCauses.Cause, details: str) -> None:
        self._listener.onFailed(Problem(cause.text, cause.repair, details))


def prepareTorch() -> None:
    """The PyTorch extension brings what finds the build of torch for this computer. Raises UserError."""
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        cause = InstallCauses.NO_PYTORCH_EXTENSION
        raise UserError(cause.text, cause.repair) from error
    try:
        PyTorchUtils.PyTorchUtilsLogic.getCompatibleComputationBackends(torchVersionRequirement=">=2.2")
    except Exception as error:  # pip, the network, the disk: whatever it was
        cause = InstallCauses.recognise(str(error))
        raise UserError(f"{cause.text} ({error})", cause.repair) from error


def _pipInstall(arguments: list[str], onLine: Callable[[str], None], onEnded: Callable[[int], None]) -> None:
    try:
        from slicer.packaging import pip_install
    except ModuleNotFoundError:  # Slicer before 5.12: it waits
        slicer.util.pip_install(arguments)
        onEnded(0)
        return
    options = {"blocking": False, "show_progress": False, "requester": _TITLE}
    pip_install(arguments, logCallback=onLine, completedCallback=onEnded, **options)
    if slicer.app.testingEnabled():  # then it has waited, and called nobody
        onEnded(0)
