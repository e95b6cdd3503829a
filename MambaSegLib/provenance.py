"""What a model's history tells of the cases it was made from, and what of it may go to others. Torch-free.

A model holds no image. But cases may be called after patients: their files were, where somebody trained on a folder.
Names in a shipped model's history are those of public data, and those that the store of corrections gives tell when a
case was added, not whose it is.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from . import catalogue

CASE_LISTS = ("cases", "validation_cases", "context_cases", "new_cases", "replayed_cases")
WITHHELD = "withheld"
UNNAMED_FOLDER = "a folder of its maker's, which is not named here"
_OF_THE_STORE = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}(-\d+)?")


def private_names(data: dict) -> list[str]:
    """The names of cases in ``bundle.json`` that may tell of patients, sorted."""
    named = {str(name) for key in CASE_LISTS for name in data["provenance"].get(key, [])}
    named = {name for name in named if not _OF_THE_STORE.fullmatch(name)}
    return sorted(named - _public_names()) if named else []


def shareable(data: dict) -> dict:
    """``bundle.json`` with other names for those cases, as many as before, and without the folder they lay in."""
    others = {name: f"{WITHHELD}-{number}" for number, name in enumerate(private_names(data), 1)}
    provenance = dict(data["provenance"])
    for key in CASE_LISTS:
        if key in provenance:
            provenance[key] = [others.get(str(name), name) for name in provenance[key]]
    parts = provenance["data"].split("; ")
    provenance["data"] = "; ".join(UNNAMED_FOLDER if _is_place(part) else part for part in parts)
    return data | {"provenance": provenance}


def _public_names() -> set[str]:
    shipped = [entry.bundle for entry in catalogue.entries(every_version=True) if entry.origin == "shipped"]
    histories = [bundle.data["provenance"] for bundle in shipped if bundle]
    return {str(name) for history in histories for key in CASE_LISTS for name in history.get(key, [])}


def _is_place(text: str) -> bool:
    """Whether it is a path, of this computer or of another one."""
    if text.startswith("~") or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute():
        return True
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or a character that none has
        return False
