"""From a folder to a configuration: what is read off the data, and what the time and the memory allow."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.job import Report, resolve
from MambaSegTraining import plan, trial
from MambaSegTraining.config import TrainConfig, read_config
from MambaSegTraining.data import load_data
from MambaSegTraining.fingerprint import described_by, fingerprint
from MambaSegTraining.sources import open_source
from MambaSegTraining.trial import Trial, try_out

CPU = torch.device("cpu")


def volumes(folder, shape, spacing, low, high, names=None, count=3):
    """Cases of one bright box (``high``) on ``low`` with noise; sizes differ a little."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        grid = (shape[0], shape[1], shape[2] + 2 * i)
        label = np.zeros(grid, np.uint8)
        label[1:-1, 3:9, 3:9] = 1
        image = np.random.default_rng(i).normal(0, 10, grid) + np.where(label, high, low)
        for kind, array in (("imagesTr", image.astype(np.int16)), ("labelsTr", label)):
            file = sitk.GetImageFromArray(array)
            file.SetSpacing(spacing)
            sitk.WriteImage(file, str(folder / kind / f"c{i}.nii.gz"))
    if names:
        (folder / "dataset.json").write_text(json.dumps(names))
    return folder


def looked_at(folder):
    cases, described = open_source(folder), described_by(folder)
    return fingerprint(cases, plan.names_of(cases, described), described["modality"], Report()), described


def test_fingerprint(tmp_path):
    names = {"labels": {"background": 0, "Liver": 1}, "channel_names": {"0": "CT"}, "licence": "CC0"}
    found, described = looked_at(volumes(tmp_path / "d", (12, 20, 22), (0.8, 0.8, 1.5), 0, 60, names))
    assert (found.cases, found.modality, found.channels, found.orientation) == (3, "CT", 1, "LPS")
    assert found.size["least"] == [22, 20, 12] and found.size["largest"] == [26, 20, 12]
    assert found.spacing_mm["median"] == pytest.approx([0.8, 0.8, 1.5])
    share = 10 * 36 / (12 * 20 * 24)
    assert found.structures[0]["name"] == "Liver" and found.structures[0]["cases"] == 3
    assert found.structures[0]["share"] == pytest.approx(share, rel=0.01)
    assert found.labelled[0]["mean"] == pytest.approx(60, abs=2) and 20 < found.labelled[0]["low"] < 45
    assert described["licence"] == "CC0"


def test_decathlon_spelling_of_names(tmp_path):
    names = {"labels": {"0": "background", "1": "Left"}, "modality": {"0": "MRI", "1": "T2"}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    assert described_by(tmp_path)["names"] == {1: "Left"} and described_by(tmp_path)["channels"] == ["MRI", "T2"]


def first(folder):
    found, described = looked_at(folder)
    return plan.first_plan(folder, found, described, "m")


def test_air_makes_a_ct_and_thick_slices_make_a_flat_network(tmp_path):
    config = first(volumes(tmp_path / "ct", (12, 20, 22), (1, 1, 1), -1000, 60))
    normal = config.preprocessing["normalisation"]
    assert normal["name"] == "ct_clip" and -60 < normal["lo"] < 40 < 80 < normal["hi"] < 150
    assert len(config.patch) == 3 and all(n % 8 == 0 for n in config.patch) and config.network == "mm_unet"
    flat = first(volumes(tmp_path / "mr", (10, 40, 44), (1.2, 1.2, 8), 100, 300))
    assert flat.preprocessing["normalisation"] == {"name": "percentile_zscore"}
    assert flat.preprocessing["orientation"] is None and flat.preprocessing["spacing_mm"] == [1.2, 1.2, None]
    assert len(flat.patch) == 2 and flat.network == "deco_mamba_v0" and flat.mirror_axes == ()


def test_pictures_keep_no_spacing(tmp_path):
    for kind, channels in (("images", 3), ("masks", 0)):
        (tmp_path / kind).mkdir()
        for i in range(3):
            array = np.random.default_rng(i).integers(0, 2, (100, 130, 3) if channels else (100, 130), np.uint8) * 255
            sitk.WriteImage(sitk.GetImageFromArray(array, isVector=bool(channels)), str(tmp_path / kind / f"{i}.png"))
    config = first(tmp_path)
    assert config.preprocessing["size"] == [96, 96, None] and config.patch == (96, 96) and config.in_channels == 3
    assert [channel["name"] for channel in config.model["inputs"]] == ["Red", "Green", "Blue"]


def test_sides_are_swapped_or_mirrored(tmp_path):
    names = {"labels": {"background": 0, "Left box": 1, "Right box": 2}, "channel_names": {"0": "MR"}}
    config = first(volumes(tmp_path / "d", (20, 20, 22), (1, 1, 1), 0, 60, names))
    assert config.mirror_axes == (2,) and config.mirror_swap == [[1, 2]]


def test_values_with_gaps_are_refused(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "A": 1, "B": 3}}))
    with pytest.raises(UserError, match=r"Label values 1, 2, 3 ... were expected, but the data have \[1, 3\]"):
        plan.names_of([], described_by(tmp_path))


@pytest.fixture
def config(config_file) -> TrainConfig:
    found = read_config(config_file())
    found.inference = dict(found.inference)
    return found


def test_the_largest_network_that_learns_enough_is_taken(config, monkeypatch):
    times = {32: 8.0, 24: None, 16: 0.5, 8: 0.1}  # None: no memory
    asked = []

    def measured(plan_, device, too_long_s):
        asked.append(plan_.hyper["features"][0])
        seconds = times[asked[-1]]
        return seconds and Trial(seconds, None)

    monkeypatch.setattr(plan, "try_out", measured)
    chosen, found = plan.fitted(config, 600.0, CPU, Report())
    assert asked == [32, 24, 16] and chosen.hyper["features"][0] == 16 and found.step_s == 0.5
    assert chosen.steps == int(0.85 * 600 / 0.5) and chosen.validate_every * 8 >= chosen.steps


def test_a_short_budget_makes_patches_smaller_and_says_so(config, monkeypatch):
    config.inference["patch"] = [64, 64, 64]
    monkeypatch.setattr(plan, "try_out", lambda c, *_: Trial(c.patch[0] ** 3 / 1e4, None))
    events = []
    chosen, _ = plan.fitted(config, 600.0, CPU, Report(events.append))
    assert chosen.patch[0] < 64 and all(n % 8 == 0 for n in chosen.patch)
    assert any("The time, 10 min, is enough for" in e.get("text", "") for e in events)
    monkeypatch.setattr(plan, "try_out", lambda *_: None)
    with pytest.raises(UserError, match="No network fits"):
        plan.fitted(config, 600.0, CPU, Report())


def test_a_trial_is_a_real_step_and_no_memory_is_no_crash(config, monkeypatch):
    assert 0 < try_out(config, CPU, 1.0).step_s < 60

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trial, "create", full)
    assert try_out(config, CPU, 1.0) is None


def test_the_job_writes_what_train_reads(balls, tmp_path, monkeypatch):
    toy = [("mm_unet_test", {}, 1e-2)]
    monkeypatch.setitem(plan.CANDIDATES, 3, toy)
    request = {"data": str(balls), "budget_s": 60, "output": str(tmp_path / "plan.json"), "device": "cpu", "id": "two"}
    result = resolve("plan")(request, Report())
    config = read_config(result["output"])
    assert config.model["id"] == "two" and config.steps == result["config"]["steps"] >= 1
    assert [label["name"] for label in config.model["labels"]] == ["Label 1", "Label 2"]
    assert "12 cases" in config.about and "momentum" not in result["config"]
    source, validation, names = load_data(config, Report(), tmp_path / "prepared")
    assert source.batch(0, 1).images.shape[1:] == (1, *config.patch) and len(validation) == len(names["validation"])
    with pytest.raises(UserError, match="a file at"):
        resolve("plan")(request, Report())
