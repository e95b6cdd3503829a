"""DICOM segmentations by the extension QuantitativeReporting, where it is installed."""

from dataclasses import replace

import pytest
from review_cases import start_review

pydicom = pytest.importorskip("pydicom")
UIDS = ("1.2.826.1", "1.2.826.2")


class Database:
    isOpen = True

    def __init__(self):
        self.inserted = []
        self.files = {uid: f"/archive/{uid}.dcm" for uid in UIDS}

    def fileForInstance(self, uid):
        return self.files.get(uid, "")

    def insert(self, path):
        self.inserted.append(pydicom.dcmread(path))


@pytest.fixture
def database(monkeypatch):
    import slicer

    made = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", made, raising=False)
    return made


@pytest.fixture
def installed(database, monkeypatch):
    import slicer

    from slicerhost import dicom_segmentation

    plugins = {dicom_segmentation.PLUGIN: dicom_segmentation.DICOMSegmentationPluginClass}
    monkeypatch.setattr(slicer.modules, "dicomPlugins", plugins, raising=False)
    return database


@pytest.fixture
def case(user, installed, review_page, review_folder):
    """Case b, drawn by the model 'quick', on an image of the database."""
    start_review(user, review_folder)
    user.ui.reviewExportSection.collapsed = False
    case = review_page.review.case
    case.volume.SetAttribute("DICOM.instanceUIDs", " ".join(UIDS))
    yield case
    selector = user.ui.reviewFormatSelector
    selector.removeItem(selector.findData("dcmqi"))  # the panel lives on without the extension


def export(user, path) -> None:
    import slicer

    selector = user.ui.reviewFormatSelector
    selector.setCurrentIndex(selector.findData("dcmqi"))
    slicer.app.dialogs.answer_next(str(path))
    user.click(user.ui.reviewExportButton)
    user.until_idle()


def test_not_offered_without_the_extension(user, database, review_page, review_folder):
    start_review(user, review_folder)
    assert user.ui.reviewFormatSelector.findData("dcmqi") < 0 <= user.ui.reviewFormatSelector.findData(".dcm")


def test_file_and_database_get_the_segmentation_with_its_algorithm(user, case, installed, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    export(user, target / "b")
    assert not user.message, user.message
    assert [path.name for path in target.iterdir()] == ["b.dcm"], "nothing unfinished is left"
    written = pydicom.dcmread(target / "b.dcm")
    assert [item.SegmentLabel for item in written.SegmentSequence] == ["liver", "kidney"]
    assert {item.SegmentAlgorithmType for item in written.SegmentSequence} == {"AUTOMATIC"}
    # The model of that name on this computer has other weights, so it is not the one that drew this.
    assert written.SegmentSequence[0].SegmentAlgorithmName == "quick abababababab"
    assert written.ContentCreatorName == "Ada^Dr."
    assert [header.SOPInstanceUID for header in installed.inserted] == [written.SOPInstanceUID]
    assert str(target / "b.dcm") in user.ui.reviewExportLabel.text


def test_the_same_weights_are_named_in_full(user, case, tmp_path):
    sha256 = user.panel.services.models.find("quick").sha256
    case.entry = replace(case.entry, model={"id": "quick", "sha256": sha256})
    export(user, tmp_path / "b.dcm")
    name = pydicom.dcmread(tmp_path / "b.dcm").SegmentSequence[0].SegmentAlgorithmName
    assert name == f"Quick hippocampus 1.0.0 ({sha256[:12]})"


def test_what_a_person_changed_is_semiautomatic(user, case, tmp_path):
    import numpy as np
    import slicer

    segment_id = next(iter(case.segments()))
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(case.segmentation, segment_id, case.volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.roll(mask, 1, axis=2), case.segmentation, segment_id, case.volume
    )
    export(user, tmp_path / "b.dcm")
    written = pydicom.dcmread(tmp_path / "b.dcm")
    assert {item.SegmentAlgorithmType for item in written.SegmentSequence} == {"SEMIAUTOMATIC"}


@pytest.mark.parametrize("lacks", ["image", "attribute", "database"])
def test_what_it_refuses_is_told(user, case, installed, tmp_path, lacks):
    if lacks == "image":
        installed.files.clear()
    elif lacks == "attribute":
        case.volume.SetAttribute("DICOM.instanceUIDs", "")
    else:
        installed.isOpen = False
    (tmp_path / "out").mkdir()
    export(user, tmp_path / "out" / "b.dcm")
    expected = {"image": "not found in the DICOM database", "attribute": "DICOM.instanceUIDs", "database": "not open"}
    assert expected[lacks] in user.message and "from a folder as well" in user.message
    assert not list((tmp_path / "out").iterdir())
