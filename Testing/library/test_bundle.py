"""Model bundles: what is written can be opened, and nothing wrong or tampered with can."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from MambaSegLib.bundle import card_markdown, open_bundle, write_bundle
from MambaSegLib.errors import UserError
from MambaSegLib.weights_storage import read_arrays

WEIGHTS = {"conv.weight": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4), "steps": np.array(7)}


@pytest.fixture
def data(tiny_bundle_data):
    return tiny_bundle_data


@pytest.fixture
def bundle(tmp_path, data):
    return write_bundle(tmp_path / "models" / "tiny", data, WEIGHTS)


def change(bundle, path, value):
    """Rewrite one field of bundle.json."""
    file = bundle.folder / "bundle.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    *parents, last = path.split(".")
    target = data
    for key in parents:
        target = target[int(key)] if key.isdigit() else target[key]
    if value is ...:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value
    file.write_text(json.dumps(data), encoding="utf-8")


def test_what_is_written_can_be_opened(bundle):
    from safetensors.numpy import load_file

    opened = open_bundle(bundle.folder)
    assert opened.data == bundle.data
    assert (opened.id, opened.network["name"], opened.labels[1].name) == ("tiny", "mm_unet_test", "Posterior")
    assert opened.labels[0].color == (220, 120, 60)
    assert opened.labels[0].terminology["type"] == ["SCT", "3710005", "Hippocampus"]
    assert sorted(path.name for path in bundle.folder.iterdir()) == ["README.md", "bundle.json", "weights.safetensors"]
    stored = load_file(opened.weights_path)
    assert all(np.array_equal(stored[name], array) for name, array in WEIGHTS.items())
    assert stored["steps"].shape == ()


def test_float16_halves_the_file_and_keeps_whole_numbers(tmp_path, data):
    from safetensors.numpy import load_file

    weights = {"w": np.random.default_rng(0).normal(size=(50, 50)), "steps": np.array(70000)}
    half = write_bundle(tmp_path / "half", data | {"weights": {"dtype": "float16"}}, weights)
    full = write_bundle(tmp_path / "full", data, weights)
    assert half.data["weights"]["dtype"] == "float16"
    assert half.data["weights"]["bytes"] < 0.6 * full.data["weights"]["bytes"]
    stored = load_file(half.weights_path)
    assert stored["steps"] == 70000
    assert np.abs(stored["w"] - weights["w"]).max() < 2e-3


def test_8_bits_for_the_large_ones(tmp_path, data):
    random = np.random.default_rng(0)
    sizes = np.logspace(-4, 0, 64)[:, None, None, None]  # channels of very different size
    weights = {
        "large": (random.normal(size=(64, 128, 3, 3)) * sizes).astype(np.float32),
        "empty": np.zeros((256, 256), np.float32),
        "small": random.normal(size=(50, 50)).astype(np.float32),
        "long": random.normal(size=70000).astype(np.float32),
        "steps": np.array(70000),
    }
    bundle = write_bundle(tmp_path / "b", data | {"weights": {"dtype": "int8"}}, weights)
    assert bundle.data["weights"]["dtype"] == open_bundle(bundle.folder).data["weights"]["dtype"] == "int8"
    assert bundle.data["weights"]["bytes"] < 74000 + 66000 + 2 * 73000 + 2000
    found = read_arrays(bundle.weights_path)
    assert found.keys() == weights.keys() and found["steps"] == 70000
    error = np.abs(found["large"] - weights["large"]).max((1, 2, 3))
    assert (error <= np.abs(weights["large"]).max((1, 2, 3)) / 254 * 1.001).all()
    assert not found["empty"].any() and np.abs(found["small"] - weights["small"]).max() < 2e-3
    copy = write_bundle(tmp_path / "copy", data, bundle.weights_path)
    assert copy.data["weights"]["dtype"] == "int8" and copy.sha256 == bundle.sha256


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e6])
def test_weights_that_float16_cannot_hold_are_refused(tmp_path, data, bad):
    with pytest.raises(UserError, match=r"'w'.*float16"):
        write_bundle(tmp_path / "bad", data | {"weights": {"dtype": "float16"}}, {"w": np.array([bad])})
    assert list(tmp_path.iterdir()) == []


def test_a_safetensors_file_is_copied_unchanged(tmp_path, bundle, data):
    child = write_bundle(tmp_path / "child", data, bundle.weights_path)
    assert child.sha256 == bundle.sha256
    assert child.data["weights"]["dtype"] == "float32"


def test_a_file_that_is_not_safetensors_is_refused(tmp_path, data):
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 a pickle, for example")
    with pytest.raises(UserError, match="safetensors"):
        write_bundle(tmp_path / "child", data, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="no weights file"):
        write_bundle(tmp_path / "child", data, tmp_path / "absent.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_an_existing_folder_is_never_overwritten(bundle, data):
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    with pytest.raises(UserError, match="exists"):
        write_bundle(bundle.folder, data, {"other": np.zeros(3)})
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before


def test_an_interrupted_writing_leaves_nothing(tmp_path, data):
    class Interrupting(dict):
        def items(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "new", data, Interrupting())
    assert list(tmp_path.iterdir()) == []


def test_numpy_values_and_nan_in_the_data_become_plain_json(tmp_path, data):
    data["provenance"]["curve"] = [{"step": np.int64(1), "dice": np.float32(0.5)}, {"step": 2, "dice": float("nan")}]
    written = write_bundle(tmp_path / "new", data, WEIGHTS)
    text = (written.folder / "bundle.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["provenance"]["curve"][1]["dice"] is None


def test_tampered_weights_are_refused(bundle):
    content = bytearray(bundle.weights_path.read_bytes())
    content[-1] ^= 1
    bundle.weights_path.write_bytes(content)
    with pytest.raises(UserError, match="sha256"):
        open_bundle(bundle.folder)
    assert open_bundle(bundle.folder, verify=False).id == "tiny"


def test_tampering_after_a_first_look_is_noticed(bundle):
    open_bundle(bundle.folder)  # the hash of the good file is now remembered
    content = bytearray(bundle.weights_path.read_bytes())
    content[-1] ^= 1
    bundle.weights_path.write_bytes(content)
    with pytest.raises(UserError, match="sha256"):
        open_bundle(bundle.folder)


def test_truncated_and_missing_weights_are_refused_without_reading(bundle):
    bundle.weights_path.write_bytes(bundle.weights_path.read_bytes()[:-4])
    with pytest.raises(UserError, match="bytes"):
        open_bundle(bundle.folder, verify=False)
    bundle.weights_path.unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize(
    "name",
    ["../weights.safetensors", "a/../../w.safetensors", "/etc/w.safetensors", "..\\w.safetensors",
     "C:w.safetensors", "C:\\w.safetensors", "..", "", ".hidden.safetensors", "weights.pth", "w.safetensors\n"],
)  # fmt: skip
def test_weights_outside_the_folder_are_refused(bundle, name):
    shutil.copy(bundle.weights_path, bundle.folder.parent / "weights.safetensors")
    change(bundle, "weights.file", name)
    with pytest.raises(UserError, match=r"weights\.file must be a plain file name"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema_version", ..., ["schema_version must be 1", "missing"]),
        ("schema_version", 99, ["schema_version 99", "update"]),
        ("schema_version", True, ["schema_version must be 1", "True"]),
        ("id", "Not An Id", ["field id", "small letters", "'Not An Id'"]),
        ("title", "  ", ["field title", "not empty"]),
        ("keywords", ["a", 3], ["field keywords", "list of texts"]),
        ("network", [], ["field network", "object"]),
        ("network.name", ..., ["network.name", "missing"]),
        ("network.out_channels", 2, ["labels[1].value", "network.out_channels (2)", "is 2"]),
        ("network.in_channels", 2, ["inputs", "2 entries", "is 1"]),
        ("labels", [], ["labels", "not empty"]),
        ("labels.0.value", 0, ["labels[0].value", "> 0"]),
        ("labels.0.value", True, ["labels[0].value", "> 0"]),
        ("labels.1.value", 1, ["labels[1].value", "different"]),
        ("labels.1.name", "Anterior", ["labels[1].name", "different"]),
        ("labels.0.color", [1, 2, 256], ["labels[0].color", "0..255"]),
        ("labels.0.terminology.type", ["SCT", "1"], ["labels[0].terminology.type", "triplet"]),
        ("labels.0", 5, ["labels[0]", "object"]),
        ("inputs.0.modality", None, ["inputs[0].modality", "text"]),
        ("preprocessing.orientation", "RAL", ["preprocessing.orientation", "'RAL'"]),
        ("preprocessing.spacing_mm", [1, 1, 0], ["preprocessing.spacing_mm", "> 0"]),
        ("preprocessing.spacing_mm", [1, 1, float("nan")], ["preprocessing.spacing_mm"]),
        ("inference.patch", [32, 32.5, 32], ["inference.patch", "whole numbers"]),
        ("inference.overlap", 1, ["inference.overlap", "< 1"]),
        ("inference.mirror_axes", [3], ["inference.mirror_axes"]),
        ("metrics.values", [{"structure": "A"}], ["metrics.values[0].name", "missing"]),
        ("intended_use", "", ["intended_use"]),
        ("licence.data", ..., ["licence.data", "missing"]),
        ("provenance.cases", "many", ["provenance.cases", "list"]),
        ("weights.sha256", "abc", ["weights.sha256", "64"]),
        ("weights.dtype", "int4", ["weights.dtype", "float16"]),
        ("weights.bytes", "12", ["weights.bytes"]),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_was_expected_and_found(bundle, path, value, words):
    change(bundle, path, value)
    with pytest.raises(UserError) as caught:
        open_bundle(bundle.folder)
    assert all(word in str(caught.value) for word in [*words, "bundle.json"]), str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\ufffe"])
def test_a_file_that_is_no_json_object_is_refused(bundle, text):
    (bundle.folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"bundle\.json"):
        open_bundle(bundle.folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"without bundle\.json"):
        open_bundle(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        open_bundle(tmp_path / "absent")


def test_data_is_checked_before_anything_is_left_behind(tmp_path, data):
    del data["licence"]
    with pytest.raises(UserError, match="licence"):
        write_bundle(tmp_path / "new", data, WEIGHTS)
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_everything_a_user_must_know(bundle):
    data = json.loads(json.dumps(bundle.data))
    data["metrics"] = {"protocol": "Five patients never seen.", "values": [
        {"structure": "Anterior", "name": "HD95", "unit": "mm", "mean": 1.234, "sd": None, "n": 5}]}  # fmt: skip
    data["provenance"]["curve"] = [{"step": step, "loss": 1 / step} for step in range(1, 201)]
    data["provenance"]["train_time_s"] = 12.4
    card = card_markdown(data)
    assert "- Time: 12 s" in card
    expected = ["Not a medical device", "Tests only.", "Finds nothing real.", "Five patients never seen.", "Apache-2.0"]
    expected += ["| Anterior | HD95 (mm) | 1.234 | - | 5 |", data["weights"]["sha256"], "SCT 3710005", "#dc783c"]
    for words in expected:
        assert words in card, words
    points = [line for line in card.splitlines() if line.startswith("| ") and line.count("|") == 3]
    assert points[2].startswith("| 1 |") and points[-1].startswith("| 200 |") and len(points) == 14
    assert (bundle.folder / "README.md").read_text(encoding="utf-8") == bundle.card()


def test_opening_needs_neither_torch_nor_numpy(bundle):
    code = (
        "import sys; from MambaSegLib.bundle import open_bundle; open_bundle(sys.argv[1]).card();"
        "sys.exit(str([name for name in ('torch', 'numpy', 'safetensors', 'monai') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle.folder)], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
