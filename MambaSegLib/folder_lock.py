"""One writer at a time in a folder, over processes. Torch-free; works on every system of Slicer."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

LOCK_FILE = ".lock"
_PAUSE_S = 0.05


@contextmanager
def locked(folder: Path, patience_s: float = 60.0) -> Iterator[None]:
    """Hold the folder's lock; it is let go at the end of the block, and by the system when the process dies.

    Args:
        folder: made when missing. The empty file ``.lock`` in it stays.
        patience_s: how long to wait for another writer.

    Raises:
        UserError: the folder cannot be written to, or another process keeps the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written to: {error.strerror}.", "Choose a folder you may write to."
        ) from error
    try:
        _wait_for(handle, folder, patience_s)
        yield
    finally:
        os.close(handle)  # which lets go of the lock


def _wait_for(handle: int, folder: Path, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while not _try(handle):
        if time.monotonic() > end:
            raise UserError(f"Another program has been writing to {folder} for {patience_s:g} s.", "Try again later.")
        time.sleep(_PAUSE_S)


def _try(handle: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
