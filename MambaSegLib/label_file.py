"""Segmentations out of and into files, as Slicer writes them: .seg.nrrd with names, colours and terminology."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk

from .errors import UserError
from .volume import Volume

OUTPUT_EXTENSIONS = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii")
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_ANATOMY = "Anatomic codes - DICOM master list"
TISSUE = ["SCT", "85756007", "Tissue"]


class Segment(Protocol):
    """What is written about one structure; `MambaSegLib.bundle.Label` is one."""

    value: int
    name: str
    color: Sequence[int]
    terminology: dict | None


def check_output(path: str | Path) -> Path:
    """Raise UserError unless a segmentation can be written to `path`; to be asked before any work is done."""
    path = Path(path)
    if not path.name.lower().endswith(OUTPUT_EXTENSIONS):
        raise UserError(
            f"A segmentation file ({', '.join(OUTPUT_EXTENSIONS)}) was expected as output, but '{path.name}' came.",
            "Use one of these endings; .seg.nrrd keeps names and colours.",
        )
    if path.is_dir():
        raise UserError(f"A file name was expected as output, but '{path}' is a folder.", "Add a file name.")
    if not path.parent.is_dir():
        raise UserError(f"The output folder '{path.parent}' does not exist.", "Create it or choose another one.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"The output folder '{path.parent}' cannot be written to ({error.strerror}).", "Choose another folder."
        ) from error
    return path


def write_labels(path: str | Path, labels: Volume, segments: Sequence[Segment]) -> Path:
    """Write a label map, complete or not at all.

    Args:
        path: .seg.nrrd (names, colours and terminology inside, as Slicer writes them), .nrrd, .nii.gz or .nii (the
            bare numbers).
        labels: whole numbers, (Z, Y, X); 0 is background.
        segments: the structures, in the order in which they shall be listed.

    Raises:
        UserError: the ending is unknown or the folder cannot be written to.
    """
    path = check_output(path)
    image = labels.to_sitk()
    if path.name.lower().endswith(".seg.nrrd"):
        for key, value in _segmentation_header(labels.array, segments).items():
            image.SetMetaData(key, value)
    unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        sitk.WriteImage(image, str(unfinished), useCompression=True)
        os.replace(unfinished, path)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"'{path}' could not be written (the disk may be full).", "Choose another folder or make room."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
    return path


def collapse_layers(image: sitk.Image, name: str) -> Volume:
    """The layers of a .seg.nrrd with overlapping segments as one label map; later segments cover earlier ones.

    Raises UserError when the layers use the same number for different segments, or when it is no such file.
    """
    volume = Volume.from_sitk(image, name)
    segments = []
    while image.HasMetaDataKey(f"Segment{len(segments)}_LabelValue"):
        prefix = f"Segment{len(segments)}_"
        segments.append((int(image.GetMetaData(prefix + "Layer")), int(image.GetMetaData(prefix + "LabelValue"))))
    if not segments:
        raise UserError(
            f"A label map was expected, but '{name}' is a colour image or vector field.",
            "Choose a label map or segmentation.",
        )
    if len({value for _, value in segments}) < len(segments):
        raise UserError(
            f"One number per segment was expected, but '{name}' has overlapping segments that share a number.",
            "Export the segmentation as a label map in Slicer and use that.",
        )
    labels = np.zeros(volume.shape, volume.array.dtype)
    for layer, value in segments:
        labels[volume.array[layer] == value] = value
    return volume.with_array(labels)


def _segmentation_header(labels: np.ndarray, segments: Sequence[Segment]) -> dict[str, str]:
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_MasterRepresentation": "Binary labelmap",  # the same for Slicer before 5.4
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extents = _extents(labels)
    for index, segment in enumerate(segments):
        header |= {
            f"Segment{index}_ID": f"Segment_{segment.value}",
            f"Segment{index}_Name": segment.name,
            f"Segment{index}_NameAutoGenerated": "0",
            f"Segment{index}_Color": " ".join(f"{channel / 255:.6g}" for channel in segment.color),
            f"Segment{index}_ColorAutoGenerated": "0",
            f"Segment{index}_LabelValue": str(segment.value),
            f"Segment{index}_Layer": "0",
            f"Segment{index}_Extent": extents.get(segment.value, "0 -1 0 -1 0 -1"),
            f"Segment{index}_Tags": f"TerminologyEntry:{terminology_entry(segment.terminology)}|",
        }
    return header


def _extents(labels: np.ndarray) -> dict[int, str]:
    """label value -> 'imin imax jmin jmax kmin kmax' of its voxels; one pass for all labels."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputePerimeterOff()
    statistics.ComputeFeretDiameterOff()
    statistics.Execute(sitk.GetImageFromArray(labels))
    boxes = {value: statistics.GetBoundingBox(value) for value in statistics.GetLabels()}
    return {v: " ".join(f"{b[a]} {b[a] + b[a + 3] - 1}" for a in range(3)) for v, b in boxes.items()}


def terminology_entry(terminology: dict | None) -> str:
    """{'category', 'type', 'type_modifier': [scheme, code, meaning]} in Slicer's spelling; tissue when unknown."""
    terminology = terminology or {}
    codes = [terminology.get("category") or TISSUE, terminology.get("type") or TISSUE]
    codes.append(terminology.get("type_modifier") or ["", "", ""])
    # ~ ^ | separate the fields, so they cannot stand inside one.
    fields = ["^".join(str(part).translate(str.maketrans("~^|", "   ")) for part in code) for code in codes]
    return "~".join([_CONTEXT, *fields, _ANATOMY, "^^", "^^"])
