"""The job "export_seg": a label map on a DICOM series becomes a DICOM Segmentation object. Needs highdicom.

It says which algorithm made it (name, family, version), what every segment is (coded category and type), and which
slices it was drawn on. On request a Structured Report with the volumes goes with it. What was written is read back and
compared before the files get their names.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from . import __version__, catalogue, dicom_report, label_table
from .bundle import Label, ModelBundle
from .dicom_codes import LONG_STRING, MAKER, Algorithm, code, codes_of, person
from .dicom_file import new_file, write_new
from .dicom_source import hounsfield, matching_series
from .errors import UserError
from .image import read_labels
from .job import Report
from .steps import Steps


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "labels" (label map file), "source" (folder of the DICOM series, or one of its files), "output" (a .dcm
            file that does not exist yet); optional "model" (id or folder of the one that drew it) or "drawn_by" ({"id",
            "sha256"} of one that is not here), "corrected" (True: a person changed the result), "structures" ([{value,
            name, color, terminology}]; else those of the file, else the model's), "description" (of the new series),
            "creator" (who made it); "report" (a .dcm file for the report, see `dicom_report`) with "reviewer" (a name),
            "decision" (one of `dicom_report.DECISIONS`) and "comment".
        report, warm: as for every job; nothing is kept warm.

    Returns:
        {output, report (or None), segments: [{number, name, voxels, volume_mm3}], slices, seconds, warnings}; of a CT
        with a report the segments also have mean_hu and sd_hu.

    Raises:
        UserError: anything the user can put right; nothing is written then. Cancelled: by the report.
    """
    job = Steps(report, {} if warm is None else warm)
    output, about = _new_files(request)
    bundle = catalogue.find(request["model"]) if request.get("model") else None
    with job.step("read", "Reading the label map"):
        labels = read_labels(request["labels"])
        structures = _structures(request, labels.array, bundle)
    with _highdicom_there(), job.step("match", "Finding the slices of the DICOM series"):
        headers, pixels = matching_series(request["source"], labels, job.warn)
    numbered = _numbered(pixels, structures)
    with job.step("measure", "Measuring the segments"):
        hu = hounsfield(headers, job.warn) if about else None
        rows = dicom_report.measured(numbered, len(structures), labels.voxel_volume_mm3, hu)
    with job.step("encode", "Making the DICOM object"):
        objects = _objects(headers, numbered, structures, rows, bundle, request, output, about)
    with job.step("write", "Writing and reading back"):
        write_new(objects)
    rows = [row | {"name": structure.name} for row, structure in zip(rows, structures, strict=True)]
    result = {"output": str(output), "report": about and str(about), "segments": rows, "slices": len(headers)}
    return result | {"seconds": job.seconds, "warnings": job.warnings}


def _objects(headers, numbered, structures, rows, bundle, request: dict, output: Path, about: Path | None) -> list:
    """The segmentation, and the report when one is wanted, as `write_new` takes them."""
    algorithm = _algorithm(bundle, request)
    dataset = _segmentation(headers, numbered, structures, algorithm, request)
    objects = [(dataset, output, lambda path: _check(path, numbered, [h.SOPInstanceUID for h in headers]))]
    if about:
        made = dicom_report.make(headers, dataset, structures, rows, algorithm, request)
        objects.append((made, about, lambda path: dicom_report.check(path, rows)))
    return objects


def _algorithm(bundle: ModelBundle | None, request: dict) -> Algorithm | None:
    if bundle:
        return Algorithm.of(bundle)
    return Algorithm.from_record(request["drawn_by"]) if request.get("drawn_by") else None


def _new_files(request: dict) -> tuple[Path, Path | None]:
    """The names of the segmentation and the report; both are free."""
    output = new_file(request["output"])
    if not request.get("report"):
        return output, None
    dicom_report.check_request(request)
    about = new_file(request["report"])
    if about == output:
        raise UserError("Two file names were expected, but segmentation and report share one.", "Choose another name.")
    return output, about


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


def _segmentation(headers: list, numbered: np.ndarray, structures, algorithm: Algorithm | None, request: dict):
    import highdicom as hd

    kind = "MANUAL" if algorithm is None else "SEMIAUTOMATIC" if request.get("corrected") else "AUTOMATIC"
    named = _identification(algorithm) if algorithm else None
    made = [_description(number, label, kind, named) for number, label in enumerate(structures, start=1)]
    description = request.get("description") or (algorithm.title if algorithm else "Segmentation")
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
        manufacturer=MAKER,
        manufacturer_model_name=(algorithm.id if algorithm else MAKER)[:LONG_STRING],
        software_versions=__version__,
        device_serial_number=(algorithm and algorithm.sha256[:LONG_STRING]) or __version__,
        content_label="SEGMENTATION",
        content_creator_name=person(request.get("creator")),
        series_description=description[:LONG_STRING],
    )
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: a structure's name may be written in any script
    return dataset


def _identification(algorithm: Algorithm):
    import highdicom as hd
    from pydicom.sr.codedict import codes

    parameters = {"model": algorithm.id} | ({"sha256": algorithm.sha256} if algorithm.sha256 else {})
    family, title = codes.DCM.ArtificialIntelligence, algorithm.title[:LONG_STRING]
    return hd.AlgorithmIdentificationSequence(title, family, algorithm.version, MAKER, parameters)


def _description(number: int, label: Label, kind: str, algorithm):
    import highdicom as hd

    category, named, modifier = codes_of(label)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:LONG_STRING],
        segmented_property_category=code(category),
        segmented_property_type=code(named),
        algorithm_type=kind,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=f"{label.value} {label.name}"[:LONG_STRING],
        display_color=hd.color.CIELabColor.from_rgb(*label.color),
    )
    if modifier:
        item = segment.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [code(modifier)]
    return segment


def _check(path: Path, numbered: np.ndarray, slices: list[str]) -> None:
    """Read a segmentation back; RuntimeError when a voxel is another one."""
    import highdicom as hd

    stored = hd.seg.segread(path).get_pixels_by_source_instance(
        slices, combine_segments=True, ignore_spatial_locations=False, assert_missing_frames_are_empty=True
    )
    if not np.array_equal(stored, numbered):
        raise RuntimeError(f"the DICOM object does not hold the {np.count_nonzero(numbered)} voxels put into it")
