"""The job ``evaluate``: a model, or somebody's label maps, against labelled cases; tables, and a page to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MambaSegLib import catalogue
from MambaSegLib.bundle import Label, ModelBundle
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels
from MambaSegLib.inference import resolve_device
from MambaSegLib.label_file import OUTPUT_EXTENSIONS
from MambaSegLib.metrics_published import MODES, published_summary
from MambaSegLib.picture import EXTENSIONS as PICTURES
from MambaSegLib.volume import Volume
from MambaSegLib.wording import counted

from .cases import Case
from .evaluate import Predictor, case_rows, known_voxels, only_cancel, summary
from .evaluation_pictures import WorstCases
from .evaluation_report import check_folder, write_report
from .reading import read_case_labels, read_image
from .sources import open_source

# Colours that people with colour blindness can tell apart (Okabe and Ito), for label maps that have none.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found in a case beside its truth; `annotated` as in `cases.Case`."""

    name: str
    truth: Volume
    found: Volume
    annotated: dict | None
    labels: tuple[Label, ...]


def run(request: dict, report, warm=None) -> dict:
    """The job.

    Args:
        request: "data" (labelled cases, see `sources.open_source`), and "model" (name or folder) or "predictions"
            (folder with a label map per case, named as the case); optional "output" (new folder for ``cases.csv``,
            ``summary.csv`` and ``report.html``), "mode" (a way of measuring that papers use, see
            `MambaSegLib.metrics_published`), "device".

    Cases that the model was trained on are left out and counted in a warning: their scores would say nothing.

    Returns:
        {"model" (id or None), "cases", "rows" (per case and structure), "values" (mean, sd, n), "mode", "published"
        (values of the mode), "output", "files"}

    Raises:
        UserError: anything the user can put right. Cancelled: by the report.
    """
    mode, output = request.get("mode"), request.get("output")
    if mode is not None and mode not in MODES:
        raise UserError(f"There is no mode {mode!r}.", f"Known are {', '.join(MODES)}.")
    output = check_folder(Path(output).expanduser()) if output else None
    if bool(request.get("model")) == bool(request.get("predictions")):
        raise UserError(
            "A model or a folder of predictions is measured: name one of them.", "Give -m or --predictions."
        )
    cases = open_source(request["data"])
    if request.get("model"):
        bundle = catalogue.find(request["model"])
        cases = _unseen(cases, bundle, report)
        compared = _by_model(bundle, cases, resolve_device(request.get("device") or "auto"), report)
    else:
        bundle, compared = None, _from_folder(Path(request["predictions"]).expanduser(), cases)
    rows, worst = [], WorstCases()
    for done, (case, found) in enumerate(zip(cases, compared, strict=True)):
        report.progress(done, len(cases), f"Evaluating {case.name}")
        here = [
            row | _published(mode, found, row["structure"]) for row in case_rows(found.found.array, found, found.labels)
        ]
        rows += here
        if output:
            worst.look_at(found, here, lambda case=case: read_image(case))
    report.progress(len(cases), len(cases), "Writing the report" if output else "")
    result = {"model": bundle and bundle.id, "cases": [case.name for case in cases], "rows": rows, "mode": mode}
    result |= {"values": summary(rows), "published": published_summary(mode, rows) if mode else []}
    files = write_report(output, result, bundle, request, worst) if output else []
    return result | {"output": output, "files": files}


def _unseen(cases: list[Case], bundle: ModelBundle, report) -> list[Case]:
    known = set(bundle.data["provenance"]["cases"])
    unseen = [case for case in cases if case.name not in known]
    if len(unseen) < len(cases):
        report.message(
            f"Left out, as they were trained on: {len(cases) - len(unseen)} of {counted(len(cases), 'case')}.",
            "warning",
        )
    if not unseen:
        raise UserError("The model was trained on every one of these cases.", "Give cases it has not seen.")
    return unseen


def _by_model(bundle: ModelBundle, cases: list[Case], device, report) -> Iterator[Compared]:
    predictor = Predictor.of(bundle, device)
    for case in cases:
        read = predictor.read(case)
        found = predictor.label_map(read, only_cancel(report))
        yield Compared(case.name, read.truth, found, case.annotated, bundle.labels)


def _from_folder(folder: Path, cases: list[Case]) -> Iterator[Compared]:
    for case in cases:
        truth, found = read_case_labels(case), read_labels(_prediction_of(folder, case.name))
        if not truth.same_grid(found):
            raise UserError(
                f"The label maps of case {case.name} must be on one grid, but {found.name} ({found.shape[::-1]} "
                f"voxels) is not on that of the truth ({truth.shape[::-1]} voxels).",
                "Resample the predictions onto the images.",
            )
        names = dict(case.structures or ())
        values = names or {v: f"Label {v}" for v in np.union1d(truth.array, found.array).tolist() if 0 < v < 255}
        labels = tuple(Label(v, name, _COLORS[(v - 1) % len(_COLORS)], {}) for v, name in values.items())
        yield Compared(case.name, truth, found, case.annotated, labels)


def _prediction_of(folder: Path, name: str) -> Path:
    for base in (folder / name, folder / Path(name).name):
        for ending in (*OUTPUT_EXTENSIONS, *PICTURES):
            if (file := base.with_name(base.name + ending)).is_file():
                return file
    raise UserError(f"There is no label map of the case {name} in {folder}.", f"Name it {Path(name).name}.nii.gz.")


def _published(mode: str | None, case: Compared, structure: str) -> dict:
    if mode is None:
        return {}
    value = next(label.value for label in case.labels if label.name == structure)
    known = known_voxels(case, structure)
    return MODES[mode].measure((case.found.array == value) & known, (case.truth.array == value) & known)
