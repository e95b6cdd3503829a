"""Missing and damaged packages by structure, not by a message; downloads with the real pip from local wheels."""

import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from MambaSegLib import package_download, packages
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.job import Report

ROOT = Path(__file__).resolve().parents[2]


def wheel(folder: Path, name: str, version: str = "1.0", needs: str = "", size: int = 10) -> Path:
    """A real wheel with one module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "x = 1\n" + "#" * size)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def installed(folder: Path, name: str, version: str | None, code: str) -> None:
    """As an installer leaves it; without a version, as one that was interrupted."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\n" + (f"Version: {version}\n" if version else "")
    )
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages that this process and its children see."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def states(*requirements: str) -> dict[str, str]:
    result = packages.run({"requirements": list(requirements)}, Report())
    return {found["name"]: found["state"] for found in result["packages"]}


def test_every_state_is_told_apart(site):
    installed(site, "mbs_good", "2.0", "")
    installed(site, "mbs_damaged", "2.0", "raise OSError('[WinError 206] The filename or extension is too long')")
    installed(site, "mbs_crashing", "2.0", "import os; os.abort()")
    installed(site, "mbs_half", None, "")
    found = states(
        *("mbs_good>=1.5", "mbs_damaged", "mbs_crashing", "mbs_half>=1", "mbs_nowhere>=1"),
        "mbs_elsewhere; sys_platform == 'plan9'",
    )
    assert found == {
        **{"mbs_good": "ok", "mbs_damaged": "broken", "mbs_crashing": "broken", "mbs_half": "broken"},
        "mbs_nowhere": "missing",
    }
    assert states("mbs_good>=3") == {"mbs_good": "old"}


def test_places_and_reasons(site):
    installed(site, "mbs_damaged", "2.0", "raise OSError('cannot load c10.dll')")
    result = packages.run({"requirements": ["mbs_damaged"]}, Report())
    assert "c10.dll" in result["packages"][0]["problem"] and result["python"] == sys.executable
    assert result["places"]["free_mb"] > 0 and result["long_paths"] is True
    assert json.dumps(result)
    with pytest.raises(UserError, match="requirement"):
        packages.run({"requirements": ["not a requirement!"]}, Report())


def test_a_folder_that_refuses_files(tmp_path):
    assert packages.is_writable(tmp_path) and not packages.is_writable(tmp_path / "nowhere")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Only the wheels in this folder exist; pip asks nobody else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_download_brings_what_is_needed_and_keeps_what_works(index, tmp_path):
    wheel(index, "mbs_net", needs="mbs_base>=1", size=300_000)
    wheel(index, "mbs_base", "1.0")
    wheel(index, "mbs_base", "9.0")
    events = []
    params = {"requirements": ["mbs_net"], "keep": ["mbs_base==1.0"], "folder": str(tmp_path / "to")}
    result = package_download.run(params, Report(events.append))
    assert sorted(result["install"]) == ["mbs_base==1.0", "mbs_net==1.0"] and result["repair"] == []
    assert {p.name for p in (tmp_path / "to").glob("*.whl")} == {p.name for p in index.glob("*-1.0-*")}
    assert result["bytes"] > 0
    parts = [e["done"] / e["of"] for e in events if e["event"] == "progress"]
    assert parts == sorted(parts) and parts[-1] == 1


def test_what_cannot_be_found_is_named(index, tmp_path):
    params = {"requirements": ["mbs_nowhere"], "folder": str(tmp_path / "to")}
    with pytest.raises(UserError) as caught:
        package_download.run(params, Report())
    assert "mbs_nowhere" in caught.value.hint


def test_download_can_be_stopped(index, tmp_path):
    report = Report()
    threading.Timer(0.3, report.cancel).start()
    with pytest.raises(Cancelled):
        package_download._call(["timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"], report)


def worker_says(job: str, code_of_torch: str, folder: Path) -> dict:
    """The worker's last event when `import torch` runs this code."""
    (folder / "torch.py").write_text(code_of_torch)
    line = json.dumps({"id": "1", "job": job, "params": {}}) + "\n"
    code = "import sys; sys.path.insert(0, sys.argv[1]); from MambaSegLib import worker; worker.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    process.stdin.write(line)
    process.stdin.flush()
    for answer in process.stdout:
        event = json.loads(answer)
        if event["event"] in ("failed", "finished"):
            process.stdin.close()
            process.wait(10)
            return event
    raise AssertionError("the worker ended without an answer")


def test_worker_names_the_package_that_is_missing(tmp_path):
    event = worker_says("devices", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", tmp_path)
    assert (event["error"], event["package"]) == ("MissingPackage", "torch")


@pytest.mark.parametrize("code", ["raise OSError('[WinError 127] c10.dll')", "None + 1", "from os import nothing"])
def test_worker_names_the_package_that_is_damaged(code, tmp_path):
    event = worker_says("devices", code, tmp_path)
    assert (event["error"], event["package"]) == ("MissingPackage", "torch")
    assert "damaged" in event["message"] and "Traceback" in event["traceback"]


def test_doctor_is_a_job(monkeypatch):
    from MambaSegLib import doctor

    sections = [("Packages", [("torch", "2.9"), ("monai", "not installed")]), ("Folders", [("here", "writable")])]
    monkeypatch.setattr(doctor, "examine", lambda: iter(sections))
    messages = []
    text = doctor.run({}, Report(messages.append))["text"]
    assert text == "\n".join(doctor.as_lines(iter(sections))) and len(messages) == 2
