"""The job "add_model": a model of this program that somebody gave away, into the user's folder. Torch-free."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import catalogue, model_store
from .bundle import ModelBundle, open_bundle, write_bundle
from .bundle_archive import take_out
from .catalogue import THUMBNAIL_FILES, Entry, version_name
from .errors import UserError
from .job import Report
from .model_versions import models_folder
from .safe_file import cannot_write

NEVER_JUDGED = {
    "accepted": False,
    "reasons": ["It was added from a file, without a comparison with its parent."],
    "rows": [],
    "protocol": "none",
    "margin": 0.0,
}
_LONGEST_ID = 60
_UNFINISHED = ".adding-"
_STALE_S = 3600.0  # an unfinished one that nobody has touched for so long is what a killed process left


class Placed(NamedTuple):
    """Where a model is now; ``was_there``: it had been there before, and nothing was written."""

    folder: Path
    was_there: bool


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job.

    Args:
        request: "source" (a .zip file of `bundle_archive`, or a bundle's folder); optional "name" (what users read;
            default: its own), "use" (true: put a version of another model in use, which else happens only where there
            is none of that family), "output" (folder of models), "folders" (further ones, in which it may be already).
        report: progress by bytes.
        warm: not used.

    Returns:
        {bundle (folder), id (of the version), title, lineage, was_there, in_use}

    Raises:
        UserError: see `bundle_archive.take_out`; a version cannot get another name; the folder cannot be written to.
    """
    if not request.get("source"):
        raise UserError("The request must name 'source'.", "Give a .zip file of a model, or its folder.")
    root, folders = made_folder(models_folder(request.get("output") or None)), request.get("folders") or []
    _sweep(root)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=root) as folder:
        bundle, decision = take_out(request["source"], Path(folder), report)
        report.message(f"Adding {bundle.title}")
        folder, was_there = place(bundle, root, request.get("name") or "", decision, folders)
    added = open_bundle(folder, verify=False)
    wanted = request.get("use") or not has_family(added.data, [root, *folders])
    if wanted and not _is_offered(folder, [root, *folders]):
        model_store.promote(version_name(added), root, despite_gate=True)
    result = {"bundle": str(folder), "id": version_name(added), "title": added.title}
    result |= {"lineage": catalogue.lineage_of(added), "was_there": was_there}
    return result | {"in_use": _is_offered(folder, [root, *folders])}


def place(
    bundle: ModelBundle, root: Path, name: str = "", decision: dict | None = None, folders: Sequence = ()
) -> Placed:
    """Into the folder of models, under an id that no other model has.

    Args:
        bundle: of somebody else; its folder stays as it is.
        root: folder of models.
        name: what users read; empty: the model's own.
        decision: what the gate said of a model that was made from another one.
        folders: further folders of models, in which it may be already.

    Raises:
        UserError: a version of another model was to get a name of its own; the folder cannot be written to.
    """
    title, is_first = name.strip() or bundle.title, bundle.data["provenance"]["parent"] is None
    if title == bundle.title and (there := same_model(bundle.data, [root, *folders])):
        return Placed(there.folder, True)
    if not is_first:
        if title != bundle.title:
            raise UserError(f"'{bundle.title}' is a version of '{catalogue.lineage_of(bundle)}'.", "Leave its name.")
        return Placed(model_store.add(bundle, decision or NEVER_JUDGED, root).folder, False)
    wanted = bundle.id if title == bundle.title else id_of(title)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=made_folder(root)) as folder:
        renamed = {"id": free_id(wanted, [root, *folders]), "title": title}
        if renamed != {"id": bundle.id, "title": bundle.title}:
            bundle = _renamed(bundle, renamed, Path(folder))
        return Placed(model_store.add(bundle, None, root).folder, False)


def same_model(data: dict, folders: Sequence = ()) -> Entry | None:
    """The model on this computer that ``bundle.json`` tells of: all but its history is the same; None if it is not.

    Its history may tell more or less of the cases: that was left out where it was given away.
    """
    wanted = _without_history(data)
    return next((e for e in _there(folders) if e.bundle and _without_history(e.bundle.data) == wanted), None)


def has_family(data: dict, folders: Sequence = ()) -> bool:
    """Whether another version of the model that ``bundle.json`` tells of is on this computer."""
    lineage, own = data["provenance"].get("lineage") or data["id"], data["weights"]["sha256"]
    return any(e.bundle and e.lineage == lineage and e.bundle.sha256 != own for e in _there(folders))


def free_id(wanted: str, folders: Sequence = ()) -> str:
    """An id that no model on this computer has: this one, or with a number behind it."""
    taken = {name for entry in _there(folders) for name in (entry.id, entry.lineage)}
    numbers = range(2, len(taken) + 3)
    return next(name for name in (wanted, *(f"{wanted}-{number}" for number in numbers)) if name not in taken)


def id_of(title: str) -> str:
    """The id of a model that a user calls so."""
    return re.sub(r"[^a-z0-9._-]+", "-", title.lower())[:_LONGEST_ID].strip("-._") or "model"


def made_folder(root: Path) -> Path:
    """The folder, made when it is missing. Raises UserError when it cannot be."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(root, error) from error
    return root


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished with it
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


def _there(folders: Sequence) -> list[Entry]:
    """Every model in these folders, of the user's, and shipped."""
    return catalogue.entries(folders, every_version=True)


def _without_history(data: dict) -> dict:
    return {key: value for key, value in data.items() if key != "provenance"}


def _renamed(bundle: ModelBundle, names: dict, folder: Path) -> ModelBundle:
    renamed = write_bundle(folder / names["id"], bundle.data | names, bundle.weights_path)
    picture = catalogue.thumbnail_of(bundle)
    for file in (picture.with_name(name) for name in THUMBNAIL_FILES if picture):
        if file.is_file():
            shutil.copyfile(file, renamed.folder / file.name)
    return renamed


def _is_offered(folder: Path, folders: Sequence) -> bool:
    return any(entry.folder == folder for entry in catalogue.entries(folders))
