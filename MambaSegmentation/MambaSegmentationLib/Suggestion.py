"""Whether a model was made for an image: by modality and by how much of the body the image shows.

The rule is simple and its reason is always told; it sorts and never hides.
"""

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle

_CT_AIR = -500  # Hounsfield units: no other modality has values that low, and every CT with air around has them
_MIN_SHARE = 0.5  # of the model's window that the image must show along each axis


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image.

    modality: "MR", "CT", ... or ""; source: "DICOM" or "values"; extent_mm: along its three axes; isPicture: in colour;
    isSlice: there is only one.
    """

    modality: str
    source: str
    extent_mm: tuple[float, float, float]
    isPicture: bool = False
    isSlice: bool = False


@dataclass(frozen=True)
class Fit:
    """score: higher fits better; text: the reason, one line."""

    score: int
    text: str


def guessedModality(low: float) -> str:
    """ "CT" for an image whose smallest value is that of air, else "": values alone tell no more."""
    return "CT" if low <= _CT_AIR else ""


def fit(facts: ImageFacts | None, bundle: ModelBundle) -> Fit:
    """How well the model suits the image; without an image it says what the model is for."""
    wanted = bundle.inputs[0]["modality"]
    if facts is None:
        return Fit(0, _("for {modality}").format(modality=wanted))
    if facts.isPicture or bundle.is_for_pictures:
        return _pictureFit(facts, bundle)
    if facts.isSlice and bundle.is_volumetric:
        return Fit(-2, _("for volumes, but this is one slice"))
    score, reason = _modality(facts, wanted)
    tooSmall = _tooSmall(facts, bundle)
    if tooSmall:
        return Fit(score - 1, f"{reason}; {tooSmall}" if reason else tooSmall)
    return Fit(score, reason)


def _pictureFit(facts: ImageFacts, bundle: ModelBundle) -> Fit:
    if facts.isPicture and bundle.is_for_pictures:
        return Fit(2, _("fits: colour picture"))
    if facts.isSlice and bundle.takes_pictures:
        return Fit(0, _("for colour pictures; this one is grey") if bundle.is_for_pictures else _("for grey pictures"))
    if facts.isPicture:
        return Fit(-2, _("for {wanted}, but this is a colour picture").format(wanted=bundle.inputs[0]["modality"]))
    return Fit(-2, _("for colour pictures"))


def _modality(facts: ImageFacts, wanted: str) -> tuple[int, str]:
    if not facts.modality:
        return 0, _("for {modality}; this image's kind is not known").format(modality=wanted)
    if facts.modality.upper() == wanted.upper():
        why = _("DICOM says so") if facts.source == "DICOM" else _("by its values")
        return 2, _("fits: {modality}, {why}").format(modality=wanted, why=why)
    return -2, _("for {wanted}, but this is {found}").format(wanted=wanted, found=facts.modality)


def _tooSmall(facts: ImageFacts, bundle: ModelBundle) -> str:
    """ "" when the image shows enough: its axes and the window's are compared by length, not by direction."""
    spacing_mm = bundle.preprocessing["spacing_mm"]
    if None in spacing_mm:  # of a model that takes each slice as it was acquired
        return ""
    window = np.sort(np.array(bundle.inference["patch"], float) * spacing_mm[::-1])
    shown = np.sort(facts.extent_mm)
    if (shown >= _MIN_SHARE * window).all():
        return ""
    return _("shows {shown} mm, the model looks at {window} mm").format(
        shown=" x ".join(f"{v:.0f}" for v in shown), window=" x ".join(f"{v:.0f}" for v in window)
    )
