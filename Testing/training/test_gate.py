"""The gate refuses what harms and lets pass what helps; models that decide it are really trained."""

import math
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from balls_data import write_balls

from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.job import Report, resolve
from MambaSegTraining import gate, train
from MambaSegTraining.evaluate import Predictor
from MambaSegTraining.gate import compare, compare_folds
from MambaSegTraining.gate_rule import Pair, decide, interval, unproven
from MambaSegTraining.sources import open_source

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Four cases that no model here is trained on."""
    folder = tmp_path_factory.mktemp("held_out")
    write_balls(folder, 16)
    for kind in ("imagesTr", "labelsTr"):
        for i in range(12):
            (folder / kind / f"case_{i:02d}.nii.gz").unlink()
    return folder


@pytest.fixture(scope="module")
def cases(held_out):
    return open_source(held_out)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Those that were trained already, and where."""
    return {"folder": tmp_path_factory.mktemp("models")}


@pytest.fixture
def trained(config_file, models):
    """Trains the toy network on labels of balls, each model once; the seed is always the same."""

    def make(name, steps, **changes):
        if name not in models:
            config = config_file(steps=steps, validate_every=steps, **changes)
            made = train.run({"config": str(config), "output": str(models["folder"] / name)}, Report())
            models[name] = open_bundle(made["bundle"])
        return models[name]

    return make


@pytest.fixture
def parent(trained):
    return trained("parent", 25)


@pytest.fixture
def better(trained):
    return trained("better", 60)


def with_labels(source, target, change):
    """A copy of a folder of cases with the label arrays (N, Z, Y, X) that `change` makes of them."""
    shutil.copytree(source, target)
    files = sorted((target / "labelsTr").iterdir())
    images = [sitk.ReadImage(str(file)) for file in files]
    for file, image, array in zip(
        files, images, change(np.stack([sitk.GetArrayFromImage(i) for i in images])), strict=True
    ):
        changed = sitk.GetImageFromArray(array)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(file))
    return target


def shuffled(labels):
    """Every case gets the labels of another one."""
    return np.roll(labels, 5, axis=0)


def shifted(labels):
    return np.roll(labels, 4, axis=3)


@pytest.mark.parametrize("harm", [shuffled, shifted])
def test_a_model_from_harmful_labels_is_refused(trained, better, harm, balls, cases, tmp_path):
    harmful = trained(harm.__name__, 30, data=str(with_labels(balls, tmp_path / "data", harm)))
    decision = compare(better, harmful, cases, Report(), CPU)
    assert not decision.accepted, decision
    assert "Dice fell by" in decision.reasons[0] and "stays" in " ".join(decision.reasons)
    assert min(row["difference"] for row in decision.rows) < -0.1
    assert decision.protocol == "hold-out" and all(row["cases"] == 4 for row in decision.rows)


def test_a_better_model_is_accepted(parent, better, cases):
    decision = compare(parent, better, cases, Report(), CPU)
    assert decision.accepted, decision
    assert all(row["dice_after"] >= row["dice_before"] - 0.01 for row in decision.rows)
    back = compare(better, parent, cases, Report(), CPU)
    gains = [row["difference"] for row in decision.rows]
    assert [row["difference"] for row in back.rows] == pytest.approx([-gain for gain in gains])
    assert back.accepted == (min(-gain for gain in gains) > -0.001)


def test_the_same_model_is_no_difference_and_the_job_says_so_in_json(parent, held_out):
    request = {"parent": str(parent.folder), "candidate": str(parent.folder), "data": str(held_out), "device": "cpu"}
    decision = resolve("gate")(request, Report())
    assert decision["accepted"] and "no difference" in decision["reasons"][0]
    assert [row["structure"] for row in decision["rows"]] == ["Bright ball", "Dark ball"]
    for row in decision["rows"]:
        assert row["difference"] == row["low"] == row["high"] == 0
        assert row["dice_before"] == row["dice_after"] and row["agreement"] in (1, None)
    with pytest.raises(UserError, match="'parent', 'candidate'"):
        gate.run({"parent": str(parent.folder)}, Report())


def test_cases_that_were_trained_on_prove_nothing(parent, balls, tmp_path):
    request = {"parent": str(parent.folder), "candidate": str(parent.folder), "data": str(balls)}
    known = set(parent.data["provenance"]["cases"])
    assert resolve("gate")(request, Report())["rows"][0]["cases"] == 12 - len(known)
    everything = parent.data | {
        "provenance": parent.data["provenance"] | {"cases": [f"case_{i:02d}" for i in range(12)]}
    }
    other = write_bundle(tmp_path / "other", everything, parent.weights_path)
    decision = resolve("gate")(request | {"candidate": str(other.folder)}, Report())
    assert not decision["accepted"] and decision["protocol"] == "none" and "not trained on" in decision["reasons"][0]


def test_cross_validated_folds_stand_for_the_candidate(parent, better, cases):
    folds = [(Predictor.of(better, CPU), cases[:1]), (Predictor.of(parent, CPU), cases[1:])]
    decision = compare_folds(parent, folds, Report(), CPU)
    whole = compare(parent, better, cases[:1], Report(), CPU)
    assert decision.protocol == "leave-one-out" and decision.rows[0]["cases"] == 4
    assert decision.rows[0]["difference"] == pytest.approx(whole.rows[0]["difference"] / 4)


def test_a_comparison_can_be_cancelled(parent, cases):
    report = Report()
    report.cancel()
    with pytest.raises(Cancelled):
        compare(parent, parent, cases, report, CPU)


# The rule alone, on numbers made up.


def pair(before, after, case="a", present=True, finds=(True, True), agreement=0.95, volumes=(1.0, 1.0)):
    def measures(dice, volume):
        rest = {
            "hd95_mm": 1.0,
            "surface_dice": 0.9,
            "volume_error_percent": -4.0,
            "reference_volume_ml": float(present),
        }
        return {"dice": dice, "volume_ml": volume, **rest}

    found = [measures(d, v) if known else None for d, v, known in zip((before, after), volumes, finds, strict=True)]
    return Pair(case, case, present, finds, tuple(found), agreement)


def verdict(**structures):
    return decide(structures, "hold-out", 0.01)


def pairs(differences, before=0.8):
    return [pair(before, before + d, f"p{i}") for i, d in enumerate(differences)]


def test_a_loss_within_the_margin_is_let_pass_where_another_structure_gains():
    assert verdict(a=pairs([-0.02, 0.0, -0.001]), b=pairs([0.05, 0.04, 0.06])).accepted
    assert verdict(a=pairs([0.05, 0.04, 0.06])).accepted


def test_one_structure_worse_than_the_margin_is_enough():
    decision = verdict(a=pairs([-0.02, -0.01, -0.015]), b=pairs([0.2, 0.2, 0.2]))
    assert not decision.accepted and decision.reasons[0].startswith("a: Dice fell by 0.015 on average")


def test_a_small_but_certain_loss_is_refused():
    decision = verdict(a=pairs([-0.009, -0.008, -0.0085]), b=pairs([0.2, 0.2, 0.2]))
    assert not decision.accepted and "no chance" in decision.reasons[0]


def test_many_small_losses_are_refused_on_the_whole():
    decision = verdict(a=pairs([-0.004, 0.0, -0.002]), b=pairs([-0.004, 0.0, -0.002]))
    assert not decision.accepted and "on the whole" in decision.reasons[0]


def test_a_missed_structure_counts_as_zero_and_an_absent_one_not_at_all():
    absent = pair(math.nan, math.nan, "p9", present=False, volumes=(0.0, 0.0))
    decision = verdict(a=[*pairs([0.01, 0.02, 0.03]), absent])
    assert decision.accepted and decision.rows[0]["cases"] == 3
    assert decision.rows[0]["difference"] == pytest.approx(0.02) and decision.rows[0]["volume_error_after"] == 4
    missed = verdict(a=[*pairs([0.01, 0.02, 0.03]), pair(0.8, 0.0, "p9")])
    assert not missed.accepted and missed.rows[0]["worst_case"] == "p9"
    assert any("in case p9 Dice fell by 0.80" in reason for reason in missed.reasons)


def test_inventing_a_structure_where_it_is_not_is_refused_but_a_speck_is_not():
    def with_absent(volume):
        return [*pairs([0.01, 0.02, 0.03]), pair(math.nan, 0.0, "p9", present=False, volumes=(0.0, volume))]

    assert verdict(a=with_absent(0.009)).accepted
    decision = verdict(a=with_absent(0.5))
    assert not decision.accepted and "where it is not: in 1 case, before in 0" in decision.reasons[0]


def test_a_structure_may_be_added_but_not_lost():
    new = [pair(0.0, 0.7, f"p{i}", finds=(False, True), agreement=math.nan) for i in range(3)]
    assert verdict(a=pairs([-0.004, 0.0, -0.002]), new=new).accepted
    lost = [pair(0.7, 0.0, f"p{i}", finds=(True, False), agreement=math.nan) for i in range(3)]
    decision = verdict(a=pairs([0.1, 0.1, 0.1]), lost=lost)
    assert not decision.accepted and "does not find this structure any more" in decision.reasons[0]


@pytest.mark.parametrize("agreement", [0.9, 0.5])
def test_a_structure_that_nobody_labelled_must_stay_what_it_was(agreement):
    unknown = [Pair("p", "p", None, (True, True), (None, None), agreement)] * 2
    decision = verdict(a=pairs([0.1, 0.1, 0.1]), b=unknown)
    assert decision.accepted == (agreement > 0.8)
    assert any(reason.startswith("b: ") for reason in decision.reasons) and decision.rows[1]["cases"] == 0


def test_nothing_measured_is_not_proven():
    for decision in (verdict(a=[pair(math.nan, math.nan, present=False, volumes=(0, 0))]), unproven("Too few.")):
        assert not decision.accepted and decision.protocol == "none" and "you decide" in decision.reasons[1]


def test_the_interval_is_a_bootstrap_over_patients():
    differences, patients = list(np.linspace(-0.1, 0.2, 30)), [f"p{i}" for i in range(30)]
    low, high = interval(differences, patients)
    error = 1.96 * np.std(differences) / math.sqrt(30)
    assert low == pytest.approx(0.05 - error, abs=0.01) and high == pytest.approx(0.05 + error, abs=0.01)
    assert interval(differences, patients) == (low, high)
    few = interval([0.1] * 10 + [0.3] * 10, ["p"] * 10 + ["q"] * 10)  # two patients, not twenty cases
    assert few == pytest.approx((0.1, 0.3))
    assert interval([0.1, 0.3], ["p", "p"]) == pytest.approx((0.2, 0.2))
