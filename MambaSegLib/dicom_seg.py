"""The job "export_seg": a label map on a DICOM series becomes a DICOM Segmentation object. Needs highdicom.

It says which algorithm made it (name, family, version), what every segment is (coded category and type), and which
slices it was drawn on. What was written is read back and compared before the file gets its name.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from pathlib import Path

import numpy as np

from . import __version__, catalogue, label_table
from .bundle import Label, ModelBundle
from .dicom_source import matching_series
from .errors import UserError
from .image import read_labels
from .job import Report
from .label_file import TISSUE
from .safe_file import cannot_write
from .steps import Steps

_MAKER = "Slicer Mamba Segmentation"
_TEXT = 64  # characters of a DICOM long string


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "labels" (label map file), "source" (folder of the DICOM series, or one of its files), "output" (a .dcm
            file that does not exist yet); optional "model" (id or folder of the one that drew it), "corrected" (True: a
            person changed the result), "structures" ([{value, name, color, terminology}]; else those of the file, else
            the model's), "description" (of the new series), "creator" (who made it).
        report, warm: as for every job; nothing is kept warm.

    Returns:
        {output, segments: [{number, name, voxels}], slices, seconds, warnings}

    Raises:
        UserError: anything the user can put right; nothing is written then. Cancelled: by the report.
    """
    job = Steps(report, {} if warm is None else warm)
    output = _new_file(request)
    bundle = catalogue.find(request["model"]) if request.get("model") else None
    with job.step("read", "Reading the label map"):
        labels = read_labels(request["labels"])
        structures = _structures(request, labels.array, bundle)
    with _highdicom_there(), job.step("match", "Finding the slices of the DICOM series"):
        headers, pixels = matching_series(request["source"], labels, job.warn)
    numbered = _numbered(pixels, structures)
    with job.step("encode", "Making the DICOM object"):
        dataset = _segmentation(headers, numbered, structures, bundle, request)
    with job.step("write", "Writing and reading back"):
        _write(dataset, output, numbered, [h.SOPInstanceUID for h in headers])
    count = np.bincount(numbered.ravel(), minlength=len(structures) + 1)
    rows = [{"number": i, "name": s.name, "voxels": int(count[i])} for i, s in enumerate(structures, start=1)]
    result = {"output": str(output), "segments": rows, "slices": len(headers)}
    return result | {"seconds": job.seconds, "warnings": job.warnings}


@contextlib.contextmanager
def _highdicom_there():
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UserError(
            "DICOM export needs the Python package 'highdicom', which is not installed.",
            "Install it: pip install highdicom (or this project with its extra 'dicom').",
        ) from error
    yield


def _new_file(request: dict) -> Path:
    path = Path(request["output"]).expanduser()
    if not path.name.lower().endswith(".dcm"):
        raise UserError(f"A file name ending in .dcm was expected as output, but '{path.name}' came.", "Add .dcm.")
    if path.exists():
        raise UserError(f"'{path}' exists already, and DICOM objects are never overwritten.", "Choose another name.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise cannot_write(path, error) from error


def _structures(request: dict, labels: np.ndarray, bundle: ModelBundle | None) -> tuple[Label, ...]:
    """Those with voxels, in the table's order."""
    used = set(np.unique(labels).tolist()) - {0}
    if not used:
        raise UserError(
            "A label map with at least one labelled voxel was expected, but it is empty.", "Choose another."
        )
    if request.get("structures"):
        table = label_table.from_json(request["structures"])
    else:
        table = label_table.read_table(request["labels"]) or (bundle.labels if bundle else ())
        table = table or label_table.table_from_values(used)
    foreign = sorted(used - {label.value for label in table})
    if foreign:
        raise UserError(
            f"Every number in the label map needs a name, but {foreign[0]} has none.",
            "Give the model it came from, or a .seg.nrrd with names.",
        )
    return tuple(label for label in table if label.value in used)


def _numbered(pixels: np.ndarray, structures: tuple[Label, ...]) -> np.ndarray:
    """Label values -> segment numbers 1, 2, ... as DICOM wants them."""
    table = np.zeros(int(pixels.max()) + 1, np.uint8 if len(structures) < 256 else np.uint16)
    for number, label in enumerate(structures, start=1):
        table[label.value] = number
    return table[pixels]


def _segmentation(headers: list, numbered: np.ndarray, structures, bundle: ModelBundle | None, request: dict):
    import highdicom as hd

    algorithm = _algorithm(bundle)
    kind = "MANUAL" if bundle is None else "SEMIAUTOMATIC" if request.get("corrected") else "AUTOMATIC"
    made = [_description(number, label, kind, algorithm) for number, label in enumerate(structures, start=1)]
    description = request.get("description") or (bundle.title if bundle else "Segmentation")
    headers[0].decode()  # its names are copied, and written in another character set
    dataset = hd.seg.Segmentation(
        source_images=headers,
        pixel_array=numbered,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=made,
        series_instance_uid=hd.UID(),
        series_number=int(headers[0].get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=_MAKER,
        manufacturer_model_name=(bundle.id if bundle else _MAKER)[:_TEXT],
        software_versions=__version__,
        device_serial_number=bundle.sha256[:_TEXT] if bundle else __version__,
        content_label="SEGMENTATION",
        content_creator_name=_person(request.get("creator")),
        series_description=description[:_TEXT],
    )
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: a structure's name may be written in any script
    return dataset


def _algorithm(bundle: ModelBundle | None):
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if bundle is None:
        return None
    parameters = {"model": bundle.id, "sha256": bundle.sha256}
    family, version = codes.DCM.ArtificialIntelligence, f"{bundle.version} ({bundle.sha256[:12]})"
    return hd.AlgorithmIdentificationSequence(bundle.title[:_TEXT], family, version, _MAKER, parameters)


def _description(number: int, label: Label, kind: str, algorithm):
    import highdicom as hd

    codes = label.terminology or {}
    category, named = codes.get("category") or TISSUE, codes.get("type") or TISSUE
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:_TEXT],
        segmented_property_category=_code(category),
        segmented_property_type=_code(named),
        algorithm_type=kind,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=f"{label.value} {label.name}"[:_TEXT],
        display_color=hd.color.CIELabColor.from_rgb(*label.color),
    )
    if codes.get("type_modifier"):
        item = segment.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [_code(codes["type_modifier"])]
    return segment


def _code(triplet):
    import highdicom as hd

    scheme, value, meaning = triplet
    return hd.sr.CodedConcept(value, scheme, meaning[:_TEXT])


def _person(name: str | None) -> str | None:
    """`name` in DICOM's form, family^given; a plain name counts as the family's."""
    if not name or not name.strip():
        return None
    plain = name.replace("\\", " ").replace("=", " ").strip()[: _TEXT - 1]
    return plain if "^" in plain else plain + "^"


def _write(dataset, output: Path, numbered: np.ndarray, slices: list[str]) -> None:
    """Write under another name, read back, compare, and only then give the file its name."""
    import highdicom as hd

    unfinished = output.with_name(f".{uuid.uuid4().hex[:8]}-{output.name}")
    try:
        dataset.save_as(unfinished, enforce_file_format=True)
        stored = hd.seg.segread(unfinished).get_pixels_by_source_instance(
            slices, combine_segments=True, ignore_spatial_locations=False, assert_missing_frames_are_empty=True
        )
        if not np.array_equal(stored, numbered):
            raise RuntimeError(f"the DICOM object does not hold the {np.count_nonzero(numbered)} voxels put into it")
        if output.exists():  # made by somebody else meanwhile
            raise UserError(f"'{output}' exists already, and is never overwritten.", "Choose another name.")
        os.replace(unfinished, output)
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
