"""A DICOM Structured Report (TID 1500) about a DICOM segmentation: every segment with its volume, of CT also its HU.

It says who measured (the program, with the model) and who reviewed. It is never marked as verified: that takes a person
who answers for it with the name of the organisation, which a click in a review is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import __version__
from .bundle import Label
from .dicom_codes import LONG_STRING, MAKER, Algorithm, code, codes_of, person
from .errors import UserError
from .label_file import TISSUE
from .worklist import COMPLETED, FLAGGED

DECISIONS = (COMPLETED, FLAGGED)
_SIDES = ("7771000", "24028007", "51440002")  # SNOMED CT: left, right, both
_PLACES = ("123037004", "85756007", "91723000")  # categories of what is a place in the body: anatomical, tissue
_PROCEDURES = {"CT": "CTUnspecifiedBodyRegion", "MR": "MRIUnspecifiedBodyRegion", "PT": "PETUnspecifiedBodyRegion"}
_TOLERANCE = 1e-6  # relative; numbers are written with 16 characters and as double


def measured(numbered: np.ndarray, count: int, voxel_mm3: float, hu: np.ndarray | None) -> list[dict]:
    """Size and intensity of every segment.

    Args:
        numbered: segment numbers 1 ... `count`, (slices, rows, columns), 0 elsewhere.
        voxel_mm3: volume of one voxel.
        hu: the image on the same pixels in Hounsfield units, or None.

    Returns:
        One {"number", "voxels", "volume_mm3"} per segment, with "mean_hu" and "sd_hu" (of the population) if `hu` is
        given.
    """
    flat = numbered.ravel()
    voxels = np.bincount(flat, minlength=count + 1)
    rows = [
        {"number": n, "voxels": int(voxels[n]), "volume_mm3": float(voxels[n] * voxel_mm3)} for n in range(1, count + 1)
    ]
    if hu is None:
        return rows
    for row in rows:
        values = hu.ravel()[flat == row["number"]].astype(np.float64)
        row |= {"mean_hu": float(values.mean()), "sd_hu": float(values.std())}
    return rows


def check_request(request: dict) -> None:
    """Raise UserError when the decision of a review has no name, or is none."""
    decision = request.get("decision")
    if decision and decision not in DECISIONS:
        raise UserError(f"A decision of {', '.join(DECISIONS)} was expected, but {decision!r} came.", "Use one.")
    if decision and not person(request.get("reviewer")):
        raise UserError("The name of who decided was expected, but none came.", "Give the reviewer's name.")


def make(headers: list, segmentation, structures: Sequence[Label], rows: list[dict], algorithm, request: dict):
    """The report as a highdicom data set.

    Args:
        headers: the slices of the source series.
        segmentation: the DICOM segmentation with one segment per structure.
        rows: as `measured` gives them.
        algorithm: the `Algorithm` that drew it, or None.
        request: of the job "export_seg": "reviewer", "decision", "comment", "description".
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    groups = [
        _group(segmentation, headers[0], label, row, algorithm) for label, row in zip(structures, rows, strict=True)
    ]
    content = hd.sr.MeasurementReport(
        observation_context=_observers(algorithm, person(request.get("reviewer"))),
        procedure_reported=getattr(codes.cid100, _PROCEDURES.get(headers[0].get("Modality"), "ImagingProcedure")),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[*headers, segmentation],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=int(segmentation.SeriesNumber) + 1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=segmentation.ManufacturerModelName,
        software_versions=__version__,
        device_serial_number=segmentation.DeviceSerialNumber,
        series_description=f"{segmentation.SeriesDescription[: LONG_STRING - 9]}, volumes",
        is_complete=request.get("decision") == COMPLETED,
    )
    dataset.CompletionFlagDescription = _state(request)
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: names may be written in any script
    return dataset


def _state(request: dict) -> str:
    words = {COMPLETED: "Segmentation accepted", FLAGGED: "Segmentation flagged"}
    text = words.get(request.get("decision"), "Segmentation not reviewed")
    comment = " ".join((request.get("comment") or "").replace("\\", " ").split())
    return (f"{text}: {comment}" if comment else text)[:LONG_STRING]


def _observers(algorithm: Algorithm | None, reviewer: str | None):
    import highdicom as hd
    from pydicom.sr.codedict import codes

    known = (algorithm.sha256 or algorithm.id) if algorithm else f"{MAKER} {__version__}"
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, known).int}",  # the same for the same model, everywhere
        name=algorithm.title[:LONG_STRING] if algorithm else MAKER,
        manufacturer_name=MAKER,
        model_name=algorithm.id[:LONG_STRING] if algorithm else MAKER,
        serial_number=known[:LONG_STRING],
    )
    who = hd.sr.PersonObserverIdentifyingAttributes(name=reviewer) if reviewer else None
    return hd.sr.ObservationContext(
        observer_person_context=hd.sr.ObserverContext(codes.DCM.Person, who) if who else None,
        observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, device),
    )


def _group(segmentation, header, label: Label, row: dict, algorithm: Algorithm | None):
    """What is said about one segment, TID 1411."""
    import highdicom as hd

    item = segmentation.SegmentSequence[row["number"] - 1]
    category, kind, _ = codes_of(label)
    series = hd.sr.SourceSeriesForSegmentation(header.SeriesInstanceUID)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(item.TrackingUID, item.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment(
            segmentation.SOPClassUID, segmentation.SOPInstanceUID, row["number"], source_series=series
        ),
        finding_category=code(category),
        finding_type=code(kind),
        finding_sites=_sites(label),
        algorithm_id=_algorithm(algorithm) if algorithm else None,
        measurements=_measurements(row),
    )


def _sites(label: Label) -> list | None:
    """Where it is: a structure of the body is its own place; of a lesion only the side is known, which is no place."""
    import highdicom as hd

    category, kind, modifier = codes_of(label)
    if category[1] not in _PLACES or kind == TISSUE:
        return None
    if modifier is None:
        return [hd.sr.FindingSite(code(kind))]
    name = "laterality" if modifier[1] in _SIDES else "topographical_modifier"
    return [hd.sr.FindingSite(code(kind), **{name: code(modifier)})]


def _algorithm(algorithm: Algorithm):
    import highdicom as hd

    parameters = [f"{name}={value}" for name, value in (("model", algorithm.id), ("sha256", algorithm.sha256)) if value]
    return hd.sr.AlgorithmIdentification(algorithm.title[:LONG_STRING], algorithm.version, parameters)


def _measurements(row: dict) -> list:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    method = codes.DCM.SumOfSegmentedVoxelMethodForVolume
    found = [hd.sr.Measurement(codes.SCT.Volume, row["volume_mm3"], codes.UCUM.CubicMillimeter, method=method)]
    for key, derivation in (("mean_hu", codes.SCT.Mean), ("sd_hu", codes.SCT.StandardDeviation)):
        if key in row:
            name, unit = codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit
            found.append(hd.sr.Measurement(name, row[key], unit, derivation=derivation))
    return found


def check(path: Path, rows: list[dict]) -> None:
    """Read a report back; RuntimeError when it does not say of every segment what `rows` say."""
    import highdicom as hd

    groups = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    stored = {g.referenced_segment.referenced_segment_numbers[0]: g.get_measurements() for g in groups}
    for row in rows:
        wanted = [row[key] for key in ("volume_mm3", "mean_hu", "sd_hu") if key in row]
        found = [measurement.value for measurement in stored.get(row["number"], ())]
        if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=_TOLERANCE):
            raise RuntimeError(f"the report holds {found} of segment {row['number']} instead of {wanted}")
