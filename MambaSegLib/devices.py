"""Which computing devices torch can use here, and why not the others; also the job "devices"."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass

from .job import Report
from .wording import counted


@dataclass(frozen=True)
class Device:
    """name as in a request's "device"; why_not is "" when it is usable."""

    name: str
    title: str
    why_not: str

    @property
    def usable(self) -> bool:
        return not self.why_not


def run(request: dict, report: Report, warm: dict | None = None) -> dict:
    """The job: {"devices": [{name, title, usable, why_not}]}, the CPU first. The request is empty."""
    return {"devices": [{**asdict(device), "usable": device.usable} for device in found()]}


def found() -> list[Device]:
    """The CPU, every GPU, and each kind of GPU that there is not, with the reason."""
    import torch

    threads, processor = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return [Device("cpu", f"{counted(threads, 'thread')}, {processor}", ""), *_cuda(), _mps()]


def _cuda() -> list[Device]:
    import torch

    if not torch.cuda.is_available():
        no_build = "this torch was built without CUDA"
        return [Device("cuda", "", no_build if torch.version.cuda is None else "no usable NVIDIA GPU or driver")]
    every = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        Device("cuda" if len(every) == 1 else f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB", "")
        for index, gpu in enumerate(every)
    ]


def _mps() -> Device:
    import torch

    if torch.backends.mps.is_available():
        return Device("mps", platform.processor() or "Apple GPU", "")
    return Device("mps", "", "needs an Apple GPU and macOS 12.3 or later")
