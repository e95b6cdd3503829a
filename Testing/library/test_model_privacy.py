"""A model given away tells of no patients, whatever its cases were called."""

import json
import zipfile

import numpy as np
import pytest
from test_model_archive import add, write_zip
from test_model_store import ROW, YES

from MambaSegLib import catalogue, export, model_store
from MambaSegLib.bundle import open_bundle, write_bundle
from MambaSegLib.bundle_archive import describe
from MambaSegLib.job import Report

STORED, PUBLIC = "20261121-101500-0a1b2c3d", "hippocampus_001"
PRIVATE = ["Smith_John_1950", "Müller-Anna"]


def named_bundle(tiny_bundle_data, tmp_path):
    names = {"cases": [PUBLIC, STORED, *PRIVATE], "validation_cases": [PRIVATE[0]], "data": "/data/Dr. Who/patients"}
    data = tiny_bundle_data | {"provenance": tiny_bundle_data["provenance"] | names}
    return write_bundle(tmp_path / "named", data, {"w": np.ones(3, "float32")})


@pytest.mark.parametrize("kind", ["bundle", "monai"])
def test_no_file_tells_of_patients(kind, tiny_bundle, tiny_bundle_data, tmp_path, home):
    bundle = named_bundle(tiny_bundle_data, tmp_path)
    if kind == "monai":
        pytest.importorskip("monai")
        (bundle.folder / "weights.safetensors").write_bytes((tiny_bundle / "weights.safetensors").read_bytes())
        stated = open_bundle(tiny_bundle).data["weights"]
        (bundle.folder / "bundle.json").write_text(json.dumps(bundle.data | {"weights": stated}))
    output = tmp_path / ("x.zip" if kind == "bundle" else "x")
    result = export.run({"model": str(bundle.folder), "output": str(output), "format": kind}, Report())
    assert result["withheld"] == 2
    if kind == "bundle":
        with zipfile.ZipFile(output) as archive:
            texts = [archive.read(name) for name in archive.namelist() if not name.endswith(".safetensors")]
        history = json.loads(texts[0])["provenance"]
        assert history["cases"] == [PUBLIC, STORED, "withheld-2", "withheld-1"]
        assert history["validation_cases"] == ["withheld-2"]
    else:
        texts = [p.read_bytes() for p in output.rglob("*") if p.suffix in (".json", ".md") or p.name == "LICENSE"]
    for text in texts:
        assert not any(name in text.decode() for name in (*PRIVATE, "Dr. Who"))


def test_the_decision_tells_of_no_patients(tiny_bundle_data, tmp_path, home):
    bundle = named_bundle(tiny_bundle_data, tmp_path)
    reasons = [f"Anterior: in case {PRIVATE[1]} Dice fell by 0.30; look at it.", "In case of doubt, ask."]
    rows = [ROW | {"worst_case": name} for name in (PRIVATE[1], "Held Out", None)]
    (bundle.folder / "decision.json").write_text(json.dumps(YES | {"reasons": reasons, "rows": rows}))
    assert write_zip(bundle.folder, tmp_path / "x.zip")["withheld"] == 3
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        texts = [archive.read(name).decode() for name in archive.namelist() if not name.endswith(".safetensors")]
    assert len(texts) == 3 and not any(name in text for text in texts for name in (*PRIVATE, "Held Out"))
    model_store.add(open_bundle(bundle.folder), YES | {"reasons": reasons, "rows": rows})
    for ending in (".md", ".html"):
        card = model_store.export_card("tiny", tmp_path / f"card{ending}").read_text(encoding="utf-8")
        assert "withheld-2" in card and not any(name in card for name in (*PRIVATE, "Dr. Who"))
    told = describe(tmp_path / "x.zip").decision
    assert told["reasons"] == ["Anterior: in case withheld-2 Dice fell by 0.30; look at it.", reasons[1]]
    assert [row["worst_case"] for row in told["rows"]] == ["withheld-2", "withheld-1", None]
    write_zip(bundle.folder, tmp_path / "y.zip", case_names=True)
    assert describe(tmp_path / "y.zip").decision["rows"] == rows


def test_names_of_cases_on_request(tiny_bundle_data, tmp_path, home):
    bundle = named_bundle(tiny_bundle_data, tmp_path)
    assert write_zip(bundle.folder, tmp_path / "x.zip", case_names=True)["withheld"] == 0
    assert describe(tmp_path / "x.zip").data == bundle.data
    add(bundle.folder)
    write_zip(bundle.folder, tmp_path / "y.zip")
    assert add(tmp_path / "y.zip")["was_there"], "the same model, whatever its history tells"


def test_the_shipped_models_have_public_names_only(tmp_path, home):
    for entry in catalogue.entries():
        result = write_zip(entry.folder, tmp_path / f"{entry.id}.zip")
        assert result["withheld"] == 0 and describe(result["output"]).data == entry.bundle.data
        assert add(result["output"])["was_there"]
    own = add(tmp_path / "hippocampus.zip", name="My hippocampus")
    assert catalogue.find("my-hippocampus").sha256 == catalogue.find("hippocampus").sha256
    assert catalogue.thumbnail_of(open_bundle(own["bundle"])).parent == home / own["id"]
    shipped = catalogue.shipped_folder() / "hippocampus"
    for name in ("thumbnail.png", "thumbnail.txt"):  # the picture never goes without saying whose it is
        assert (home / own["id"] / name).read_bytes() == (shipped / name).read_bytes()
