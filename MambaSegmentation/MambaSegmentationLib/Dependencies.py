"""The Python packages that the worker needs: what is missing, and installing it after the user has agreed.

Nothing here runs when the module is loaded. torch comes through the PyTorch extension, which chooses the build for the
graphics card; the rest through slicer.packaging.
"""

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import slicer
from slicer.i18n import tr as _

from MambaSegLib.errors import UserError

TORCH_REQUIREMENT = ">=2.2"
_MISSING = re.compile(r"(?:Python package|No module named) '([\w.]+)'")


def missingPackage(message: str) -> str:
    """The package whose absence made a job fail with this message; "" if that was not the reason."""
    found = _MISSING.search(message)
    return found.group(1).split(".")[0] if found else ""


def install(requirementsFile: str) -> bool:
    """Ask, then install what is missing into Slicer's Python; what works already stays as it is.

    Returns False when the user declined. Raises UserError when the PyTorch extension is missing or an installation
    failed.
    """
    try:
        if find_spec("torch") is None and not _installTorch():
            return False
        return _installOthers(requirementsFile)
    except UserError:
        raise
    except Exception as error:  # pip, the network, the disk: whatever it was, the user can only try again
        raise UserError(
            _("The Python packages could not be installed: {error}").format(error=error),
            _("Check the network connection, restart Slicer and try again. Slicer's log has the details."),
        ) from error


def _installTorch() -> bool:
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise UserError(
            _("The extension 'PyTorch', which installs torch, is missing."),
            _("Install 'PyTorch' in the Extensions Manager, restart Slicer and try again."),
        ) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    return logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT) is not None


def _installOthers(requirementsFile: str) -> bool:
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ModuleNotFoundError:  # Slicer before 5.12
        return _installWithPip(requirementsFile)
    try:
        pip_ensure(load_requirements(requirementsFile), requester="MambaSegmentation")
    except RuntimeError:  # this is how it says that the user declined
        return False
    return True


def _installWithPip(requirementsFile: str) -> bool:
    with open(requirementsFile, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    missing = [line for line in lines if not _isInstalled(re.split(r"[<>=!~; ]", line)[0])]
    if not missing:
        return True
    question = _("These Python packages will be installed into Slicer: {names}. Continue?")
    if not slicer.util.confirmOkCancelDisplay(question.format(names=", ".join(missing))):
        return False
    slicer.util.pip_install(missing)
    return True


def _isInstalled(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
