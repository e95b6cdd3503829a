"""Computing on another computer: which one is chosen, whether the user lets images go there, and how jobs get there."""

import slicer
from slicer.i18n import tr as _

from MambaSegLib import remote_computer
from MambaSegLib.errors import UserError

from . import Settings

_WITH_IMAGES = ("segment", "correct", "estimate", "batch")
_ROUTED = (*_WITH_IMAGES, "devices")


def chosen() -> str:
    """As the user wrote it; "" for this computer."""
    return Settings.text(Settings.COMPUTER_SETTING) if Settings.text(Settings.COMPUTE_THERE_SETTING) else ""


def chosenName() -> str:
    """What a user reads of it."""
    computer = chosen()
    return nameOf(computer) if computer else _("this computer")


def nameOf(computer: str) -> str:
    """What a user reads of a computer as it was written."""
    try:
        return remote_computer.parse(computer).name
    except UserError:
        return computer


def routed(job: str, params: dict) -> tuple[str, dict]:
    """The job and its params as the worker of this computer gets them: as they are, or packed for the other computer.

    Raises:
        UserError: it would take images there, and the user has not agreed.
    """
    computer = chosen()
    if not computer or job not in _ROUTED:
        return job, params
    if job in _WITH_IMAGES and not _isAgreed(computer):
        raise UserError(
            _("Images would be sent to {computer}, which you have not agreed to yet.").format(
                computer=nameOf(computer)
            ),
            _("Press the button again and agree, or choose this computer on the page Settings."),
        )
    if job == "batch":  # it sends its cases itself
        return job, {**params, "computer": computer}
    # Nobody waits for an estimate: it must not make anybody wait for a connection.
    isCourtesy = job == "estimate"
    return "remote", {"computer": computer, "job": job, "params": params, "courtesy": isCourtesy}


def mayGo() -> bool:
    """Whether images may be computed where the settings say; asks the user once per computer."""
    computer = chosen()
    if not computer or _isAgreed(computer):
        return True
    text = _(
        "The images that you segment or correct, and the model, will be sent to {computer} through ssh. Names of "
        "files and DICOM headers are not sent. All is deleted there when the connection ends.\n\n"
        "Send images to this computer? You will not be asked again."
    )
    if not slicer.util.confirmOkCancelDisplay(text.format(computer=nameOf(computer)), _("Compute on another computer")):
        return False
    Settings.store(Settings.AGREED_COMPUTERS_SETTING, "\n".join([*_agreed(), computer]))
    return True


def _agreed() -> list[str]:
    return Settings.text(Settings.AGREED_COMPUTERS_SETTING).splitlines()


def _isAgreed(computer: str) -> bool:
    return computer in _agreed()
