"""The models that ship: small enough, with a complete card, and as good as the card says on cases they never saw."""

import numpy as np
import pytest
import torch

from MambaSegLib import catalogue
from MambaSegLib.bundle import open_bundle
from MambaSegLib.job import Report
from MambaSegTraining.evaluate import Predictor, case_rows
from MambaSegTraining.sources import open_source

MODELS = sorted(path.parent for path in catalogue.shipped_folder().glob("*/bundle.json"))


def test_they_are_small():
    sizes = {folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in MODELS}
    assert sizes.keys() == {"hippocampus", "cardiac", "polyp"}
    assert max(sizes.values()) < 25e6 and sum(sizes.values()) < 80e6, sizes


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_the_card_is_complete(folder):
    bundle = open_bundle(folder)
    provenance = bundle.data["provenance"]
    trained, held_out = set(provenance["cases"]), set(provenance["validation_cases"])
    assert trained and held_out and not trained & held_out
    measured = {row["structure"] for row in bundle.data["metrics"]["values"] if row["name"] == "Dice"}
    assert measured == {label.name for label in bundle.labels}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == bundle.card() and "Not a medical device" in card


@pytest.mark.parametrize(
    ("model", "data", "count", "least"),
    [("hippocampus", "hippocampus_msd", 3, 0.84), ("cardiac", "acdc", 1, 0.85), ("polyp", "kvasir_seg_352", 8, 0.6)],
)
def test_mean_dice_on_held_out_cases(shared, model, data, count, least):
    bundle = open_bundle(catalogue.shipped_folder() / model)
    predictor = Predictor.of(bundle, torch.device("cpu"))
    held_out = set(bundle.data["provenance"]["validation_cases"])
    cases = [case for case in open_source(shared / "data" / data) if case.name in held_out][:count]
    assert len(cases) == count
    rows = []
    for case in map(predictor.read, cases):
        rows += case_rows(predictor.label_map(case, Report()).array, case, predictor.labels)
    assert np.nanmean([row["dice"] for row in rows]) > least
