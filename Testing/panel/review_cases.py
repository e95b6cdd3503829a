"""Cases for the tests of the page Review, and what a reviewer does and sees, in one line each."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

SIZE = (20, 24, 28)  # Z, Y, X
SPACING = (0.8, 0.9, 2.0)


def ball(center, radius) -> np.ndarray:
    z, y, x = np.indices(SIZE)
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 < radius**2


def labels_of_case(shift: int = 0) -> np.ndarray:
    """Liver 1, kidney 2."""
    labels = np.zeros(SIZE, np.uint8)
    labels[ball((10, 12, 8 + shift), 5)] = 1
    labels[ball((10, 12, 20), 4)] = 2
    return labels


def structure_table():
    from MambaSegLib.bundle import Label

    return (Label(1, "liver", (200, 60, 40), {}), Label(2, "kidney", (60, 160, 60), {}))


def write_case(folder: Path, name: str, scores: dict[str, float]) -> None:
    from MambaSegLib import scores_file
    from MambaSegLib.label_file import write_labels
    from MambaSegLib.volume import Volume

    image = Volume(np.random.default_rng(3).normal(size=SIZE).astype(np.float32), SPACING, (5.0, -3.0, 11.0))
    sitk.WriteImage(image.to_sitk(), str(folder / f"{name}.nrrd"))
    path = write_labels(folder / f"{name}.seg.nrrd", image.with_array(labels_of_case()), structure_table())
    place = {"position_mm": [5.0 + 8 * 0.8, -3.0 + 12 * 0.9, 11.0 + 10 * 2.0], "score": 0.5, "volume_ml": 1.0}
    rows = [{"structure": s, "score": v, "places": [place] if s == "liver" else []} for s, v in scores.items()]
    result = {
        "model": "quick",
        "model_sha256": "ab" * 32,
        "review": rows,
        "segments": [],
        "time_s": 1.0,
        "warnings": [],
    }
    scores_file.write(path, result)


def start_review(user, folder) -> None:
    ui = user.ui
    ui.reviewSourceSelector.setCurrentIndex(ui.reviewSourceSelector.findData("folder"))
    ui.reviewPathEdit.currentPath = str(folder)
    user.click(ui.reviewStartButton)


def listed(user) -> list[str]:
    table = user.ui.reviewTable
    return [table.item(row, 0).text() for row in range(table.rowCount)]


def statuses(user) -> list[str]:
    return [user.ui.reviewTable.item(row, 2).text() for row in range(user.ui.reviewTable.rowCount)]


def log_of(page) -> list[dict]:
    from MambaSegLib import audit

    return audit.records(page.review.session.log)


def erase(page, segment: str, count: int) -> None:
    """The reviewer erases that many voxels of a structure."""
    import slicer

    node, volume = page.review.case.segmentation, page.review.case.volume
    segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(segment)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
    array[tuple(np.argwhere(array)[:count].T)] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segment_id, volume)


def status_in_segment_editor(page, structure: str) -> str:
    import slicer

    logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, page.review.case.segmentation.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(structure))
    return logic.GetSegmentStatusAsMachineReadableString(logic.GetSegmentStatus(segment))
