"""The verb Fine-tune: corrected cases -> job -> a new version of the model. Knows no widgets."""

from pathlib import Path

from slicer.i18n import tr as _

from MambaSegLib import catalogue, corrections
from MambaSegLib.bundle import ModelBundle
from MambaSegLib.corrections import HOLD_OUT, CorrectedCase
from MambaSegLib.wording import counted

from . import SceneIO, SegmentVoxels, Settings
from .Models import Models
from .SceneIO import ExchangeFolder

_LEAST_HELD_OUT = 3  # patients; with fewer the models are judged by leave-one-out
BUDGETS_S = (120, 600, 8 * 3600)


def budgetText(budget_s: float) -> str:
    if budget_s >= 3600:
        return _("Overnight ({n} hours)").format(n=round(budget_s / 3600))
    return _("{n} minutes").format(n=round(budget_s / 60))


def structureTable(segmentationNode, bundle: ModelBundle) -> dict[str, dict]:
    """segment ID -> {value, name, color, terminology}: the model's structures as it knows them, others by name."""
    known = {label.value: label for label in bundle.labels}
    rows, names = {}, set()
    valueOf = SegmentVoxels.values(segmentationNode, {label.name: label.value for label in bundle.labels})
    for segmentId, value in valueOf.items():
        label, segment = known.get(value), segmentationNode.GetSegmentation().GetSegment(segmentId)
        name = label.name if label else segment.GetName()
        name = name if name not in names else f"{name} ({value})"
        names.add(name)
        color = [round(255 * c) for c in segment.GetColor()]
        rows[segmentId] = {"value": value, "name": name, "color": color}
        rows[segmentId]["terminology"] = label.terminology if label else {}
    return rows


def caseRequest(
    segmentationNode, bundle: ModelBundle, done: list[str], slices: dict | None, who: dict, more=()
) -> dict:
    """The params of the job "add_correction" but for its files.

    Args:
        done: IDs of the segments that are right.
        slices: None for all, or {"axis", "indices"}.
        who: {"patient", "annotator"}.
    """
    table = structureTable(segmentationNode, bundle)
    volume = SegmentVoxels.volumeOf(segmentationNode)
    return {
        "structures": list(table.values()),
        "annotated": {"structures": [table[i]["name"] for i in done], "slices": slices},
        "model": {"id": bundle.id, "sha256": bundle.sha256},
        "title": volume.GetName(),
        "in_colour": bundle.is_for_pictures and not SceneIO.isPicture(volume),
        "folder": Settings.correctionsFolder(),
        **who,
    }


def caseFiles(segmentationNode, bundle: ModelBundle, files: ExchangeFolder, more=()) -> dict:
    """Its files, written now; `more` are the further input volumes of the model. Raises UserError."""
    volume = SegmentVoxels.volumeOf(segmentationNode)
    valueOf = {i: row["value"] for i, row in structureTable(segmentationNode, bundle).items()}
    array, _shared = SegmentVoxels.labels(segmentationNode, volume, valueOf)
    labels = SegmentVoxels.writeLabels(array, volume, files.newFile("labels.nrrd"))
    return {"images": [str(files.volumeFile(node)) for node in (volume, *more)], "labels": str(labels)}


def cases() -> list[CorrectedCase]:
    """The training set, oldest first. Raises UserError when one of it is damaged."""
    return corrections.cases(Settings.correctionsFolder())


def summary(found: list[CorrectedCase]) -> str:
    """What the training set can do, and what it lacks."""
    if not found:
        return _("No cases yet. Correct a segmentation, say what is done, and add it above.")
    patients, held = {c.patient for c in found}, {c.patient for c in found if c.part == HOLD_OUT}
    count = len(held) or _("none")
    text = _("{extent}, {held} of them held out.").format(extent=extent(len(found), len(patients)), held=count)
    if len(patients) == 1:
        return text + " " + _("With one patient nothing can show whether a new model is better: add others.")
    if len(held) < _LEAST_HELD_OUT or held == patients:
        more = _("With fewer than 3 held-out patients the new model is judged by leave-one-out, which takes longer.")
        return text + " " + more
    return text


def extent(cases: int, patients: int) -> str:
    """'3 cases of 1 patient'."""
    return _("{cases} of {patients}").format(
        cases=counted(cases, _("case"), _("cases")), patients=counted(patients, _("patient"), _("patients"))
    )


def modelsFolder(models: Models, bundle: ModelBundle) -> Path:
    """Where versions of this model go: beside it, or to the user's models when it came with the program."""
    entry = next((e for e in models.entries() if e.folder == bundle.folder), None)
    return entry.root if entry and entry.root and entry.origin != "shipped" else catalogue.user_folder()


def isResumable(models: Models, bundle: ModelBundle) -> bool:
    """Whether a paused or interrupted fine-tuning of this model can be continued."""
    return _checkpoint(models, bundle).is_file()


def forgetPaused(models: Models, bundle: ModelBundle) -> None:
    """Throw away what a paused fine-tuning has learned."""
    _checkpoint(models, bundle).unlink(missing_ok=True)


def _checkpoint(models: Models, bundle: ModelBundle) -> Path:
    return modelsFolder(models, bundle) / ".finetune" / catalogue.version_name(bundle) / "checkpoint.pt"


def tuningRequest(models: Models, bundle: ModelBundle, budget_s: float, device: str, isResumed: bool) -> dict:
    """The params of the job "finetune"."""
    return {
        "model": str(bundle.folder),
        "corrections": Settings.correctionsFolder(),
        "output": str(modelsFolder(models, bundle)),
        "budget_s": budget_s,
        "device": device,
        "resume": isResumed,
    }
