"""What is to be installed, what stays as it is, and how large it is: from the findings of the job "packages"."""

import platform
import sys
from dataclasses import dataclass, field

from slicer.i18n import tr as _

TORCH = "torch>=2.2"
# What only some jobs need: asked for when one of them has missed it.
EXTRAS = {name: ("onnx>=1.15", "onnxruntime>=1.17") for name in ("onnx", "onnxruntime")}
# Slicer's own: another version of them breaks Slicer or another extension.
KEPT = ("numpy", "scipy", "SimpleITK")
# MB to download, rounded up from the wheels on the package indexes in autumn 2025 (torch with what it needs).
_TORCH_CUDA_MB = {"linux": 3600, "win32": 3000}
_TORCH_CPU_MB = {"linux": 250, "win32": 300, "darwin": 200}
_OTHERS_MB = {"monai": 3, "safetensors": 1, "llvmlite": 60, "onnx": 20, "onnxruntime": 25}
_UNKNOWN_MB = 20


def requirements(requirementsFile: str) -> list[str]:
    """torch and the lines of requirements.txt."""
    with open(requirementsFile, encoding="utf-8") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return [TORCH, *filter(None, lines)]


def downloadMb(name: str, hasDriver: bool) -> int:
    """An estimate for this platform."""
    if name != "torch":
        return _OTHERS_MB.get(name, _UNKNOWN_MB)
    table = _TORCH_CUDA_MB if hasDriver and sys.platform in _TORCH_CUDA_MB else _TORCH_CPU_MB
    return table.get(sys.platform, 300)


@dataclass(frozen=True)
class Plan:
    """install: requirements that are missing or too old; repair: damaged ones; keep: "name==version" that stays."""

    install: tuple[str, ...] = ()
    repair: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    sizesMb: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.install or self.repair)

    @property
    def downloadMb(self) -> int:
        return sum(self.sizesMb.values())

    @property
    def hasTorch(self) -> bool:
        return "torch" in self.sizesMb

    def text(self) -> str:
        """One line per package, with its size."""
        rows = [_("{name} (about {mb})").format(name=name, mb=sizeText(mb)) for name, mb in self.sizesMb.items()]
        return "\n".join(rows)

    @classmethod
    def of(cls, findings: dict) -> "Plan":
        """A torch that works is never installed again, whatever else is missing."""
        states = {package["name"]: package["state"] for package in findings["packages"]}
        install, repair, keep = [], [], [f"{name}=={version}" for name, version in findings["kept"].items()]
        for package in findings["packages"]:
            name, state = package["name"], package["state"]
            if state == "broken" and name != "torch" and states.get("torch") != "ok":
                state = "ok"  # it needs torch, and cannot be judged without
            if state in ("missing", "old"):
                install.append(package["requirement"])
            elif state == "broken":
                repair.append(package["requirement"])
            elif name == "torch":
                keep.append(f"torch=={package['installed']}")
        names = [p["name"] for p in findings["packages"] if p["requirement"] in (*install, *repair)]
        sizes = {name: downloadMb(name, findings["gpu"]["driver"]) for name in names}
        return cls(tuple(install), tuple(repair), tuple(keep), sizes)


def sizeText(mb: float) -> str:
    return _("{n:.1f} GB").format(n=mb / 1000) if mb >= 1000 else _("{n} MB").format(n=round(mb))


def pythonName() -> str:
    """For the user who collects wheels elsewhere."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, {platform.system()} {platform.machine()}"
