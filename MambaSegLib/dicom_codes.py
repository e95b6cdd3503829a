"""Words of the DICOM objects that the library writes: codes, names of persons and of the algorithm, their lengths."""

from __future__ import annotations

from dataclasses import dataclass

from .bundle import Label, ModelBundle
from .label_file import TISSUE

MAKER = "Slicer Mamba Segmentation"
LONG_STRING = 64  # characters


def code(triplet):
    """[scheme, value, meaning] as highdicom's concept."""
    import highdicom as hd

    scheme, value, meaning = triplet
    return hd.sr.CodedConcept(value, scheme, meaning[:LONG_STRING])


def codes_of(label: Label) -> tuple[list[str], list[str], list[str] | None]:
    """[scheme, value, meaning] of a structure's category, type and modifier of the type; tissue when unknown."""
    codes = label.terminology or {}
    return codes.get("category") or TISSUE, codes.get("type") or TISSUE, codes.get("type_modifier") or None


def person(name: str | None) -> str | None:
    """`name` in DICOM's form, family^given; a plain name counts as the family's."""
    if not name or not name.strip():
        return None
    plain = name.replace("\\", " ").replace("=", " ").strip()[: LONG_STRING - 1]
    return plain if "^" in plain else plain + "^"


@dataclass(frozen=True)
class Algorithm:
    """The model that drew something.

    Args:
        id, title: its own.
        version: of the model and its weights, so that two that share a version are told apart.
        sha256: of its weights; "" when unknown.
    """

    id: str
    title: str
    version: str
    sha256: str

    @classmethod
    def of(cls, bundle: ModelBundle) -> Algorithm:
        return cls(bundle.id, bundle.title, f"{bundle.version} ({bundle.sha256[:12]})", bundle.sha256)

    @classmethod
    def from_record(cls, record: dict) -> Algorithm:
        """Of {"id", "sha256"}, as it stands beside a segmentation whose model is no longer here."""
        sha256 = record.get("sha256") or ""
        return cls(record["id"], record["id"], sha256[:12] or "unknown", sha256)
