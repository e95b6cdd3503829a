"""The versions of the models in a folder, read: which there are, what each was made from, which one is in use.

Torch-free. `model_store` changes what is there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import catalogue
from .bundle import ModelBundle, open_bundle
from .catalogue import Entry, lineage_of, version_name
from .errors import UserError

_LIST = "See 'mambaseg models list --all'."


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Args:
        id: its name, such as "hippocampus-2a336a8fc64b".
        lineage: id of the first ancestor.
        folder: where the bundle is.
        parent: name of the version it was made from; None for a first model.
        date: of training, as the bundle says.
        decision: the gate's decision as JSON data with "date"; None when there was none.
        is_active: this is the version in use.
        is_shipped: it came with the program.
    """

    id: str
    lineage: str
    folder: Path
    parent: str | None
    date: str
    decision: dict | None
    is_active: bool
    is_shipped: bool

    @property
    def is_accepted(self) -> bool:
        """A first model, or one that passed the gate."""
        return self.parent is None or bool(self.decision and self.decision["accepted"])

    def open(self) -> ModelBundle:
        """The model, its weights verified."""
        return open_bundle(self.folder)


def models_folder(folder: str | os.PathLike | None) -> Path:
    """The folder of models that is meant: the user's own when none is named."""
    return catalogue.user_folder() if folder is None else Path(folder).expanduser().absolute()


def versions(folder: str | os.PathLike | None = None) -> list[Version]:
    """Every usable version of every lineage: those in `folder` and the shipped ones; parents before children."""
    root = models_folder(folder)
    entries = catalogue.entries([root], every_version=True)
    active = catalogue.read_active(root)
    found = [_version(e, active) for e in entries if e.bundle and (e.origin == "shipped" or e.root == root)]
    generation = {version.id: _generation(version, found) for version in found}

    def place(version: Version):
        judged = (version.decision or {}).get("date", "")
        return version.lineage, generation[version.id], version.date, judged, version.id

    return sorted(found, key=place)


def history(lineage: str, folder: str | os.PathLike | None = None) -> list[Version]:
    """The versions of a lineage: parents before children, then by date. UserError when there is none."""
    found = [version for version in versions(folder) if version.lineage == lineage]
    if not found:
        raise UserError(f"There is no model {lineage!r}.", _LIST)
    return found


def lineage(name: str, folder: str | os.PathLike | None = None) -> str:
    """The lineage of a model, given its lineage, id or the name of a version.

    Raises:
        UserError: no such model, or several.
    """
    every = versions(folder)
    found = {v.lineage for v in every if name in (v.lineage, v.id, v.id.rpartition("-")[0])}
    if len(found) == 1:
        return found.pop()
    if found:
        raise UserError(f"Several models answer to {name!r}: {', '.join(sorted(found))}.", "Name the version.")
    raise UserError(f"There is no model {name!r}.", f"Known: {', '.join(sorted({v.lineage for v in every}))}.")


def find_version(name: str, folder: str | os.PathLike | None = None) -> Version:
    """The version with this name; for a lineage or id, the one in use. UserError when there is none."""
    exact = [version for version in versions(folder) if version.id == name]
    if exact:
        return exact[0]
    of = lineage(name, folder)
    in_use = [version for version in history(of, folder) if version.is_active]
    if not in_use:
        raise UserError(f"No version of {of!r} is in use.", f"Use 'mambaseg models rollback {of}'.")
    return in_use[0]


def _version(entry: Entry, active: dict[str, str]) -> Version:
    bundle, provenance = entry.bundle, entry.bundle.data["provenance"]
    name, is_shipped = active.get(lineage_of(bundle)), entry.origin == "shipped"
    parent = provenance["parent"] or None
    if parent and provenance.get("parent_sha256"):
        parent += f"-{provenance['parent_sha256'][:12].lower()}"
    return Version(
        id=version_name(bundle),
        lineage=lineage_of(bundle),
        folder=entry.folder,
        parent=parent,
        date=provenance["date"],
        decision=catalogue.decision_of(entry.folder),
        is_active=parent is None if name is None else not is_shipped and entry.folder.name == name,
        is_shipped=is_shipped,
    )


def _generation(version: Version, every: list[Version]) -> int:
    """How many ancestors of a version are known."""
    parents, count = {v.id: v.parent for v in every}, 0
    name = version.parent
    while name is not None and count <= len(every):
        count, name = count + 1, parents.get(name)
    return count
