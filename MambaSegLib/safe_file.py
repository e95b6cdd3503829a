"""Files that are there completely or not at all: small texts even after a power cut; and none is overwritten."""

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from .errors import UserError


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write `text` as UTF-8; readers see the old file or the new one, never a part.

    Raises:
        UserError: the folder may not be written to, or the disk is full; the old file is untouched then.
    """
    path = Path(path)
    unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return path


def put_in_place(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Move a file, also to another disk: ``target`` appears complete or not at all. UserError when it cannot."""
    target = Path(target)
    unfinished = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def refuse_existing(path: str | os.PathLike) -> None:
    """UserError when there is something already."""
    if Path(path).exists():
        raise UserError(f"{path} exists already.", "Choose another name; nothing is overwritten.")


def cannot_write(path: str | os.PathLike, error: Exception) -> UserError:
    """The refusal for a file or folder that could not be written; `error` says why."""
    reason = getattr(error, "strerror", None) or "the disk may be full"
    return UserError(f"'{path}' could not be written ({reason}).", "Make room, or choose a folder you may write to.")
