"""A review on disk: the worklist in one file, and every change since as a line of the journal beside it. Torch-free.

So a decision costs the same in a list of ten and of ten thousand, and several people may work on one list: each takes
in the lines that the others wrote. Files below the review's folder are named relative to it: it may be moved, or be
reached by another path from another computer.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from .errors import UserError
from .folder_lock import locked
from .safe_file import cannot_write, write_text
from .worklist import Entry

SCHEMA_VERSION = 2
_OLDEST = 1  # had no journal, and absolute names
_PROGRESS = ("status", "comment", "reviewer", "started", "changed", "seconds", "edited", "preference")
_HERE = "./"  # begins a name relative to the review's folder


class ReviewFile:
    """The review in `path`, as it was last read.

    Attributes:
        entries: id -> Entry.
        current: id of the entry that was last looked at, or None.
        blinded: the seed that orders candidates; None when the review is not blinded.
    """

    def __init__(self, path: Path):
        """Read it. UserError when it is missing, damaged or of a newer version."""
        self.path = path
        self._read_list()
        self._read_journal()

    @classmethod
    def create(cls, path: Path, entries: Iterable[Entry], blinded: int | None) -> ReviewFile:
        """Begin a review. UserError when the file is there already, or cannot be written."""
        with locked(path.parent):
            if path.exists():
                raise UserError(f"A review is in '{path}' already.", "Resume it, or choose another name.")
            _write_list(path, entries, None, blinded)
        return cls(path)

    @property
    def journal(self) -> Path:
        return self.path.with_name(self.path.name + ".changes.jsonl")

    def change(self, entry_id: str, is_current: bool, change: Callable[[Entry], dict]) -> Entry:
        """Give fields of `_PROGRESS` the values of `change(newest state of the entry)`; on disk when this returns.

        Raises UserError.
        """
        with locked(self.path.parent):
            self._take_in()
            if self._version < SCHEMA_VERSION:
                self._rewrite()
            entry = replace(self.entries[entry_id], **change(self.entries[entry_id]))
            line = {"id": entry_id, "current": is_current} | {name: getattr(entry, name) for name in _PROGRESS}
            self._append(line)
            self._apply(line)
        return self.entries[entry_id]

    def change_list(self, change: Callable[[dict[str, Entry]], None]) -> None:
        """Let `change(entries)` change the newest state of the whole list, and write that. Raises UserError."""
        with locked(self.path.parent):
            self._take_in()
            change(self.entries)
            self._rewrite()

    def known(self, entry: Entry) -> str | None:
        """The id of the entry with the same files, None if there is none."""
        if self._ids is None:
            self._ids = {(e.images, e.segmentation): key for key, e in self.entries.items()}
        return self._ids.get((entry.images, entry.segmentation))

    def adopted(self, entry: Entry) -> Entry:
        """A new entry with the id that it will have in this review, wherever that lies."""
        return replace(entry, key=_to_file(entry, str(self.path.parent))["key"])

    def _read_list(self) -> None:
        stamp, data = _stamp(self.path), _read(self.path)
        folder = str(self.path.parent)
        entries = [_from_file(row, folder) for row in data["entries"]]
        self.entries = {entry.id: entry for entry in entries}
        self.current: str | None = data["current"]
        self.blinded: int | None = data["blinded"]
        self._stamp, self._version, self._list, self._offset = stamp, data["schema_version"], data.get("list"), 0
        self._ids: dict | None = None

    def _take_in(self) -> None:
        """What others wrote since."""
        if _stamp(self.path) != self._stamp:
            self._read_list()
        self._read_journal()

    def _read_journal(self) -> None:
        """The complete lines that are not known yet; one that was being written when its program died is none."""
        try:
            with open(self.journal, "rb") as file:
                file.seek(self._offset)
                complete = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            self._offset = 0  # none yet, or somebody deleted it: the next change begins a new one
            return
        except OSError as error:
            raise UserError(f"'{self.journal}' cannot be read: {error.strerror}.", "Check its rights.") from error
        lines = complete.split(b"\n") if complete else []
        try:
            rows = [json.loads(line) for line in lines]
            if self._offset == 0 and rows and rows.pop(0)["list"] != self._list:
                return  # of an older list, whose changes are in this one; its deletion did not come to pass
            for row in rows:
                self._apply(row)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{self.journal}' is damaged.", "Keep it, and ask for help.") from error
        self._offset += len(complete) + bool(lines)

    def _apply(self, row: dict) -> None:
        self.entries[row["id"]] = replace(self.entries[row["id"]], **{name: row[name] for name in _PROGRESS})
        if row["current"]:
            self.current = row["id"]

    def _append(self, line: dict) -> None:
        text = json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n"
        if self._offset == 0:
            text = json.dumps({"list": self._list}).encode("utf-8") + b"\n" + text
        try:
            with open(self.journal, "ab") as file:
                file.truncate(self._offset)  # a line that was not finished, or the journal of an older list
                try:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(self._offset)  # the disk is full: no part of a line stays
                    raise
        except OSError as error:
            raise cannot_write(self.journal, error) from error
        self._offset += len(text)

    def _rewrite(self) -> None:
        """The list as it is now, and an empty journal."""
        _write_list(self.path, self.entries.values(), self.current, self.blinded)
        with contextlib.suppress(OSError):
            self.journal.unlink()
        self._read_list()


def _write_list(path: Path, entries: Iterable[Entry], current: str | None, blinded: int | None) -> None:
    head = {"schema_version": SCHEMA_VERSION, "list": uuid.uuid4().hex, "current": current, "blinded": blinded}
    folder = str(path.parent)
    rows = ",\n".join(json.dumps(_to_file(entry, folder), ensure_ascii=False) for entry in entries)
    write_text(path, f'{json.dumps(head)[:-1]}, "entries": [\n{rows}\n]}}\n')


def _to_file(entry: Entry, folder: str) -> dict:
    """As JSON, with names below `folder` relative to it, and the id that they give."""
    names = [_relative(name, folder) for name in (*entry.images, entry.segmentation)]
    key = entry.key or Entry(tuple(names[:-1]), names[-1]).id
    return entry.to_json() | {"images": names[:-1], "segmentation": names[-1], "key": key}


def _relative(name: str, folder: str) -> str:
    inside = name.startswith(folder) and name[len(folder) : len(folder) + 1] == os.sep
    return _HERE + name[len(folder) + 1 :].replace(os.sep, "/") if inside else name


def _from_file(row: dict, folder: str) -> Entry:
    """The inverse; of the first version, which kept no ids, with the one it had then."""
    key = row.get("key") or Entry.from_json(row).id
    *images, segmentation = [_absolute(name, folder) for name in (*row["images"], row["segmentation"])]
    return Entry.from_json(row | {"images": images, "segmentation": segmentation, "key": key})


def _absolute(name: str, folder: str) -> str:
    return os.path.join(folder, name[len(_HERE) :].replace("/", os.sep)) if name.startswith(_HERE) else name


def _stamp(path: Path) -> tuple | None:
    """Changes whenever the file is written anew."""
    try:
        about = path.stat()
    except OSError:
        return None  # reading it tells why
    return about.st_mtime_ns, about.st_size, about.st_ino


def _read(path: Path) -> dict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["schema_version"]
        data["current"], data["blinded"], [row["images"] for row in data["entries"]]
    except OSError as error:
        raise UserError(f"A review was expected in '{path}': {error.strerror}.", "Check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is no review, or damaged.", "Choose a review's file.") from error
    if version not in (_OLDEST, SCHEMA_VERSION):
        raise UserError(f"'{path}' was written by another version of the program.", "Update the program.")
    return data
