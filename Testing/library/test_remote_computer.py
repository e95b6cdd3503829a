"""What a user writes for another computer, and what ssh says when that does not work."""

import os
import shlex
import sys

import pytest

from MambaSegLib import remote
from MambaSegLib.errors import UserError
from MambaSegLib.job import Report
from MambaSegLib.remote_computer import lost, parse

REFUSED = "ada@gpu-box: Permission denied (publickey,password)."
REASONS = [
    (255, "ssh: Could not resolve hostname gpu-box: Name or service not known", "No computer", "VPN"),
    (255, "Host key verification failed.", "does not know the key", "'ssh ada@gpu-box' once"),
    (255, REFUSED, "refused the login", "ssh-copy-id ada@gpu-box"),
    (255, "ssh: connect to host gpu-box port 22: Connection timed out", "cannot be reached", "is on"),
    (255, "ssh: connect to host gpu-box port 22: Connection refused", "cannot be reached", "is on"),
    (127, "bash: line 1: mambaseg: command not found", "mambaseg was not found there", "ada@gpu-box:/path/to/mambaseg"),
    (2, "mambaseg: error: argument COMMAND: invalid choice: 'worker' (choose from ...)", "too old", "same version"),
    (3, "something unheard of", "something unheard of", "Try in a terminal: ssh ada@gpu-box mambaseg worker"),
    (0, "", "exit code 0", "Try in a terminal"),
]


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Puts a program named ssh first on the PATH that keeps its arguments, says a text and ends with a code."""
    if os.name == "nt":
        pytest.skip("a script as a program")

    def make(code: int, text: str):
        program = tmp_path / "ssh"
        said = tmp_path / "arguments"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{said}"\necho {shlex.quote(text)} >&2\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return said

    return make


@pytest.mark.parametrize(("code", "text", "message", "hint"), REASONS)
def test_why_there_is_no_connection(ssh, code, text, message, hint):
    arguments = ssh(code, text)
    with pytest.raises(UserError) as caught:
        remote.run({"computer": "ada@gpu-box", "job": "devices"}, Report(), {})
    assert message in caught.value.message and hint in caught.value.hint
    assert arguments.read_text().splitlines()[-2:] == ["ada@gpu-box", "mambaseg worker"]
    assert "BatchMode=yes" in arguments.read_text(), "it never waits for a password"


def test_no_ssh_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="program ssh") as caught:
        remote.run({"computer": "ada@gpu-box", "job": "devices"}, Report(), {})
    assert "OpenSSH" in caught.value.hint


@pytest.mark.parametrize(("code", "text"), [(255, "lost"), (-9, "lost"), (None, "lost"), (0, "lost"), (137, "stopped")])
def test_end_in_the_middle(code, text):
    assert text in lost(parse("ada@gpu-box"), code).message


def test_forms():
    plain = parse(" ada@gpu-box ")
    assert plain.name == "ada@gpu-box" and list(plain.command)[-2:] == ["ada@gpu-box", "mambaseg worker"]
    assert plain.command[0] == "ssh" and plain.is_ssh
    placed = parse("ada@gpu-box:/opt/venv 3/bin/mambaseg".replace(" ", "_"))
    assert placed.name == "ada@gpu-box" and placed.command[-1] == "/opt/venv_3/bin/mambaseg worker"
    whole = parse("ssh -p 2222 ada@gpu-box mambaseg worker")
    assert whole.name == "ada@gpu-box" and whole.is_ssh
    assert not parse(f"{sys.executable} -m MambaSegLib.remote_worker").is_ssh


@pytest.mark.parametrize("text", ["", "  ", "-oProxyCommand=evil", ":/x", "ssh://gpu-box", "gpu-box:2222", "/bin/ssh"])
def test_no_computer(text):
    with pytest.raises(UserError, match="expected"):
        parse(text)


@pytest.mark.skipif(os.name == "nt", reason="Windows reads its command lines itself")
def test_unreadable_command():
    with pytest.raises(UserError, match="cannot be read"):
        parse("ssh 'ada mambaseg")
