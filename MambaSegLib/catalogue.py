"""Which models are there: those shipped with the library, those of the user, and those in folders one names.

Models that were made from one another are versions of one *lineage*, named by the id of the first of them. A folder
of models may hold ``active.json``, {lineage: folder}, which says which version is in use; then the others, the shipped
one among them, are not offered. `model_store` writes that file; here it is only read.
"""

import difflib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .bundle import BUNDLE_FILE, ModelBundle, open_bundle
from .errors import UserError

APPLICATION = "SlicerMambaSegmentation"
ACTIVE_FILE = "active.json"
DECISION_FILE = "decision.json"
THUMBNAIL_FILE = "thumbnail.png"
THUMBNAIL_FILES = (THUMBNAIL_FILE, "thumbnail.txt")  # and whose picture it is, which goes wherever it goes


@dataclass(frozen=True)
class Entry:
    """A folder that holds a model: `bundle`, or, when it is broken, the `error` that says why.

    `origin` is "shipped", "user" or "extra"; `root` is the folder of models that it was found in.
    """

    folder: Path
    origin: str
    bundle: ModelBundle | None
    error: UserError | None = None
    root: Path | None = None

    @property
    def id(self) -> str:
        return self.bundle.id if self.bundle else self.folder.name

    @property
    def title(self) -> str:
        return self.bundle.title if self.bundle else self.folder.name

    @property
    def version(self) -> str:
        """Names this version and no other: the id and the beginning of the weights' sha256."""
        return version_name(self.bundle) if self.bundle else self.folder.name

    @property
    def lineage(self) -> str:
        return lineage_of(self.bundle) if self.bundle else self.folder.name

    @property
    def is_kept_aside(self) -> bool:
        """A version that the gate has judged: it is in use only where ``active.json`` says so."""
        return (self.folder / DECISION_FILE).is_file()


def version_name(bundle: ModelBundle) -> str:
    """The id with the first 12 digits of the weights' sha256, such as "hippocampus-2a336a8fc64b"."""
    return f"{bundle.id}-{bundle.sha256[:12].lower()}"


def lineage_of(bundle: ModelBundle) -> str:
    """The id of the first ancestor; a model without a parent is its own."""
    return bundle.data["provenance"].get("lineage") or bundle.id


def thumbnail_of(bundle: ModelBundle) -> Path | None:
    """A small picture of what it finds: the model's own, else that of the shipped one that it was made from."""
    folders = (bundle.folder, shipped_folder() / lineage_of(bundle))
    return next((folder / THUMBNAIL_FILE for folder in folders if (folder / THUMBNAIL_FILE).is_file()), None)


def shipped_folder() -> Path:
    """Where the models of the library are: package data, read-only."""
    return Path(__file__).resolve().parent / "models"


def user_folder() -> Path:
    """Where this user's models are, made by fine-tuning or copied there. May not exist yet."""
    home = Path.home()
    if sys.platform == "win32":
        root = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        root = home / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return root / APPLICATION / "models"


def entries(extra_folders: Iterable[str | os.PathLike] = (), every_version: bool = False) -> list[Entry]:
    """The models, sorted by title within each origin (extra, user, shipped); broken ones carry their error.

    Args:
        extra_folders: each is the folder of a model, or a folder with such folders.
        every_version: also the versions that are not in use and those that the gate refused.

    The weights are not read here, only their size is compared; `find` verifies them.
    """
    roots = [(Path(folder), "extra") for folder in extra_folders]
    roots += [(user_folder(), "user"), (shipped_folder(), "shipped")]
    found: dict[Path, Entry] = {}
    for root, origin in roots:
        folders = _extra_folders(root) if origin == "extra" else _own_folders(root)
        here = [_entry(folder, origin, root) for folder in folders]
        for entry in sorted(here, key=lambda entry: entry.title.casefold()):
            found.setdefault(entry.folder.resolve(), entry)
    every = list(found.values())
    return every if every_version else _offered(every, [root for root, origin in roots if origin != "shipped"])


def bundles(extra_folders: Iterable[str | os.PathLike] = ()) -> list[ModelBundle]:
    """Every model that can be used, in the order of `entries`."""
    return [entry.bundle for entry in entries(extra_folders) if entry.bundle]


def search(text: str, extra_folders: Iterable[str | os.PathLike] = (), every_version: bool = False) -> list[Entry]:
    """The entries that contain every word of `text` in id, title, description, keywords or labels; "" finds all."""
    words = text.casefold().split()
    return [e for e in entries(extra_folders, every_version) if all(word in _searchable(e) for word in words)]


def find(id_or_folder: str | os.PathLike, extra_folders: Iterable[str | os.PathLike] = ()) -> ModelBundle:
    """The model with this id, lineage or version name, or in this folder, its weights verified.

    An id gives the version in use; the name of a version gives that one, also when it is not in use or was refused.

    Raises:
        UserError: unknown (lists what is near and what there is), broken, tampered with, or two different models
            have this id.
    """
    wanted = os.fspath(id_or_folder)
    known = entries(extra_folders)
    matches = [e for e in known if e.id == wanted] or [e for e in known if e.lineage == wanted]
    matches = matches or [e for e in entries(extra_folders, every_version=True) if e.version == wanted]
    usable = [entry.bundle for entry in matches if entry.bundle]
    if usable:
        _refuse_ambiguous(wanted, usable)
        return open_bundle(usable[0].folder)
    if matches:
        raise matches[0].error
    if _looks_like_folder(wanted):
        return open_bundle(Path(wanted).expanduser())
    raise _unknown(wanted, [entry.id for entry in known if entry.bundle])


def read_active(root: Path) -> dict[str, str]:
    """{lineage: name of the folder in use} of a folder of models; empty when nothing was ever promoted there.

    Raises:
        UserError: the file is damaged.
    """
    path = root / ACTIVE_FILE
    try:
        active = _json_of(path, "Delete it to use the first models again.")
    except FileNotFoundError:
        return {}
    if not isinstance(active, dict) or not all(isinstance(name, str) for name in active.values()):
        raise UserError(f"{path} must say which version of a model is in use.", "Delete it to use the first models.")
    return active


def _offered(every: list[Entry], roots: list[Path]) -> list[Entry]:
    """Without the versions that are not in use; with an error for a version that should be in use and is lost."""
    active: dict[str, Path] = {}
    broken = []
    for root in roots:
        try:
            for lineage, name in read_active(root).items():
                active.setdefault(lineage, root / name)
        except UserError as error:
            broken.append(Entry(root / ACTIVE_FILE, "user", None, error, root))
    folders = {entry.folder for entry in every}
    broken += [_lost(lineage, folder) for lineage, folder in active.items() if folder not in folders]
    founders = {entry.lineage for entry in every if not entry.is_kept_aside}
    return [entry for entry in every if _is_offered(entry, active, founders)] + broken


def _is_offered(entry: Entry, active: dict[str, Path], founders: set[str]) -> bool:
    if entry.bundle is None or entry.root == entry.folder:  # broken ones are shown; a folder that was named is wanted
        return True
    in_use = active.get(entry.lineage)
    if in_use and (entry.origin == "shipped" or entry.root == in_use.parent):
        return entry.folder == in_use
    if not entry.is_kept_aside:
        return True
    # Copied here from elsewhere, without its first ancestor: the best there is, if it passed the gate there.
    return entry.lineage not in founders and bool((decision_of(entry.folder) or {}).get("accepted"))


def decision_of(folder: Path) -> dict | None:
    """What the gate decided about the version in `folder`; None when it never judged it.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / DECISION_FILE
    try:
        decision = _json_of(path, "Copy the model again from where it came.")
    except FileNotFoundError:
        return None
    if not isinstance(decision, dict) or not isinstance(decision.get("accepted"), bool):
        raise UserError(f"{path} must say 'accepted': true or false.", "Copy the model again from where it came.")
    return decision


def _json_of(path: Path, hint: str):
    """What a JSON file says. FileNotFoundError when it is not there, UserError with the hint when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).", hint) from error


def _lost(lineage: str, folder: Path) -> Entry:
    error = UserError(
        f"The version of the model {lineage!r} in use, {folder}, is not there any more.",
        f"Put it back, or go back with 'mambaseg models rollback {lineage}'.",
    )
    return Entry(folder.parent / lineage, "user", None, error, folder.parent)


def _looks_like_folder(text: str) -> bool:
    return any(mark in text for mark in ("/", "\\")) or Path(text).is_dir()


def _refuse_ambiguous(wanted: str, usable: list[ModelBundle]) -> None:
    others = [bundle for bundle in usable if bundle.data != usable[0].data]
    if others:
        folders = " and ".join(str(bundle.folder) for bundle in (usable[0], *others))
        raise UserError(f"Different models have the id {wanted!r}: {folders}.", "Give the folder of the one you want.")


def _unknown(wanted: str, ids: list[str]) -> UserError:
    near = difflib.get_close_matches(wanted.casefold(), ids, n=3)
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    there = f"Known models: {', '.join(sorted(set(ids)))}." if ids else f"There are no models in {user_folder()} yet."
    return UserError(f"There is no model {wanted!r}.", f"{guess}{there}")


def _own_folders(root: Path) -> list[Path]:
    """Every folder of a place made for models: one without ``bundle.json`` is a broken model, not a stranger."""
    if not root.is_dir():  # most users have no models of their own
        return []
    return [folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_"))]


def _extra_folders(root: Path) -> list[Path]:
    """The models in a folder that may hold anything else too; `root` itself when it is one or cannot be looked into."""
    if (root / BUNDLE_FILE).is_file() or not root.is_dir():
        return [root]
    return [path.parent for path in root.glob(f"*/{BUNDLE_FILE}") if not path.parent.name.startswith((".", "_"))]


def _entry(folder: Path, origin: str, root: Path) -> Entry:
    try:
        decision_of(folder)
        return Entry(folder, origin, open_bundle(folder, verify=False), root=root)
    except UserError as error:
        return Entry(folder, origin, None, error, root)


def _searchable(entry: Entry) -> str:
    parts = [entry.id, entry.title]
    if entry.bundle:
        parts += [entry.bundle.description, *entry.bundle.data["keywords"]]
        parts += [label.name for label in entry.bundle.labels]
    return "\n".join(parts).casefold()
