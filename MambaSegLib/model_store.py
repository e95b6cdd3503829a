"""The user's models: kept for ever under a name made of their content, put in use, taken back, removed.

A version is a bundle's folder ``<id>-<first 12 digits of the weights' sha256>`` in a folder of models (default
`catalogue.user_folder`), with ``decision.json`` beside the bundle's own files: what the gate said about it. Nothing in
it is changed afterwards. Which version of a lineage is in use stands in ``active.json`` alone, so that promotion and
rollback write a few bytes, in one operation; a lineage that is not named there uses its first model. Models that ship
with the program are first models and are never touched. Writers take turns by a lock on the folder. Torch-free.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from . import catalogue
from .bundle import BUNDLE_FILE, CARD_FILE, ModelBundle, open_bundle
from .card import card_markdown
from .card_page import card_html
from .catalogue import ACTIVE_FILE, DECISION_FILE, THUMBNAIL_FILES, version_name
from .errors import UserError
from .folder_lock import locked
from .job import to_json_value
from .model_versions import Version, find_version, history, lineage, models_folder, versions
from .provenance import shareable
from .safe_file import write_text

__all__ = [
    "Version",
    "add",
    "export_card",
    "find_version",
    "history",
    "lineage",
    "promote",
    "remove",
    "rollback",
    "versions",
]


def add(candidate: ModelBundle, decision: dict | None = None, folder: str | os.PathLike | None = None) -> Version:
    """Copy a new model into the folder of models, under the name made of its content; it is not in use yet.

    Args:
        candidate: the model; its own folder stays as it is.
        decision: the gate's decision as JSON data, {"accepted", "reasons", ...}; kept beside the model with the time,
            its own where it has one. None for a model without a parent, such as an imported one: in use at once.
        folder: of models; made when missing.

    Returns:
        The new version; when the same weights were added before, that version, with the decision it has.

    Raises:
        UserError: the weights are not those that the candidate names, or the folder cannot be written.
    """
    candidate, root = open_bundle(candidate.folder), models_folder(folder)
    name = version_name(candidate)
    with locked(root):
        if not (root / name).exists():
            with _disk_errors(f"The model cannot be written to {root / name}"):
                _copy_in(candidate, root / name, decision)
    return find_version(name, root)


def promote(
    name: str, folder: str | os.PathLike | None = None, instead_of: str | None = None, despite_gate: bool = False
) -> Version:
    """Put a version in use, after its weights were verified.

    Args:
        name: of the version.
        folder: of models.
        instead_of: name of the version that must be in use now: the one that the gate compared this one with.
        despite_gate: also when the gate refused the version or never judged it.

    Raises:
        UserError: unknown, damaged, not accepted by the gate, or another version than `instead_of` is in use.
    """
    root = models_folder(folder)
    with locked(root):
        version = _exactly(name, root)
        if not (version.is_accepted or despite_gate):
            why = " ".join(version.decision["reasons"]) if version.decision else "It was never compared."
            raise UserError(f"The gate did not accept {version.id}. {why}", "Use --despite-gate if you know better.")
        version.open()
        in_use = [v.id for v in history(version.lineage, root) if v.is_active]
        if instead_of is not None and in_use != [instead_of]:
            now = " and ".join(in_use) or "a version that is lost"
            raise UserError(
                f"{version.id} was compared with {instead_of}, but {now} is in use now.",
                "Compare it with the version in use, then promote it.",
            )
        _put_in_use(root, version)
    return find_version(name, root)


def rollback(lineage: str, folder: str | os.PathLike | None = None) -> Version:
    """Put the parent of the version in use back in use; the first model when that version or its parent is lost.

    Raises:
        UserError: no such lineage, its first model is in use already, or nothing to go back to.
    """
    root = models_folder(folder)
    with locked(root):
        there = history(lineage, root)
        in_use = next((version for version in there if version.is_active), None)
        if in_use is not None and in_use.parent is None:
            raise UserError(f"The first model of {lineage!r} is in use already.", "Promote another version instead.")
        parent = next((v for v in there if in_use and v.id == in_use.parent), None)
        target = parent or next((v for v in there if v.parent is None), None)
        if target is None:
            raise UserError(f"Neither the parent nor the first model of {lineage!r} is here.", "Promote a version.")
        target.open()
        _put_in_use(root, target)
    return find_version(target.id, root)


def remove(name: str, folder: str | os.PathLike | None = None) -> None:
    """Delete a version's folder.

    Raises:
        UserError: it is shipped, in use while there are others, or the parent of another version.
    """
    root = models_folder(folder)
    with locked(root):
        version = _exactly(name, root)
        others = [v for v in history(version.lineage, root) if v.id != version.id]
        children = [v.id for v in others if v.parent == version.id]
        if version.is_shipped:
            raise UserError(f"{version.id} came with the program and stays.", "Promote another version instead.")
        if children:
            raise UserError(f"{version.id} is the parent of {', '.join(children)}.", "Remove those first.")
        if version.is_active and others:
            raise UserError(f"{version.id} is in use.", f"First use 'mambaseg models rollback {version.lineage}'.")
        doomed = root / f".removed-{os.urandom(4).hex()}-{version.folder.name}"
        with _disk_errors(f"{version.folder} cannot be removed"):
            os.rename(version.folder, doomed)  # away in one operation: nobody finds half a model
        if version.is_active:
            _change_active(root, lambda active: active.pop(version.lineage, None))
    shutil.rmtree(doomed, ignore_errors=True)


def export_card(name: str, path: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """Write the card of a version as .md or .html, complete or not at all; an existing file is not overwritten.

    It names no case that may be a patient, see `provenance`.

    Raises:
        UserError: unknown model or ending, the file exists, or cannot be written.
    """
    path = Path(path).expanduser()
    makers = {".md": card_markdown, ".html": card_html}
    if path.suffix.lower() not in makers:
        raise UserError(f"A card is written as .md or .html, but '{path.name}' came.", "Use one of these endings.")
    if path.exists():
        raise UserError(f"{path} exists already.", "Choose another name; nothing is overwritten.")
    version = find_version(name, folder)
    return write_text(path, makers[path.suffix.lower()](*shareable(version.open().data, version.decision)))


def _exactly(name: str, root: Path) -> Version:
    found = [version for version in versions(root) if version.id == name]
    if not found:
        raise UserError(f"There is no version {name!r} in {root}.", "See 'mambaseg models list --all'.")
    return found[0]


def _put_in_use(root: Path, version: Version) -> None:
    """Write it down; a first model is in use where nothing is written."""

    def change(active: dict[str, str]) -> None:
        active.pop(version.lineage, None)
        if version.parent is not None:
            active[version.lineage] = version.folder.name

    _change_active(root, change)


def _change_active(root: Path, change: Callable[[dict], object]) -> None:
    active = catalogue.read_active(root)
    change(active)
    write_text(root / ACTIVE_FILE, json.dumps(active, indent=2, sort_keys=True) + "\n")


def _copy_in(candidate: ModelBundle, target: Path, decision: dict | None) -> None:
    """The bundle's files with the decision and the card that tells of it; complete or not at all."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copyfile(candidate.folder / BUNDLE_FILE, temporary / BUNDLE_FILE)
        shutil.copyfile(candidate.weights_path, temporary / candidate.weights_path.name)
        for name in (name for name in THUMBNAIL_FILES if (candidate.folder / name).is_file()):
            shutil.copyfile(candidate.folder / name, temporary / name)
        if decision is not None:
            decision = to_json_value({"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **decision})
            text = json.dumps(decision, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            (temporary / DECISION_FILE).write_text(text, encoding="utf-8", newline="\n")
        card = card_markdown(candidate.data, decision)
        (temporary / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")
        os.chmod(temporary, 0o755)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _disk_errors(what: str):
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error.strerror}.", "Check free space and rights.") from error
