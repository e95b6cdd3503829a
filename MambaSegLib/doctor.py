"""``mambaseg doctor``: what is installed, what runs here and what does not, and why."""

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import __version__, catalogue, devices
from .job import Report

_PACKAGES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "safetensors", "llvmlite", "mamba-ssm", "causal-conv1d")

Section = tuple[str, list[tuple[str, str]]]


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job "doctor": {"text": what the command prints}. The request is empty."""
    lines: list[str] = []
    for title, findings in examine():
        report.message(f"Examined: {title}")
        lines += as_lines(iter([(title, findings)]))
    return {"text": "\n".join(lines)}


def examine() -> Iterator[Section]:
    """Section by section (title, [(what, finding)]); what fails is a finding, never an exception."""
    yield "System", _system()
    yield "Packages", [(name, _version(name)) for name in _PACKAGES]
    for title, find in (("Devices", _devices), ("Operators", _operators)):
        try:
            yield title, find()
        except Exception as error:  # the doctor's task is to tell of any failure
            yield title, [("cannot be examined", f"{type(error).__name__}: {error}")]
    yield "Models", _models()
    yield "Folders", _folders()


def as_lines(sections: Iterator[Section]) -> Iterator[str]:
    """The lines to print."""
    for title, findings in sections:
        yield title
        width = max(len(what) for what, _ in findings)
        yield from (f"  {what.ljust(width)}  {finding}" for what, finding in findings)
        yield ""


def _system() -> list[tuple[str, str]]:
    return [
        ("SlicerMambaSegmentation", __version__),
        ("Python", f"{platform.python_version()} at {sys.executable}"),
        ("Platform", platform.platform()),
        ("Processors", f"{os.cpu_count()}"),
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[tuple[str, str]]:
    return [(device.name, device.title or f"not available: {device.why_not}") for device in devices.found()]


def _operators() -> list[tuple[str, str]]:
    """Every backend of every operator: why it is off, or how it compares with the reference, and its speed."""
    from .ops.report import backends

    return [
        (", ".join(found[:3]), f"not available: {found.why_not}" if found.why_not else f"available, {found.self_check}")
        for found in backends()
    ]


def _models() -> list[tuple[str, str]]:
    found = [
        (entry.id, f"{'broken: ' + str(entry.error) if entry.error else entry.title} ({entry.origin}, {entry.folder})")
        for entry in catalogue.entries()
    ]
    return found or [("none", "neither with the library nor in your folder")]


def _folders() -> list[tuple[str, str]]:
    folders = {"your models": catalogue.user_folder(), "temporary": Path(tempfile.gettempdir()), "here": Path.cwd()}
    return [(name, f"{folder}: {_write_permission(folder)}") for name, folder in folders.items()]


def _write_permission(folder: Path) -> str:
    """Whether files can be made in `folder`, or in the nearest parent that exists."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return "writable" if existing == folder else "will be made when needed"
    except OSError as error:
        return f"not writable ({error.strerror})"
