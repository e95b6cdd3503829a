"""The folder of a run: what it does, how far it is and who works on it, so that any program can tell and resume it.

``run.json`` is {"schema_version", "kind": "train" or "finetune", "state": "running", "stopped", "failed" or "finished",
"pid", "host", "step", "steps", "message", "result", "request"}. A run that says "running" while its process is gone was
killed: ``read_run`` reports it as "stopped". No torch here: the panel reads it too.
"""

import contextlib
import json
import os
import socket
from pathlib import Path

from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.safe_file import cannot_write, write_text

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.pt"
SCHEMA_VERSION = 1


class RunFolder:
    """Keeps ``run.json`` of one run up to date.

    Args:
        folder: made when missing.
        kind: "train" or "finetune".
        request: what the job was asked, so that it can be asked again with ``resume``.
    """

    def __init__(self, folder: Path, kind: str, request: dict):
        self.path = folder
        self.content = {"schema_version": SCHEMA_VERSION, "kind": kind, "state": "running", "pid": os.getpid()}
        self.content |= {"host": socket.gethostname(), "step": 0, "steps": 0, "message": "", "result": None}
        self.content["request"] = request

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT_FILE

    @contextlib.contextmanager
    def working(self):
        """Marks the folder as running, and afterwards with how that ended.

        Raises:
            UserError: another process works in this folder, or it cannot be written.
        """
        if (other := read_run(self.path)) and other["state"] == "running" and other["pid"] != os.getpid():
            raise UserError(
                f"Process {other['pid']} on {other['host']} is training in {self.path}.",
                "Wait until it ends, or choose another folder.",
            )
        self.update(state="running")
        try:
            yield self
        except Cancelled:
            self.update(state="stopped", message="stopped by the user")
            raise
        except BaseException as error:
            with contextlib.suppress(UserError):  # a full disk must not hide the first error
                self.update(state="failed", message=str(error))
            raise

    def update(self, **changes) -> None:
        """Write ``run.json`` anew with these fields."""
        self.content |= changes
        write_json(self.path / RUN_FILE, self.content)


class Untold:
    """The run folder of a process that writes nothing: in a distributed run, all but the first."""

    def __init__(self, folder: Path):
        self.checkpoint = folder / CHECKPOINT_FILE

    @contextlib.contextmanager
    def working(self):
        yield self

    def update(self, **changes) -> None:
        pass


def read_run(folder: Path) -> dict | None:
    """What ``run.json`` says, a dead process's "running" as "stopped"; None where there is none.

    Raises:
        UserError: the file is not readable.
    """
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Remove it: the checkpoint stays usable.") from error
    here = content["host"] == socket.gethostname()
    if content["state"] == "running" and here and not _is_alive(content["pid"]):
        content |= {"state": "stopped", "message": "the process ended without a word"}
    return content


def _is_alive(pid: int) -> bool:
    if os.name == "nt":
        return _is_alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_alive_on_windows(pid: int) -> bool:
    import ctypes

    still_active, query = 259, 0x1000  # STILL_ACTIVE, PROCESS_QUERY_LIMITED_INFORMATION; os.kill would end it there
    handle = ctypes.windll.kernel32.OpenProcess(query, False, pid)
    if not handle:
        return False
    code = ctypes.c_ulong()
    ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
    ctypes.windll.kernel32.CloseHandle(handle)
    return code.value == still_active


def write_json(path: Path, content: dict) -> None:
    """Replace a JSON file in one operation.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")
