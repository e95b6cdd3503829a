"""Why the Python packages cannot be used or installed, by name, and what to do: facts first, pip's words second."""

import re
from dataclasses import dataclass

from slicer.i18n import tr as _


@dataclass(frozen=True)
class Cause:
    """name is for tests and logs; text and repair are what the user reads."""

    name: str
    text: str
    repair: str


NO_NETWORK = Cause(
    "no network",
    _("The package index on the internet could not be reached."),
    _("Check the network and the proxy, or install from a folder of wheels (page Settings)."),
)
CERTIFICATE = Cause(
    "certificate",
    _("The connection to the package index was not trusted: something in the network replaces its certificate."),
    _("Ask who looks after the network for its certificate, or install from a folder of wheels (page Settings)."),
)
NO_PERMISSION = Cause(
    "no permission",
    _("Slicer may not write into its own folder, where Python packages go."),
    _("Install Slicer into a folder of your own, or start it once as administrator to install the packages."),
)
DISK_FULL = Cause(
    "disk full",
    _("There is not enough room on the disk for the packages."),
    _("Make room on the disk of Slicer and on that of the temporary folder, then try again."),
)
LONG_PATH = Cause(
    "long path",
    _("Windows refuses the long file names inside torch (WinError 206)."),
    _("Install Slicer into a short folder such as C:\\Slicer, or switch on long paths in Windows (LongPathsEnabled)."),
)
IN_USE = Cause(
    "in use",
    _("A file of the packages is in use by another program."),
    _("Close other Slicer windows, restart Slicer and install before anything else."),
)
HALF_INSTALLED = Cause(
    "half installed",
    _("torch is there but damaged: an installation was interrupted, or a part of it is missing."),
    _("Press Install: only torch is fetched again and put in its place."),
)
CPU_BUILD = Cause(
    "wrong build",
    _("torch works on the CPU only, although this computer has an NVIDIA driver."),
    _("To use the graphics card: module PyTorch, Uninstall, restart Slicer, then press Install here."),
)
NO_PYTORCH_EXTENSION = Cause(
    "no PyTorch extension",
    _("The extension 'PyTorch', which chooses the torch for this computer, is missing."),
    _("Install 'PyTorch' in the Extensions Manager and restart Slicer, or install from a folder of wheels."),
)
NOT_FOUND = Cause(
    "not found",
    _("A package was not found for this Python."),
    _("From a folder: put the wheels of all packages for this Python and system there. Else: update Slicer."),
)
UNKNOWN = Cause(
    "unknown",
    _("The installation failed."),
    _("Copy the details and send them to the developers; restart Slicer before another try."),
)

_WORDS = (
    (LONG_PATH, r"WinError 206|file ?name or extension is too long|enable long paths|long path support"),
    (DISK_FULL, r"No space left|Errno 28\b|WinError 112\b|not enough space|Disk quota"),
    (IN_USE, r"WinError 32\b|being used by another process"),
    (NO_PERMISSION, r"Permission denied|Errno 13\b|WinError 5\b|Access is denied|Read-only file system"),
    (CERTIFICATE, r"CERTIFICATE_VERIFY_FAILED|SSLError|certificate verify"),
    (NO_NETWORK, r"getaddrinfo|name resolution|Network is unreachable|NewConnectionError|ConnectTimeout|ProxyError"),
    (NO_NETWORK, r"Connection refused|Max retries exceeded|Read timed out|from versions: none\).*download\.pytorch"),
    (NOT_FOUND, r"No matching distribution|Could not find a version|is not a supported wheel"),
)
# What is written for a megabyte that is downloaded: the wheel, then its content, which is about 1.6 times as large.
_ROOM_PER_DOWNLOAD = 1.6


def hindrance(findings: dict, downloadMb: int) -> Cause | None:
    """What an installation would meet, told by the job "packages" before anything was tried."""
    places = findings["places"]
    if not places["writable"]:
        return NO_PERMISSION
    if places["free_mb"] < _ROOM_PER_DOWNLOAD * downloadMb or places["temporary_free_mb"] < downloadMb:
        return DISK_FULL
    return None if findings["long_paths"] else LONG_PATH


def flaw(findings: dict) -> Cause | None:
    """What is wrong with torch as it is installed."""
    state = next((p["state"] for p in findings["packages"] if p["name"] == "torch"), "")
    if state == "broken":
        return HALF_INSTALLED if findings["long_paths"] else LONG_PATH
    isCpuBuild = state == "ok" and findings["gpu"]["driver"] and not findings["gpu"]["build"]
    return CPU_BUILD if isCpuBuild else None


def recognise(log: str) -> Cause:
    """The cause in pip's own words."""
    return next((cause for cause, words in _WORDS if re.search(words, log, re.IGNORECASE)), UNKNOWN)
