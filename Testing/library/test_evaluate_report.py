"""What ``mambaseg evaluate`` writes: tables and a page that stand for themselves, from a model or from label maps."""

import csv
import json
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).resolve().parents[2] / "Training"))

from MambaSegLib import cli
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.job import Report, resolve
from MambaSegLib.volume import Volume
from MambaSegTraining.evaluate import known_voxels, scores
from MambaSegTraining.evaluation import Compared
from MambaSegTraining.evaluation_pictures import png

SPACING = (1.0, 1.0, 2.0)
SHIFTS = {"a": 0, "b": 1, "c": 4}


def write(path, array, spacing=SPACING):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def data(tmp_path):
    """Three cases with structure 1, and 2 in the first alone; predictions are shifted by 0, 1 and 4 voxels."""
    for name, shift in SHIFTS.items():
        truth = np.zeros((8, 30, 30), np.uint8)
        truth[2:6, 8:18, 8:18] = 1
        if name == "a":
            truth[2:6, 22:26, 22:26] = 2
        image = np.random.default_rng(0).normal(0, 5, truth.shape) + 50.0 * truth
        write(tmp_path / "data" / "imagesTr" / f"{name}.nii.gz", image.astype(np.float32))
        write(tmp_path / "data" / "labelsTr" / f"{name}.nii.gz", truth)
        write(tmp_path / "found" / f"{name}.nrrd", np.roll(truth, shift, axis=2))
    return tmp_path / "data"


def evaluate(**request):
    return resolve("evaluate")({key: str(value) for key, value in request.items()}, Report())


def test_label_maps_are_measured_without_a_model(data, tmp_path):
    result = evaluate(data=data, predictions=tmp_path / "found", output=tmp_path / "report")
    rows = {(row["case"], row["structure"]): row for row in result["rows"]}
    assert set(rows) == {("a", "Label 1"), ("a", "Label 2"), ("b", "Label 1"), ("c", "Label 1")}
    assert rows["a", "Label 1"]["dice"] == 1 and rows["b", "Label 1"]["dice"] == pytest.approx(0.9)
    assert rows["c", "Label 1"]["hd95_mm"] == 4 and rows["c", "Label 1"]["iou"] == pytest.approx(0.6 / 1.4)
    values = {(row["structure"], row["name"]): row for row in result["values"]}
    assert values["Label 1", "Dice"]["mean"] == pytest.approx((1 + 0.9 + 0.6) / 3, abs=1e-4)
    assert values["Label 1", "Dice"]["n"] == 3 and values["Label 2", "Dice"]["n"] == 1

    with open(tmp_path / "report" / "cases.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["case"], row["structure"]) for row in table] == list(rows)
    assert float(table[2]["dice"]) == pytest.approx(0.9)
    with open(tmp_path / "report" / "summary.csv", newline="", encoding="utf-8") as file:
        assert {row["name"] for row in csv.DictReader(file)} >= {"Dice", "IoU", "HD95", "ASSD", "Volume error"}


def test_the_page_needs_nothing_else_and_shows_the_worst_first(data, tmp_path):
    evaluate(data=data, predictions=tmp_path / "found", output=tmp_path / "report", mode="synapse")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page
    figures = re.findall(r"<figcaption><b>(.*?)</b>", page)
    assert figures == ["c", "b", "a"] and page.count("data:image/png;base64,") == 6
    assert "voxels" in page and "TransUNet" in page and "Label 2" in page
    order = re.search(r"<details>(.*)</details>", page, re.DOTALL)[1]
    assert order.index("<td>c</td>") < order.index("<td>b</td>") < order.index("<td>a</td>")


def test_nothing_is_overwritten_and_wrong_requests_are_refused(data, tmp_path):
    found = tmp_path / "found"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cases.csv").write_text("precious")
    for request, words in (
        ({"predictions": found, "output": tmp_path / "mine"}, "cases.csv in"),
        ({"predictions": found, "model": "x"}, "name one of them"),
        ({}, "name one of them"),
        ({"predictions": found, "mode": "brats"}, "no mode 'brats'"),
        ({"predictions": tmp_path / "nowhere"}, "no label map of the case a"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate(data=data, **request)
    assert (tmp_path / "mine" / "cases.csv").read_text() == "precious"
    write(found / "b.nrrd", np.zeros((8, 30, 30), np.uint8), (1.0, 1.0, 3.0))
    with pytest.raises(UserError, match="one grid"):
        evaluate(data=data, predictions=found)


def test_a_model_is_measured_on_the_command_line(data, tiny_bundle, tmp_path, capsys):
    arguments = ["evaluate", str(data), "-m", str(tiny_bundle), "-o", str(tmp_path / "report"), "--device", "cpu"]
    assert cli.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "tiny" and {row["structure"] for row in result["rows"]} == {"Anterior", "Posterior"}
    absent = next(row for row in result["rows"] if (row["case"], row["structure"]) == ("b", "Posterior"))
    assert absent["hd95_mm"] is None and absent["dice"] in (0, None)
    assert "Toy hippocampus" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_what_was_not_annotated_is_not_measured():
    truth, found = np.zeros((2, 4, 6, 6), np.uint8)
    truth[:, 1:4, 1:4], found[:, 1:4, 1:5] = 1, 1
    truth[3], found[0] = 0, 2
    labels = (Label(1, "one", (0, 0, 0), {}), Label(2, "two", (0, 0, 0), {}))

    def case(annotated):
        return Compared("x", Volume(truth), Volume(found), annotated, labels)

    slices = case({"structures": ["one"], "slices": {"axis": 0, "indices": [1, 2]}})
    row = scores(found, slices, labels[0])
    assert row["dice"] == pytest.approx(2 * 18 / (18 + 24)) and np.isnan(row["hd95_mm"])
    assert scores(found, slices, labels[1]) is None
    assert known_voxels(case(None), "two").all()
    truth[1] = 255  # unknown in a case where everything was annotated: on neither side
    assert scores(found, case(None), labels[0])["volume_ml"] == pytest.approx(2 * 12 / 1000)


def test_pictures_are_png():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (7, 5)
    length = struct.unpack(">I", data[33:37])[0]
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(5, 22)
    assert np.array_equal(lines[:, 1:].reshape(5, 7, 3), pixels)
