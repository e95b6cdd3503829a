"""The job "remote": the other computer is a second process of this one, its command line being free; ssh is doubled."""

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

from MambaSegLib import batch, correct, remote, remote_files, remote_worker, segment
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.job import Report

ROOT = Path(__file__).resolve().parents[2]
FAR = shlex.join([sys.executable, "-m", "MambaSegLib.remote_worker"])
posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """The temporary folder of the other computer."""
    folder = tmp_path_factory.mktemp("there")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TMPDIR", str(folder)), ("PYTHONPATH", str(ROOT)), ("OMP_NUM_THREADS", "1")):
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def warm(there):
    """What a worker keeps between runs: one connection for all tests, whose end leaves nothing there."""
    kept = {}
    yield kept
    kept.pop("link")[1].close()
    until(lambda: not files_of(there))


def files_of(there: Path) -> list[Path]:
    """The private folders that are there now; torch has a cache of its own beside them."""
    return list(there.glob("mambaseg-*"))


@pytest.fixture
def image(tmp_path) -> Path:
    """Noise of 40 x 36 x 34 voxels with a geometry of its own, in a file with a German and a Japanese name."""
    made = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (34, 36, 40)).astype(np.float32))
    made.SetSpacing((0.9, 1.1, 1.2))
    made.SetOrigin((-20.5, 3.25, 7.0))
    folder = tmp_path / "Größe 頭"
    folder.mkdir()
    path = folder / "Kopf ü 頭.nrrd"
    sitk.WriteImage(made, str(path))
    return path


@pytest.fixture
def endless_bundle(tmp_path, tiny_bundle, tiny_bundle_data) -> Path:
    """The same network with so many windows that nobody waits for the end."""
    tiny_bundle_data["inference"] |= {"patch": [16, 16, 16], "overlap": 0.85}
    return write_bundle(tmp_path / "endless_model", tiny_bundle_data, open_bundle(tiny_bundle).weights_path).folder


def until(condition, timeout_s=10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def far(params: dict, warm: dict | None, job="segment", sink=None, computer=FAR, **more) -> dict:
    return remote.run({"computer": computer, "job": job, "params": params, **more}, Report(sink), warm)


def voxels(path) -> np.ndarray:
    return read_labels(path).array


def request(image, bundle, output) -> dict:
    return {"input": str(image), "model": str(bundle), "output": str(output), "device": "cpu"}


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
    for name in names.values():
        assert np.array_equal(voxels(tmp_path / "local" / name), voxels(tmp_path / "remote" / name))
    assert voxels(tmp_path / "remote" / names["output"]).any()
    for key in ("segments", "review", "model", "model_sha256", "spacing_mm", "size"):
        assert results[0][key] == results[1][key]
    assert results[1]["device"] == f"cpu of {results[1]['computer']}" and results[1]["round_trip_s"] < 5


def test_same_files_are_sent_once(warm, there, image, tiny_bundle, tmp_path):
    asked = request(image, tiny_bundle, tmp_path / "a.seg.nrrd")
    first = far(asked, warm)
    assert first["sent_bytes"] > image.stat().st_size
    again = far(asked | {"output": str(tmp_path / "b.nii.gz")}, warm)
    assert again["sent_bytes"] < 2000
    assert np.array_equal(voxels(tmp_path / "a.seg.nrrd"), voxels(tmp_path / "b.nii.gz"))
    (folder,) = files_of(there)
    assert folder.stat().st_mode & 0o077 == 0, "nobody else may look into it"
    assert not [p for p in folder.rglob("*") if "Kopf" in p.name], "names of files stay at home"
    sitk.WriteImage(sitk.ReadImage(str(image)) + 1, str(image))
    assert far(asked, warm)["sent_bytes"] > image.stat().st_size


def test_old_files_make_room_for_new_ones(tmp_path, monkeypatch):
    jobs = remote_worker.FarJobs(tmp_path)
    monkeypatch.setattr(remote_worker, "_KEPT_BYTES", 10)
    for unit, content in (("a", b"12345678"), ("b", b"87654321")):
        (tmp_path / unit).mkdir()
        (tmp_path / unit / "f").write_bytes(content)
        jobs._units[unit] = {"f": content.decode()}
    answer = jobs.check({"units": {"a": {"f": "12345678"}, "c": {"f": "x"}}}, Report(), {})
    assert answer["missing"] == ["c"] and not (tmp_path / "b").exists() and (tmp_path / "a" / "f").exists()


def test_correct_is_the_local_one(warm, image, tiny_bundle, tmp_path):
    initial = tmp_path / "initial.nrrd"
    segment.run(request(image, tiny_bundle, initial), Report())
    labels = sitk.ReadImage(str(initial))
    edited = sitk.GetArrayFromImage(labels)
    edited[15:19, 10:20, 10:20] = 1
    for name, array in (("edited", edited), ("touched", edited != sitk.GetArrayFromImage(labels))):
        made = sitk.GetImageFromArray(array.astype(np.uint8))
        made.CopyInformation(labels)
        sitk.WriteImage(made, str(tmp_path / f"{name}.nrrd"))
    files = {name: str(tmp_path / f"{name}.nrrd") for name in ("initial", "edited", "touched")}
    here = correct.run(request(image, tiny_bundle, tmp_path / "here.nrrd") | files, Report())
    away = far(request(image, tiny_bundle, tmp_path / "away.nrrd") | files, warm, "correct")
    assert np.array_equal(voxels(tmp_path / "here.nrrd"), voxels(tmp_path / "away.nrrd"))
    assert here["changed"] == away["changed"] and away["output"] == str(tmp_path / "away.nrrd")


def test_image_in_two_files_travels_without_its_header(warm, image, tiny_bundle, tmp_path, monkeypatch):
    def read(path, warn, frame):
        warn("odd")
        return read_volume(path, warn, frame)

    sitk.WriteImage(sitk.ReadImage(str(image)), str(tmp_path / "two.mhd"))
    monkeypatch.setattr(remote_files, "read_volume", read)
    found = far(request(tmp_path / "two.mhd", tiny_bundle, tmp_path / "two.seg.nrrd"), warm)
    assert found["warnings"][0] == "odd"
    segment.run(request(image, tiny_bundle, tmp_path / "one.seg.nrrd"), Report())
    assert np.array_equal(voxels(tmp_path / "one.seg.nrrd"), voxels(tmp_path / "two.seg.nrrd"))


def test_courtesy_neither_connects_nor_sends_much(warm, image, tiny_bundle, tmp_path, monkeypatch):
    asked = {key: value for key, value in request(image, tiny_bundle, "").items() if key != "output"}
    with pytest.raises(UserError, match="no connection"):
        far(asked, {}, "estimate", courtesy=True)
    assert "usable" in str(far({}, warm, "devices")["devices"])
    sitk.WriteImage(sitk.ReadImage(str(image)) + 7, str(image))  # none that is there already
    monkeypatch.setattr(remote, "_COURTESY_BYTES", 1000)
    with pytest.raises(UserError, match="not on"):
        far(asked, warm, "estimate", courtesy=True)
    estimate = far(asked, warm, "estimate")
    assert estimate["windows"] == 8 and estimate["how"].startswith(estimate["computer"] + ": ")
    assert far(asked, warm, "estimate", courtesy=True)["sent_bytes"] < 2000


def test_problems_there_are_told_with_the_names_of_here(warm, image, tiny_bundle, tmp_path):
    broken = tmp_path / "kaputt ü.nrrd"
    broken.write_bytes(b"NRRD0004\nno")
    with pytest.raises(UserError, match="python.*: .*'kaputt ü.nrrd' is damaged"):
        far(request(broken, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    with pytest.raises(UserError, match="cuda"):
        far(request(image, tiny_bundle, tmp_path / "a.seg.nrrd") | {"device": "cuda:7"}, warm)
    for asked, text in (
        (request(tmp_path / "nowhere.nrrd", tiny_bundle, tmp_path / "a.seg.nrrd"), "no such file"),
        (request(image, tiny_bundle, tmp_path / "no folder" / "a.seg.nrrd"), "does not exist"),
        (request(image, tmp_path / "no model", tmp_path / "a.seg.nrrd"), "no model"),
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


def test_cancel_keeps_the_connection(warm, there, image, tiny_bundle, endless_bundle, tmp_path):
    assert cancel_at_progress(request(image, endless_bundle, tmp_path / "a.seg.nrrd"), warm) < 2
    assert not (tmp_path / "a.seg.nrrd").exists()
    link = warm["link"][1]
    far(request(image, tiny_bundle, tmp_path / "b.seg.nrrd"), warm)
    assert warm["link"][1] is link


def far_processes(warm) -> tuple[int, int]:
    """Process ids of the one that keeps the folder, and of the worker."""
    keeper = warm["link"][1]._process.pid
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(keeper)], capture_output=True, text=True, check=True)
    return keeper, int(found.stdout)


@posix
def test_cancel_when_nobody_listens(warm, image, tiny_bundle, tmp_path):
    far(request(image, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    processes = far_processes(warm)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    report, start = Report(), time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: report.cancel())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(Cancelled):
        remote.run({"computer": FAR, "job": "devices"}, report, warm)
    assert time.monotonic() - start < 2
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    assert "link" not in warm
    assert far({}, warm, "devices")["devices"], "a new connection"


@posix
@pytest.mark.parametrize(("victim", "text"), [(1, "stopped unexpectedly.*137.*memory"), (0, "lost|stopped")])
def test_killed_in_the_middle(warm, there, image, tiny_bundle, endless_bundle, tmp_path, victim, text):
    """The worker, or the process that keeps its folder."""

    def sink(event):
        if event["event"] == "progress" and "Window" in event["label"] and not killed:
            killed.append(far_processes(warm)[victim])
            os.kill(killed[0], signal.SIGKILL)

    killed = []
    with pytest.raises(UserError, match=text):
        far(request(image, endless_bundle, tmp_path / "a.seg.nrrd"), warm, sink=sink)
    assert killed and "link" not in warm
    assert not [p for p in tmp_path.iterdir() if "a.seg.nrrd" in p.name]
    until(lambda: not files_of(there))
    far(request(image, tiny_bundle, tmp_path / "a.seg.nrrd"), warm)
    assert voxels(tmp_path / "a.seg.nrrd").shape == (34, 36, 40)


@pytest.mark.parametrize(
    ("silence_s", "idle_s", "is_busy", "lasts_s"), [(0.4, 9, False, 0.4), (0.8, 0.2, False, 0.2), (0.8, 0.2, True, 0.8)]
)
def test_worker_ends_when_nobody_needs_it(monkeypatch, silence_s, idle_s, is_busy, lasts_s):
    class Stopped(Exception):
        pass

    class FakeWorker:
        def stop(self):
            raise Stopped

    FakeWorker.is_busy = is_busy
    monkeypatch.setattr(remote_worker, "SILENCE_S", silence_s)
    monkeypatch.setattr(remote_worker, "IDLE_S", idle_s)
    heard, start = remote_worker.Heard([b"1\n", b"\n"]), time.monotonic()
    assert list(heard) == [b"1\n", b"\n"]
    with pytest.raises(Stopped):
        remote_worker._watch(heard, FakeWorker())
    assert lasts_s * 0.9 < time.monotonic() - start < lasts_s + 0.35


def test_disk_full_there(there, image, tiny_bundle, tmp_path):
    full = (
        "import errno, os, sys, pathlib; from MambaSegLib import remote_worker as w\n"
        "def receive(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "w.FarJobs.receive = receive; w._work(pathlib.Path(sys.argv[1]))"
    )
    computer = shlex.join([sys.executable, "-c", full, str(there / "x")])
    with pytest.raises(UserError, match="could not be written") as caught:
        far(request(image, tiny_bundle, tmp_path / "a.seg.nrrd"), {}, computer=computer)
    assert "disk is full" in caught.value.hint


LIES = ("other file", "file twice", "damaged", "no base64", "unfinished", "no file", "line without end", "no event")


@pytest.mark.parametrize("lie", [*LIES, "other question"])
def test_wrong_answers_write_nothing(there, image, tiny_bundle, tmp_path, lie):
    liar = shlex.join([sys.executable, str(Path(__file__).with_name("remote_liars.py")), lie])
    output = tmp_path / "kept.seg.nrrd"
    output.write_bytes(b"as it was")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot be used"):
        far(request(image, tiny_bundle, output), {}, computer=liar)
    assert output.read_bytes() == b"as it was" and sorted(tmp_path.rglob("*")) == before


def test_texts_from_there_are_plain(there, image, tiny_bundle, tmp_path):
    liar = shlex.join([sys.executable, str(Path(__file__).with_name("remote_liars.py")), "honest"])
    events, output = [], tmp_path / "a.seg.nrrd"
    result = far(request(image, tiny_bundle, output), {}, computer=liar, sink=events.append)
    assert result["output"] == str(output) and output.read_bytes() == b"labels"
    assert "\x1b" not in str(events) + result["name"] and any("hello" in str(event) for event in events)


def test_another_version(there):
    liar = shlex.join([sys.executable, str(Path(__file__).with_name("remote_liars.py")), "other version"])
    with pytest.raises(UserError, match="9.9.9") as caught:
        far({}, {}, "devices", computer=liar)
    assert "Install" in caught.value.hint


def test_command_line_needs_no_torch_here(there, image, tiny_bundle, tmp_path):
    call = ["segment", str(image), "-m", str(tiny_bundle), "-o", str(tmp_path / "a.seg.nrrd"), "--device", "cpu"]
    call += ["--computer", shlex.join([sys.executable, "-m", "MambaSegLib.cli", "worker"])]
    without = "import sys; sys.modules.update(torch=None, monai=None, safetensors=None)"
    code = f"{without}; from MambaSegLib.cli import main; sys.exit(main({call!r}))"
    kept = files_of(there)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "cpu of " in done.stdout, done.stderr
    assert voxels(tmp_path / "a.seg.nrrd").shape == (34, 36, 40)
    until(lambda: files_of(there) == kept)


def test_batch_there(warm, image, tiny_bundle, tmp_path):
    inputs, output = image.parent, tmp_path / "results"
    sitk.WriteImage(sitk.ReadImage(str(image)) + 3, str(inputs / "zweiter.nii.gz"))
    (inputs / "kaputt.nrrd").write_bytes(b"NRRD0004\nno")
    asked = {"inputs": [str(inputs)], "model": str(tiny_bundle), "output": str(output), "workers": 0, "device": "cpu"}
    result = batch.run(asked | {"computer": FAR}, Report(), warm)
    assert result["done"] == 2 and [row["case"] for row in result["failed"]] == ["kaputt"]
    segment.run(request(image, tiny_bundle, tmp_path / "one.seg.nrrd"), Report())
    assert np.array_equal(voxels(tmp_path / "one.seg.nrrd"), voxels(output / f"{image.stem}.seg.nrrd"))
    with pytest.raises(UserError, match="does not exist|cannot be started"):
        batch.run(asked | {"computer": "no-such-program worker", "output": str(tmp_path / "none")}, Report(), {})
