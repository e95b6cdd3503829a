"""The DICOM series that a segmentation belongs to: its headers, and its pixels' places in the label map. Torch-free.

Nothing is resampled: a label map's voxels are the series' pixels (turned, mirrored or cropped at most), or not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .dicom_series import is_dicom
from .errors import UserError
from .volume import Volume

# What DICOM wants in every file, empty where unknown, and some writers leave out.
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")
_MAY_BE_EMPTY += ("StudyDate", "StudyTime", "ReferringPhysicianName")
_TOLERANCE = 0.1  # of a voxel: what rounding in headers may shift the grids against each other


def matching_series(source: str | Path, labels: Volume, warn: Callable[[str], None]) -> tuple[list, np.ndarray]:
    """The series on whose pixels `labels` was drawn.

    Args:
        source: a folder with DICOM files, or one file of the wanted series in it.
        labels: (Z, Y, X).
        warn: told in a sentence about what was missing in the headers.

    Returns:
        (headers, one pydicom data set without pixels per slice, along the slice normal;
        the labels on them, (slices, rows, columns)).

    Raises:
        UserError: no series there, or none (or several) with these voxels.
    """
    series = _series(Path(source).expanduser())
    fitting, refusals = [], []
    for headers in series:
        try:
            fitting.append((headers, onto_slices(labels, headers)))
        except UserError as error:
            refusals.append(error)
    if len(fitting) > 1:
        names = "; ".join(str(headers[0].get("SeriesDescription", "without a description")) for headers, _ in fitting)
        raise UserError(
            f"One DICOM series with the label map's voxels was expected, but several have them: {names}.",
            "Give a file of the wanted series instead of the folder.",
        )
    if not fitting:
        raise refusals[0]
    headers, pixels = fitting[0]
    _complete(headers, warn)
    return headers, pixels


def onto_slices(labels: Volume, headers: list) -> np.ndarray:
    """The labels of every pixel of the slices `headers`, (slices, rows, columns); by index, without interpolation.

    Raises:
        UserError: the voxels of `labels` are not the pixels of the series, or some labelled ones lie beyond it.
    """
    first = headers[0]
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    rows_mm, columns_mm = (float(step) for step in first.PixelSpacing)
    to_index = labels.index_from_world()
    along_column = to_index[:3, :3] @ (orientation[:3] * columns_mm)
    along_row = to_index[:3, :3] @ (orientation[3:] * rows_mm)
    positions = np.array([h.ImagePositionPatient for h in headers], dtype=float)
    starts = positions @ to_index[:3, :3].T + to_index[:3, 3]
    column_axis, row_axis = int(abs(along_column).argmax()), int(abs(along_row).argmax())
    reach = abs(np.rint(along_column) - along_column) * first.Columns + abs(np.rint(along_row) - along_row) * first.Rows
    apart = abs(starts - np.rint(starts)).max() + reach.max()
    slice_axis = 3 - column_axis - row_axis
    straight = column_axis != row_axis and np.ptp(np.rint(np.delete(starts, slice_axis, 1)), axis=0).max() == 0
    slices = np.rint(starts[:, slice_axis]).astype(int) if straight else np.zeros(0, int)
    if not straight or apart > _TOLERANCE or len(set(slices)) < len(headers):
        raise _elsewhere(labels, first)
    turned = labels.array.transpose([2 - axis for axis in (slice_axis, row_axis, column_axis)])
    steps = (int(np.rint(along_row[row_axis])), int(np.rint(along_column[column_axis])))
    begin = np.rint(starts[0]).astype(int)
    indices = (
        slices,
        begin[row_axis] + steps[0] * np.arange(first.Rows),
        begin[column_axis] + steps[1] * np.arange(first.Columns),
    )
    return _picked(turned, indices, labels)


def hounsfield(headers: list, warn: Callable[[str], None]) -> np.ndarray | None:
    """The pixels of a CT in Hounsfield units, (slices, rows, columns); None for other images.

    `warn` is told when it is a CT whose numbers are no Hounsfield units.
    """
    import SimpleITK as sitk

    first = headers[0]
    if first.get("Modality") != "CT":
        return None
    if first.get("RescaleSlope") is None or first.get("RescaleType", "HU") not in ("HU", "", None):
        warn("The CT's numbers are not marked as Hounsfield units, so the report has no mean and standard deviation.")
        return None
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(header.filename) for header in headers])
    try:
        return sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise UserError("The pixels of the DICOM series cannot be read.", "Are all files complete?") from error


def _picked(turned: np.ndarray, indices: tuple, labels: Volume) -> np.ndarray:
    """turned[indices], 0 beyond the array."""
    result = np.zeros([len(index) for index in indices], turned.dtype)
    inside = [(index >= 0) & (index < n) for index, n in zip(indices, turned.shape, strict=True)]
    result[np.ix_(*inside)] = turned[np.ix_(*(i[ok] for i, ok in zip(indices, inside, strict=True)))]
    lost = np.count_nonzero(labels.array) - np.count_nonzero(result)
    if lost:
        raise UserError(
            f"All labelled voxels were expected on the slices of the DICOM series, but {lost} of them lie beyond it.",
            "Give the complete series from which the volume was loaded.",
        )
    return result


def _series(source: Path) -> list[list]:
    """Headers of every series of single-slice images in the folder, each sorted along its slice normal."""
    import pydicom

    folder, wanted = (source.parent, source) if source.is_file() else (source, None)
    if not folder.is_dir():
        raise UserError(f"A folder with a DICOM series was expected, but '{source}' does not exist.", "Check the path.")
    groups: dict[str, list] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_dicom(path):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if _is_slice(header):
                groups.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
    found = [_sorted(headers) for headers in groups.values()]
    if wanted:
        found = [headers for headers in found if any(Path(h.filename) == wanted for h in headers)]
    if not found:
        raise UserError(
            f"A series of DICOM slices was expected in '{source}', but there is none.",
            "Give the folder of the original series, one file per slice.",
        )
    return found


def _is_slice(header) -> bool:
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
    return all(header.get(name) for name in needed) and int(header.get("NumberOfFrames") or 1) == 1


def _sorted(headers: list) -> list:
    orientation = np.array(headers[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    return sorted(headers, key=lambda h: float(np.dot(np.array(h.ImagePositionPatient, dtype=float), normal)))


def _elsewhere(labels: Volume, header) -> UserError:
    ours = " x ".join(f"{step:.4g}" for step in labels.spacing_mm)
    theirs = " x ".join(f"{float(step):.4g}" for step in header.PixelSpacing)
    return UserError(
        f"Labels on the pixels of the DICOM series ({theirs} mm) were expected, but the label map's voxels "
        f"({ours} mm) are others: another grid, or regridded.",
        "Segment the DICOM series itself, or export the segmentation on its volume as reference.",
    )


def _complete(headers: list, warn: Callable[[str], None]) -> None:
    """Put identifiers that an anonymiser emptied back, as far as the files tell them."""
    from pydicom.uid import generate_uid

    if not headers[0].get("FrameOfReferenceUID"):
        raise UserError(
            "A DICOM series with a frame of reference was expected, but this one has none.",
            "Use the original series; without it nobody can tell where the segmentation lies.",
        )
    for header in headers:
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, None)
    new = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID") if not headers[0].get(name)}
    for header in headers:
        header.SOPClassUID = header.get("SOPClassUID") or header.file_meta.MediaStorageSOPClassUID
        header.SOPInstanceUID = header.get("SOPInstanceUID") or header.file_meta.MediaStorageSOPInstanceUID
        for name, uid in new.items():
            setattr(header, name, uid)
    if new:
        warn(
            f"The source has no {' and no '.join(new)} (it was anonymised): new ones were made, so other programs "
            "cannot list the segmentation beside its images."
        )
