"""The job "download_packages": fetches wheels into a folder. It may be stopped at any time, as it installs nothing."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from .errors import UserError
from .job import Report

_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)")
_KEPT_LINES = 30
_ONLY_WHEELS = ("--only-binary", ":all:", "--disable-pip-version-check", "--no-input")


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """{"requirements": [...], "repair": [...], "keep": ["numpy==2.0.2", ...], "folder": where to} ->

    {"install": ["monai==1.5.0", ...], "repair": ["torch==2.8.0", ...], "bytes": of all wheels in the folder}.
    "repair" are packages that are there but damaged: fetched though pip takes them for installed, without what they
    need. "keep" stays at its version. torch comes in the build for this computer when light_the_torch is installed.
    Raises UserError with pip's last lines as hint.
    """
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "keep.txt"
    kept.write_text("\n".join(request.get("keep", [])), encoding="utf-8")
    report.message("Asking the package index what is needed")
    constraints = ["-c", str(kept)]
    wanted = _resolve(request.get("requirements", []), constraints, folder, report)
    damaged = _resolve(request.get("repair", []), ["--ignore-installed", "--no-deps"], folder, report)
    every = {item["download_info"]["url"]: item for item in [*wanted, *damaged]}
    for index, (url, item) in enumerate(every.items()):
        _fetch(_with_hash(url, item), item["metadata"]["name"], folder, index, len(every), report)
    report.progress(len(every), max(1, len(every)), "All packages are downloaded")
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    return {"install": _pinned(wanted), "repair": _pinned(damaged), "bytes": size}


def _pinned(items: list[dict]) -> list[str]:
    return [f"{item['metadata']['name']}=={item['metadata']['version']}" for item in items]


def _with_hash(url: str, item: dict) -> str:
    """pip checks what it has downloaded against the sum in the address."""
    sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{url}#sha256={sha256}" if sha256 else url


def _resolve(requirements: list[str], options: list[str], folder: Path, report: Report) -> list[dict]:
    """pip's answer what it would install: a list of {download_info, metadata}."""
    if not requirements:
        return []
    answer = folder / "answer.json"
    # It asks the index of the CUDA build that fits the driver; pip alone would take PyPI's only build.
    needs_build = any(re.match(r"torch\b(?!\w)", text) for text in requirements)
    program = "light_the_torch" if needs_build and find_spec("light_the_torch") else "pip"
    command = ["install", "--dry-run", "--report", str(answer), *_ONLY_WHEELS, *options, *requirements]
    _call([program, *command], report)
    found = json.loads(answer.read_text(encoding="utf-8"))["install"]
    answer.unlink()
    return found


def _fetch(url: str, name: str, folder: Path, index: int, count: int, report: Report) -> None:
    def show(line: str) -> None:
        found = _PROGRESS.match(line)
        if found and int(found[2]):
            done, of = int(found[1]), int(found[2])
            label = f"{name}: {done / 1e6:.0f} of {of / 1e6:.0f} MB"
            report.progress(index + done / of, count, label)

    report.progress(index, count, name)
    options = ["--no-deps", "--progress-bar", _progress_style(), "--dest", str(folder)]
    _call(["pip", "download", *_ONLY_WHEELS, *options, url], report, show)


def _progress_style() -> str:
    """Lines that can be read; pip has them from 24.1 on."""
    major, minor = (int(part) for part in version("pip").split(".")[:2])
    return "raw" if (major, minor) >= (24, 1) else "off"


def _call(arguments: list[str], report: Report, on_line=lambda line: None) -> None:
    """Run a module of this Python; stops it when the job is cancelled. Raises UserError when it fails."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    lines = _Watched(process, report)
    try:
        for line in lines:
            on_line(line)
    finally:
        process.kill()
        process.wait()
    if lines.code:
        raise UserError(
            f"{arguments[0]} ended with an error ({lines.code}) while it was fetching packages.",
            "\n".join(lines.last),
        )


class _Watched:
    """The lines of a process, given out while it works; looks for a cancel also when no line comes."""

    def __init__(self, process: subprocess.Popen, report: Report):
        self._process, self._report = process, report
        self.last: list[str] = []
        self.code = 0

    def __iter__(self):
        for raw in self._polled():
            line = raw.decode("utf-8", "replace").rstrip()
            if line and not _PROGRESS.match(line):
                self.last = [*self.last, line][-_KEPT_LINES:]
                print(line, file=sys.stderr)
            yield line
        self.code = self._process.wait()

    def _polled(self):
        """A thread reads, as a pipe cannot be asked with a time limit on Windows."""
        import queue
        import threading

        lines: queue.SimpleQueue = queue.SimpleQueue()

        def read() -> None:
            for raw in self._process.stdout:
                lines.put(raw)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            self._report.check_cancelled()
            try:
                raw = lines.get(timeout=0.2)
            except queue.Empty:
                continue
            if raw is None:
                return
            yield raw
