"""What the networks cost on a CPU: seconds and peak memory of one forward pass, and what the scan adds to it.

    python Testing/benchmarks/networks.py                            everything, about 9 minutes on two quiet cores
    python Testing/benchmarks/networks.py --only vm_unet segmamba    these again; the others keep their figures
    python Testing/benchmarks/networks.py --missing                  names of the networks without figures
    python Testing/benchmarks/networks.py --ratios                   the ratios only

One image, evaluation and inference mode, two threads, random weights; every network in a process of its own. The
figures go to MambaSegLib/networks/measured.json, which the library shows, after each network. The ratios (network
against the same one with its scan replaced by a copy, or against its convolutional twin, taken in turns) go to
results/networks.json. Times are the shortest of several; CPU seconds count all threads and suffer less from other work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from operators import OtherLoad, machine, peak_bytes  # noqa: E402

from MambaSegLib.networks import create, names, spec  # noqa: E402
from MambaSegLib.networks.macs import count_variant  # noqa: E402
from MambaSegLib.ops import cross_scan, selective_scan  # noqa: E402
from MambaSegLib.ops.backends import Backend  # noqa: E402

MEASURED = ROOT / "MambaSegLib" / "networks" / "measured.json"
RATIOS = Path(__file__).parent / "results" / "networks.json"
# Grids: the papers' own where one is usual, else one that a laptop takes.
SIZES = {2: (224, 224), 3: (96, 96, 96)}
OWN_SIZES = {
    "attention_mamba": (256, 256),
    "umamba_bot_2d": (320, 320),
    "umamba_enc_2d": (320, 320),
    "umamba_enc": (128, 128, 128),  # its patch: smaller images are padded to it
    "mm_unet": (64, 160, 160),
    "mm_unet_isotropic": (64, 160, 160),
    "mm_unet_synapse": (64, 160, 160),
}
THREADS, ROUNDS, ENOUGH_S = 2, 4, 6.0


def size_of(name: str) -> tuple[int, ...]:
    return OWN_SIZES.get(name, SIZES[spec(name).dims])


def image(name: str, size: tuple[int, ...]) -> torch.Tensor:
    channels = spec(name).parameters[0]
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


def measure(name: str) -> dict:
    """One row of measured.json. A small image first, so that kernels are compiled before anything is timed."""
    torch.set_num_threads(THREADS)
    others, size = OtherLoad(), size_of(name)
    in_channels, out_channels, parameters = spec(name).parameters
    network = create(name, in_channels, out_channels).eval()
    times: list[tuple[float, float]] = []
    with torch.inference_mode():
        network(image(name, tuple(min(n, max(2 * d, 32)) for n, d in zip(size, spec(name).divisor, strict=True))))
        x = image(name, size)
        peak = peak_bytes(lambda: times.append(timed(network, x)))
        while len(times) < ROUNDS and sum(wall for wall, _ in times) < ENOUGH_S:
            times.append(timed(network, x))
    seconds, cpu_seconds = (min(column) for column in zip(*times, strict=True))
    return {
        "size": list(size),
        "in_channels": in_channels,
        "out_channels": out_channels,
        "parameters": parameters,
        "macs": count_variant(name, in_channels, out_channels, size).everything,
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu_seconds, 4),
        "peak_memory_mb": None if peak is None else round(peak / 2**20),
        "rounds": len(times),
        "cores_busy_with_other_work": others.cores(),
    }


def timed(network: torch.nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """Seconds on the clock and of all threads."""
    clock, processors = time.perf_counter(), time.process_time()
    network(x)
    return time.perf_counter() - clock, time.process_time() - processors


@contextlib.contextmanager
def scans_are_copies():
    """Every selective scan returns its input: what is left is the cost of all else."""
    ladders = (selective_scan.LADDER, cross_scan.LADDER)
    for ladder in ladders:
        ladder.choose = lambda requested, kind: Backend("copy", lambda u, *_: u.clone())
    try:
        yield
    finally:
        for ladder in ladders:
            del ladder.choose


def compared(title, network, around, floor, x, limit, rounds) -> dict:
    """The shortest times of `network` and of `floor` (run inside `around()`), taken in turns."""
    torch.set_num_threads(THREADS)
    others = OtherLoad()
    ours, least = [], []
    with torch.inference_mode():
        for number in range(rounds + 1):
            pair = [timed(network, x)]
            with around():
                pair.append(timed(floor, x))
            if number:  # the first round compiles
                ours.append(pair[0])
                least.append(pair[1])
    (ours_s, ours_cpu_s), (floor_s, floor_cpu_s) = ([min(c) for c in zip(*t, strict=True)] for t in (ours, least))
    return {
        "pair": title,
        "size": list(x.shape[2:]),
        "seconds": ours_s,
        "floor_seconds": floor_s,
        "ratio": ours_s / floor_s,
        "cpu_ratio": ours_cpu_s / floor_cpu_s,
        "wanted": limit,
        "cores_busy_with_other_work": others.cores(),
    }


def ratios(note: str) -> None:
    rows = []
    for name in ("deco_mamba_v0", "deco_mamba_v1"):
        network = create(name, 3, 9).eval()
        x = image(name, (224, 224))
        rows.append(compared(f"{name} : its scan as a copy", network, scans_are_copies, network, x, 2.0, 8))
    twin = create("mm_unet", 1, 16, block_mode="cnn").eval()
    network, x = create("mm_unet", 1, 16).eval(), image("mm_unet", (64, 160, 160))
    rows.append(compared("mm_unet : its convolutional twin", network, contextlib.nullcontext, twin, x, 1.25, 2))
    write(RATIOS, {"machine": machine(), "note": note, "threads": THREADS, "ratios": rows})
    for row in rows:
        print(f"{row['pair']}: {row['ratio']:.2f} (CPU {row['cpu_ratio']:.2f}), wanted {row['wanted']}")


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(temporary, path)


def rows_so_far() -> dict:
    return json.loads(MEASURED.read_text())["networks"] if MEASURED.exists() else {}


def measure_all(wanted: list[str]) -> None:
    """Each in a process of its own, so that memory and compiled kernels of one do not touch the next."""
    for name in wanted:
        command = [sys.executable, __file__, "--row", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr}")
        row = json.loads(done.stdout.splitlines()[-1])
        old = rows_so_far()
        rows = {n: (row if n == name else old[n]) for n in names() if n == name or n in old}
        write(MEASURED, {"machine": machine(), "threads": THREADS, "networks": rows})
        memory = "unknown" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']} MB"
        print(f"{name} {row['size']}: {row['seconds']:.3g} s, {memory}, {row['macs'] / 1e9:.1f} GMAC", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in names() if not name.endswith("_test")]
    parser.add_argument("--only", nargs="+", choices=names(), help="measure these networks, and no ratios")
    parser.add_argument("--ratios", action="store_true", help="measure the ratios, and no networks")
    parser.add_argument("--missing", action="store_true", help="print the networks that have no figures, and stop")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # how this file calls itself
    parser.add_argument("--note", default="", help="kept in the results, for example what else ran meanwhile")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.row)))
        return
    if options.missing:
        print("\n".join(name for name in known if name not in rows_so_far()))
        return
    if not options.ratios:
        measure_all(options.only or known)
    if not options.only:
        ratios(options.note)


if __name__ == "__main__":
    main()
