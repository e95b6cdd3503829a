"""The DICOM report (TID 1500): every segment with its volume, codes and who said it; never more than was said."""

import numpy as np
import pytest
from test_dicom_seg import HIPPOCAMPUS, OBLIQUE, TABLE, labelled, make_series

from MambaSegLib import cli, dicom_seg
from MambaSegLib.bundle import Label
from MambaSegLib.errors import UserError
from MambaSegLib.image import read_volume, write_labels
from MambaSegLib.job import Report

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

VOXEL_MM3 = 0.7 * 0.9 * 2.5
LESION = {"category": ["SCT", "49755003", "Morphologically Altered Structure"], "type": ["SCT", "4147007", "Mass"]}


def in_hounsfield(folder):
    """The series as a scanner writes it: stored value - 1024 is HU."""
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        header.RescaleIntercept, header.RescaleSlope, header.RescaleType = -1024, 1, "HU"
        header.save_as(path)


def export(tmp_path, labels, table=TABLE, **more):
    path = write_labels(tmp_path / "labels.seg.nrrd", labels, table)
    request = {"labels": str(path), "source": str(tmp_path / "series"), "output": str(tmp_path / "seg.dcm")}
    result = dicom_seg.run(request | {"report": str(tmp_path / "report.dcm")} | more, Report())
    return result, hd.sr.srread(tmp_path / "report.dcm")


def items(node, depth=0):
    """(depth, relationship, type, concept, text of the value) of every item of the tree."""
    for item in node.get("ContentSequence", ()):
        concept = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
        value = item.get("TextValue") or item.get("PersonName") or item.get("UID") or ""
        if item.ValueType == "CODE":
            value = item.ConceptCodeSequence[0].CodeMeaning
        elif item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
        yield depth, item.RelationshipType, item.ValueType, concept, str(value)
        yield from items(item, depth + 1)


def said(report, concept):
    return [value for _, _, _, name, value in items(report) if name == concept]


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_volumes_and_hounsfield_units_are_those_of_the_voxels(tmp_path, orientation):
    series = make_series(tmp_path / "series", orientation)
    in_hounsfield(series)
    volume = read_volume(series)
    labels = labelled(volume)
    result, report = export(tmp_path, labels)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.referenced_segment.referenced_segment_numbers for group in groups] == [[1], [2]]
    for group, value, count in zip(groups, (3, 200), (54, 180), strict=True):
        inside = volume.array[labels.array == value].astype(float)
        numbers = {(m.name.meaning, m.derivation and m.derivation.meaning): m for m in group.get_measurements()}
        size = numbers["Volume", None]
        assert size.value == pytest.approx(count * VOXEL_MM3) and size.unit.value == "mm3"
        for derivation, wanted in (("Mean", inside.mean()), ("Standard Deviation", inside.std())):
            intensity = numbers["Attenuation Coefficient", derivation]
            assert intensity.value == pytest.approx(wanted) and intensity.unit.value == "[hnsf'U]"
    assert result["segments"][0]["volume_mm3"] == pytest.approx(54 * VOXEL_MM3)


def test_it_refers_to_the_segmentation_and_says_what_and_where(tmp_path):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    table = (TABLE[0], Label(200, "Lesion", (0, 158, 115), LESION))
    _, report = export(tmp_path, labels, table)
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    organ, lesion = report.content.get_volumetric_roi_measurement_groups()
    assert organ.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    assert [g.tracking_uid for g in (organ, lesion)] == [s.TrackingUID for s in segmentation.SegmentSequence]
    assert organ.tracking_identifier == "3 Höhle 海馬"
    assert organ.finding_type.value == HIPPOCAMPUS["type"][1] and organ.finding_category.value == "123037004"
    (site,) = organ.finding_sites
    assert (site.value.value, site.topographical_modifier.meaning) == ("5366008", "Anterior")
    assert lesion.finding_type.meaning == "Mass" and lesion.finding_sites == []
    named = {
        (series.SeriesInstanceUID, image.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert (segmentation.SeriesInstanceUID, segmentation.SOPInstanceUID) in named and len(named) == 7
    source = pydicom.dcmread(tmp_path / "series" / "0.dcm").SeriesInstanceUID
    assert said(report, "Source Series for Segmentation") == [source] * 2
    for name in ("PatientID", "PatientName", "StudyInstanceUID"):
        assert getattr(report, name) == getattr(segmentation, name)
    assert (report.Modality, report.SOPClassUID) == ("SR", pydicom.uid.Comprehensive3DSRStorage)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_left_and_right_are_sides(tmp_path):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    left = HIPPOCAMPUS | {"type_modifier": ["SCT", "7771000", "Left"]}
    _, report = export(tmp_path, labels, (Label(3, "Left", (9, 9, 9), left), TABLE[1]))
    (site,) = report.content.get_volumetric_roi_measurement_groups()[0].finding_sites
    assert site.laterality.meaning == "Left" and site.topographical_modifier is None
    plain = report.content.get_volumetric_roi_measurement_groups()[1]
    assert plain.finding_type.meaning == "Tissue" and plain.finding_sites == []  # as nothing is known


def test_model_and_reviewer_are_the_observers(tmp_path, tiny_bundle_data):
    from MambaSegLib.bundle import write_bundle

    bundle = write_bundle(tmp_path / "model", tiny_bundle_data, {"w": np.zeros(3, np.float32)})
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    more = {"model": str(bundle.folder), "reviewer": "Ärztin", "decision": "completed", "comment": "gut"}
    _, report = export(tmp_path, labels, **more)
    assert said(report, "Person Observer Name") == ["Ärztin^"]
    assert said(report, "Device Observer Name") == ["Toy hippocampus"]
    assert said(report, "Device Observer Serial Number") == [bundle.sha256]
    assert said(report, "Algorithm Name") == ["Toy hippocampus"] * 2
    assert bundle.sha256 in said(report, "Algorithm Parameters")[1]
    assert (report.CompletionFlag, report.CompletionFlagDescription) == ("COMPLETE", "Segmentation accepted: gut")
    assert report.VerificationFlag == "UNVERIFIED" and "VerifyingObserverSequence" not in report
    device = said(report, "Device Observer UID")
    again = export(tmp_path, labels, **more | {"output": str(tmp_path / "b.dcm"), "report": str(tmp_path / "c.dcm")})
    assert said(hd.sr.srread(again[0]["report"]), "Device Observer UID") == device


@pytest.mark.parametrize(
    ("decision", "description"), [("flagged", "Segmentation flagged"), (None, "Segmentation not reviewed")]
)
def test_what_nobody_accepted_is_partial(tmp_path, decision, description):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    _, report = export(tmp_path, labels, reviewer="A", decision=decision)
    assert (report.CompletionFlag, report.CompletionFlagDescription) == ("PARTIAL", description)
    assert report.VerificationFlag == "UNVERIFIED"


def test_numbers_that_are_no_hounsfield_units_are_not_called_so(tmp_path):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    result, report = export(tmp_path, labels)
    assert "not marked as Hounsfield" in result["warnings"][0] and said(report, "Attenuation Coefficient") == []


def test_all_files_or_none(tmp_path, monkeypatch):
    from MambaSegLib import dicom_report

    labels = labelled(read_volume(make_series(tmp_path / "series")))
    with pytest.raises(UserError, match="who decided"):
        export(tmp_path, labels, decision="completed")
    with pytest.raises(UserError, match="share one"):
        export(tmp_path, labels, report=str(tmp_path / "seg.dcm"))
    (tmp_path / "taken.dcm").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(tmp_path, labels, report=str(tmp_path / "taken.dcm"))
    assert (tmp_path / "taken.dcm").read_text() == "mine"

    monkeypatch.setattr(dicom_report, "_measurements", lambda row: [])  # a report without its numbers
    with pytest.raises(RuntimeError, match="instead of"):
        export(tmp_path, labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.seg.nrrd", "series", "taken.dcm"]


def test_the_command(tmp_path, capsys):
    labels = labelled(read_volume(make_series(tmp_path / "series")))
    write_labels(tmp_path / "l.seg.nrrd", labels, TABLE)
    call = ["export-seg", str(tmp_path / "l.seg.nrrd"), "--source", str(tmp_path / "series")]
    call += ["-o", str(tmp_path / "s.dcm")]
    assert cli.main([*call, "--reviewer", "Dr. Ada"]) == 2 and "--report" in capsys.readouterr().err
    about = ["--report", str(tmp_path / "r.dcm"), "--reviewer", "Dr. Ada", "--decision", "completed"]
    assert cli.main([*call, *about]) == 0
    assert "r.dcm" in capsys.readouterr().out
    assert said(hd.sr.srread(tmp_path / "r.dcm"), "Person Observer Name") == ["Dr. Ada^"]


def test_a_real_ct(shared, tmp_path):
    """31 structures on 20 slices of 512 x 512: volumes of the label map, fat darker than liver."""
    from MambaSegLib.image import read_labels

    path = shared / "data" / "ct_dicom_labels.nii.gz"
    request = {"labels": str(path), "source": str(shared / "data" / "ct_dicom"), "output": str(tmp_path / "s.dcm")}
    result = dicom_seg.run(request | {"report": str(tmp_path / "r.dcm")}, Report())
    labels = read_labels(path)
    groups = hd.sr.srread(tmp_path / "r.dcm").content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 31 == len(result["segments"])
    for group in groups:
        value = int(group.tracking_identifier.split()[0])
        voxels = np.count_nonzero(labels.array == value)
        volume, mean, deviation = (m.value for m in group.get_measurements())
        assert volume == pytest.approx(voxels * labels.voxel_volume_mm3, rel=1e-5)
        assert -1100 < mean < 2000 and 0 <= deviation < 1000
