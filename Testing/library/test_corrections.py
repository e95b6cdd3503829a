"""The store of corrected cases: complete or not at all, a frozen hold-out, versions, unknown is unknown."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import cli, corrections, thumbnail
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume, write_labels
from MambaSegLib.job import Report, resolve
from MambaSegLib.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
LEFT, RIGHT = Label(1, "Left", (230, 159, 0), {}), Label(7, "Right", (0, 158, 115), {})
ALL = {"structures": ["Left", "Right"], "slices": None}


def image(seed=0, shape=(6, 20, 16)):
    voxels = np.random.default_rng(seed).normal(100, 20, shape).astype(np.int16)
    return Volume(voxels, (0.8, 0.8, 3.0), (-5, 4, 100), name=f"kopf-{seed}.nrrd")


def drawn(volume):
    labels = np.zeros(volume.shape, np.int32)
    labels[2:5, 4:10, 3:8] = 1
    labels[2:5, 4:10, 9:14] = 7
    return volume.with_array(labels)


def add(folder, seed=0, patient="P 1", annotated=ALL, annotator="Ärztin", **more):
    volume = image(seed)
    return corrections.add(folder, [volume], drawn(volume), (LEFT, RIGHT), annotated, patient, annotator, **more)


def test_a_case_comes_back_as_it_was(tmp_path):
    store = tmp_path / "Fälle 日本"
    model = {"id": "hippocampus", "sha256": "ab" * 32}
    made = add(store, model=model, title="Großer Fall")
    (case,) = corrections.cases(store)
    assert case == made and case.data["model"] == model and (case.title, case.annotator) == ("Großer Fall", "Ärztin")
    again = read_volume(case.images[0])
    assert again.same_grid(image()) and np.array_equal(again.array, image().array) and again.array.dtype == np.int16
    assert np.array_equal(read_labels(case.label_file).array, drawn(image()).array)
    assert case.structures == (LEFT, RIGHT) and case.id.endswith(case.data["image_sha256"][:8])
    assert sitk.ReadImage(str(case.thumbnail)).GetNumberOfComponentsPerPixel() == 3
    assert sorted(path.name for path in store.iterdir()) == [case.id]


def test_the_patient_is_a_hash_and_the_key_stands_nowhere(tmp_path):
    case = add(tmp_path, patient=" Jane Doe 1970 ")
    assert case.patient == add(tmp_path, seed=1, patient="Jane Doe 1970").patient and len(case.patient) == 64
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Jane" not in written


def test_only_what_was_annotated_is_known(tmp_path):
    annotated = {"structures": ["Right"], "slices": {"axis": 0, "indices": [3, 2]}}
    case = add(tmp_path, annotated=annotated)
    known, true = case.label_volume().array, drawn(image()).array
    assert known.dtype == np.uint8 and case.annotated["slices"]["indices"] == [2, 3]
    assert (known[[0, 1, 4, 5]] == corrections.UNKNOWN).all()
    assert (known[2:4][true[2:4] == 1] == corrections.UNKNOWN).all()
    assert (known[2:4][true[2:4] == 7] == 7).all() and (known[2:4][true[2:4] == 0] == 0).all()
    sagittal = add(tmp_path, seed=1, annotated={"structures": ["Left"], "slices": {"axis": 2, "indices": [5]}})
    known = sagittal.label_volume().array
    assert (known[:, :, 5] != corrections.UNKNOWN).all() and (np.delete(known, 5, 2) == corrections.UNKNOWN).all()


def test_the_hold_out_is_frozen_and_by_patient(tmp_path, monkeypatch):
    parts = [add(tmp_path, seed, f"patient {seed}").part for seed in range(16)]
    assert parts.count("hold-out") == 4  # of these names
    monkeypatch.setattr(corrections, "HOLD_OUT_SHARE", 1.0)
    old = parts.index("training")
    assert add(tmp_path, 100, f"patient {old}").part == "training", "a patient moved to the hold-out"
    assert add(tmp_path, 101, "a new patient").part == "hold-out"


def test_the_same_image_under_another_patient_is_refused(tmp_path):
    case = add(tmp_path)
    with pytest.raises(UserError, match="another patient"):
        add(tmp_path, patient="P 2")
    corrections.remove(tmp_path, case.id)
    assert add(tmp_path, patient="P 2").patient != case.patient


def test_a_new_version_replaces_the_old_one_and_keeps_it(tmp_path):
    first, other = add(tmp_path), add(tmp_path, annotator="Somebody else")
    second = add(tmp_path, annotated=ALL | {"structures": ["Left"]})
    assert {case.id for case in corrections.cases(tmp_path)} == {other.id, second.id}
    assert second.data["version"] == 2
    kept = tmp_path / "superseded" / first.id
    assert (
        json.loads((kept / "case.json").read_text(encoding="utf-8")) == first.data and (kept / "labels.nrrd").exists()
    )
    assert corrections.remove(tmp_path, second.id) == 2
    assert [case.id for case in corrections.cases(tmp_path)] == [other.id] and not kept.exists()


def test_the_hash_knows_the_image_whatever_the_file(tmp_path):
    volume = image()
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a.nii.gz"))
    as_float = volume.with_array(volume.array.astype(np.float64))
    hashes = {corrections.image_hash([v]) for v in (volume, as_float, read_volume(tmp_path / "a.nii.gz"))}
    assert len(hashes) == 1
    moved = Volume(volume.array, volume.spacing_mm, (-5, 4, 101))
    assert corrections.image_hash([moved]) not in hashes and corrections.image_hash([image(1)]) not in hashes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patient": "  "}, "patient"),
        ({"annotator": ""}, "annotator"),
        ({"annotated": {"structures": [], "slices": None}}, "annotated"),
        ({"annotated": {"structures": ["Liver"], "slices": None}}, "Liver"),
        ({"annotated": {"structures": ["Left"], "slices": {"axis": 0, "indices": [6]}}}, "axis"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        add(tmp_path / "store", **change)
    assert not (tmp_path / "store").exists()


def test_labels_elsewhere_or_without_a_name_are_refused(tmp_path):
    volume = image()
    elsewhere = Volume(drawn(volume).array, volume.spacing_mm)
    for labels, table in ((elsewhere, (LEFT, RIGHT)), (drawn(volume), (LEFT,))):
        with pytest.raises(UserError):
            corrections.add(tmp_path, [volume], labels, table, ALL | {"structures": ["Left"]}, "P", "A")
    assert corrections.cases(tmp_path) == []


def test_pictures_and_several_channels(tmp_path):
    rng = np.random.default_rng(0)
    colour = Volume(rng.integers(0, 255, (3, 1, 30, 40), dtype=np.uint8), name="polyp.png")
    grey = Volume(rng.integers(0, 255, (1, 30, 40), dtype=np.uint8), name="xray.png")
    labels = np.zeros((1, 30, 40), np.uint8)
    labels[0, 5:20, 8:30] = 1
    for volume in (colour, grey):
        done = {"structures": ["Left"], "slices": None}
        case = corrections.add(tmp_path, [volume], volume.with_array(labels), (LEFT,), done, volume.name, "A")
        assert np.array_equal(read_volume(case.images[0]).array, volume.array)
        assert np.array_equal(case.label_volume().array, labels)
    volume = image(2)
    case = corrections.add(tmp_path, [volume, image(3)], drawn(volume), (LEFT, RIGHT), ALL, "P", "A")
    assert [read_volume(path).array.tolist() for path in case.images] == [image(s).array.tolist() for s in (2, 3)]


def test_the_thumbnail_is_upright_and_outlined():
    """A bright patch at the patient's right front in an image whose axes point elsewhere."""
    voxels = np.zeros((8, 40, 30), np.float32)  # z points to the left, y to the feet, x to the back: sagittal slices
    voxels[4, 2:8, 2:6] = 1000
    volume = Volume(voxels, (1, 1, 4), direction=np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]))
    labels = np.zeros(voxels.shape, np.uint8)
    labels[4, 20:36, 10:25] = 7
    picture = thumbnail.thumbnail(volume, volume.with_array(labels), (LEFT, RIGHT))
    assert picture.shape == (192, 144, 3)
    bright = np.argwhere(picture.min(-1) > 200).mean(0) / picture.shape[:2]
    assert bright[0] < 0.25 and bright[1] < 0.25, "head and front are up and left"
    outline = np.argwhere((picture == RIGHT.color).all(-1))
    assert abs(outline.mean(0) / picture.shape[:2] - [28 / 40, 17.5 / 30]).max() < 0.03
    middle = outline.mean(0).astype(int)
    assert not (picture[tuple(middle)] == RIGHT.color).all()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    store = tmp_path / "store"
    add(store)

    def full(*_, **__):
        raise RuntimeError("sitk::ERROR: No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(UserError, match="could not be written"):
        add(store, seed=1)
    assert len(list(store.iterdir())) == 1 and len(corrections.cases(store)) == 1


def test_a_killed_add_leaves_no_half_case(tmp_path):
    """Killed right before the case is put in place, when all its files are there."""
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]\n"
        "import test_corrections as t\n"
        "t.corrections.os.rename = lambda *_: os._exit(9)\n"
        "t.add(sys.argv[3])\n"
    )
    arguments = [sys.executable, "-c", code, str(ROOT), str(Path(__file__).parent), str(tmp_path / "store")]
    assert subprocess.run(arguments).returncode == 9
    (left,) = (tmp_path / "store").iterdir()
    assert corrections.cases(tmp_path / "store") == []
    os.utime(left, (time.time() - 7200,) * 2)
    case = add(tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == [case.id], "the old one was not swept away"


def test_two_processes_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import test_corrections as t\n"
        "for seed in range(6): t.add(sys.argv[3], seed, f'P {seed}', annotator=sys.argv[4] if seed else 'both')\n"
    )
    arguments = [sys.executable, "-c", code, str(ROOT), str(Path(__file__).parent), str(tmp_path)]
    running = [subprocess.Popen([*arguments, name]) for name in ("one", "two")]
    assert [process.wait() for process in running] == [0, 0]
    found = corrections.cases(tmp_path)
    assert len(found) == 11 and len({case.id for case in found}) == 11
    assert len(list((tmp_path / "superseded").iterdir())) == 1, "the same work twice is one case and one old version"


def test_a_damaged_case_is_named(tmp_path):
    case = add(tmp_path)
    (case.folder / "case.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=case.id):
        corrections.cases(tmp_path)


def test_the_job_adds(tmp_path):
    sitk.WriteImage(image().to_sitk(), str(tmp_path / "a.nrrd"))
    write_labels(tmp_path / "a.seg.nrrd", drawn(image()), (LEFT, RIGHT))
    files = {"images": [str(tmp_path / "a.nrrd")], "labels": str(tmp_path / "a.seg.nrrd")}
    who = {"patient": "4711", "annotator": "A", "folder": str(tmp_path / "store")}
    made = resolve("add_correction")(files | who | {"annotated": ALL}, Report())
    (case,) = corrections.cases(tmp_path / "store")
    assert (made["id"], made["part"], made["folder"]) == (case.id, case.part, str(case.folder))


def test_the_command_adds_lists_and_removes(tmp_path, capsys):
    volume = image()
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a.nrrd"))
    write_labels(tmp_path / "a.seg.nrrd", drawn(volume), (LEFT, RIGHT))
    store = ["--folder", str(tmp_path / "store")]
    command = ["add", str(tmp_path / "a.nrrd"), "--labels", str(tmp_path / "a.seg.nrrd"), "--patient", "4711"]
    assert cli.main(["corrections", *command, "--slices", "z:2-3,5", "--structures", "Left", *store]) == 0
    (case,) = corrections.cases(tmp_path / "store")
    assert case.annotated == {"structures": ["Left"], "slices": {"axis": 0, "indices": [2, 3, 5]}}
    assert [(s.value, s.name, s.color) for s in case.structures] == [(s.value, s.name, s.color) for s in (LEFT, RIGHT)]
    capsys.readouterr()
    assert cli.main(["corrections", "list", *store]) == 0
    assert case.id in (text := capsys.readouterr().out) and "3 slices along z" in text
    assert cli.main(["corrections", "remove", case.id, *store]) == 0
    assert corrections.cases(tmp_path / "store") == []
    assert cli.main(["corrections", "remove", case.id, *store]) == 2
