"""Every layout of labelled cases that is read, and what is wrong with broken ones."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from balls_data import write_balls

from MambaSegLib import corrections
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume
from MambaSegTraining.cases import HELD_OUT, TRAINING, split
from MambaSegTraining.data import hold_out
from MambaSegTraining.reading import held_out_case, read_case_labels, read_image, training_case
from MambaSegTraining.sources import open_source

STRUCTURES = (Label(1, "Bright ball", (255, 0, 0), {}), Label(2, "Dark ball", (0, 0, 255), {}))
OWN_GRID = {"orientation": None, "spacing_mm": [None] * 3}


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


@pytest.fixture
def pictures(tmp_path):
    """Four colour pictures of 24 x 30 pixels with a white square in the mask, split by their folders."""
    random = np.random.default_rng(0)
    for part, count in (("train", 3), ("validation", 1)):
        for i in range(count):
            mask = np.zeros((24, 30), np.uint8)
            mask[5:11, 8:20] = 255
            picture(tmp_path / part / "images" / f"{i}.jpg", random.integers(0, 255, (24, 30, 3), np.uint8))
            picture(tmp_path / part / "masks" / f"{i}.png", mask)
    return tmp_path


def test_pictures_with_masks(pictures):
    cases = open_source(pictures)
    assert [(c.name, c.part) for c in cases] == [
        *((f"train/{i}", TRAINING) for i in range(3)),
        ("validation/0", HELD_OUT),
    ]
    assert len({c.patient for c in cases}) == 4  # the same number in two folders is not the same person
    assert [len(part) for part in split(cases, 0.2)] == [3, 1]
    assert read_image(cases[0]).array.shape == (3, 1, 24, 30)
    labels = read_case_labels(cases[0], {"Polyp": 1})
    assert labels.array.shape == (1, 24, 30) and labels.array.sum() == 6 * 12


def test_pictures_take_the_size_that_the_recipe_wants(pictures):
    recipe = OWN_GRID | {"size": [16, 16, None], "normalisation": {"name": "ct_clip", "lo": 0, "hi": 255}}
    read = training_case(open_source(pictures)[0], recipe, {"Polyp": 1})
    assert read.image.shape == (3, 1, 16, 16) and read.label.shape == (1, 16, 16) and read.is_colour
    assert -1 <= read.image.min() < read.image.max() <= 1
    assert set(np.unique(read.label)) == {0, 1} and np.all(read.label[tuple(read.points.T)] == 1)
    held_out = held_out_case(open_source(pictures)[3], recipe | {"patch": [16, 16]}, {"Polyp": 1})
    back = held_out.prepared.restore_labels(np.stack([1 - held_out.prepared.array[0], held_out.prepared.array[0]]))
    assert back.shape == held_out.truth.shape == (1, 24, 30)


def test_nnunet_folder_with_two_channels(balls, tmp_path):
    shutil.copytree(balls / "labelsTr", tmp_path / "labelsTr")
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    for file in (balls / "imagesTr").iterdir():
        for channel in range(2):
            shutil.copy(file, tmp_path / "imagesTr" / file.name.replace(".nii.gz", f"_{channel:04d}.nii.gz"))
    cases = open_source(tmp_path)
    assert [c.name for c in cases] == [f"case_{i:02d}" for i in range(12)]
    assert read_image(cases[0]).array.shape == (2, 20, 22, 18)
    (tmp_path / "imagesTr" / "case_03_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case_03 has the channels \[0\]"):
        open_source(tmp_path)


def test_table(balls, tmp_path):
    table = tmp_path / "cases.csv"
    rows = [f"{balls}/imagesTr/case_{i:02d}.nii.gz;{balls}/imagesTr/case_{i:02d}.nii.gz," for i in range(3)]
    rows = [f"{row}{balls}/labelsTr/case_{i:02d}.nii.gz,anna,{'val' * (i == 2)}" for i, row in enumerate(rows)]
    table.write_text("\n".join(["image,label,patient,part", *rows]), encoding="utf-8")
    cases = open_source({"kind": "csv", "path": table})
    assert [c.part for c in cases] == [None, None, HELD_OUT] and {c.patient for c in cases} == {"anna"}
    assert len(cases[0].images) == 2 and read_image(cases[0]).array.shape[0] == 2
    table.write_text("image,label\nabsent.nii.gz,absent.nii.gz", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2: there is no file"):
        open_source(table)
    with pytest.raises(UserError, match="no kind of source"):
        open_source({"kind": "tape", "path": table})


def store(balls, folder, structures=STRUCTURES, annotated=None, count=1):
    """Corrected cases of the balls; ``annotated`` as the store keeps it."""
    for i in range(count):
        image = read_volume(balls / "imagesTr" / f"case_{i:02d}.nii.gz")
        labels = read_labels(balls / "labelsTr" / f"case_{i:02d}.nii.gz")
        labels = labels.with_array(labels.array.astype(np.uint8))
        names = annotated or {"structures": [s.name for s in structures], "slices": None}
        corrections.add(
            folder, [image], labels, structures, names, patient_key=f"patient {i}", annotator="me", model=None, title=""
        )
    return open_source(folder)


def test_corrected_cases_are_mapped_by_name(balls, tmp_path):
    """The store numbers its structures as it likes; the model's numbers come from the names."""
    case = store(balls, tmp_path)[0]
    plain = read_case_labels(case).array
    mapped = read_case_labels(case, {"Dark ball": 1, "Bright ball": 2}).array
    assert np.array_equal(mapped == 2, plain == 1) and np.array_equal(mapped == 1, plain == 2)
    other = read_case_labels(case, {"Dark ball": 3, "Cube": 1}).array
    assert set(np.unique(other)) == {0, 3}  # a structure that the model does not have is background
    with pytest.raises(UserError, match="the model none of them"):
        read_case_labels(case, {"Cube": 1})


def test_what_nobody_annotated_is_unknown(balls, tmp_path):
    annotated = {"structures": ["Bright ball"], "slices": {"axis": 0, "indices": [4, 5, 6, 13]}}
    case = store(balls, tmp_path, annotated=annotated)[0]
    values = {"Bright ball": 1, "Dark ball": 2}
    labels = read_case_labels(case, values).array
    assert np.all(np.delete(labels, [4, 5, 6, 13], axis=0) == 255)
    assert set(np.unique(labels[[4, 5, 6]])) == {0, 1}
    recipe = {"orientation": "LPS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}}
    read = training_case(case, recipe, values)
    assert read.merged.tolist() == [True, False, True]
    assert np.all(read.label[tuple(read.points.T)] == 1)


def test_values_that_the_model_does_not_have_are_refused(balls):
    with pytest.raises(UserError, match="hold the value 2"):
        read_case_labels(open_source(balls)[0], {"Bright ball": 1})


def test_hold_out_or_leave_one_out(balls, tmp_path):
    write_balls(tmp_path / "d", 40)
    training, held_out, protocol = hold_out(open_source(tmp_path / "d"))
    assert protocol == "hold-out" and len(held_out) >= 3
    assert not {c.patient for c in training} & {c.patient for c in held_out}
    few = open_source(tmp_path / "d")[:4]
    assert hold_out(few) == (few, few, "leave-one-out")


def touched(folder, *places):
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).touch()
    return [(c.name, c.patient, c.part) for c in open_source(folder)]


def test_public_layouts(tmp_path):
    """Acdc, GlaS, ISIC 2017 and 2018, Synapse and AMOS as they are unpacked."""
    frame = "training/patient007/patient007_frame"
    test = "testing/patient101/patient101_frame01"
    found = touched(
        tmp_path / "acdc",
        *(f"{frame}{n}{end}" for n in ("01", "10") for end in (".nii.gz", "_gt.nii.gz")),
        *("training/patient007/patient007_4d.nii.gz", f"{test}.nii.gz", f"{test}_gt.nii.gz"),
    )
    assert found == [(f"{frame}{n}", "patient007", None) for n in ("01", "10")]
    glas = [f"{name}{end}" for name in ("train_1", "testA_1") for end in (".bmp", "_anno.bmp")]
    assert touched(tmp_path / "glas", *glas) == [
        ("testA_1", "testA_1", HELD_OUT),
        ("train_1", "train_1", TRAINING),
    ]
    isic = [
        *("ISIC-2017_Training_Data/ISIC_1.jpg", "ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png"),
        *("ISIC-2017_Validation_Data/ISIC_2.jpg", "ISIC-2017_Validation_Part1_GroundTruth/ISIC_2_segmentation.png"),
    ]
    assert touched(tmp_path / "isic", *isic) == [
        ("training/ISIC_1", "training/ISIC_1", TRAINING),
        ("validation/ISIC_2", "validation/ISIC_2", HELD_OUT),
    ]
    synapse = touched(tmp_path / "synapse", "imagesTr/img0001.nii.gz", "labelsTr/label0001.nii.gz")
    assert synapse == [("img0001", "img0001", None)]
    amos = [f"{kind}{part}/amos_{part}.nii.gz" for part in ("Tr", "Va") for kind in ("images", "labels")]
    assert [part for _, _, part in touched(tmp_path / "amos", *amos)] == [TRAINING, HELD_OUT]


def test_masks_of_one_structure(tmp_path):
    """White, or every object with its own number; several structures keep their numbers."""
    objects = np.zeros((6, 8), np.uint8)
    objects[1:3, 1:3], objects[4, 5] = 3, 7
    picture(tmp_path / "images" / "a.png", objects)
    picture(tmp_path / "masks" / "a.png", objects)
    case = open_source(tmp_path)[0]
    assert np.array_equal(read_case_labels(case, {"Gland": 1}).array[0], objects > 0)
    with pytest.raises(UserError, match="hold the value 3"):
        read_case_labels(case, {"Gland": 1, "Tumour": 2})
