"""The job "packages": which Python packages the jobs need, whether they work here, and what an installation meets.

Nothing is installed and nothing needs the network. A package is tried in a process of its own: a damaged one may end
the process that imports it.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import UserError
from .job import Report

OK, MISSING, OLD, BROKEN = "ok", "missing", "old", "broken"
# Characters of the longest file name below site-packages in a torch wheel for Windows, where 260 is the limit.
LONGEST_NAME = 165
_WINDOWS_LIMIT = 260
_TRIAL_S = 300  # a cold disk and a virus scanner take minutes: slow is not damaged
_DRIVERS = {"win32": "nvcuda.dll", "linux": "libcuda.so.1"}
_TRIAL = "import {name}; print('cuda', {name}.version.cuda if {name!r} == 'torch' else '')"


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """Examine packages; nothing is changed.

    request: "requirements": ["monai>=1.3", ...]; "try": whether to import them, too (takes seconds; default true);
    "keep": names whose versions are wanted.

    Returns:
        {"python": executable, "packages": [{name, requirement, installed, state, problem}], "kept": {name: version},
        "gpu": {driver, build}, "places": {site, writable, free_mb, temporary_free_mb}, "long_paths"}. state is ok,
        missing, old or broken (its metadata is there, but it cannot be imported); "build" is the CUDA version that
        torch was built for, "" for none; "long_paths" says whether the names of torch's files fit.

    Raises UserError for what is no requirement.
    """
    site, packages, build = Path(sysconfig.get_paths()["purelib"]), [], ""
    for index, text in enumerate(request["requirements"]):
        report.progress(index, len(request["requirements"]), "Looking at the installed packages")
        requirement = _requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            found, cuda = _examine(requirement, text, request.get("try", True))
            packages.append(found)
            build = cuda or build
    return {
        "python": sys.executable,
        "packages": packages,
        "kept": {name: found for name in request.get("keep", []) if (found := _version(name))},
        "gpu": {"driver": has_nvidia_driver(), "build": build},
        "places": {
            "site": str(site),
            "writable": is_writable(site),
            "free_mb": _free_mb(site),
            "temporary_free_mb": _free_mb(Path(tempfile.gettempdir())),
        },
        "long_paths": _fit_names(site),
    }


def has_nvidia_driver() -> bool:
    name = _DRIVERS.get(sys.platform)
    try:
        return bool(name and ctypes.CDLL(name))
    except OSError:
        return False


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, tried by making one."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _requirement(text: str):
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise UserError(f"A requirement such as 'monai>=1.3' was expected, but '{text}' came.", str(error)) from error


def _examine(requirement, text: str, is_tried: bool) -> tuple[dict, str]:
    """The finding, and the CUDA version of torch's build."""
    found = {"name": requirement.name, "requirement": text, "installed": "", "state": MISSING, "problem": ""}
    installed = _version(requirement.name)
    if installed == "":
        return found, ""
    if installed is None:  # a folder of metadata without a version: an installation that was interrupted
        return {**found, "state": BROKEN, "problem": "its metadata is incomplete"}, ""
    found |= {"installed": installed, "state": OK}
    if not requirement.specifier.contains(installed, prereleases=True):
        return {**found, "state": OLD, "problem": f"{text} is needed"}, ""
    if not is_tried:
        return found, ""
    problem, build = _trial(requirement.name)
    return {**found, "state": BROKEN if problem else OK, "problem": problem}, build


def _version(name: str) -> str | None:
    """ "" when it is not installed; None when its metadata has no version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
    except KeyError:  # what importlib.metadata of some versions raises instead of giving None
        return None


def _trial(name: str) -> tuple[str, str]:
    """Why the package cannot be imported ("" when it can), and the CUDA version of its build if it is torch."""
    code = _TRIAL.format(name=re.sub(r"[-.]+", "_", name))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, errors="replace", timeout=_TRIAL_S
        )
    except subprocess.TimeoutExpired:
        return f"importing it does not end within {_TRIAL_S} s", ""
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"importing it ends Python ({done.returncode})"]
        return last[0], ""
    build = done.stdout.split("cuda", 1)[-1].strip()
    return "", "" if build == "None" else build


def _free_mb(folder: Path) -> int:
    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path.cwd())
    return shutil.disk_usage(existing).free // 2**20


def _fit_names(site: Path) -> bool:
    """Windows refuses names of 260 characters and more unless a switch in its registry allows them."""
    if os.name != "nt" or len(str(site)) + LONGEST_NAME < _WINDOWS_LIMIT:
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False
