"""Pictures of the page Review, with phantoms of known doubt: called by tour.py."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

SHAPE = (40, 64, 64)
STRUCTURES = (("Liver", (0.45, 0.35), 0.26), ("Left kidney", (0.6, 0.72), 0.12), ("Spleen", (0.4, 0.75), 0.1))
COLORS = ((221, 130, 101), (185, 102, 83), (157, 108, 162))
DOUBTS = {"Phantom 1": (0.12, 0.08, 0.2), "Phantom 2, motion": (0.42, 0.77, 0.3), "Phantom 3": (0.3, 0.21, 0.55)}


def _shape(center, radius, grow: float = 0.0) -> np.ndarray:
    z, y, x = (index / size for index, size in zip(np.indices(SHAPE), SHAPE, strict=True))
    return (z - 0.5) ** 2 + (y - center[0]) ** 2 + (x - center[1]) ** 2 < (radius + grow) ** 2


def _labels(grow: float = 0.0) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for value, (_name, center, radius) in enumerate(STRUCTURES, start=1):
        labels[_shape(center, radius, grow * (value == 1))] = value
    return labels


def make_cases(folder: Path) -> None:
    import SimpleITK as sitk

    from MambaSegLib import scores_file
    from MambaSegLib.bundle import Label
    from MambaSegLib.label_file import write_labels
    from MambaSegLib.volume import Volume

    table = [Label(v, s[0], COLORS[v - 1], {}) for v, s in enumerate(STRUCTURES, start=1)]
    for number, (name, doubts) in enumerate(DOUBTS.items()):
        noise = np.random.default_rng(number).normal(0, 12, SHAPE)
        body = 100.0 * _shape((0.5, 0.5), 0.48) + 60.0 * (_labels() > 0) + noise
        image = Volume(body.astype(np.float32), (4.0, 4.0, 5.0))
        sitk.WriteImage(image.to_sitk(), str(folder / f"{name}.nrrd"))
        path = write_labels(folder / f"{name}.seg.nrrd", image.with_array(_labels()), table)
        rows = [{"structure": s[0], "score": d, "places": []} for s, d in zip(STRUCTURES, doubts, strict=True)]
        result = {"model": "phantom-organs", "model_sha256": "0" * 64, "review": rows}
        scores_file.write(path, result | {"segments": [], "time_s": 1.0, "warnings": []})


def review_page(tour) -> None:
    import slicer

    slicer.mrmlScene.Clear(0)
    tour.ui.logSection.collapsed = True
    tour.widget.panel.runView.hideMessage()
    slicer.app.userSettings().setValue("MambaSegmentation/annotator", "Dr. Ada Example")
    folder = Path(tempfile.mkdtemp(prefix="phantoms-"))
    make_cases(folder)
    try:
        _pictures(tour, folder)
    finally:
        tour.widget.panel.page("ReviewPage").review.end()
        shutil.rmtree(folder)


def _pictures(tour, folder: Path) -> None:
    ui, page = tour.ui, tour.widget.panel.page("ReviewPage")
    tour.widget.panel.showPage("ReviewPage")
    tour.picture("review_empty", width=350)
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("folder"))
    ui.reviewPathEdit.currentPath = str(folder)
    ui.reviewStartButton.click()
    tour.picture("review_case")
    ui.reviewFocusCheckBox.checked = True
    tour.picture("review_case_narrow", width=350)
    ui.reviewFocusCheckBox.checked = False
    _compare(tour, page)
    ui.reviewAcceptButton.click()
    ui.reviewFlagButton.click()
    ui.reviewLogSection.collapsed = ui.reviewExportSection.collapsed = False
    ui.reviewVerifyButton.click()
    tour.picture("review_log")
    (folder / "Phantom 2, motion.nrrd").unlink()
    page._open(page.review.entries()[0].id)
    tour.picture("review_error", width=350)


def _compare(tour, page) -> None:
    import slicer

    ui, case = tour.ui, page.review.case
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Reader 2")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(case.volume)
    for value, (name, _center, _radius) in enumerate(STRUCTURES, start=1):
        segment_id = node.GetSegmentation().AddEmptySegment("", name)
        mask = (_labels(0.03) == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, case.volume)
    ui.reviewCompareSection.collapsed = False
    ui.reviewCompareSelector.check(node)
    ui.reviewCompareButton.click()
    tour.wait_until(lambda: not tour.widget.panel.jobs.isRunning)
    tour.picture("review_compare", width=350)
    _view(tour, "MambaCompare1", "review_compare_view")
    ui.reviewCompareButton.click()
    ui.reviewCompareSection.collapsed = ui.reviewNumbersSection.collapsed = True
    slicer.mrmlScene.RemoveNode(node)


def _view(tour, name: str, file: str) -> None:
    from slicerhost import views

    volume = tour.widget.panel.page("ReviewPage").review.case.volume
    views.save_slice_view(tour.output / f"{file}.png", volume, name, size=(400, 400))
