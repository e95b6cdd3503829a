"""Time and peak memory of the main job, as a user meets it: a cold command, and the second run of a warm worker.

    python Testing/benchmarks/main_job.py [--repeat 3]

Prints a table and writes ``Testing/benchmarks/results/main_job.json``. Each row is a process of its own; the times are
medians, the memory is the largest resident set that the system saw.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from MambaSegLib.demo import ROI_MM, template_file  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "main_job.json"
CROP = ROOT.parent / "shared" / "data" / "hippocampus_msd" / "imagesTr"
# Runs a command and prints its wall seconds and peak resident kilobytes: getrusage sees only its own child.
MEASURE = (
    "import resource, subprocess, sys, time; started = time.perf_counter(); "
    "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
    "print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def command(image: Path, output: Path, roi) -> list[str]:
    arguments = [sys.executable, "-m", "MambaSegLib.cli", "segment", str(image), "-m", "hippocampus", "-o", str(output)]
    return arguments + ([f"--roi={','.join(map(str, roi))}"] if roi else [])


def cold(image: Path, roi, folder: Path) -> dict:
    """One whole command in a process of its own."""
    line = [sys.executable, "-c", MEASURE, *command(image, folder / "out.seg.nrrd", roi)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, kilobytes = done.stdout.split()
    return {"seconds": float(seconds), "peak_mb": float(kilobytes) / 1024}


def warm(image: Path, roi, folder: Path, runs: int) -> list[dict]:
    """The same job several times in one worker; the first one loads torch and compiles the kernels."""
    worker = subprocess.Popen(
        [sys.executable, "-u", "-m", "MambaSegLib.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    results = []
    for number in range(runs):
        params = {"input": str(image), "model": "hippocampus", "output": str(folder / f"{number}.nrrd"), "roi": roi}
        started = time.perf_counter()
        worker.stdin.write(json.dumps({"id": str(number), "job": "segment", "params": params}) + "\n")
        worker.stdin.flush()
        event = {}
        while event.get("event") != "finished":
            event = json.loads(worker.stdout.readline())
            if event["event"] == "failed":
                raise SystemExit(event["message"])
        results.append({"seconds": time.perf_counter() - started, "steps": event["result"]["seconds"]})
    worker.stdin.close()
    worker.wait(10)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    jobs = {"MNI152 head, both hippocampi in a region of interest": (template_file(), ROI_MM)}
    if CROP.is_dir():
        jobs["crop of one hippocampus"] = (sorted(CROP.glob("*.nii.gz"))[0], None)
    rows = []
    for name, (image, roi) in jobs.items():
        with tempfile.TemporaryDirectory() as folder:
            colds = [cold(image, roi, Path(folder)) for _ in range(repeat)]
            warms = warm(image, roi, Path(folder), repeat + 1)
        rows.append(
            {
                "job": name,
                "command_s": round(statistics.median(c["seconds"] for c in colds), 2),
                "peak_mb": round(max(c["peak_mb"] for c in colds)),
                "worker_first_s": round(warms[0]["seconds"], 2),
                "worker_again_s": round(statistics.median(w["seconds"] for w in warms[1:]), 2),
                "worker_again_steps": warms[-1]["steps"],
            }
        )
    machine = {"system": platform.platform(), "processor": platform.machine(), "python": platform.python_version()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "repeat": repeat, "rows": rows}, indent=1) + "\n")
    print("| job | command, s | peak memory, MB | worker, first run, s | worker, again, s |\n|---|---|---|---|---|")
    for row in rows:
        print("| {job} | {command_s} | {peak_mb} | {worker_first_s} | {worker_again_s} |".format(**row))


if __name__ == "__main__":
    main()
