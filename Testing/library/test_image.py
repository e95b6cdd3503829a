"""Files in and out: geometry, formats, DICOM, segmentation files, and what must be refused or warned about."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import check_output, read_labels, read_volume, write_labels
from MambaSegLib.volume import Volume, axis_code, check_slices, check_volume

LABELS = [
    Label(1, "Ä | left ~ part", (255, 0, 51), {"category": ["SCT", "1", "A"], "type": ["SCT", "2", "B|^~C"]}),
    Label(3, "Right", (0, 128, 0), {}),
]


def rotation(*degrees):
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*np.radians(degrees))
    return np.reshape(turn.GetMatrix(), (3, 3))


@pytest.fixture
def oblique() -> Volume:
    array = np.random.default_rng(0).integers(-500, 1500, (7, 8, 9)).astype(np.int16)
    return Volume(array, (0.7, 0.9, 2.5), (-12.25, 30.5, 99), rotation(12, -25, 40) @ np.diag([1, -1, -1]))


def test_index_to_world_is_itks(oblique):
    image = oblique.to_sitk()
    for index in ((0, 0, 0), (8, 0, 3), (4, 7, 6)):
        expected = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((oblique.world_from_index() @ [*index, 1])[:3], expected)
        np.testing.assert_allclose((oblique.index_from_world() @ [*expected, 1])[:3], index, atol=1e-9)


def test_a_crop_stays_where_it_was(oblique):
    part = oblique.cropped((slice(2, 6), slice(1, 5), slice(3, 9)))
    np.testing.assert_allclose(part.world_from_index() @ [0, 0, 0, 1], oblique.world_from_index() @ [3, 1, 2, 1])
    assert part.shape == (4, 4, 6) and not part.same_grid(oblique)


def test_channels_go_through_simpleitk(oblique):
    two = oblique.with_array(np.stack([oblique.array, -oblique.array]))
    back = Volume.from_sitk(two.to_sitk())
    np.testing.assert_array_equal(back.array, two.array)
    assert back.same_grid(two) and two.channels.shape == (2, 7, 8, 9)


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".NII.GZ"])
def test_every_format_keeps_voxels_and_place(oblique, tmp_path, ending):
    folder = tmp_path / "Größe 体积"
    folder.mkdir()
    path = folder / f"image.v2{ending.lower()}"
    sitk.WriteImage(oblique.to_sitk(), str(path))
    path = path.rename(folder / f"image.v2{ending}")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, oblique.array)
    assert volume.array.dtype == np.int16 and volume.name == path.name and volume.same_grid(oblique)


def test_nifti_agrees_with_nibabel(hippocampus):
    path = hippocampus / "imagesTr" / "hippocampus_001.nii.gz"
    volume, other = read_volume(path), nibabel.load(path)
    np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), np.asarray(other.dataobj))
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ volume.world_from_index(), other.affine, atol=1e-5)
    assert axis_code(volume.direction) == "".join(nibabel.aff2axcodes(other.affine)) == "RAS"


def test_a_fourth_axis_of_one_is_no_fourth_axis(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.random.rand(4, 5, 6, 1).astype("f4"), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").shape == (6, 5, 4)


def test_nifti2_is_named(tmp_path):
    nibabel.save(nibabel.Nifti2Image(np.random.rand(4, 5, 6).astype("f4"), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match="NIfTI-2"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_real_jpeg2000_series_from_folder_or_file(shared):
    folder = shared / "data" / "ct_dicom"
    volume, labels = read_volume(folder), read_labels(shared / "data" / "ct_dicom_labels.nii.gz")
    assert volume.shape == (20, 512, 512) and volume.same_grid(labels)
    assert volume.array.min() < -900 and volume.array.max() > 300  # air and bone in Hounsfield units
    one = read_volume(sorted(folder.iterdir())[7])
    np.testing.assert_array_equal(one.array, volume.array)


def write_series(folder: Path, uid: str, positions, normal=(0, 0, 1), first=0) -> None:
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, position in enumerate(positions):
        image = sitk.GetImageFromArray(np.full((1, 6, 5), number + 1, np.int16))
        image.SetSpacing((1, 1, 2))
        tags = {
            "0008|0060": "MR",
            "0020|000e": f"1.2.826.0.1.3680043.2.1125.{uid}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.{uid}.{number + 1}",
            "0020|0013": str(number + 1),
            "0020|0032": "\\".join(f"{v:g}" for v in position),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0008|103e": f"series {uid}",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}-{number + first:03d}.dcm"))
        writer.Execute(image)


def test_the_largest_of_several_series_is_taken_and_said(tmp_path):
    write_series(tmp_path / "study", "1", [(0, 0, 2 * z) for z in range(4)])
    write_series(tmp_path / "study", "2", [(0, 0, 2 * z) for z in range(6)])
    said = []
    volume = read_volume(tmp_path / "study", said.append)
    assert volume.shape == (6, 6, 5) and volume.spacing_mm == (1, 1, 2)
    assert len(said) == 1 and "series 1 (4 slices)" in said[0] and "largest" in said[0]
    assert read_volume(tmp_path / "study" / "1-002.dcm", said.append).shape == (4, 6, 5)  # of the series of that file
    write_series(tmp_path / "study", "3", [(0, 0, 2 * z) for z in range(6)])
    with pytest.raises(UserError, match=r"several of the same size.*series 3"):
        read_volume(tmp_path / "study")


def test_slices_are_sorted_by_place_not_by_name(tmp_path):
    write_series(tmp_path / "study", "1", [(0, 0, z) for z in (6, 0, 4, 2)])
    volume = read_volume(tmp_path / "study")
    assert volume.array[:, 0, 0].tolist() == [2, 4, 3, 1] and volume.origin_mm == (0, 0, 0)


def test_a_missing_slice_is_said_time_points_and_a_tilted_gantry_are_refused(tmp_path):
    write_series(tmp_path / "gap", "1", [(0, 0, z) for z in (0, 2, 4, 8, 10)])
    said = []
    read_volume(tmp_path / "gap", said.append)
    assert len(said) == 1 and "2.00 to 4.00 mm" in said[0]
    write_series(tmp_path / "time", "1", [(0, 0, z) for z in (0, 2, 4, 0, 2, 4)])
    with pytest.raises(UserError, match="several slices at the same place"):
        read_volume(tmp_path / "time")
    write_series(tmp_path / "tilt", "1", [(0, 0.5 * z, 2 * z) for z in range(5)])
    with pytest.raises(UserError, match=r"tilted by 14\.0 degrees"):
        read_volume(tmp_path / "tilt")


def test_a_folder_without_dicom(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="no DICOM image"):
        read_volume(tmp_path)


def test_a_segmentation_round_trip(oblique, tmp_path):
    array = np.zeros(oblique.shape, np.uint16)
    array[1:3, 2:5, 3:7] = 1
    array[4, 4, 4] = 3
    path = write_labels(tmp_path / "Ä.seg.nrrd", oblique.with_array(array), LABELS)
    back, image = read_labels(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(back.array, array)
    assert back.same_grid(oblique)
    assert image.GetMetaData("Segment0_Name") == "Ä | left ~ part"
    assert (
        image.GetMetaData("Segment0_Extent") == "3 6 2 4 1 2" and image.GetMetaData("Segment1_Extent") == "4 4 4 4 4 4"
    )
    assert image.GetMetaData("Segment0_Color") == "1 0 0.2" and image.GetMetaData("Segment1_LabelValue") == "3"
    entry = image.GetMetaData("Segment0_Tags").removeprefix("TerminologyEntry:").removesuffix("|").split("~")
    assert len(entry) == 7 and entry[1:4] == ["SCT^1^A", "SCT^2^B   C", "^^"]
    assert "SCT^85756007^Tissue" in image.GetMetaData("Segment1_Tags")


def test_overlapping_segments_become_one_label_map(tmp_path):
    layers = np.zeros((4, 5, 6, 2), np.uint8)
    layers[1:3, 1:3, 1:3, 0] = 1
    layers[2, 2, 2:5, 1] = 2
    image = sitk.GetImageFromArray(layers, isVector=True)
    for index, (layer, value) in enumerate([(0, 1), (1, 2)]):
        image.SetMetaData(f"Segment{index}_Layer", str(layer))
        image.SetMetaData(f"Segment{index}_LabelValue", str(value))
    sitk.WriteImage(image, str(tmp_path / "two.seg.nrrd"))
    labels = read_labels(tmp_path / "two.seg.nrrd").array
    assert (labels == 2).sum() == 3 and (labels == 1).sum() == 7
    image.SetMetaData("Segment1_LabelValue", "1")
    sitk.WriteImage(image, str(tmp_path / "clash.seg.nrrd"))
    with pytest.raises(UserError, match="share a number"):
        read_labels(tmp_path / "clash.seg.nrrd")


def test_whole_numbers_kept_as_fractions_are_labels_but_fractions_are_not(tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 1, 1] = 2
    sitk.WriteImage(Volume(array).to_sitk(), str(tmp_path / "a.nii.gz"))
    labels = read_labels(tmp_path / "a.nii.gz").array
    assert labels.dtype.kind == "i" and labels.max() == 2
    array[1, 1, 2] = 0.5
    sitk.WriteImage(Volume(array).to_sitk(), str(tmp_path / "b.nii.gz"))
    with pytest.raises(UserError, match="fractions"):
        read_labels(tmp_path / "b.nii.gz")


def test_writing_replaces_the_old_file_or_leaves_it(oblique, tmp_path, monkeypatch):
    labels = oblique.with_array(np.ones(oblique.shape, np.uint8))
    path = write_labels(tmp_path / "a.nii.gz", labels, LABELS)
    before = path.read_bytes()

    def disk_full(image, name, **_):
        Path(name).write_bytes(b"half")
        raise RuntimeError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(sitk, "WriteImage", disk_full)
        with pytest.raises(UserError, match="could not be written"):
            write_labels(path, labels.with_array(0 * labels.array), LABELS)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_outputs_are_checked_before_anything_is_computed(tmp_path):
    with pytest.raises(UserError, match=r"\.seg\.nrrd.*'a\.dcm' came"):
        check_output(tmp_path / "a.dcm")
    with pytest.raises(UserError, match="does not exist"):
        check_output(tmp_path / "nowhere" / "a.nii.gz")
    (tmp_path / "folder.nrrd").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_output(tmp_path / "folder.nrrd")
    if Path("/proc/self").is_dir():  # a folder in which nobody, not even root, can create files
        with pytest.raises(UserError, match="cannot be written"):
            check_output("/proc/self/a.nii.gz")


def test_broken_geometry_in_memory_is_refused(oblique):
    check_volume(oblique)
    shear = oblique.direction.copy()
    shear[:, 0] += 0.1 * shear[:, 1]
    for changes, words in [
        ({"direction": shear}, "sheared"),
        ({"spacing_mm": (0, 1, 1)}, "above zero"),
        ({"spacing_mm": (-1, 1, 1)}, "above zero"),
        ({"origin_mm": (np.nan, 0, 0)}, "origin"),
        ({"array": oblique.array.astype(complex)}, "complex"),
    ]:
        fields = {name: getattr(oblique, name) for name in ("array", "spacing_mm", "origin_mm", "direction")}
        with pytest.raises(UserError, match=words):
            check_volume(Volume(**(fields | changes)))
    for bad in (np.nan, np.inf, -np.inf):
        array = oblique.array.astype(np.float32)
        array[3, 3, 3] = bad
        with pytest.raises(UserError, match="NaN or infinite"):
            check_volume(oblique.with_array(array))


def test_one_slice_is_no_volume(oblique):
    check_slices(oblique)
    with pytest.raises(UserError, match="several slices"):
        check_slices(oblique.with_array(oblique.array).cropped((slice(0, 1), slice(0, 5), slice(0, 5))))


def test_a_copied_series_keeps_working_without_extensions(shared, tmp_path):
    for number, path in enumerate(sorted((shared / "data" / "ct_dicom").iterdir())[:5]):
        shutil.copy(path, tmp_path / f"IM{number}")
    (tmp_path / "DICOMDIR.txt").write_text("no image")
    assert read_volume(tmp_path).shape == (5, 512, 512)
    assert read_volume(tmp_path / "IM3").shape == (5, 512, 512)
