"""DICOM objects become files: only new ones, checked before they get their names, and all of them or none."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import UserError
from .safe_file import cannot_write


def new_file(name: str | Path) -> Path:
    """The path of a .dcm file that can be written and does not exist yet. Raises UserError."""
    path = Path(name).expanduser()
    if not path.name.lower().endswith(".dcm"):
        raise UserError(f"A file name ending in .dcm was expected as output, but '{path.name}' came.", "Add .dcm.")
    if path.exists():
        raise _taken(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise cannot_write(path, error) from error


def write_new(objects: Sequence[tuple]) -> None:
    """Write under other names, read back, compare, and only then give the files their names.

    Args:
        objects: (data set, path, check) each; `check(path)` reads the file and raises when it is not what was meant.

    Raises:
        UserError: a name was taken meanwhile, or the disk refuses; no file is left then.
    """
    unfinished = [path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}") for _, path, _ in objects]
    named: list[Path] = []
    try:
        for (dataset, path, check), place in zip(objects, unfinished, strict=True):
            _save(dataset, path, place, check)
        for (_, path, _), place in zip(objects, unfinished, strict=True):
            _give_name(place, path)
            named.append(path)
    except Exception:
        _delete(named)
        raise
    finally:
        _delete(unfinished)


def _save(dataset, path: Path, place: Path, check: Callable[[Path], None]) -> None:
    try:
        dataset.save_as(place, enforce_file_format=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    check(place)


def _give_name(place: Path, path: Path) -> None:
    if path.exists():  # made by somebody else meanwhile
        raise _taken(path)
    try:
        os.replace(place, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _taken(path: Path) -> UserError:
    return UserError(f"'{path}' exists already, and DICOM objects are never overwritten.", "Choose another name.")
