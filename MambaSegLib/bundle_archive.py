"""A model as one .zip file, to give away; and models that come from strangers, as such a file or as a folder.

The file holds the bundle's folder: ``bundle.json``, the weights, the card, and what the gate said and the thumbnail
where there are. Nothing is ever extracted by the name that a file states: the few known members are read, each up to
its limit, and written under names of our own. Torch-free.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .bundle import BUNDLE_FILE, CARD_FILE, MAX_JSON_BYTES, ModelBundle, open_bundle
from .bundle_schema import check_bundle_data
from .card import card_markdown
from .catalogue import DECISION_FILE, THUMBNAIL_FILE, THUMBNAIL_FILES, decision_of, version_name
from .errors import UserError
from .job import Report
from .safe_file import whole
from .weights_storage import dtype_of

ENDING = ".zip"
LARGEST_WEIGHTS = 8 << 30
MOST_MEMBERS = 100
_LARGEST_PICTURE, _MOST_PIXELS = 2 << 20, 1024
_MOST_SQUEEZED = 200  # how many times smaller weights and text may have become; more is a bomb
_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = 1 << 20
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows: the same model is the same file
_AGAIN = "Nothing was added. Ask for the file again, from a source that you trust."


class Description(NamedTuple):
    """What a file or folder says of its model; the weights were not read yet."""

    data: dict
    decision: dict | None


def write_archive(bundle: ModelBundle, decision: dict | None, output: Path, report: Report) -> None:
    """Write the file, complete or not at all.

    Args:
        bundle: its weights verified; ``data`` goes into the file as it is.
        decision: what the gate said of it; the same holds.
        output: a new file.
        report: progress by bytes.

    Raises:
        UserError: it cannot be written. Cancelled: by the report; nothing is left then.
    """
    texts = {BUNDLE_FILE: _json(bundle.data), CARD_FILE: card_markdown(bundle.data, decision)}
    texts |= {DECISION_FILE: _json(decision)} if decision else {}
    pictures = [bundle.folder / name for name in THUMBNAIL_FILES if (bundle.folder / name).is_file()]
    with whole(output) as unfinished:
        output.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name, text in texts.items():
                archive.writestr(_member(bundle, name), text.encode("utf-8"), zipfile.ZIP_DEFLATED)
            for file in pictures:
                archive.writestr(_member(bundle, file.name), file.read_bytes())
            _write_weights(archive, bundle, report)


def _member(bundle: ModelBundle, name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{version_name(bundle)}/{name}", _NO_DATE)
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    return member


def _json(content: dict) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_weights(archive: zipfile.ZipFile, bundle: ModelBundle, report: Report) -> None:
    size = bundle.data["weights"]["bytes"]
    member = _member(bundle, bundle.weights_path.name)
    with open(bundle.weights_path, "rb") as source, archive.open(member, "w", force_zip64=True) as target:
        _copy(source, target, size, report, "Writing the weights")


def _copy(source, target, size: int, report: Report, label: str) -> None:
    """At most ``size`` bytes and one more, which tells that there were too many."""
    done = 0
    while done <= size and (chunk := source.read(min(_CHUNK, size + 1 - done))):
        target.write(chunk)
        done += len(chunk)
        report.progress(min(done, size), size, label)


# Reading


def describe(source: str | os.PathLike) -> Description:
    """What a .zip file or a bundle's folder says of its model; quick, and the weights are not read.

    Raises:
        UserError: it is no model of this program, or not one to be trusted; says why.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        bundle, decision = _checked_folder(_inner(source), verify=False)
        return Description(bundle.data, decision)
    with _opened(source) as archive:
        return _described(archive, source)


def is_model(source: str | os.PathLike) -> bool:
    """Whether this is meant to be a model of this program: a .zip file, or a folder with or around ``bundle.json``."""
    source = Path(source).expanduser()
    return source.suffix.lower() == ENDING or (_inner(source) / BUNDLE_FILE).is_file()


def _inner(folder: Path) -> Path:
    """Some programs put what they unpack into one more folder: the only one in it that is a model; else itself."""
    inner = [path.parent for path in folder.glob(f"*/{BUNDLE_FILE}")] if folder.is_dir() else []
    return inner[0] if len(inner) == 1 and not (folder / BUNDLE_FILE).is_file() else folder


def take_out(source: str | os.PathLike, folder: Path, report: Report) -> tuple[ModelBundle, dict | None]:
    """The model in a .zip file or a bundle's folder, and what the gate said of it; everything verified.

    Args:
        source: of somebody else.
        folder: an empty one, for the content of a .zip file; a folder is left where it is.
        report: progress by bytes.

    Raises:
        UserError: hostile, damaged, tampered with, too large, or no model; says which.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        return _checked_folder(_inner(source), verify=True)
    with _opened(source) as archive:
        data, decision = _described(archive, source)
        members, stated = _members(archive, source), data["weights"]
        weights = members.get(stated["file"])
        if weights is None or weights.file_size != stated["bytes"]:
            found = "does not hold it" if weights is None else f"it has {weights.file_size}"
            raise _refused(source, f"{stated['file']} must have {stated['bytes']} bytes, but {found}")
        _check_room(folder, stated["bytes"])
        (folder / BUNDLE_FILE).write_bytes(archive.read(members[BUNDLE_FILE]))
        with archive.open(weights) as packed, open(folder / stated["file"], "wb") as target:
            _copy(packed, target, stated["bytes"], report, "Reading the weights")
        for name in (name for name in THUMBNAIL_FILES if name in members):
            (folder / name).write_bytes(archive.read(members[name]))
    return _checked_folder(folder, verify=True)[0], decision


@contextmanager
def _opened(source: Path):
    """The archive; whatever its reading meets becomes a UserError."""
    if not source.is_file():
        raise UserError(f"There is no file {source}.", "Give a .zip file of a model, or a model's folder.")
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
        raise UserError(f"{source.name} is damaged, incomplete, or no zip file ({error}).", _AGAIN) from error


def _described(archive: zipfile.ZipFile, source: Path) -> Description:
    members = _members(archive, source)
    where = f"{source.name}: {BUNDLE_FILE}"
    data = _read_json(archive, members[BUNDLE_FILE], where)
    check_bundle_data(data, where)
    decision = None
    if DECISION_FILE in members:
        decision = _read_json(archive, members[DECISION_FILE], f"{source.name}: {DECISION_FILE}")
    _check_card(data, decision, source)
    return Description(data, decision)


def _check_card(data: dict, decision: dict | None, source: Path) -> None:
    """What nothing else has checked shall at least be readable: it will stand on the model's card."""
    try:
        if not isinstance((decision or {"accepted": False})["accepted"], bool):
            raise TypeError("'accepted' must be true or false")
        card_markdown(data, decision)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _refused(source, f"what it says of the model cannot be understood ({error!r})") from error


def _read_json(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str):
    try:
        return json.loads(archive.read(member).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {error}.", _AGAIN) from error


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """The bundle's files by their plain names, after every member was looked at."""
    every = archive.infolist()
    if len(every) > MOST_MEMBERS:
        raise _refused(source, f"a model has a handful of files, this holds {len(every)}")
    for member in every:
        problem = _problem(member)
        if problem:
            raise _refused(source, problem)
    if len({member.filename for member in every}) < len(every):
        raise _refused(source, "it holds two files of one name")
    folders = [m.filename[: -len(BUNDLE_FILE)] for m in every if m.filename.split("/")[-1] == BUNDLE_FILE]
    folders = [folder for folder in folders if not folder.startswith("__MACOSX/") and folder.count("/") <= 1]
    if len(folders) != 1:
        raise _refused(source, f"one model was expected in it, but {len(folders)} were found")
    inside = [m for m in every if m.filename.startswith(folders[0])]
    return {m.filename[len(folders[0]) :]: m for m in inside if "/" not in m.filename[len(folders[0]) :]}


def _problem(member: zipfile.ZipInfo) -> str:
    """Why a member is not to be trusted, "" when it is."""
    name, limit = member.orig_filename, LARGEST_WEIGHTS
    parts = re.split(r"[/\\]", name)
    if "\\" in name or ":" in name or "\0" in name or name.startswith("/") or ".." in parts:
        return f"the name {name!r} leads out of the folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return f"{name!r} is a link to another file"
    if member.flag_bits & 1:
        return f"{name!r} is encrypted"
    if parts[-1] in (BUNDLE_FILE, DECISION_FILE):
        limit = MAX_JSON_BYTES
    elif parts[-1] in THUMBNAIL_FILES:
        limit = _LARGEST_PICTURE
    if member.file_size > limit:
        return f"{name!r} would have {member.file_size >> 20} MB, at most {limit >> 20} MB are read"
    if member.file_size > max(_CHUNK, _MOST_SQUEEZED * member.compress_size):
        return f"{name!r} would grow from {member.compress_size} to {member.file_size} bytes, as no model does"
    return ""


def _checked_folder(folder: Path, verify: bool) -> tuple[ModelBundle, dict | None]:
    """The bundle in a folder without links, with a thumbnail that may be shown; and what the gate said."""
    names = (BUNDLE_FILE, DECISION_FILE, *THUMBNAIL_FILES)
    link = next((name for name in names if (folder / name).is_symlink()), "")
    bundle = None if link else open_bundle(folder, verify=False)
    if link or bundle.weights_path.is_symlink():
        raise _refused(folder, f"{link or bundle.weights_path.name!r} is a link to another file")
    if verify:
        bundle = open_bundle(folder)
        dtype_of(bundle.weights_path)  # raises UserError for what is no safetensors file
    picture = folder / THUMBNAIL_FILE
    if picture.is_file():
        with open(picture, "rb") as file:
            _check_picture(file.read(_LARGEST_PICTURE + 1), folder)
    decision = decision_of(folder)
    _check_card(bundle.data, decision, folder)
    return bundle, decision


def _check_picture(content: bytes, source: Path) -> None:
    """A PNG of a size that a card shows."""
    width, height = struct.unpack(">II", content[16:24]) if content[:8] == _PNG and len(content) > 24 else (0, 0)
    if len(content) > _LARGEST_PICTURE or not (0 < width <= _MOST_PIXELS and 0 < height <= _MOST_PIXELS):
        raise _refused(source, f"{THUMBNAIL_FILE} is no PNG of at most {_MOST_PIXELS} x {_MOST_PIXELS} pixels")


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if 2 * size > free:  # it is unpacked, then copied to its place
        needed = f"{2 * size >> 20} MB are needed in {folder.parent}, but {free >> 20} MB are free."
        raise UserError(needed, "Make room on that disk.")


def _refused(source: Path, reason: str) -> UserError:
    return UserError(f"{source.name} was not opened as a model: {reason}.", _AGAIN)
