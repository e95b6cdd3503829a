"""Everything a user can get wrong with an image: one sentence, exit code 2, no traceback, nothing half-written."""

import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib.cli import main
from MambaSegLib.volume import Volume

RNG = np.random.default_rng(0)
GOOD = RNG.normal(size=(12, 13, 14)).astype(np.float32)


def save(path, array=GOOD, **options):
    sitk.WriteImage(sitk.GetImageFromArray(array, **options), str(path))
    return path


def truncated(path):
    save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def flipped_bit(path):
    content = bytearray(save(path).read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def four_d(path):
    nibabel.save(nibabel.Nifti1Image(RNG.random((5, 6, 7, 3)), np.eye(4)), path)
    return path


def sheared_nifti(path):
    affine = np.eye(4)
    affine[0, 1] = 0.4
    nibabel.save(nibabel.Nifti1Image(GOOD, affine), path)
    return path


def no_spacing_nifti(path):
    nibabel.save(nibabel.Nifti1Image(GOOD, None), path)
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(0).tobytes()
    path.write_bytes(content)
    return path


def nrrd_with_directions(path, directions):
    header = "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
    header += f"space directions: {directions}\nkinds: domain domain domain\nencoding: ascii\nspace origin: (0,0,0)\n\n"
    path.write_text(header + "1 2 3 4 5 6 7 8\n")
    return path


def text(path, content="This is no image."):
    path.write_text(content)
    return path


def with_voxel(path, value):
    array = GOOD.copy()
    array[3, 3, 3] = value
    return save(path, array)


WRONG_IMAGES = {
    "missing": (lambda d: d / "nowhere.nii.gz", "no such file"),
    "empty file": (lambda d: text(d / "a.nii.gz", ""), "damaged"),
    "text named nrrd": (lambda d: text(d / "a.nrrd"), "damaged"),
    "text named nii.gz": (lambda d: text(d / "a.nii.gz"), "damaged"),
    "text named nii": (lambda d: text(d / "a.nii"), "damaged"),
    "other file": (lambda d: text(d / "notes.txt"), r"\.nrrd.*'notes\.txt' is none"),
    "empty folder": (lambda d: d / "empty", "no DICOM image"),
    "truncated nrrd": (lambda d: truncated(d / "a.nrrd"), "damaged, incomplete"),
    "truncated nii": (lambda d: truncated(d / "a.nii"), "damaged, incomplete"),
    "truncated nii.gz": (lambda d: truncated(d / "a.nii.gz"), "damaged, incomplete"),
    "truncated mha": (lambda d: truncated(d / "a.mha"), "damaged, incomplete"),
    "changed nii.gz": (lambda d: flipped_bit(d / "a.nii.gz"), "damaged, incomplete"),
    "4-D": (lambda d: four_d(d / "a.nii.gz"), "3-D image.*4-D"),
    "colour": (lambda d: save(d / "a.nrrd", np.ones((5, 6, 7, 3), np.uint8), isVector=True), "One grey value.* has 3"),
    "complex": (lambda d: save(d / "a.nii.gz", GOOD.astype(np.complex64)), "Numbers.*complex"),
    "NaN": (lambda d: with_voxel(d / "a.nii.gz", np.nan), "NaN or infinite"),
    "infinite": (lambda d: with_voxel(d / "a.nrrd", -np.inf), "NaN or infinite"),
    "constant": (lambda d: save(d / "a.nrrd", np.full((9, 9, 9), 7, np.int16)), "every voxel of the region is 7"),
    "one slice": (lambda d: save(d / "a.nii.gz", GOOD[:1]), "several slices"),
    "two axes": (lambda d: save(d / "a.nii.gz", GOOD[0]), "several slices.* has 14 x 13 x 1"),
    "spacing 0 in nifti": (lambda d: no_spacing_nifti(d / "a.nii"), "voxel size above zero"),
    "spacing 0 in nrrd": (
        lambda d: nrrd_with_directions(d / "a.nrrd", "(0,0,0) (0,1,0) (0,0,1)"),
        "voxel size above zero",
    ),
    "sheared nifti": (lambda d: sheared_nifti(d / "a.nii.gz"), "right angles"),
    "sheared nrrd": (lambda d: nrrd_with_directions(d / "a.nrrd", "(1,0,0) (0.3,1,0) (0,0,1)"), "right angles"),
}


@pytest.fixture
def folder(tmp_path):
    """Holds only what a test puts there, so that leftovers show."""
    (tmp_path / "work" / "empty").mkdir(parents=True)
    return tmp_path / "work"


def refused(capsys, arguments):
    """Run the command; returns what it said, one line."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    output, errors = capsys.readouterr()
    said = [line for line in errors.splitlines() if line and not line.startswith("MetaImage")]
    said = [line for line in said if not re.search(r"ideal = \d+ : actual", line)]  # printed by ITK's C++ reader
    assert output == "" and "Traceback" not in errors
    return said[-1]


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_a_wrong_image_is_refused_in_one_sentence(case, folder, tiny_bundle, capsys):
    make, words = WRONG_IMAGES[case]
    path = make(folder)
    before = sorted(folder.rglob("*"))
    said = refused(capsys, ["segment", path, "-m", tiny_bundle, "-o", folder / "out.seg.nrrd", "--device", "cpu"])
    assert re.search(words, said), said
    assert ".cxx" not in said and "ITK" not in said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--roi", "500,520,0,5,0,5"], "lies outside"),
        (["--roi", "0.2,0.3,0.2,0.3,0.2,0.3"], "lies outside"),  # between voxel centres
        (["--roi-mask", "empty.nrrd"], "is empty"),
        (["--roi-mask", "far.nrrd"], "lies outside"),
        (["--roi-mask", "nowhere.nrrd"], "no such file"),
        (["--roi-mask", "grey.nrrd"], "fractions"),
        (["--device", "toaster"], "'toaster' came"),
        (["--device", "cuda:99"], "finds"),
        (["--overlap", "1.5"], "overlap of 0 to below 1"),
        (["--labels", "Liver"], "no structure 'Liver'.*Anterior, Posterior"),
        (["-m", "hipocampus_x"], "no model"),
        (["-o", "out.xyz"], "out.xyz"),
        (["-o", "nowhere/out.nii.gz"], "does not exist"),
        (["-o", "empty"], "'empty' came"),
        (["-o", "a.nrrd"], "input image itself"),
        (["-o", "/proc/self/out.nii.gz"], "cannot be written|does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_refused_in_one_sentence(option, words, folder, tiny_bundle, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    save(folder / "a.nrrd")
    sitk.WriteImage(Volume(np.zeros((4, 4, 4), np.uint8)).to_sitk(), str(folder / "empty.nrrd"))
    sitk.WriteImage(Volume(np.ones((4, 4, 4), np.uint8), origin_mm=(900, 0, 0)).to_sitk(), str(folder / "far.nrrd"))
    save(folder / "grey.nrrd")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = ["segment", "a.nrrd", "-m", tiny_bundle, "-o", "out.seg.nrrd", "--device", "cpu", *option]
    said = refused(capsys, arguments)
    assert re.search(words, said), said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_unwritable_output_is_known_before_the_image_is_read(folder, tiny_bundle, capsys):
    arguments = ["segment", folder / "nowhere.nii.gz", "-m", tiny_bundle, "-o", folder / "no" / "out.nii.gz"]
    assert "output folder" in refused(capsys, arguments)


def test_a_tampered_model_is_refused(folder, tiny_bundle, capsys):
    weights = tiny_bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    said = refused(capsys, ["segment", save(folder / "a.nrrd"), "-m", tiny_bundle, "-o", folder / "out.nii.gz"])
    assert "sha256" in said and not (folder / "out.nii.gz").exists()


def test_the_same_image_without_a_fault_goes_through(folder, tiny_bundle, capsys):
    out = folder / "out.nii.gz"
    arguments = ["segment", save(folder / "a.nrrd"), "-m", tiny_bundle, "-o", out, "--device", "cpu"]
    assert main([str(a) for a in arguments]) == 0
    assert out.exists() and "Anterior" in capsys.readouterr().out
