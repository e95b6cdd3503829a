"""Files that are there completely or not at all: small texts even after a power cut; and none is overwritten."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Another name beside `path`, to write to; the file gets its own when the block has ended well, else it is gone.

    Raises:
        UserError: the folder may not be written to, or the disk is full; an old file is untouched then.
    """
    path = Path(path)
    unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write `text` as UTF-8; readers see the old file or the new one, never a part.

    Raises:
        UserError: the folder may not be written to, or the disk is full; the old file is untouched then.
    """
    with whole(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


def put_in_place(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Move a file, also to another disk: ``target`` appears complete or not at all. UserError when it cannot."""
    with whole(target) as unfinished:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, unfinished)


def refuse_existing(path: str | os.PathLike) -> None:
    """UserError when there is something already."""
    if Path(path).exists():
        raise UserError(f"{path} exists already.", "Choose another name; nothing is overwritten.")


def cannot_write(path: str | os.PathLike, error: Exception) -> UserError:
    """The refusal for a file or folder that could not be written; `error` says why."""
    reason = getattr(error, "strerror", None) or "the disk may be full"
    return UserError(f"'{path}' could not be written ({reason}).", "Make room, or choose a folder you may write to.")
