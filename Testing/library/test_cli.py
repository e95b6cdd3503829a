"""``mambaseg`` as its users meet it: a process, its exit code, and what stands on stdout and stderr."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import catalogue, cli
from MambaSegLib.image import read_labels
from MambaSegLib.terminal import ProgressLine, duration, table

ROOT = Path(__file__).resolve().parents[2]
CALL = [sys.executable, "-m", "MambaSegLib.cli"]
BOX_MM = (4, 30, -20, 20, 5, 30)  # LPS


@pytest.fixture
def environment(tmp_path_factory):
    """A user without models of their own."""
    place = str(tmp_path_factory.mktemp("home"))
    home = dict.fromkeys(("HOME", "XDG_DATA_HOME", "APPDATA", "USERPROFILE"), place)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "Training")])
    return os.environ | home | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def mambaseg(tmp_path, environment, monkeypatch, capsys):
    """The command in this process, which has torch loaded already."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_DATA_HOME", "APPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, environment[name])

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, captured.out, captured.err)

    return run


@pytest.fixture
def mambaseg_process(environment, tmp_path):
    def run(*arguments):
        arguments = [str(argument) for argument in arguments]
        return subprocess.run([*CALL, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path)

    return run


@pytest.fixture
def image(tmp_path):
    """40 x 44 x 36 voxels of 1 mm whose first voxel lies at (0, -22, 0) LPS mm."""
    array = np.random.default_rng(0).normal(100, 20, size=(36, 44, 40)).astype(np.float32)
    picture = sitk.GetImageFromArray(array)
    picture.SetOrigin((0, -22, 0))
    sitk.WriteImage(picture, str(tmp_path / "head.nii.gz"))
    return tmp_path / "head.nii.gz"


def inside(labels, box):
    """True where a voxel's centre lies in the box (LPS mm)."""
    x0, x1, y0, y1, z0, z1 = box
    z, y, x = np.indices(labels.shape)
    world = labels.world_from_index() @ np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1)
    x, y, z = world[:3].reshape(3, *labels.shape)
    return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (z >= z0) & (z <= z1)


def test_segment_writes_the_file_and_a_table_that_agrees_with_it(mambaseg_process, image, tiny_bundle, tmp_path):
    done = mambaseg_process("segment", image, "-m", tiny_bundle, "-o", "out.seg.nrrd", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    labels = read_labels(tmp_path / "out.seg.nrrd")
    for value, name in ((1, "Anterior"), (2, "Posterior")):
        row = next(line for line in done.stdout.splitlines() if line.startswith(name)).split()
        voxels = int((labels.array == value).sum())
        assert int(row[2]) == voxels and float(row[1]) == pytest.approx(voxels / 1000, abs=0.006)
    assert "out.seg.nrrd" in done.stdout and "not a medical device" in done.stdout
    assert "100 %" in done.stderr and "Window" in done.stderr and "\r" not in done.stderr


def test_a_box_may_be_said_in_lps_or_ras_with_a_leading_minus(mambaseg, image, tiny_bundle, tmp_path):
    x0, x1, y0, y1, z0, z1 = BOX_MM
    ras = f"{-x1},{-x0},{-y1},{-y0},{z0},{z1}"
    common = (image, "-m", tiny_bundle, "--device", "cpu", "--json")
    lps = mambaseg("segment", *common, "-o", "a.nii.gz", "--roi", ",".join(map(str, BOX_MM)))
    assert lps.returncode == 0, lps.stderr
    assert mambaseg("segment", *common, "-o", "b.nii.gz", "--roi-ras", ras).returncode == 0
    a, b = read_labels(tmp_path / "a.nii.gz"), read_labels(tmp_path / "b.nii.gz")
    assert np.array_equal(a.array, b.array)
    assert a.array.any() and not a.array[~inside(a, BOX_MM)].any()
    counted = sum(segment["voxels"] for segment in json.loads(lps.stdout)["segments"])
    assert counted == np.count_nonzero(a.array)


def test_a_mask_may_say_where_and_labels_what(mambaseg, image, tiny_bundle, tmp_path):
    picture = sitk.ReadImage(str(image))
    mask = sitk.GetImageFromArray(np.pad(np.ones((16, 16, 16), np.uint8), ((10, 10), (14, 14), (12, 12))))
    mask.CopyInformation(picture)
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    arguments = ("-m", tiny_bundle, "-o", "out.nii.gz", "--roi-mask", "mask.nii.gz", "--labels", "Posterior", "--json")
    done = mambaseg("segment", image, *arguments)
    assert done.returncode == 0, done.stderr
    assert [segment["name"] for segment in json.loads(done.stdout)["segments"]] == ["Posterior"]
    labels = read_labels(tmp_path / "out.nii.gz").array
    assert set(np.unique(labels)) <= {0, 2}
    assert not labels[sitk.GetArrayFromImage(mask) == 0].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.nii.gz", "-m", "MODEL", "-o", "o.nii.gz"], ["absent.nii.gz"]),
        (["IMAGE", "-m", "nosuch", "-o", "o.nii.gz"], ["no model 'nosuch'"]),
        (["IMAGE", "-m", "MODEL", "-o", "o.txt"], ["o.txt", ".seg.nrrd"]),
        (["IMAGE", "-m", "MODEL", "-o", "nowhere/o.nii.gz"], ["nowhere", "does not exist"]),
        (["IMAGE", "-m", "MODEL", "-o", "o.nii.gz", "--roi", "900,910,0,9,0,9"], ["outside: 900.0 910.0", "(LPS)"]),
        (["IMAGE", "-m", "MODEL", "-o", "o.nii.gz", "--roi-ras", "900,910,0,9,0,9"], ["outside: 900.0 910.0", "(RAS)"]),
        (["IMAGE", "-m", "MODEL", "-o", "o.nii.gz", "--labels", "Liver"], ["Liver", "Anterior"]),
        (["IMAGE", "-m", "MODEL", "-o", "o.nii.gz", "--device", "abacus"], ["abacus"]),
        (["IMAGE", "-m", "MODEL", "-o", "o.nii.gz", "--overlap", "1.5"], ["1.5"]),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(
    mambaseg, image, tiny_bundle, tmp_path, arguments, words
):
    before = sorted(tmp_path.iterdir())
    real = {"IMAGE": str(image), "MODEL": str(tiny_bundle)}
    done = mambaseg("segment", *[real.get(argument, argument) for argument in arguments])
    assert done.returncode == 2
    complaints = done.stderr.strip().splitlines()
    assert complaints[-1].startswith("mambaseg: ") and "Traceback" not in done.stderr
    assert all(word in complaints[-1] for word in words), done.stderr
    assert done.stdout == "" and sorted(tmp_path.iterdir()) == before


def test_verbose_adds_the_traceback(mambaseg):
    assert "Traceback" in mambaseg("info", "nosuch", "--verbose").stderr


@pytest.mark.parametrize("bounds", ["1,2,3", "a,b,c,d,e,f", "5,1,0,9,0,9", "1,1,0,9,0,9"])
def test_malformed_bounds_are_refused(mambaseg_process, bounds):
    done = mambaseg_process("segment", "x.nii.gz", "-m", "m", "-o", "o.nii.gz", "--roi", bounds)
    assert done.returncode == 2 and "six numbers" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C of POSIX")
def test_ctrl_c_cancels_and_leaves_nothing(environment, tmp_path, tiny_bundle):
    picture = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(200, 200, 200)).astype(np.float32))
    sitk.WriteImage(picture, str(tmp_path / "large.nrrd"))
    before = sorted(tmp_path.iterdir())
    arguments = ["segment", "large.nrrd", "-m", str(tiny_bundle), "-o", "o.nii.gz", "--device", "cpu"]
    process = subprocess.Popen([*CALL, *arguments], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    while "%" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert "cancelled" in process.stderr.read()
    assert process.wait() == 130
    assert sorted(tmp_path.iterdir()) == before


def test_models_are_listed_for_people_and_for_programs(mambaseg, environment, tiny_bundle, tmp_path):
    own = Path(environment["XDG_DATA_HOME"])
    if sys.platform == "darwin":
        own = own / "Library" / "Application Support"
    own = own / "SlicerMambaSegmentation" / "models"
    own.mkdir(parents=True)
    tiny_bundle.rename(own / "tiny")
    (own / "broken").mkdir()
    listed = mambaseg("models", "list")
    assert listed.returncode == 0
    assert "Toy hippocampus" in listed.stdout and "Anterior, Posterior" in listed.stdout
    assert "Broken:" in listed.stdout and "bundle.json" in listed.stdout
    facts = {entry["id"]: entry for entry in json.loads(mambaseg("models", "list", "--json").stdout)}
    assert facts["tiny"]["network"]["name"] == "mm_unet_test" and facts["tiny"]["error"] is None
    assert "bundle.json" in facts["broken"]["error"]
    assert "Toy hippocampus" not in mambaseg("models", "list", "nothing", "like", "this").stdout
    assert "Toy hippocampus" in mambaseg("models", "list", "TOY", "posterior").stdout
    assert "Finds nothing real." in mambaseg("models", "show", "tiny").stdout


def test_networks_are_listed_with_paper_size_and_licence(mambaseg):
    from MambaSegLib.networks import names, spec

    facts = {entry["name"]: entry for entry in json.loads(mambaseg("networks", "--json").stdout)}
    assert sorted(facts) == names()
    assert (
        facts["mm_unet"]["parameters"] == list(spec("mm_unet").parameters) and "2503.17540" in facts["mm_unet"]["paper"]
    )
    text = mambaseg("networks").stdout
    assert all(name in text for name in names() if not name.endswith("_test"))


def test_info_tells_the_geometry_of_a_volume(mambaseg, image):
    done = mambaseg("info", image, "--json")
    facts = json.loads(done.stdout)
    assert facts["size (x, y, z)"] == "40, 44, 36" and facts["spacing (mm)"] == "1, 1, 1"
    assert facts["origin (LPS mm)"] == "0, -22, 0" and facts["axes point to"] == "LPS"
    assert "40, 44, 36" in mambaseg("info", image).stdout
    assert mambaseg("info", image.parent / "absent.nrrd").returncode == 2


def test_doctor_examines_everything_and_never_falls_over(mambaseg_process):
    done = mambaseg_process("doctor")
    assert done.returncode == 0, done.stderr
    for words in ("Python", "torch", "cpu", "Operators", "selective_scan", "reference", "Models", "writable"):
        assert words in done.stdout, done.stdout
    assert "cannot be examined" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models", "list"], ["models", "list", "--all", "--json"], ["--version"]]
)
def test_light_commands_start_without_torch(environment, tmp_path, arguments):
    code = (
        "import sys; from MambaSegLib.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'numpy', 'scipy', 'SimpleITK', 'MambaSegTraining'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", code, *arguments]
    times_s = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        after = os.times()
        # Processor time, which a busy machine does not change. Windows does not count it for children.
        times_s.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.returncode == 0, done.stderr
    assert min(times_s) < 0.3


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_training_is_reached_and_its_refusals_too(mambaseg, command):
    arguments = {"train": ["absent.json", "-o", "out"], "evaluate": ["absent", "-m", "nosuch"]}[command]
    done = mambaseg(command, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "absent" in done.stderr or "nosuch" in done.stderr


class Screen(list):
    """A terminal that remembers what was written."""

    def __init__(self, is_terminal):
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        self.append(text)

    def flush(self):
        pass


def progress(done, of, label="Window"):
    return {"event": "progress", "done": done, "of": of, "label": label}


def test_a_terminal_sees_one_line_drawn_over():
    screen = Screen(True)
    line = ProgressLine(screen)
    for done in range(11):
        line(progress(done, 10, "a long label" if done < 5 else "short"))
    line.close()
    assert all(text.startswith("\r") for text in screen[:-1]) and screen[-1] == "\n"
    assert "[############............]  50 %" in screen[5] and "left" in screen[5]
    widths = [len(text) for text in screen[:-1]]
    assert widths[5] >= widths[4], "the rest of a longer line stays visible"


def test_the_time_left_is_told_once():
    screen = Screen(False)
    line = ProgressLine(screen)
    for done in (0, 5):
        line(progress(done, 10, "Step 5 of 10, about 3 min left"))
    assert screen == ["  0 %  Step 5 of 10, about 3 min left\n", " 50 %  Step 5 of 10, about 3 min left\n"]


def test_a_file_gets_a_line_every_ten_percent_and_warnings():
    screen = Screen(False)
    line = ProgressLine(screen)
    for done in range(1001):
        line(progress(done, 1000))
    line({"event": "message", "level": "warning", "text": "odd"})
    line({"event": "message", "level": "info", "text": "quiet"})
    line.close()
    assert len(screen) == 12 and screen[-1] == "warning: odd\n" and "\r" not in "".join(screen)


def test_durations_and_tables_read_well():
    assert [duration(s) for s in (0.4, 59.4, 61, 3725)] == ["0 s", "59 s", "1 min 01 s", "1 h 02 min"]
    lines = table(["Structure", "mL"], [["Anterior", 1.5], ["P", 12.25]]).splitlines()
    assert lines == ["Structure     mL", "---------  -----", "Anterior    1.50", "P          12.25"]


def test_small_changes_of_dice_are_shown_with_three_decimals(monkeypatch, capsys):
    row = {"structure": "Ball", "cases": 5, "dice_before": 0.9071, "dice_after": 0.9058}
    rows = [row | {"difference": -0.0013, "low": -0.003, "high": 0.001}]
    rows.append(
        dict.fromkeys(("dice_before", "dice_after", "difference", "low", "high")) | {"structure": "B", "cases": 0}
    )
    decision = {"rows": rows, "reasons": ["No structure lost more than 0.01 Dice."]}
    result = {"decision": decision, "promoted": True, "candidate": "folder", "steps": 6, "time_s": 134.0}
    monkeypatch.setattr("MambaSegLib.cli_train.run_job", lambda *_: result)
    assert cli.main(["finetune", "some", "cases"]) == 0
    told = capsys.readouterr().out
    assert "0.907        0.906  -0.001      -0.003 to +0.001" in told and "2 min 14 s" in told


def test_an_error_in_the_program_is_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "search", lambda *_: 1 / 0)
    assert cli.main(["models", "list"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes end differently on Windows")
def test_a_reader_that_has_seen_enough_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "MambaSegLib.cli", "models", "list"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
