"""Which files on disk are the cases of a cohort: a folder, several files, a CSV. Torch-free.

A case has one image, or one per channel as nnU-Net names them (``X_0000.nii.gz``, ``X_0001.nii.gz``), or a folder with
a DICOM series.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import picture
from .dicom_series import is_dicom
from .errors import UserError
from .image import EXTENSIONS

_ENDINGS = sorted((".seg.nrrd", *EXTENSIONS, *picture.EXTENSIONS), key=len, reverse=True)
_MARK = r"seg|segmentation|labels?|mask|pred|prediction"
_SEGMENTATION_NAME = re.compile(rf"(?:(?P<base>.+)[-_. ])?(?:{_MARK})", re.IGNORECASE)
_CHANNEL = re.compile(r"(?P<base>.+)_(?P<channel>\d{4})")
_IMAGE_COLUMNS, _SEGMENTATION_COLUMNS = (
    ("image", "input", "volume", "file"),
    ("segmentation", "labels", "label", "mask"),
)


@dataclass(frozen=True)
class ImageCase:
    """An image of a cohort: `images` has one path per channel."""

    name: str
    images: tuple[Path, ...]


def stem(path: Path) -> str:
    """The name without its ending: "a.b" of ``a.b.nii.gz``."""
    lower = path.name.lower()
    return next((path.name[: -len(end)] for end in _ENDINGS if lower.endswith(end)), path.name)


def is_image_file(path: Path) -> bool:
    """Whether the name is that of an image or label map, and not a hidden one."""
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(tuple(_ENDINGS))


def segmentation_base(path: Path) -> str | None:
    """The image's name if `path` is named as its segmentation ("X" of ``X_seg.nii.gz``, "" of ``labels.nrrd``)."""
    if path.name.lower().endswith(".seg.nrrd"):
        return stem(path)
    match = _SEGMENTATION_NAME.fullmatch(stem(path))
    return (match["base"] or "") if match else None


def images_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """name -> channels of every image directly in `folder`; a subfolder with DICOM files is one, segmentations none."""
    found: dict[str, tuple[Path, ...]] = {}
    files = [path for path in sorted(folder.iterdir()) if is_image_file(path) and segmentation_base(path) is None]
    first = {m["base"] for path in files if (m := _CHANNEL.fullmatch(stem(path))) and m["channel"] == "0000"}
    for path in files:
        match = _CHANNEL.fullmatch(stem(path))
        name = match["base"] if match and match["base"] in first else stem(path)
        if name in found and name not in first:
            raise UserError(
                f"One image per name was expected, but '{folder}' has {found[name][0].name} and {path.name}.",
                "Keep one of them there, or list the images in a CSV.",
            )
        found[name] = (*found.get(name, ()), path)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and has_dicom(path):
            found.setdefault(path.name, (path,))
    return found


def find_cases(inputs: Iterable[str | os.PathLike]) -> list[ImageCase]:
    """The images named by `inputs`: files, folders of images, DICOM folders, CSV files with a column "image".

    Raises:
        UserError: something is missing, or nothing was found.
    """
    cases: list[ImageCase] = []
    for path in (Path(item).expanduser() for item in inputs):
        if path.name.lower().endswith((".csv", ".tsv")):
            rows = read_rows(path)
            cases += [ImageCase(row["case"] or stem(row["images"][0]), tuple(row["images"])) for row in rows]
        elif path.is_dir() and not has_dicom(path):
            cases += [ImageCase(name, images) for name, images in images_in(path).items()]
        elif path.exists():
            cases.append(ImageCase(stem(path), (path,)))
        else:
            raise UserError(f"An image, folder or CSV was expected at '{path}', but there is none.", "Check the path.")
    if not cases:
        raise UserError("At least one image was expected, but none was found.", "Give image files or their folder.")
    return _with_own_names(cases)


def read_rows(path: Path) -> list[dict]:
    """The rows of a CSV: {"case": text, "images": [paths], "segmentation": path or None, and every other column}.

    Columns "image" (or "image_0", "image_1", ... for channels; also "input", "volume", "file"), "segmentation" (also
    "labels", "label", "mask") and "case" are known. Relative paths count from the CSV's folder.
    Several channels in one cell stand with "; " between them. Columns are separated by comma, semicolon or tab.

    Raises:
        UserError: no such column, or a row without an image.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as CSV in UTF-8.", "Save it again as 'CSV UTF-8'.") from error
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    names = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    channels = sorted(name for name in names if re.fullmatch(r"image_\d+", name))
    channels = channels or [name for name in _IMAGE_COLUMNS if name in names][:1]
    if not channels:
        raise UserError(f"A column 'image' was expected in '{path.name}', but it has: {header.strip()}.", "Add it.")
    drawn = next((name for name in _SEGMENTATION_COLUMNS if name in names), None)
    rows = []
    for number, row in enumerate(reader, start=2):
        texts = [text for name in channels for text in (row[names[name]] or "").split("; ")]
        images = [path.parent / text.strip() for text in texts if text.strip()]
        if not images:
            raise UserError(f"Line {number} of '{path.name}' names no image.", "Fill it in or delete the line.")
        label = (row[names[drawn]] or "").strip() if drawn else ""
        others = {name: (row[column] or "").strip() for name, column in names.items()}
        known = {
            "case": others.get("case", ""),
            "images": images,
            "segmentation": path.parent / label if label else None,
        }
        rows.append(others | known)
    return rows


def has_dicom(folder: Path) -> bool:
    """Whether one of the first files in `folder` is DICOM."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return any(is_dicom(path) for path in files[:5])


def _with_own_names(cases: list[ImageCase]) -> list[ImageCase]:
    """The same cases, each image once; equal names of different images get their folder's name in front."""
    single = list({tuple(path.resolve() for path in case.images): case for case in cases}.values())
    count: dict[str, int] = {}
    for case in single:
        count[case.name.casefold()] = count.get(case.name.casefold(), 0) + 1
    named = [
        case
        if count[case.name.casefold()] == 1
        else ImageCase(f"{case.images[0].parent.name}_{case.name}", case.images)
        for case in single
    ]
    wrong = next((case.name for case in named if Path(case.name).name != case.name or "\\" in case.name), None)
    if wrong:
        raise UserError(f"A name that can be a file's was expected for a case, but '{wrong}' came.", "Change it.")
    if len({case.name.casefold() for case in named}) < len(named):
        raise UserError(
            "Every case needs a name of its own, but several images share a name and their folder's name.",
            "List them in a CSV with the columns case and image.",
        )
    return named
