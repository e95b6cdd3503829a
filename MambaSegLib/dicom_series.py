"""DICOM in: which files make one volume, and whether their slices really form a regular stack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import UserError
from .wording import counted

_POSITION, _SERIES_UID, _DESCRIPTION = "0020|0032", "0020|000e", "0008|103e"
_MAX_TILT_DEGREES = 0.5  # above it the stack is sheared, which an image with one direction matrix cannot express
_MAX_UNEVENNESS = 0.1  # of the slice distance


def is_dicom(path: Path) -> bool:
    """True when the file carries DICOM's preamble, whatever its name."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_folder(folder: Path, warn: Callable[[str], None]) -> sitk.Image:
    """The largest series in `folder` as an image; says in a warning that there were others.

    Raises UserError when there is none, or when the two largest have the same number of slices.
    """
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    series = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in ids]
    ranked = sorted((files for files in series if files), key=_slice_count, reverse=True)
    if not ranked:
        raise UserError(
            f"A folder with a DICOM series was expected, but there is no DICOM image in '{folder}'.",
            "Choose the folder that holds the DICOM files themselves.",
        )
    if len(ranked) > 1:
        names = "; ".join(f"{_description(files[0])} ({counted(_slice_count(files), 'slice')})" for files in ranked)
        if _slice_count(ranked[0]) == _slice_count(ranked[1]):
            raise UserError(
                f"One DICOM series was expected, but '{folder}' holds several of the same size: {names}.",
                "Give a DICOM file of the wanted series instead of the folder.",
            )
        warn(f"'{folder}' holds {len(ranked)} DICOM series; the largest was taken. They are: {names}.")
    return _read_stack(ranked[0], warn)


def read_file(path: Path, warn: Callable[[str], None]) -> sitk.Image:
    """A multi-frame file as it is; of a single slice, the whole series that lies beside it in its folder."""
    header = _header(path)
    if header.GetSize()[-1] > 1 and header.GetDimension() == 3:
        return sitk.ReadImage(str(path))
    uid = _tag(header, _SERIES_UID)
    return _read_stack(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path.parent), uid) or [str(path)], warn)


def _header(path: Path | str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _tag(header: sitk.ImageFileReader, key: str) -> str:
    return header.GetMetaData(key).strip() if header.HasMetaDataKey(key) else ""


def _description(path: str) -> str:
    return _tag(_header(path), _DESCRIPTION) or "without a description"


def _slice_count(files: tuple[str, ...]) -> int:
    return len(files) if len(files) > 1 else _header(files[0]).GetSize()[-1]


def _read_stack(files: list[str] | tuple[str, ...], warn: Callable[[str], None]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    if len(files) > 2 and all(reader.HasMetaDataKey(i, _POSITION) for i in range(len(files))):
        positions = [[float(v) for v in reader.GetMetaData(i, _POSITION).split("\\")] for i in range(len(files))]
        _check_stack(np.array(positions), np.reshape(image.GetDirection(), (3, 3)), warn)
    return image


def _check_stack(positions: np.ndarray, direction: np.ndarray, warn: Callable[[str], None]) -> None:
    """`positions` (slices, 3) in mm, in file order; `direction` (3, 3) with the slice normal as last column."""
    along = positions @ direction[:, 2]
    steps = np.diff(np.sort(along))
    if steps.min() < 1e-3 * max(steps.max(), 1e-3):
        raise UserError(
            "One image per position was expected, but the DICOM series has several slices at the same place (a 4-D "
            "series, for example several time points).",
            "Split it, for example in Slicer's DICOM module, and choose one volume.",
        )
    travel = positions[-1] - positions[0]
    tilt = np.degrees(np.arccos(np.clip(abs(along[-1] - along[0]) / np.linalg.norm(travel), 0, 1)))
    if tilt > _MAX_TILT_DEGREES:
        raise UserError(
            f"Slices stacked at right angles were expected, but the scanner's gantry was tilted by {tilt:.1f} degrees.",
            "Load it in Slicer, which regrids tilted series, save it as .nrrd and use that file.",
        )
    if np.ptp(steps) > _MAX_UNEVENNESS * np.median(steps):
        low, high = steps.min(), steps.max()
        warn(
            f"The slices are not evenly spaced ({low:.2f} to {high:.2f} mm apart): one may be missing, so lengths and "
            "volumes are approximate."
        )
