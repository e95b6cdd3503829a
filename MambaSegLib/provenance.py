"""What a model's history tells of the cases it was made from and judged on, and what may go to others. Torch-free.

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


def private_names(data: dict, decision: dict | None = None) -> list[str]:
    """The names of cases in ``bundle.json`` and the gate's decision that may tell of patients, sorted."""
    named = {str(name) for key in CASE_LISTS for name in data["provenance"].get(key, [])}
    named |= {str(row["worst_case"]) for row in (decision or {}).get("rows", []) if row.get("worst_case")}
    named = {name for name in named if not _OF_THE_STORE.fullmatch(name)}
    return sorted(named - _public_names()) if named else []


def shareable(data: dict, decision: dict | None = None) -> tuple[dict, dict | None]:
    """Both with other names for those cases, as many as before, and without the folder they lay in."""
    others = {name: f"{WITHHELD}-{number}" for number, name in enumerate(private_names(data, decision), 1)}
    provenance = dict(data["provenance"])
    for key in CASE_LISTS:
        if key in provenance:
            provenance[key] = [others.get(str(name), name) for name in provenance[key]]
    parts = provenance["data"].split("; ")
    provenance["data"] = "; ".join(UNNAMED_FOLDER if _is_place(part) else part for part in parts)
    return data | {"provenance": provenance}, decision and _without_names(decision, others)


def _without_names(decision: dict, others: dict[str, str]) -> dict:
    """A sentence of the gate calls a case "case NAME"."""
    if not others:
        return decision
    names = "|".join(re.escape(name) for name in sorted(others, key=len, reverse=True))
    told = re.compile(rf"\bcase ({names})(?!\w)")
    reasons = [told.sub(lambda found: f"case {others[found[1]]}", reason) for reason in decision["reasons"]]
    rows = [row | {"worst_case": others.get(row.get("worst_case"), row.get("worst_case"))} for row in decision["rows"]]
    return decision | {"reasons": reasons, "rows": rows}


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
