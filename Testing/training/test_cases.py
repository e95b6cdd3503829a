"""Which cases there are, and that nobody changes sides."""

import json
from pathlib import Path

import pytest
from balls_data import write_balls

from MambaSegLib.errors import UserError
from MambaSegTraining.cases import Case, in_validation, least_share, split
from MambaSegTraining.config import read_config
from MambaSegTraining.sources import open_source


def test_decathlon_folder(balls):
    cases = open_source(balls)
    assert [c.name for c in cases] == [f"case_{i:02d}" for i in range(12)]
    assert all(c.images[0].is_file() and c.label.is_file() for c in cases)


def test_split_is_frozen_as_cases_arrive(balls, tmp_path):
    """With twice the cases, the old ones stay where they were."""
    write_balls(tmp_path / "more", 24)
    few = {c.name for c in split(open_source(balls), 0.3)[1]}
    many = {c.name for c in split(open_source(tmp_path / "more"), 0.3)[1]}
    assert few == many & {f"case_{i:02d}" for i in range(12)}


def test_cases_of_a_patient_stay_together(tmp_path):
    write_balls(tmp_path / "d", 12)
    patients = {f"case_{i:02d}": f"patient {i // 2}" for i in range(12)}
    (tmp_path / "d" / "patients.json").write_text(json.dumps(patients))
    training, validation = split(open_source(tmp_path / "d"), 0.5)
    assert not {c.patient for c in training} & {c.patient for c in validation}


def test_a_share_that_leaves_nobody_to_validate_grows():
    names = [name for name in (f"patient {i}" for i in range(100)) if not in_validation(name, 0.3)][:6]
    cases = [Case(name, name, (), Path(name)) for name in names]
    share = least_share(cases, 0.2)
    assert share > 0.3 and all(split(cases, share)) and least_share(cases, 0.9) == 0.9
    one_patient = [Case(str(i), "one", (), Path(str(i))) for i in range(6)]
    with pytest.raises(UserError, match="by patient"):
        least_share(one_patient, 0.2)


def test_share_is_about_the_share():
    assert 0.18 < sum(in_validation(f"patient {i}", 0.2) for i in range(5000)) / 5000 < 0.22


def test_missing_data_is_named(balls, tmp_path):
    with pytest.raises(UserError, match="found none"):
        open_source(tmp_path)
    write_balls(tmp_path / "d", 2)
    (tmp_path / "d" / "labelsTr" / "case_01.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case_01\.nii\.gz has no labels"):
        open_source(tmp_path / "d")
    with pytest.raises(UserError, match="0 for validation"):
        split(open_source(balls), 1e-9)


def test_bad_configurations_are_named(config_file, tmp_path):
    with pytest.raises(UserError, match="optimizer: expected"):
        read_config(config_file(optimizer="lion"))
    with pytest.raises(UserError, match=r"values of model.labels: expected 1, 2, 3"):
        config = json.loads(config_file().read_text())
        config["model"]["labels"][1]["value"] = 7
        (tmp_path / "gap.json").write_text(json.dumps(config))
        read_config(tmp_path / "gap.json")
    with pytest.raises(UserError, match="unknown fields.*stepps"):
        read_config(config_file(stepps=3))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(tmp_path / "broken.json")
    with pytest.raises(UserError, match="Cannot read"):
        read_config(tmp_path / "absent.json")
