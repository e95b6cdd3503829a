"""Another computer: how its worker is started, and what it means when that does not work. Torch-free.

The connection is a command that runs here and whose standard input and output lead to ``mambaseg worker`` there,
usually OpenSSH's client: it has the encryption, the keys and the known hosts, so that no port is opened and no
password is kept.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from .errors import UserError

WORKER_COMMAND = "mambaseg worker"
# No question can be answered, no window or agent of this computer is lent, and a dead network is noticed in 45 s.
_SSH = ["ssh", "-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
_SSH += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes"]
_FORMS = "Write user@computer, user@computer:/path/to/mambaseg, or a whole command."


class NoConnection(UserError):
    """The other computer does not work for us at all: no other job would fare better."""


@dataclass(frozen=True)
class Computer:
    """Where to compute.

    Attributes:
        name: what a user reads.
        command: program and arguments that start its worker; on Windows a whole command stays one text.
    """

    name: str
    command: Sequence[str]

    @property
    def program(self) -> str:
        return PurePath(self.command.split()[0] if isinstance(self.command, str) else self.command[0]).name

    @property
    def is_ssh(self) -> bool:
        return self.program.lower().removesuffix(".exe") == "ssh"


def parse(text: str) -> Computer:
    """The computer that a user means.

    Args:
        text: "user@host" or a host of ~/.ssh/config; "user@host:/path/to/mambaseg" when it is not on the PATH there;
            or a whole command line (it has a space), such as "ssh -p 2222 user@host mambaseg worker".

    Raises:
        UserError: it is none of these.
    """
    text = text.strip()
    if not text or text.startswith("-"):
        raise UserError(f"A computer such as user@gpu-box was expected, but {text!r} came.", _FORMS)
    if re.search(r"\s", text):
        return _whole_command(text)
    host, _colon, program = text.partition(":")
    if not host or "/" in host or program.startswith("//") or program.isdigit():
        raise UserError(
            f"A computer such as user@gpu-box was expected, but {text!r} came.",
            f"{_FORMS} A port belongs into the whole command: ssh -p 2222 user@computer {WORKER_COMMAND}.",
        )
    worker = f"{shlex.quote(program)} worker" if program else WORKER_COMMAND
    return Computer(host, [*_SSH, host, worker])


def _whole_command(text: str) -> Computer:
    try:
        words = shlex.split(text, posix=os.name != "nt")
    except ValueError as error:
        raise UserError(f"The command {text!r} cannot be read ({error}).", _FORMS) from error
    name = next((word for word in words if "@" in word), PurePath(words[0]).name)
    return Computer(name, text if os.name == "nt" else words)


def not_started(computer: Computer, error: OSError) -> NoConnection:
    """The program that makes the connection cannot be started here."""
    if computer.is_ssh:
        return NoConnection(
            f"The program ssh, which makes the connection, cannot be started ({error.strerror}).",
            "Install OpenSSH's client (Windows: Settings, Optional features, OpenSSH Client), then try again.",
        )
    return NoConnection(f"{computer.program} cannot be started ({error.strerror}).", "Correct the command.")


def other_version(computer: Computer, here: str, there: str) -> NoConnection:
    return NoConnection(
        f"Version {here} is here, but version {there} on {computer.name}: both must be the same.",
        f"Install version {here} there, or {there} here.",
    )


def ended_early(computer: Computer, code: int | None, log: str) -> NoConnection:
    """Why the connection ended before the worker there answered.

    Args:
        code: exit code of the command, None when it still runs.
        log: the last lines of its standard error.
    """
    name, text = computer.name, log.casefold()
    for marks, message, hint in _causes(name):
        if any(mark in text for mark in marks):
            return NoConnection(message, hint)
    if code == 127 or "command not found" in text or "is not recognized" in text or "no such file" in text:
        return NoConnection(
            f"{name} answers, but the program mambaseg was not found there.",
            f"Install it there (pip install ...), or write its whole path: {name}:/path/to/mambaseg.",
        )
    last = log.strip().splitlines()[-1:] or [f"exit code {code}"]
    return NoConnection(f"{name} did not start its worker ({last[0]}).", _try(computer))


def lost(computer: Computer, code: int | None) -> UserError:
    """Why the connection ended in the middle, told by the command's exit code."""
    is_of_ssh = computer.is_ssh and (code == 255 or (code or 0) < 0)
    if code is None or code == 0 or is_of_ssh:
        return UserError(
            f"The connection to {computer.name} was lost.",
            "Look whether that computer is on and the network works, then start again. Nothing was changed here.",
        )
    return UserError(
        f"The worker on {computer.name} stopped unexpectedly (exit code {code}).",
        "Often its memory was not enough: choose a region of interest, then start again. Nothing was changed here.",
    )


def silent(computer: Computer, seconds: float) -> NoConnection:
    return NoConnection(f"{computer.name} did not answer within {seconds:.0f} s.", _try(computer))


def not_understood(computer: Computer, what: str) -> UserError:
    """The answers break the protocol: nothing of them is used."""
    return UserError(
        f"The answer of {computer.name} cannot be used ({what}). Nothing was changed here.",
        "Start again. If it comes again, look at what is installed there.",
    )


def _try(computer: Computer) -> str:
    return f"Try in a terminal: ssh {computer.name} {WORKER_COMMAND}" if computer.is_ssh else "Try it in a terminal."


def _causes(name: str) -> list[tuple[tuple[str, ...], str, str]]:
    """(texts of ssh, what they mean, what to do). An ssh of another language is told by its own last line."""
    return [
        (
            ("could not resolve hostname",),
            f"No computer with the name {name} was found.",
            "Correct the name, or connect to the network (VPN) that it is in.",
        ),
        (
            ("host key verification failed", "remote host identification has changed"),
            f"This computer does not know the key of {name} yet, or it has changed.",
            f"Run 'ssh {name}' once in a terminal, compare the fingerprint with the administrator's, and accept it.",
        ),
        (
            ("permission denied", "too many authentication failures"),
            f"{name} refused the login: it must work with a key, without a password.",
            f"In a terminal: ssh-keygen (once), then ssh-copy-id {name}. A key with a passphrase needs ssh-agent.",
        ),
        (
            ("connection refused", "timed out", "no route to host", "network is unreachable", "connection reset"),
            f"{name} cannot be reached.",
            "Look whether it is on, allows ssh, and is in the same network (VPN).",
        ),
        (
            ("invalid choice: 'worker'", "no module named"),
            f"The program mambaseg on {name} is incomplete or too old.",
            "Install the same version as here there.",
        ),
    ]
