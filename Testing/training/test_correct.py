"""Correct from my edits: what the user decided stays bit for bit, the rest gets better, and no edit is no change."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from MambaSegLib import catalogue
from MambaSegLib.bundle import Label
from MambaSegLib.cli import main
from MambaSegLib.correct import Edits, correct, run
from MambaSegLib.edit_learning import learn
from MambaSegLib.errors import Cancelled, UserError
from MambaSegLib.features import Features, extract
from MambaSegLib.image import read_labels, read_volume
from MambaSegLib.inference import SliceWise, predict
from MambaSegLib.job import Report
from MambaSegLib.metrics import dice
from MambaSegLib.networks import create, spec
from MambaSegLib.preprocessing import prepare
from MambaSegLib.segment import run as segment
from MambaSegLib.volume import Volume

CPU = torch.device("cpu")
LABELS = (Label(3, "Ball", (255, 0, 0), {}), Label(7, "Shell", (0, 255, 0), {}))
RECIPE = {
    **{"orientation": "LPS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}, "patch": [16, 24, 24]},
    **{"overlap": 0.25, "mirror_axes": [2], "margin_mm": 0, "min_component_mm3": 0},
}


class Biased(nn.Module):
    """Knows a ball and its shell by their brightness, but draws both too small; its head is a 1x1x1 convolution."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv3d(4, 3, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            for index in range(3):
                self.head.weight[index, index, 0, 0, 0] = 1

    def forward(self, x):
        ball, shell = 6 * (x - 1.9), 6 * (x - 0.7) * (x < 1.9)
        return self.head(torch.cat([torch.zeros_like(x), ball, shell, x], dim=1))


@pytest.fixture(scope="module")
def phantom():
    """(volume, true labels): a bright ball of 7 mm in a grey shell of 10 mm, blurred, with noise."""
    grid = np.indices((28, 32, 32)) - np.array([14, 16, 16])[:, None, None, None]
    radius = np.sqrt((grid**2).sum(0))
    truth = np.select([radius < 7, radius < 10], [3, 7], 0).astype(np.uint8)
    soft = 100 / (1 + np.exp(radius - 7)) + 60 / (1 + np.exp(radius - 10))
    noise = np.random.default_rng(0).normal(0, 4, soft.shape)
    return Volume((soft + noise).astype(np.float32), (1, 1, 1)), truth


@pytest.fixture(scope="module")
def looked_at(phantom):
    """(features, labels that the model gives)."""
    features = extract(Biased(), prepare(phantom[0], RECIPE), RECIPE, CPU, Report())
    return features, np.array([0, 3, 7], np.uint8)[features.prepared.restore_labels(features.probabilities)]


def edits_of(initial, truth, slices, axis=0, **more) -> Edits:
    touched = np.zeros(truth.shape, bool)
    np.moveaxis(touched, axis, 0)[list(slices)] = True
    return Edits(initial, np.where(touched, truth, initial), touched, **{"locked": np.zeros(truth.shape, bool), **more})


def mean_dice(found, truth, where):
    return np.mean([dice(found[where] == value, truth[where] == value) for value in (3, 7)])


def test_features_are_the_inputs_of_the_head_and_probabilities_those_of_the_prediction(phantom, looked_at):
    features, _ = looked_at
    prepared = prepare(phantom[0], RECIPE)
    expected = predict(Biased(), prepared.array, RECIPE, CPU)
    np.testing.assert_allclose(features.probabilities, expected, atol=1e-5)
    assert features.values.shape == (4, *prepared.array.shape[1:])
    flat = features.values.reshape(4, -1).astype(np.float64)
    brightness = prepared.array.ravel()
    weights = np.linalg.lstsq(np.vstack([flat, np.ones(flat.shape[1])]).T, brightness, rcond=None)[0]
    assert np.corrcoef(weights[:4] @ flat, brightness)[0, 1] > 0.999  # whitened, but all there


@pytest.mark.parametrize("name", ["attention_mamba_test", "deco_mamba_test", "vm_unet_test"])
def test_features_are_found_in_networks_of_other_kinds(name):
    """Several heads, and coarse ones."""
    flat = spec(name).dims == 2
    network = create(name, 1, 3).eval().requires_grad_(False)
    recipe = {**RECIPE, "patch": [37, 45] if flat else [16, 21, 24], "spacing_mm": [None] * 3}
    image = np.random.default_rng(0).normal(size=(2, 45, 50) if flat else (17, 25, 30)).astype(np.float32)
    features = extract(SliceWise(network) if flat else network, prepare(Volume(image), recipe), recipe, CPU, Report())
    assert len(features.values) >= 2 and features.values.shape[1:] == image.shape
    assert np.isfinite(features.values).all() and features.values.std() > 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_other_slices_get_better(phantom, looked_at, axis):
    volume, truth = phantom
    features, initial = looked_at
    edits = edits_of(initial, truth, [14], axis)
    result, strength = correct(features, edits, LABELS, volume, Report())
    others = ~edits.touched
    before, after = mean_dice(initial, truth, others), mean_dice(result, truth, others)
    assert strength > 0 and before < 0.9 and after > before + 0.03


def test_without_features_place_and_probabilities_are_enough(phantom, looked_at):
    """U-Mamba Enc cuts its input into windows of its own, so its head's input is no image."""
    volume, truth = phantom
    features, initial = looked_at
    bare = Features(features.prepared, features.probabilities, features.values[:0])
    edits = edits_of(initial, truth, [14])
    result, _ = correct(bare, edits, LABELS, volume, Report())
    others = ~edits.touched
    assert mean_dice(result, truth, others) > mean_dice(initial, truth, others) + 0.03
    network = create("umamba_enc_test", 1, 3).eval().requires_grad_(False)
    found = extract(network, prepare(volume, RECIPE), RECIPE, CPU, Report())
    assert found.values.shape == (0, *found.probabilities.shape[1:])


def test_what_the_user_decided_and_what_is_locked_stays(phantom, looked_at):
    volume, truth = phantom
    features, initial = looked_at
    odd = truth.copy()
    odd[14, 3, :] = 7  # what nobody would learn, but the user drew it
    odd[2, 2, 2] = 200  # a segment of his own
    edits = edits_of(initial, odd, [2, 14])
    locked = edits.edited == 3
    kept = Edits(edits.initial, edits.edited, edits.touched, locked, (3,))
    result, _ = correct(features, kept, LABELS, volume, Report())
    assert (result != edits.edited).any()
    np.testing.assert_array_equal(result[edits.touched], odd[edits.touched])
    np.testing.assert_array_equal(result == 3, edits.edited == 3)
    np.testing.assert_array_equal(result == 200, odd == 200)
    assert result.dtype == edits.edited.dtype


def test_agreeing_everywhere_changes_nothing(phantom, looked_at):
    volume, _ = phantom
    features, initial = looked_at
    result, strength = correct(features, edits_of(initial, initial, [10, 14]), LABELS, volume, Report())
    assert strength is None
    np.testing.assert_array_equal(result, initial)


def test_edits_that_contradict_each_other_are_not_followed(looked_at):
    """Every other slice grown, every other one shrunk: what one says is wrong in the next."""
    features, _ = looked_at
    box = tuple(slice(0, n) for n in features.prepared.shape)
    probabilities, values = features.inside(box)
    said = probabilities.argmax(0)
    decided = np.zeros(said.shape, bool)
    decided[8:20] = True
    grown, shrunk = np.where(probabilities[0] < 0.95, 2, 0), np.where(probabilities[0] < 0.05, 1, 0)
    classes = np.where(np.indices(said.shape)[0] % 2, grown, shrunk)
    lesson = learn(decided, classes, probabilities, values, (1, 1, 1))
    plain = learn(decided, grown, probabilities, values, (1, 1, 1))
    assert plain.strength > 0 and plain.fixed > 10 * plain.broken
    assert lesson.strength == 0


def test_cancelling_stops(phantom, looked_at):
    volume, truth = phantom
    features, initial = looked_at
    report = Report()
    report.cancel()
    with pytest.raises(Cancelled):
        correct(features, edits_of(initial, truth, [14]), LABELS, volume, report)


@pytest.fixture(scope="module")
def real_case(hippocampus, tmp_path_factory):
    """The request for an unseen hippocampus whose three worst coronal slices were corrected, and the true labels."""
    tmp_path = tmp_path_factory.mktemp("real")
    bundle = catalogue.find("hippocampus")
    case = bundle.data["provenance"]["validation_cases"][1]
    image = hippocampus / "imagesTr" / f"{case}.nii.gz"
    truth = read_labels(hippocampus / "labelsTr" / f"{case}.nii.gz")
    warm = {}
    initial = tmp_path / "initial.nrrd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # measured rates stay out of the user's folders
        segment({"input": str(image), "model": "hippocampus", "output": str(initial), "device": "cpu"}, Report(), warm)
    found = read_labels(initial).array
    worst = np.argsort(-np.count_nonzero(found != truth.array, axis=(0, 2)))[:3]
    touched = np.zeros(found.shape, np.uint8)
    touched[:, worst] = 1
    volume = read_volume(image)
    files = {"edited": np.where(touched, truth.array, found).astype(np.uint8), "touched": touched}
    for name, array in files.items():
        sitk.WriteImage(volume.with_array(array).to_sitk(), str(tmp_path / f"{name}.nrrd"))
    request = {"input": str(image), "model": "hippocampus", "device": "cpu"}
    request |= {name: str(tmp_path / f"{name}.nrrd") for name in ("initial", "edited", "touched")}
    return request, truth.array, warm


def test_a_real_case_gets_better_and_warm_is_quick(real_case, tmp_path):
    request, truth, warm = real_case
    request = {**request, "output": str(tmp_path / "out.seg.nrrd")}
    answer = run(request, Report(), warm)
    result, initial, touched = (read_labels(request[name]).array for name in ("output", "initial", "touched"))
    others = touched == 0

    def score(found):
        return np.mean([dice(found[others] == value, truth[others] == value) for value in (1, 2)])

    assert score(result) > score(initial) + 0.003
    np.testing.assert_array_equal(result[~others], truth[~others])
    assert sum(row["added"] for row in answer["changed"]) > 0 and answer["strength"] > 0
    again = run(request, Report(), warm)
    assert again["seconds"]["features"] < 0.2 * answer["seconds"]["features"]
    np.testing.assert_array_equal(read_labels(request["output"]).array, result)


def test_locked_structures_stay_on_the_command_line(real_case, tmp_path, capsys):
    request, _, _ = real_case
    output = tmp_path / "out.seg.nrrd"
    files = [f"--{name}={request[name]}" for name in ("initial", "edited", "touched", "model")]
    arguments = [request["input"], *files, "-o", str(output), "--locked", "Anterior hippocampus", "--device", "cpu"]
    assert main(["correct", *arguments]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "hippocampus" in line]
    assert rows[0][:4] == ["Anterior", "hippocampus", "0", "0"] and int(rows[1][2]) > 0
    result, edited = read_labels(output).array, read_labels(request["edited"]).array
    np.testing.assert_array_equal(result == 1, edited == 1)
    assert (result != edited).any()


def test_bad_input_is_refused_before_anything_is_written(real_case, tmp_path):
    request, _, warm = real_case
    request = {**request, "output": str(tmp_path / "out.seg.nrrd")}
    small = read_labels(request["touched"]).cropped((slice(0, 5), slice(0, 5), slice(0, 5)))
    sitk.WriteImage(small.to_sitk(), str(tmp_path / "small.nrrd"))
    for change, message in (
        ({"touched": str(tmp_path / "small.nrrd")}, "'touched'"),
        ({"edited": str(tmp_path / "absent.nrrd")}, "no such file"),
        ({"initial": None}, "'initial'"),
        ({"output": None}, "'output'"),
        ({"locked": ["Heart"]}, "no structure 'Heart'"),
    ):
        with pytest.raises(UserError, match=message):
            run({**request, **change}, Report(), warm)
    assert not (tmp_path / "out.seg.nrrd").exists()
