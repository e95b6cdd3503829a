"""Which models are there: those shipped with the library, those of the user, and those in folders one names."""

import difflib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .bundle import BUNDLE_FILE, ModelBundle, open_bundle
from .errors import UserError

APPLICATION = "SlicerMambaSegmentation"


@dataclass(frozen=True)
class Entry:
    """A folder that holds a model: `bundle`, or, when it is broken, the `error` that says why.

    `origin` is "shipped", "user" or "extra".
    """

    folder: Path
    origin: str
    bundle: ModelBundle | None
    error: UserError | None = None

    @property
    def id(self) -> str:
        return self.bundle.id if self.bundle else self.folder.name

    @property
    def title(self) -> str:
        return self.bundle.title if self.bundle else self.folder.name


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


def entries(extra_folders: Iterable[str | os.PathLike] = ()) -> list[Entry]:
    """Every model, sorted by title within each origin (extra, user, shipped); broken ones carry their error.

    Args:
        extra_folders: each is the folder of a model, or a folder with such folders.

    The weights are not read here, only their size is compared; `find` verifies them.
    """
    roots = [(Path(folder), "extra") for folder in extra_folders]
    roots += [(user_folder(), "user"), (shipped_folder(), "shipped")]
    found: dict[Path, Entry] = {}
    for root, origin in roots:
        folders = _extra_folders(root) if origin == "extra" else _own_folders(root)
        for entry in sorted((_entry(folder, origin) for folder in folders), key=lambda entry: entry.title.casefold()):
            found.setdefault(entry.folder.resolve(), entry)
    return list(found.values())


def bundles(extra_folders: Iterable[str | os.PathLike] = ()) -> list[ModelBundle]:
    """Every model that can be used, in the order of `entries`."""
    return [entry.bundle for entry in entries(extra_folders) if entry.bundle]


def search(text: str, extra_folders: Iterable[str | os.PathLike] = ()) -> list[Entry]:
    """The entries that contain every word of `text` in id, title, description, keywords or labels; "" finds all."""
    words = text.casefold().split()
    return [entry for entry in entries(extra_folders) if all(word in _searchable(entry) for word in words)]


def find(id_or_folder: str | os.PathLike, extra_folders: Iterable[str | os.PathLike] = ()) -> ModelBundle:
    """The model with this id, or in this folder, its weights verified.

    Raises:
        UserError: unknown (lists what is near and what there is), broken, tampered with, or two different models
            have this id.
    """
    wanted = os.fspath(id_or_folder)
    known = entries(extra_folders)
    matches = [entry for entry in known if entry.id == wanted]
    usable = [entry.bundle for entry in matches if entry.bundle]
    if usable:
        _refuse_ambiguous(wanted, usable)
        return open_bundle(usable[0].folder)
    if matches:
        raise matches[0].error
    if _looks_like_folder(wanted):
        return open_bundle(Path(wanted).expanduser())
    raise _unknown(wanted, [entry.id for entry in known if entry.bundle])


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
    return [path.parent for path in root.glob(f"*/{BUNDLE_FILE}")]


def _entry(folder: Path, origin: str) -> Entry:
    try:
        return Entry(folder, origin, open_bundle(folder, verify=False))
    except UserError as error:
        return Entry(folder, origin, None, error)


def _searchable(entry: Entry) -> str:
    parts = [entry.id, entry.title]
    if entry.bundle:
        parts += [entry.bundle.description, *entry.bundle.data["keywords"]]
        parts += [label.name for label in entry.bundle.labels]
    return "\n".join(parts).casefold()
