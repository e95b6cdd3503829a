"""The picture of a learning model: the reference on the left stays, the result on the right is the one just found."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib.bundle import Label
from MambaSegLib.job import Report
from MambaSegLib.volume import Volume
from MambaSegTraining.evaluation_pictures import surroundings
from MambaSegTraining.preview import Preview, pictures_in

RED = (250, 10, 20)


@pytest.fixture
def seen():
    return []


@pytest.fixture
def case():
    """A bright cube that is the structure; above it nobody looked."""
    labels = np.zeros((12, 20, 24), np.uint8)
    labels[4:9, 6:14, 8:16] = 1
    labels[9:] = 255
    image = Volume(np.where(labels == 1, 900, 100).astype(np.int16), spacing_mm=(1, 1, 2.5))
    return SimpleNamespace(name="Ward 7", truth=image.with_array(labels)), image


@pytest.fixture
def preview(case, tmp_path, seen):
    def keep(event):
        seen.append((event, sitk.GetArrayFromImage(sitk.ReadImage(event["path"]))))

    return Preview(*case, [Label(1, "Cube", RED, {})], tmp_path, Report(keep))


def has_red(pixels) -> bool:
    return bool((pixels == RED).all(-1).any())


def test_reference_beside_result(preview, case, seen):
    truth = case[0].truth.array
    preview.show(5, case[0], np.zeros_like(truth))
    preview.show(10, case[0], np.where(truth == 1, 1, 0))
    (first, empty), (second, full) = seen
    assert first["text"] == "Step 5: Ward 7, slice 5 of 12; left the reference, right the model"
    assert (first["step"], second["step"]) == (5, 10) and first["path"] != second["path"]
    side = (empty.shape[1] - 4) // 2
    assert has_red(empty[:, :side]) and not has_red(empty[:, side:]), "nothing was found yet"
    assert np.array_equal(full[:, :side], full[:, side + 4 :]), "all was found"


def test_a_flat_structure_is_not_seen_in_a_strip():
    labels = np.zeros((30, 90, 90), np.uint8)
    labels[15, 44:47, 20:70] = 1
    image = Volume(labels.astype(np.int16))
    assert surroundings(labels[15:16] > 0, 0, image)[1:] == (slice(19, 71), slice(0, 90))


def test_other_cases_are_not_drawn(preview, case, seen):
    preview.show(5, SimpleNamespace(name="Other", truth=case[0].truth), case[0].truth.array)
    assert not seen


def test_pictures_go_with_the_run(preview, case, tmp_path):
    with pytest.raises(KeyboardInterrupt), pictures_in(tmp_path):
        preview.show(5, case[0], case[0].truth.array)
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
