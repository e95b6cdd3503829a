"""Set everything up in a private virtual environment, then run: ``python3 bootstrap.py demo`` or ``... test [...]``.

Needs Python >= 3.10 and pip, on Linux, macOS or Windows; no administrator rights. The first run downloads packages,
later ones start in about a second. Whatever was interrupted is put right by running the same command again.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  (an older Python is told so in one sentence)
    sys.exit("Python 3.10 or newer is needed, this is {}.{}.{}.".format(*sys.version_info[:3]))

ROOT = Path(__file__).resolve().parent
USAGE = """usage: python3 bootstrap.py demo [--output FOLDER]   segment the hippocampi of a brain template
       python3 bootstrap.py test [pytest arguments]  run the tests"""
COMMANDS = {"demo": ["-m", "MambaSegLib.demo"], "test": ["-m", "pytest"]}
TORCH = "torch>=2.2"
# Without an NVIDIA driver the CUDA build would be gigabytes for nothing. The exact version serves machines and mirrors
# that carry the CPU wheel itself; it is one quick question elsewhere.
CPU_TORCH = [
    ["torch==2.13.0+cpu"],
    [TORCH, "--index-url", "https://download.pytorch.org/whl/cpu", "--retries", "1", "--timeout", "15"],
]
NEEDED = "torch, monai, SimpleITK, numpy, scipy, safetensors, MambaSegLib, MambaSegTraining"
LAST_LINES = 12


class SetupError(Exception):
    """The message says what failed and how to repair it."""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        print(USAGE, file=sys.stderr)
        return 2
    name, *rest = arguments
    try:
        python = prepared_python(name)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    environment = clean_environment()
    if name == "test":
        environment["QT_QPA_PLATFORM"] = "offscreen"
    return run_to_end([str(python), *COMMANDS[name], *rest], environment, ROOT if name == "test" else Path.cwd())


def prepared_python(extra: str) -> Path:
    """The Python of an environment that has the project with the dependencies `extra`; made when it is not there."""
    writable = os.access(ROOT, os.W_OK)
    folder = environment_folder(writable)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / f"{extra}.stamp"
    wanted = fingerprint(writable)
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"Setting up {folder}", flush=True)
    install(folder, python, extra, writable)
    if not works(python):
        print("Something is half-installed: starting from an empty environment", flush=True)
        shutil.rmtree(folder)
        install(folder, python, extra, writable)
        if not works(python):
            log = folder / "install.log"
            raise SetupError(f"The installed packages cannot be imported.\nDelete {folder} and try again; log: {log}")
    stamp.write_text(wanted)  # last: a run that is interrupted leaves no stamp
    return python


def environment_folder(writable: bool) -> Path:
    """One per Python version, beside this file or, where one may not write there, in the user's cache folder."""
    name = f".venv-{sys.version_info[0]}.{sys.version_info[1]}"
    if writable:
        return ROOT / name
    home = Path.home()
    if os.name == "nt":
        cache = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = home / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
    return cache / "SlicerMambaSegmentation" / checkout / name


def fingerprint(writable: bool) -> str:
    """Changes when what must be installed changes. An environment that points here follows the sources by itself."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:2]} {platform.machine()}".encode())
    digest.update((ROOT / "pyproject.toml").read_bytes())
    if not writable:
        for path in sorted(path for part in ("MambaSegLib", "Training") for path in (ROOT / part).rglob("*")):
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode() if path.is_file() else b"")
    return digest.hexdigest()


def install(folder: Path, python: Path, extra: str, writable: bool) -> None:
    if not can_run(python, "import pip"):
        make_environment(folder, python)
    if not install_torch(folder, python):
        return
    print(f"Installing the project and what '{extra}' needs", flush=True)
    constraints = ["-c", str(folder / "constraints.txt")]
    if writable:
        pip(folder, python, ["-e", f"{ROOT}[{extra}]", *constraints])
        return
    copy = folder / "source"  # the build writes beside the sources, which is not allowed here
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__"))
    pip(folder, python, [f"{copy}[{extra}]", *constraints])
    # pip keeps an installed copy of the same version: replace the project itself, and nothing else.
    pip(folder, python, [str(copy), "--no-deps", "--force-reinstall"])


def make_environment(folder: Path, python: Path) -> None:
    """An empty environment with pip, also where the system's Python comes without ensurepip (Debian, Ubuntu)."""
    print("Creating a virtual environment", flush=True)
    command = [sys.executable, "-m", "venv", "--clear"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run([*command, str(folder)], env=clean_environment(), capture_output=True).returncode == 0:
        return
    done = subprocess.run(
        [*command, "--without-pip", str(folder)], env=clean_environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SetupError(f"A virtual environment cannot be made in {folder}:\n{last_lines(done.stdout + done.stderr)}")
    put_pip_into(folder, python)


def put_pip_into(folder: Path, python: Path) -> None:
    """Install pip into an environment that has none, by means of the pip that the system has."""
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(asked, env=clean_environment(), capture_output=True, text=True, check=True).stdout.strip()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", packages, "pip"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"This Python has no working venv and pip:\n{last_lines(done.stdout + done.stderr)}\n"
            f"Install them, on Debian and Ubuntu by: sudo apt install python{version}-venv python3-pip"
        )


def install_torch(folder: Path, python: Path) -> bool:
    """The torch that fits this machine, then a constraint so that no later installation replaces it.

    False when pip calls it installed and yet it cannot be imported, as after an interrupted installation.
    """
    if torch_version(python) is None:
        attempts = [[TORCH]] if has_nvidia_driver() or sys.platform == "darwin" else [*CPU_TORCH, [TORCH]]
        kind = "" if len(attempts) == 1 else " for CPUs"
        print(f"Installing PyTorch{kind}, the largest part: some minutes, once", flush=True)
        for attempt in attempts[:-1]:
            if pip(folder, python, attempt, required=False):
                break
        else:
            pip(folder, python, attempts[-1])
    version = torch_version(python)
    if version is not None:
        (folder / "constraints.txt").write_text(f"torch=={version}\n")
    return version is not None


def torch_version(python: Path) -> str | None:
    """Version of a torch that can be imported and is new enough; None without one."""
    done = subprocess.run(
        [str(python), "-c", "import torch; print(torch.__version__)"],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    version = done.stdout.strip()
    numbers = version.split("+")[0].split(".")[:2]
    new_enough = done.returncode == 0 and all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) >= (2, 2)
    return version if new_enough else None


def has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def pip(folder: Path, python: Path, arguments: list[str], required: bool = True) -> bool:
    """``pip install``, its downloads shown in short lines, all of its words kept in ``install.log``."""
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
    ]
    lines = []
    with open(folder / "install.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            env=clean_environment(),
            text=True,
            encoding="utf-8",
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            for line in process.stdout:
                lines.append(line.rstrip())
                log.write(line)
                if line.startswith("Downloading") and "metadata" not in line:
                    print(f"  {line.strip()[:100]}", flush=True)
    if process.returncode != 0 and required:
        raise SetupError(
            f"pip could not install {' '.join(arguments)}:\n{last_lines(chr(10).join(lines))}\n\n"
            f"Check the internet connection (behind a proxy set HTTPS_PROXY) and free disk space, then run the same "
            f"command again. Everything pip said: {folder / 'install.log'}"
        )
    return process.returncode == 0


def works(python: Path) -> bool:
    """True when everything that the project needs can be imported."""
    return can_run(python, f"import {NEEDED}")


def can_run(python: Path, code: str) -> bool:
    try:
        return subprocess.run([str(python), "-c", code], env=clean_environment(), capture_output=True).returncode == 0
    except OSError:  # not there, or the Python it was made from is gone
        return False


def clean_environment() -> dict[str, str]:
    """This process's variables without those that lead Python or pip into another environment."""
    strangers = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in strangers}


def last_lines(text: str) -> str:
    return "\n".join("  " + line for line in text.strip().splitlines()[-LAST_LINES:])


def run_to_end(command: list[str], environment: dict[str, str], folder: Path) -> int:
    """Run a command; Ctrl-C reaches it too, so wait for its own ending."""
    process = subprocess.Popen(command, env=environment, cwd=folder)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
