"""The job "remote": the other computer is a second process of this one, its command line being free; ssh is doubled."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("torch")

from remote_cases import FAR, far, files_of, request, until, voxels

from MambaSegLib import batch, correct, remote, remote_files, remote_link, segment
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.image import read_volume
from MambaSegLib.job import Report, to_json_value

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(scope="module")
def warm(there):
    """What a worker keeps between runs: one connection for all tests, whose end leaves nothing there."""
    kept = {}
    yield kept
    kept.pop("link")[1].close()
    until(lambda: not files_of(there))


@pytest.fixture
def endless_bundle(tmp_path, tiny_bundle, tiny_bundle_data) -> Path:
    """The same network with so many windows that nobody waits for the end."""
    tiny_bundle_data["inference"] |= {"patch": [16, 16, 16], "overlap": 0.85}
    return write_bundle(tmp_path / "endless_model", tiny_bundle_data, open_bundle(tiny_bundle).weights_path).folder


def rounded(value):
    """As JSON brings it, numbers to five digits: another process may add up in another order."""
    return json.loads(json.dumps(to_json_value(value)), parse_float=lambda text: round(float(text), 5))


def test_result_is_the_local_one_voxel_for_voxel(hippocampus, warm, tmp_path):
    source = sorted((hippocampus / "imagesTr").glob("*.nii.gz"))[0]
    asked = {"input": str(source), "model": "hippocampus", "device": "cpu", "smoothing_mm": 0.5}
    names = {"output": "Ergebnis ß.seg.nrrd", "uncertainty": "Zweifel.nrrd"}
    results = []
    for folder, run in (("local", segment.run), ("remote", lambda r, report: far(r, warm))):
        (tmp_path / folder).mkdir()
        files = {key: str(tmp_path / folder / name) for key, name in names.items()}
        results.append(run(asked | files, Report()))
        assert [results[-1][key] for key in names] == list(files.values())
    local, remotely = ([voxels(tmp_path / folder / name) for name in names.values()] for folder in ("local", "remote"))
    assert np.array_equal(local[0], remotely[0]) and local[0].any()
    assert np.abs(local[1].astype(int) - remotely[1].astype(int)).max() <= 1  # percent
    for key in ("segments", "review", "model", "model_sha256", "spacing_mm", "size"):
        assert rounded(results[0][key]) == rounded(results[1][key])
    assert results[1]["device"] == f"cpu of {results[1]['computer']}" and results[1]["round_trip_s"] < 5


def test_same_files_are_sent_once(warm, there, noise, tiny_bundle, tmp_path):
    asked = request(noise, tiny_bundle, tmp_path / "a.seg.nrrd")
    first = far(asked, warm)
    assert first["sent_bytes"] > noise.stat().st_size
    again = far(asked | {"output": str(tmp_path / "b.nii.gz")}, warm)
    assert again["sent_bytes"] < 2000
    assert np.array_equal(voxels(tmp_path / "a.seg.nrrd"), voxels(tmp_path / "b.nii.gz"))
    (folder,) = files_of(there)
    assert folder.stat().st_mode & 0o077 == 0, "nobody else may look into it"
    assert not [p for p in folder.rglob("*") if "Kopf" in p.name], "names of files stay at home"
    sitk.WriteImage(sitk.ReadImage(str(noise)) + 1, str(noise))
    assert far(asked, warm)["sent_bytes"] > noise.stat().st_size


def test_the_history_of_a_model_stays_at_home(warm, there, noise, tiny_bundle, tiny_bundle_data, tmp_path):
    tiny_bundle_data["provenance"] |= {"cases": ["Smith_John_1950"], "data": str(tmp_path)}
    own = write_bundle(tmp_path / "own", tiny_bundle_data, open_bundle(tiny_bundle).weights_path).folder
    far(request(noise, own, tmp_path / "a.seg.nrrd"), warm)
    told = [path.read_text(encoding="utf-8") for path in there.rglob("bundle.json")]
    assert any("withheld-1" in text for text in told)
    assert not any(name in text for text in told for name in ("Smith", str(tmp_path)))


def test_the_header_of_a_converted_dicom_file_stays_at_home(warm, there, noise, tiny_bundle, tmp_path):
    image = sitk.ReadImage(str(noise)) + 2
    image.SetMetaData("0010|0010", "Smith^John")
    sitk.WriteImage(image, str(noise))
    assert b"Smith^John" in noise.read_bytes()
    far(request(noise, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    assert not any(b"Smith^John" in path.read_bytes() for path in there.rglob("image-*"))
    segment.run(request(noise, tiny_bundle, tmp_path / "b.seg.nrrd"), Report())
    assert np.array_equal(voxels(tmp_path / "a.seg.nrrd"), voxels(tmp_path / "b.seg.nrrd"))


def test_correct_is_the_local_one(warm, noise, tiny_bundle, tmp_path):
    initial = tmp_path / "initial.nrrd"
    segment.run(request(noise, tiny_bundle, initial), Report())
    labels = sitk.ReadImage(str(initial))
    edited = sitk.GetArrayFromImage(labels)
    edited[15:19, 10:20, 10:20] = 1
    for name, array in (("edited", edited), ("touched", edited != sitk.GetArrayFromImage(labels))):
        made = sitk.GetImageFromArray(array.astype(np.uint8))
        made.CopyInformation(labels)
        sitk.WriteImage(made, str(tmp_path / f"{name}.nrrd"))
    files = {name: str(tmp_path / f"{name}.nrrd") for name in ("initial", "edited", "touched")}
    here = correct.run(request(noise, tiny_bundle, tmp_path / "here.nrrd") | files, Report())
    away = far(request(noise, tiny_bundle, tmp_path / "away.nrrd") | files, warm, "correct")
    assert np.array_equal(voxels(tmp_path / "here.nrrd"), voxels(tmp_path / "away.nrrd"))
    assert here["changed"] == away["changed"] and away["output"] == str(tmp_path / "away.nrrd")


def test_image_in_two_files_travels_without_its_header(warm, noise, tiny_bundle, tmp_path, monkeypatch):
    def read(path, warn, frame):
        warn("odd")
        return read_volume(path, warn, frame)

    sitk.WriteImage(sitk.ReadImage(str(noise)), str(tmp_path / "two.mhd"))
    monkeypatch.setattr(remote_files, "read_volume", read)
    found = far(request(tmp_path / "two.mhd", tiny_bundle, tmp_path / "two.seg.nrrd"), warm)
    assert found["warnings"][0] == "odd"
    segment.run(request(noise, tiny_bundle, tmp_path / "one.seg.nrrd"), Report())
    assert np.array_equal(voxels(tmp_path / "one.seg.nrrd"), voxels(tmp_path / "two.seg.nrrd"))


def test_courtesy_neither_connects_nor_sends_much(warm, noise, tiny_bundle, tmp_path, monkeypatch):
    asked = {key: value for key, value in request(noise, tiny_bundle, "").items() if key != "output"}
    with pytest.raises(UserError, match="no connection"):
        far(asked, {}, "estimate", courtesy=True)
    assert "usable" in str(far({}, warm, "devices")["devices"])
    sitk.WriteImage(sitk.ReadImage(str(noise)) + 7, str(noise))  # none that is there already
    monkeypatch.setattr(remote, "_COURTESY_BYTES", 1000)
    with pytest.raises(UserError, match="not on"):
        far(asked, warm, "estimate", courtesy=True)
    estimate = far(asked, warm, "estimate")
    assert estimate["windows"] == 8 and estimate["how"].startswith(estimate["computer"] + ": ")
    assert far(asked, warm, "estimate", courtesy=True)["sent_bytes"] < 2000


def test_problems_there_are_told_with_the_names_of_here(warm, noise, tiny_bundle, tmp_path):
    broken = tmp_path / "kaputt ü.nrrd"
    broken.write_bytes(b"NRRD0004\nno")
    with pytest.raises(UserError, match="python.*: .*'kaputt ü.nrrd' is damaged"):
        far(request(broken, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    with pytest.raises(UserError, match="cuda"):
        far(request(noise, tiny_bundle, tmp_path / "a.seg.nrrd") | {"device": "cuda:7"}, warm)
    for asked, text in (
        (request(tmp_path / "nowhere.nrrd", tiny_bundle, tmp_path / "a.seg.nrrd"), "no such file"),
        (request(noise, tiny_bundle, tmp_path / "no folder" / "a.seg.nrrd"), "does not exist"),
        (request(noise, tmp_path / "no model", tmp_path / "a.seg.nrrd"), "no model"),
    ):
        with pytest.raises(UserError, match=text):
            far(asked, {})
    with pytest.raises(UserError, match="does not run on another computer"):
        far({}, {}, "finetune")
    assert not list(tmp_path.glob("*a.seg.nrrd"))


def cancel_at_progress(params, warm) -> float:
    """Seconds from the cancellation to the end."""
    start = 0.0

    def sink(event):
        nonlocal start
        if event["event"] == "progress" and "Window" in event["label"] and not start:
            start = time.monotonic()
            report.cancel()

    report = Report(sink)
    with pytest.raises(Cancelled):
        remote.run({"computer": FAR, "job": "segment", "params": params}, report, warm)
    return time.monotonic() - start


def test_cancel_keeps_the_connection(warm, there, noise, tiny_bundle, endless_bundle, tmp_path):
    assert cancel_at_progress(request(noise, endless_bundle, tmp_path / "a.seg.nrrd"), warm) < 5
    assert not (tmp_path / "a.seg.nrrd").exists()
    link = warm["link"][1]
    far(request(noise, tiny_bundle, tmp_path / "b.seg.nrrd"), warm)
    assert warm["link"][1] is link


def far_processes(warm) -> tuple[int, int]:
    """Process ids of the one that keeps the folder, and of the worker."""
    keeper = warm["link"][1]._process.pid
    found = subprocess.run(["pgrep", "-P", str(keeper)], capture_output=True, text=True, check=True)
    return keeper, int(found.stdout)


@posix
def test_cancel_when_nobody_listens(warm, noise, tiny_bundle, tmp_path):
    far(request(noise, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    processes = far_processes(warm)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    report, start = Report(), time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: report.cancel())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(Cancelled):
        remote.run({"computer": FAR, "job": "devices"}, report, warm)
    assert time.monotonic() - start < 4, "it does not wait for an answer"
    for pid in reversed(processes):
        os.kill(pid, signal.SIGCONT)
    assert "link" not in warm


@posix
def test_connection_that_was_lost_in_silence_is_made_anew(warm, monkeypatch):
    monkeypatch.setattr(remote_link, "_RESPONSE_S", 0.5)
    far({}, warm, "devices")
    old, worker = warm["link"][1], far_processes(warm)[1]
    os.kill(worker, signal.SIGSTOP)
    assert far({}, warm, "devices")["devices"] and warm["link"][1] is not old
    os.kill(worker, signal.SIGCONT)


@posix
@pytest.mark.parametrize(("victim", "text"), [(1, "stopped unexpectedly.*137.*memory"), (0, "lost|stopped")])
def test_killed_in_the_middle(warm, there, noise, tiny_bundle, endless_bundle, tmp_path, victim, text):
    """The worker, or the process that keeps its folder."""

    def sink(event):
        if event["event"] == "progress" and "Window" in event["label"] and not killed:
            killed.append(far_processes(warm)[victim])
            os.kill(killed[0], signal.SIGKILL)

    killed = []
    with pytest.raises(UserError, match=text):
        far(request(noise, endless_bundle, tmp_path / "a.seg.nrrd"), warm, sink=sink)
    assert killed and "link" not in warm
    assert not [p for p in tmp_path.iterdir() if "a.seg.nrrd" in p.name]
    until(lambda: not files_of(there))
    far(request(noise, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    assert voxels(tmp_path / "a.seg.nrrd").shape == (34, 36, 40)


def test_command_line_needs_no_torch_here(there, noise, tiny_bundle, tmp_path):
    call = ["segment", str(noise), "-m", str(tiny_bundle), "-o", str(tmp_path / "a.seg.nrrd"), "--device", "cpu"]
    call += ["--computer", shlex.join([sys.executable, "-m", "MambaSegLib.cli", "worker"])]
    without = "import sys; sys.modules.update(torch=None, monai=None, safetensors=None)"
    code = f"{without}; from MambaSegLib.cli import main; sys.exit(main({call!r}))"
    kept = files_of(there)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "cpu of " in done.stdout, done.stderr
    assert voxels(tmp_path / "a.seg.nrrd").shape == (34, 36, 40)
    until(lambda: files_of(there) == kept)


def test_batch_there(warm, noise, tiny_bundle, tmp_path):
    inputs, output = noise.parent, tmp_path / "results"
    sitk.WriteImage(sitk.ReadImage(str(noise)) + 3, str(inputs / "zweiter.nii.gz"))
    (inputs / "kaputt.nrrd").write_bytes(b"NRRD0004\nno")
    asked = {"inputs": [str(inputs)], "model": str(tiny_bundle), "output": str(output), "workers": 0, "device": "cpu"}
    result = batch.run(asked | {"computer": FAR}, Report(), warm)
    assert result["done"] == 2 and [row["case"] for row in result["failed"]] == ["kaputt"]
    segment.run(request(noise, tiny_bundle, tmp_path / "one.seg.nrrd"), Report())
    assert np.array_equal(voxels(tmp_path / "one.seg.nrrd"), voxels(output / f"{noise.stem}.seg.nrrd"))
    with pytest.raises(UserError, match="does not exist|cannot be started"):
        batch.run(asked | {"computer": "no-such-program worker", "output": str(tmp_path / "none")}, Report(), {})
