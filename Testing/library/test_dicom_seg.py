"""DICOM SEG: voxel for voxel what the label map says, with codes and algorithm, on the right slices; or a refusal."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from MambaSegLib import cli, dicom_seg
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_labels, read_volume, write_labels
from MambaSegLib.job import Report
from MambaSegLib.volume import Volume

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

HIPPOCAMPUS = {
    "category": ["SCT", "123037004", "Anatomical Structure"],
    "type": ["SCT", "5366008", "Hippocampus"],
    "type_modifier": ["SCT", "255549009", "Anterior"],
}
TABLE = (Label(3, "Höhle 海馬", (230, 159, 0), HIPPOCAMPUS), Label(200, "Plain", (0, 158, 115), {}))
OBLIQUE = [0.8, 0.6, 0.0, -0.48, 0.64, 0.6]


def make_series(folder, orientation=(1, 0, 0, 0, 1, 0), shape=(6, 24, 20)):
    """A CT of `shape` (slices, rows, columns), 0.7 x 0.9 x 2.5 mm, one file per slice in mixed order."""
    folder.mkdir()
    orientation = np.array(orientation, float)
    normal = np.cross(orientation[:3], orientation[3:])
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    pixels = np.random.default_rng(0).integers(0, 2000, shape, dtype=np.uint16)
    for index in range(shape[0]):
        slice_ = pydicom.Dataset()
        slice_.file_meta = pydicom.dataset.FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        slice_.SOPClassUID, slice_.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.SpecificCharacterSet = "ISO_IR 100"
        slice_.PatientName, slice_.PatientID, slice_.Modality = "Müller^T", "4711", "CT"
        slice_.StudyDate, slice_.StudyTime, slice_.InstanceNumber = "20260101", "120000", index + 1
        slice_.ImageOrientationPatient = [f"{v:.10g}" for v in orientation]
        slice_.ImagePositionPatient = [f"{v:.10g}" for v in np.array([-30, 12.5, 77]) + 2.5 * index * normal]
        slice_.PixelSpacing, slice_.SliceThickness = [0.9, 0.7], 2.5
        slice_.Rows, slice_.Columns = shape[1:]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PixelData = pixels[index].tobytes()
        slice_.save_as(folder / f"{(index * 5) % 7}.dcm", enforce_file_format=True)
    return folder


def labelled(volume):
    """Two structures in a corner, so that no mirroring passes unseen."""
    labels = np.zeros(volume.shape, np.uint8)
    labels[1:4, 3:9, 2:5] = 3
    labels[3:5, 10:20, 8:17] = 200
    return volume.with_array(labels)


def export(tmp_path, labels, table=TABLE, **more):
    path = write_labels(tmp_path / "labels.seg.nrrd", labels, table)
    request = {"labels": str(path), "source": str(tmp_path / "series"), "output": str(tmp_path / "seg.dcm")}
    result = dicom_seg.run(request | more, Report())
    return result, hd.seg.segread(tmp_path / "seg.dcm")


def world_points(segmentation, number):
    """Centres of a segment's voxels in LPS mm, rounded, as a set; from the file's own geometry."""
    volume = segmentation.get_volume(combine_segments=True)
    indices = np.argwhere(volume.array == number)
    return {tuple(point) for point in np.round(volume.map_indices_to_reference(indices), 2)}


def label_points(labels, value):
    indices = np.argwhere(labels.array == value)[:, ::-1]
    matrix = labels.world_from_index()
    return {tuple(point) for point in np.round(indices @ matrix[:3, :3].T + matrix[:3, 3], 2) + 0.0}


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
@pytest.mark.parametrize("axes", ["LPS", "RAI", "SPL"])
def test_every_voxel_comes_back_in_its_place(tmp_path, orientation, axes):
    volume = read_volume(make_series(tmp_path / "series", orientation))
    turned = Volume.from_sitk(sitk.DICOMOrient(labelled(volume).to_sitk(), axes))
    result, stored = export(tmp_path, turned)
    assert [(s["number"], s["name"], s["voxels"]) for s in result["segments"]] == [
        (1, TABLE[0].name, 54),
        (2, "Plain", 180),
    ]
    for number, value in ((1, 3), (2, 200)):
        assert world_points(stored, number) == label_points(turned, value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.seg.nrrd", "seg.dcm", "series"]


def test_it_says_what_where_and_by_whom(tmp_path, tiny_bundle_data):
    from MambaSegLib.bundle import write_bundle

    bundle = write_bundle(tmp_path / "model", tiny_bundle_data, {"w": np.zeros(3, np.float32)})
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    more = {"model": str(bundle.folder), "corrected": True, "creator": "Ärztin", "description": "Prüfung"}
    _, stored = export(tmp_path, labels, **more)
    first = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(stored, name) == getattr(first, name)
    assert stored.SeriesInstanceUID != first.SeriesInstanceUID and stored.Modality == "SEG"
    assert (stored.SeriesDescription, str(stored.ContentCreatorName)) == ("Prüfung", "Ärztin^")
    hippocampus, plain = stored.SegmentSequence
    assert hippocampus.SegmentLabel == "Höhle 海馬"
    kind = hippocampus.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("5366008", "SCT", "Hippocampus")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "255549009"
    assert plain.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "85756007"  # tissue, as nothing is known
    assert hippocampus.SegmentAlgorithmType == "SEMIAUTOMATIC"
    algorithm = hippocampus.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "Toy hippocampus" and bundle.sha256[:12] in algorithm.AlgorithmVersion
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert hippocampus.TrackingUID != plain.TrackingUID and hippocampus.RecommendedDisplayCIELabValue
    named = {uid for _, _, uid in stored.get_source_image_uids()}
    assert named <= {str(pydicom.dcmread(p).SOPInstanceUID) for p in (tmp_path / "series").iterdir()}


def test_a_model_that_is_not_here_is_named_all_the_same(tmp_path):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    _, stored = export(tmp_path, labels, drawn_by={"id": "old-model", "sha256": "ab" * 32})
    segment = stored.SegmentSequence[0]
    assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "old-model")
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "abababababab"
    assert stored.DeviceSerialNumber == "ab" * 32


def test_a_part_of_the_series_is_filled_up_with_background(tmp_path):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    part = labels.cropped((slice(1, 6), slice(2, 22), slice(1, 19)))
    _, stored = export(tmp_path, part)
    assert world_points(stored, 2) == label_points(labels, 200)


def regridded(volume):
    image = labelled(volume).to_sitk()
    image.SetSpacing([step * 1.02 for step in image.GetSpacing()])
    return Volume.from_sitk(image)


def half_a_voxel_off(volume):
    labels = labelled(volume)
    return Volume(labels.array, labels.spacing_mm, np.add(labels.origin_mm, [0.35, 0, 0]), labels.direction)


def one_slice_beyond(volume):
    labels = np.pad(labelled(volume).array, ((0, 1), (0, 0), (0, 0)))
    labels[-1, 3, 3] = 3
    return Volume(labels, volume.spacing_mm, volume.origin_mm, volume.direction)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (regridded, "another grid"),
        (half_a_voxel_off, "another grid"),
        (one_slice_beyond, "1 of them lie beyond"),
        (lambda volume: volume.with_array(np.zeros(volume.shape, np.uint8)), "empty"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, make, words):
    labels = make(read_volume(make_series(tmp_path / "series")))
    with pytest.raises(UserError, match=words):
        export(tmp_path, labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.seg.nrrd", "series"]


def test_nothing_is_overwritten_and_sources_are_named(tmp_path):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    (tmp_path / "seg.dcm").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(tmp_path, labels)
    assert (tmp_path / "seg.dcm").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    for source in ("empty", "absent"):
        with pytest.raises(UserError, match=source):
            export(tmp_path, labels, source=str(tmp_path / source), output=str(tmp_path / "b.dcm"))


def test_of_several_series_the_fitting_one_is_taken(tmp_path):
    volume = read_volume(make_series(tmp_path / "series"))
    for path in make_series(tmp_path / "other", shape=(3, 10, 12)).iterdir():
        path.rename(tmp_path / "series" / f"other-{path.name}")
    result, _ = export(tmp_path, labelled(volume))
    assert result["slices"] == 6
    for path in make_series(tmp_path / "twin").iterdir():
        path.rename(tmp_path / "series" / f"twin-{path.name}")
    with pytest.raises(UserError, match="several have them"):
        export(tmp_path, labelled(volume), output=str(tmp_path / "b.dcm"))
    one = str(tmp_path / "series" / "twin-0.dcm")
    assert export(tmp_path, labelled(volume), output=str(tmp_path / "b.dcm"), source=one)[0]["slices"] == 6


def test_the_command(tmp_path, capsys):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    write_labels(tmp_path / "l.nii.gz", labels, TABLE)
    place = ["--source", str(tmp_path / "series"), "-o", str(tmp_path / "s.dcm")]
    assert cli.main(["export-seg", str(tmp_path / "l.nii.gz"), *place, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [segment["name"] for segment in facts["segments"]] == ["Label 3", "Label 200"]
    assert hd.seg.segread(tmp_path / "s.dcm").SegmentSequence[0].SegmentAlgorithmType == "MANUAL"


def test_a_compressed_anonymised_ct(shared, tmp_path):
    """31 structures on 20 JPEG 2000 slices of 512 x 512, whose identifiers were emptied."""
    source, path = shared / "data" / "ct_dicom", shared / "data" / "ct_dicom_labels.nii.gz"
    request = {"labels": str(path), "source": str(source), "output": str(tmp_path / "seg.dcm")}
    result = dicom_seg.run(request, Report())
    assert len(result["segments"]) == 31 and "StudyInstanceUID" in result["warnings"][0]
    labels, stored = read_labels(path), hd.seg.segread(tmp_path / "seg.dcm")
    values = [int(segment.TrackingID.split()[0]) for segment in stored.SegmentSequence]
    numbers = np.concatenate([[0], values])[
        stored.get_volume(combine_segments=True).to_patient_orientation("HPL").array
    ]
    assert np.array_equal(numbers, sitk.GetArrayFromImage(sitk.DICOMOrient(labels.to_sitk(), "LPS")))
