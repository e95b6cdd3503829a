"""Pictures of the pages Correct and Fine-tune, on the segmentation that the tour has made: called by tour.py."""

import shutil
import tempfile
from pathlib import Path

NARROW = 350


def correct_page(tour) -> None:
    """The empty page, the page on the result, a correction waiting for Accept; narrow, and dark."""
    from tour import dark_palette

    from slicerhost.widgets_editor import paint

    panel, ui = tour.widget.panel, tour.ui
    segmentation, panel.state.resultSegmentation = panel.state.resultSegmentation, None
    panel.showPage("CorrectPage")
    panel.refresh()
    tour.picture("correct_empty", width=NARROW)
    panel.state.resultSegmentation = segmentation
    panel.refresh()
    ui.nextDoubtButton.click()
    ui.doneSliceButton.click()
    tour.picture("correct_ready", width=NARROW)
    _clicks(tour, segmentation)
    editor = panel.page("CorrectPage").editor.widget
    first = segmentation.GetSegmentation().GetSegmentIDs()[0]
    paint(editor, first, _middle(segmentation, first), 5.0)
    ui.correctButton.click()
    tour.wait_until(lambda: not panel.jobs.isRunning)
    ui.snapshotSection.collapsed = False
    tour.picture("correct_preview", width=NARROW)
    light = tour.application.palette()
    tour.application.setPalette(dark_palette())
    tour.picture("correct_preview_dark", width=NARROW)
    tour.application.setPalette(light)
    if ui.previewArea.visible:
        ui.acceptCorrectionButton.click()
    ui.snapshotSection.collapsed = True


def _clicks(tour, segmentation) -> None:
    """A click for each sign, placed in the axial view, the preview that comes of them, and both in that view."""
    import numpy as np
    from MambaSegmentationLib import SceneIO, SegmentVoxels

    from slicerhost.views import SliceMouse

    ui, volume = tour.ui, SegmentVoxels.volumeOf(segmentation)
    first = segmentation.GetSegmentation().GetSegmentIDs()[0]
    tour.widget.panel.page("CorrectPage").editor.widget.setCurrentSegmentID(first)
    _i, j, k = _middle(segmentation, first)
    row = np.flatnonzero(dict(SegmentVoxels.masks(segmentation, volume))[first][k, j])
    for button, column in ((ui.belongsButton, int(row.max()) + 2), (ui.belongsNotButton, int(row.min()) + 1)):
        ras = (SceneIO.ijkToRas(volume) @ [column, j, k, 1])[:3].tolist()
        mouse = SliceMouse(volume, "Red", ras)
        button.click()
        mouse.click(ras)
        mouse.close()
        tour.application.processEvents()
        tour.wait_until(lambda: not tour.widget.panel.jobs.isRunning)
    tour.picture("correct_clicks", width=NARROW)
    SliceMouse(volume, "Red", ras).save(tour.output / "view_clicks.png")
    ui.removeClicksButton.click()
    ui.belongsNotButton.click()
    tour.application.processEvents()


def _middle(segmentation, segment_id) -> tuple[int, int, int]:
    """(i, j, k) of the voxel in the middle of a segment."""
    import numpy as np
    from MambaSegmentationLib import SegmentVoxels

    masks = dict(SegmentVoxels.masks(segmentation, SegmentVoxels.volumeOf(segmentation)))
    return tuple(int(v) for v in np.argwhere(masks[segment_id]).mean(axis=0)[::-1])


def finetune_page(tour) -> None:
    """The training set empty and filled, a run with curves, its comparison; narrow, and dark."""
    from tour import dark_palette

    panel, ui, application = tour.widget.panel, tour.ui, tour.application
    store = Path(tempfile.mkdtemp(prefix="corrections-"))
    application.userSettings().setValue("MambaSegmentation/correctionsFolder", str(store))
    try:
        panel.showPage("FineTunePage")
        tour.picture("finetune_empty", width=NARROW)
        _add_cases(tour)
        tour.picture("finetune_cases", width=NARROW)
        _run(tour, store)
        tour.picture("finetune_running", width=NARROW)
        panel.jobs.forget()
        panel.runView.end()
        _finish(panel)
        ui.historySection.collapsed = False
        tour.picture("finetune_done", width=NARROW)
        light = application.palette()
        application.setPalette(dark_palette())
        tour.picture("finetune_done_dark", width=NARROW)
        application.setPalette(light)
    finally:
        shutil.rmtree(store)


def _add_cases(tour) -> None:
    """The same image for two annotators, so that the list has two cases."""
    from PySide6 import QtCore

    ui, jobs = tour.ui, tour.widget.panel.jobs
    for row in range(ui.caseStructureList.count):
        ui.caseStructureList.item(row).setCheckState(QtCore.Qt.Checked)
    ui.casePatientEdit.text = "pseudonym 17"
    for name in ("Dr. Ada Example", "Dr. Bo Example"):
        ui.caseAnnotatorEdit.text = name
        ui.addCaseButton.click()
        tour.wait_until(lambda: not jobs.isRunning)


def _run(tour, store: Path) -> None:
    """A fine-tuning in the middle, as the panel shows it; the worker is not asked, so this picture is of no model."""
    import numpy as np

    from MambaSegLib import corrections
    from MambaSegLib.corrected_case import UNKNOWN
    from MambaSegLib.image import read_volume
    from MambaSegTraining.evaluation_pictures import outlined, png, surroundings

    panel, ui, asked = tour.widget.panel, tour.ui, []
    worker, case = panel.services.worker, corrections.cases(store)[0]
    image, labels = read_volume(case.images[0]), case.label_volume().array
    labels = labels * (labels != UNKNOWN)
    index = int(np.count_nonzero(labels, axis=(1, 2)).argmax())
    box = surroundings(labels[index : index + 1] > 0, 0, image)
    sides = [
        outlined(image, found, case.structures, box, 0, index) for found in (labels, np.roll(labels, (1, 2), (1, 2)))
    ]
    file = store / "preview.png"
    file.write_bytes(png(np.concatenate([sides[0], np.full((len(sides[0]), 4, 3), 128, np.uint8), sides[1]], axis=1)))
    own, worker.run = worker.run, lambda job, params, onEvent: asked.append(onEvent) or "1"
    ui.startTrainingButton.click()
    worker.run = own
    text = f"Step 240: {case.title}, slice {index + 1} of {image.shape[0]}; left the reference, right the model"
    for event in (
        {"event": "metric", "step": 240, "name": "loss", "value": 0.31},
        {"event": "progress", "done": 240, "of": 610, "label": "Step 240 of 610, loss 0.310, about 6 minutes left"},
        {"event": "picture", "step": 240, "path": str(file), "text": text},
    ):
        asked[0](event)


def _finish(panel) -> None:
    """What a fine-tuning of hours would answer; the numbers are made up, so this picture is of no model."""
    names = [label.name for label in panel.page("FineTunePage").training.bundle().labels]
    rows = [
        {"structure": name, "cases": 6, "patients": 5, "dice_before": 0.842, "dice_after": 0.861, "difference": 0.019}
        | {"low": 0.004, "high": 0.033}
        for name in names
    ]
    reasons = ["No structure lost more than 0.010 Dice; the mean over all structures changed by +0.019."]
    decision = {"accepted": True, "reasons": reasons, "rows": rows, "protocol": "hold-out", "margin": 0.01}
    training = panel.page("FineTunePage").training
    training._onFinished({"candidate": "", "decision": decision, "promoted": True})
