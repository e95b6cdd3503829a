"""Which number means what in a label map: the table of structures inside a .seg.nrrd, or the one that JSON keeps.

Torch-free. The inverse of what `label_file.write_labels` writes into the header.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .bundle import Label
from .errors import UserError

# Colours that people with colour blindness tell apart (Okabe and Ito), for numbers without a table.
_PALETTE = ((230, 159, 0), (0, 158, 115), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178))


def read_table(path: str | Path) -> tuple[Label, ...]:
    """The structures that a .seg.nrrd names, in its order; () for files without names.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"A segmentation was expected at '{path}', but there is no such file.", "Check the path.")
    if not path.name.lower().endswith(".nrrd"):
        return ()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"'{path.name}' cannot be read as a segmentation.", "Save it again.") from error
    header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if key.startswith("Segment")}
    table = []
    while f"Segment{len(table)}_ID" in header:
        table.append(_label(header, f"Segment{len(table)}_"))
    return tuple(table)


def _label(header: dict[str, str], prefix: str) -> Label:
    value = int(header.get(prefix + "LabelValue", 1))
    color = tuple(round(255 * float(part)) for part in header.get(prefix + "Color", "0.5 0.5 0.5").split())
    tags = dict(tag.split(":", 1) for tag in header.get(prefix + "Tags", "").split("|") if ":" in tag)
    entry = tags.get("TerminologyEntry") or tags.get("Segmentation.TerminologyEntry") or ""
    return Label(value, header.get(prefix + "Name", f"Segment {value}"), color, parse_terminology(entry))


def parse_terminology(entry: str) -> dict:
    """Slicer's spelling of a terminology entry -> {"category", "type", "type_modifier"}; {} when it has no codes."""
    fields = [field.split("^") for field in entry.split("~")]
    codes = [code if len(code) == 3 and all(code[:2]) else None for code in fields[1:4]]
    if len(codes) < 3 or codes[0] is None or codes[1] is None:
        return {}
    return dict(zip(("category", "type", "type_modifier"), codes, strict=True))


def table_from_values(values: Iterable[int]) -> tuple[Label, ...]:
    """Names and colours for numbers that have none: "Label 1", "Label 2"; 0 is background and has no entry."""
    used = sorted({int(value) for value in values} - {0})
    return tuple(Label(value, f"Label {value}", _PALETTE[i % len(_PALETTE)], {}) for i, value in enumerate(used))


def table_of(path: str | Path, labels: np.ndarray) -> tuple[Label, ...]:
    """The file's own table, or, when it has none, one made of the numbers in `labels`."""
    return read_table(path) or table_from_values(np.unique(labels))


def to_json(structures: Iterable) -> list[dict]:
    """[{"value", "name", "color", "terminology"}] of labels or of such objects."""
    return [
        {"value": int(s.value), "name": s.name, "color": [int(c) for c in s.color], "terminology": s.terminology or {}}
        for s in structures
    ]


def from_json(rows: Iterable[dict]) -> tuple[Label, ...]:
    """The inverse of `to_json`."""
    return tuple(Label.from_json(row) for row in rows)
