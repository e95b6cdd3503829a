"""Review of what is not a .seg.nrrd beside an image: label maps, DICOM folders, the DICOM database; DICOM SEG out."""

import sys
import types

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom")
SHAPE = (6, 24, 20)  # slices, rows, columns


def _labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 3:9, 2:5] = 1
    labels[3:5, 10:20, 8:17] = 4
    return labels


def _series(folder) -> str:
    """A CT of SHAPE, 0.7 x 0.9 x 2.5 mm; returns its series UID."""
    folder.mkdir(parents=True)
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for index in range(SHAPE[0]):
        part = pydicom.Dataset()
        part.file_meta = pydicom.dataset.FileMetaDataset()
        part.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        part.SOPClassUID, part.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
        part.StudyInstanceUID, part.SeriesInstanceUID, part.FrameOfReferenceUID = study, series, frame
        part.PatientName, part.PatientID, part.Modality = "Doe^Jane", "4711", "CT"
        part.StudyDate, part.StudyTime, part.InstanceNumber = "20260101", "120000", index + 1
        part.ImageOrientationPatient, part.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-30, 12.5, 77 + 2.5 * index]
        part.PixelSpacing, part.SliceThickness = [0.9, 0.7], 2.5
        part.Rows, part.Columns = SHAPE[1:]
        part.SamplesPerPixel, part.PhotometricInterpretation = 1, "MONOCHROME2"
        part.BitsAllocated, part.BitsStored, part.HighBit, part.PixelRepresentation = 16, 16, 15, 0
        part.PixelData = np.full(SHAPE[1:], 100 + index, np.uint16).tobytes()
        part.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return series


def _label_map(path) -> None:
    image = sitk.GetImageFromArray(_labels())
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-30, 12.5, 77))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def page(user):
    user.open("ReviewPage")
    yield user.panel.page("ReviewPage")
    user.panel.page("ReviewPage").review.end()
    user.panel.state.reviewFile = ""


@pytest.fixture
def dicom_case(user, page, tmp_path):
    """A review of one folder per case: a DICOM series with a label map beside it."""
    _series(tmp_path / "cohort" / "case 1")
    _label_map(tmp_path / "cohort" / "case 1" / "labels.nii.gz")
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("folder"))
    ui.reviewPathEdit.currentPath = str(tmp_path / "cohort")
    user.click(ui.reviewStartButton)
    return page.review.case


def test_label_map_on_a_dicom_folder_becomes_segments(user, dicom_case):
    import slicer

    assert dicom_case.volume.GetImageData().GetDimensions() == SHAPE[::-1]
    segments = dicom_case.segments()
    assert [segment.GetName() for segment in segments.values()] == ["Label 1", "Label 4"]
    assert [round(255 * channel) for channel in next(iter(segments.values())).GetColor()] == [230, 159, 0]
    for value, segment_id in zip((1, 4), segments, strict=True):
        array = slicer.util.arrayFromSegmentBinaryLabelmap(dicom_case.segmentation, segment_id, dicom_case.volume)
        assert np.array_equal(array > 0, _labels() == value)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode") == 0


def test_dicom_segmentation_is_written_and_reads_back_equal(user, dicom_case, tmp_path):
    import slicer

    hd = pytest.importorskip("highdicom")
    ui = user.ui
    ui.reviewExportSection.collapsed = False
    ui.reviewFormatSelector.setCurrentIndex(ui.reviewFormatSelector.findData(".dcm"))
    slicer.app.dialogs.answer_next(str(tmp_path / "out.dcm"))
    user.click(ui.reviewExportButton)
    user.until_idle()
    assert not user.message, user.message
    written = hd.seg.segread(tmp_path / "out.dcm")
    assert [written.get_segment_description(n).segment_label for n in (1, 2)] == ["Label 1", "Label 4"]
    assert (written.get_volume(combine_segments=True).array > 0).sum() == (_labels() > 0).sum()
    assert str(tmp_path / "out.dcm") in ui.reviewExportLabel.text


def test_report_says_who_decided_unless_the_case_was_changed_since(user, page, dicom_case, tmp_path):
    import slicer

    hd = pytest.importorskip("highdicom")
    ui = user.ui
    slicer.app.userSettings().setValue("MambaSegmentation/annotator", "Dr. Ada")
    ui.reviewCommentEdit.text = "small"
    user.click(ui.reviewAcceptButton)
    ui.reviewExportSection.collapsed = False
    ui.reviewFormatSelector.setCurrentIndex(ui.reviewFormatSelector.findData("report"))

    def exported(name: str):
        slicer.app.dialogs.answer_next(str(tmp_path / name))
        user.click(ui.reviewExportButton)
        user.until_idle()
        assert str(tmp_path / f"{name} report.dcm") in ui.reviewExportLabel.text
        return hd.sr.srread(tmp_path / f"{name} report.dcm"), hd.seg.segread(tmp_path / f"{name}.dcm")

    report, segmentation = exported("out")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.referenced_segment.referenced_sop_instance_uid for group in groups] == [
        segmentation.SOPInstanceUID
    ] * 2
    sizes = [group.get_measurements()[0].value for group in groups]
    assert sizes == pytest.approx([(_labels() == value).sum() * 0.7 * 0.9 * 2.5 for value in (1, 4)])
    assert report.CompletionFlag == "COMPLETE" and report.CompletionFlagDescription == "Segmentation accepted: small"
    assert "Dr. Ada^" in [item.get("PersonName") for item in report.ContentSequence]

    first = next(iter(dicom_case.segments()))
    grown = (_labels() == 1).astype(np.uint8)
    grown[0, 0, :5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(grown, dicom_case.segmentation, first, dicom_case.volume)
    report, _ = exported("later")
    assert (report.CompletionFlag, report.CompletionFlagDescription) == ("PARTIAL", "Segmentation not reviewed")


class Database:
    """The few calls of ctkDICOMDatabase that the panel makes."""

    isOpen = True

    def __init__(self, series: dict[str, list[str]]):
        self._series = series

    def patients(self):
        return ("patient",)

    def studiesForPatient(self, patient):
        return ("study",)

    def seriesForStudy(self, study):
        return tuple(self._series)

    def filesForSeries(self, uid):
        return tuple(self._series.get(uid, ()))

    def fileValue(self, file, tag):
        return str(pydicom.dcmread(file, stop_before_pixels=True).get(tuple(tag.split(",")), None).value)

    def nameForPatient(self, patient):
        return "Doe^Jane"


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A CT and a segmentation object of it, in Slicer's database; its loader, as DICOMUtils has it."""
    import slicer

    uid = _series(tmp_path / "ct")
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = pydicom.uid.SegmentationStorage, pydicom.uid.generate_uid()
    header.Modality, header.SeriesDescription = "SEG", "Organs"
    reference = pydicom.Dataset()
    reference.SeriesInstanceUID = uid
    header.ReferencedSeriesSequence = [reference]
    header.save_as(tmp_path / "seg.dcm", enforce_file_format=True)

    def load(uids):
        if uids == [uid]:
            return [slicer.util.loadVolume(str(tmp_path / "ct" / "0.dcm")).GetID()]
        return [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode").GetID()]

    utilities = types.SimpleNamespace(loadSeriesByUID=load)
    monkeypatch.setitem(sys.modules, "DICOMLib", types.SimpleNamespace(DICOMUtils=utilities))
    files = [str(path) for path in (tmp_path / "ct").iterdir()]
    monkeypatch.setattr(
        slicer, "dicomDatabase", Database({uid: files, "1.2.3": [str(tmp_path / "seg.dcm")]}), raising=False
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


def test_dicom_database_is_offered_only_where_it_is(user, page):
    assert user.ui.reviewSourceSelector.findData("dicom") < 0


def test_segmentations_of_the_dicom_database_are_listed_with_their_images(user, database, page):
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("dicom"))
    user.click(ui.reviewStartButton)
    assert ui.reviewTable.item(0, 0).text() == "Doe Jane Organs"
    assert page.review.case.volume.GetImageData().GetDimensions() == SHAPE[::-1]
    assert page.review.case.segmentation.IsA("vtkMRMLSegmentationNode")


def test_correct_hands_the_case_to_the_page_correct(user, dicom_case):
    user.click(user.ui.reviewCorrectButton)
    state = user.panel.state
    assert state.resultSegmentation is dicom_case.segmentation and state.inputVolume is dicom_case.volume
    assert user.panel.page("CorrectPage").editor.widget.segmentationNode() is dicom_case.segmentation
    user.open("ReviewPage")
    assert user.panel.page("ReviewPage").review.case is dicom_case


def test_changes_are_counted_whatever_was_done_to_the_segments(user, dicom_case):
    import slicer

    node, volume = dicom_case.segmentation, dicom_case.volume
    first, second = dicom_case.segments()
    assert dicom_case.changes() == {}

    def edit(segment_id: str, mask: np.ndarray) -> None:
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, volume)

    grown = _labels() == 1
    grown[0, 0, :5] = True  # outside of the extent that it had
    edit(first, grown)
    assert dicom_case.changes() == {"Label 1": {"added": 5, "removed": 0}}
    new = node.GetSegmentation().AddEmptySegment("", "Tumour")
    edit(new, np.indices(SHAPE).sum(axis=0) < 3)
    node.GetSegmentation().RemoveSegment(second)
    changes = dicom_case.changes()
    assert changes["Tumour"] == {"added": int((np.indices(SHAPE).sum(axis=0) < 3).sum()), "removed": 0}
    assert changes["Label 4"] == {"added": 0, "removed": int((_labels() == 4).sum())}
    dicom_case.settle()
    assert dicom_case.changes() == {}
