"""The loop from configuration to a bundle that segments, and its restart."""

import pytest
import torch

from MambaSegLib.bundle import open_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.image import read_volume
from MambaSegLib.job import Report
from MambaSegLib.segment import segment
from MambaSegTraining import evaluation
from MambaSegTraining.config import read_config
from MambaSegTraining.optimisation import learning_rate
from MambaSegTraining.train import run


class Losses(Report):
    """Collects the loss of every step; stops the run after ``stop_after`` steps, as a cancelling user would."""

    def __init__(self, stop_after=None):
        super().__init__(self.keep)
        self.losses, self.stop_after = [], stop_after

    def keep(self, event):
        if event["event"] == "metric" and event["name"] == "loss":
            self.losses.append(event["value"])
            if len(self.losses) == self.stop_after:
                self.cancel()


def test_learns_and_ships(config_file, balls, tmp_path):
    report = Losses()
    result = run({"config": str(config_file(steps=60, validate_every=30)), "output": str(tmp_path / "run")}, report)
    assert report.losses[-1] < 0.5 * report.losses[0]
    assert result["best_score"] > 0.75
    bundle = open_bundle(result["bundle"])
    assert bundle.data["provenance"]["validation_cases"] and bundle.data["provenance"]["seed"] == 3
    assert {row["name"] for row in bundle.data["metrics"]["values"]} == {"Dice", "HD95", "Surface Dice at 1 mm"}
    found = segment(read_volume(balls / "imagesTr" / "case_00.nii.gz"), result["bundle"], device="cpu")
    assert all(250 * 0.5 < s["voxels"] < 250 * 2 for s in found.segments)  # a ball of radius 4 has about 257 voxels


def test_evaluate_leaves_trained_cases_out(config_file, balls, tmp_path):
    bundle = run({"config": str(config_file()), "output": str(tmp_path)}, Report())["bundle"]
    events = []
    result = evaluation.run({"model": bundle, "data": str(balls)}, Report(events.append))
    provenance = open_bundle(bundle).data["provenance"]
    assert result["cases"] == provenance["validation_cases"]
    assert any("Left out, as they were trained on: " in e.get("text", "") for e in events)
    # the card was written from the weights before they were rounded to half precision
    measured = {(row["structure"], row["name"]): row for row in result["values"]}
    for card in open_bundle(bundle).data["metrics"]["values"]:
        ours = measured[card["structure"], card["name"]]
        assert ours["n"] == card["n"]
        assert ours["mean"] == pytest.approx(card["mean"], rel=0.05, abs=0.01, nan_ok=True)


def test_resume_goes_on_with_the_same_losses(config_file, tmp_path):
    whole, first, second = Losses(), Losses(stop_after=4), Losses()
    config = str(config_file(steps=6))
    run({"config": config, "output": str(tmp_path / "whole")}, whole)
    with pytest.raises(Cancelled):
        run({"config": config, "output": str(tmp_path / "parts")}, first)
    run({"config": config, "output": str(tmp_path / "parts"), "resume": True}, second)
    done = len(whole.losses) - len(second.losses)  # steps that the checkpoint held
    assert 3 <= done <= 4
    assert whole.losses[:4] == pytest.approx(first.losses, rel=1e-6)
    assert whole.losses[done:] == pytest.approx(second.losses, rel=1e-5)


def test_refusals(config_file, tmp_path):
    config = str(config_file(steps=1, validate_every=1))
    run({"config": config, "output": str(tmp_path)}, Report())
    with pytest.raises(UserError, match="a model at"):
        run({"config": config, "output": str(tmp_path)}, Report())
    with pytest.raises(UserError, match="no checkpoint"):
        run({"config": config, "output": str(tmp_path / "new"), "resume": True}, Report())
    other = str(config_file(steps=1, hyper={"features": [8, 8, 8]}))
    (tmp_path / "balls").rename(tmp_path / "kept")
    with pytest.raises(UserError, match="another network"):
        run({"config": other, "output": str(tmp_path), "resume": True}, Report())


def test_an_incomplete_model_description_stops_the_run_at_once(config_file, tmp_path):
    report = Losses()
    incomplete = {"patch": [16, 16, 16], "overlap": 0.25, "mirror_axes": [], "margin_mm": 0}
    with pytest.raises(UserError, match="the configuration: the field inference.min_component_mm3"):
        run({"config": str(config_file(inference=incomplete)), "output": str(tmp_path)}, report)
    assert report.losses == []


def test_schedules(config_file):
    cosine = read_config(config_file(steps=100, warmup_steps=10, learning_rate=1.0))
    assert learning_rate(cosine, 0, 100) == pytest.approx(0.1)
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.5)
    assert learning_rate(cosine, 99, 100) < 0.001
    poly = read_config(config_file(steps=100, warmup_steps=0, schedule="poly", learning_rate=1.0))
    assert learning_rate(poly, 50, 100) == pytest.approx(0.5**0.9)
    changes = {"warmup_steps": 0, "learning_rate": 1.0, "schedule_period": 10}
    wave = read_config(config_file(schedule="cosine_wave", least_rate=0.2, **changes))
    rates = [learning_rate(wave, step, 100) for step in (0, 5, 10, 15, 20, 30)]
    assert rates == pytest.approx([1, 0.6, 0.2, 0.6, 1, 0.2])
    restarts = read_config(config_file(schedule="cosine_restarts", **changes))
    rates = [learning_rate(restarts, step, 100) for step in (0, 5, 10, 20, 30, 50)]
    assert rates == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5])
    with pytest.raises(UserError, match="schedule_period: expected at least 1"):
        read_config(config_file(schedule="cosine_wave"))


def test_sgd_trains_too(config_file, tmp_path):
    report = Losses()
    config = config_file(steps=10, optimizer="sgd", ema_decay=0.0, weights_dtype="int8")
    result = run({"config": str(config), "output": str(tmp_path)}, report)
    assert open_bundle(result["bundle"]).data["weights"]["dtype"] == "int8"
    assert torch.tensor(report.losses[-3:]).mean() < report.losses[0]
