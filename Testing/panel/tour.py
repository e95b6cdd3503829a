"""Pictures of the panel in every state, and of the views with a result: python Testing/panel/tour.py OUTPUT_FOLDER

By default the model 'hippocampus' on the MNI152 head that nilearn carries, in a region around both hippocampi.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from tour_correct import correct_page, finetune_page
from tour_review import review_page

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "host"))

PANEL_WIDTH = 420
# Around both hippocampi of the MNI152 head, LPS mm: xmin xmax ymin ymax zmin zmax.
REGION = (-40.0, 40.0, 0.0, 45.0, -32.0, 8.0)
CENTER_RAS = (-26.0, -20.0, -16.0)


def head_file() -> Path:
    folder = Path(importlib.util.find_spec("nilearn").submodule_search_locations[0]) / "datasets" / "data"
    return next(folder.glob("mni_icbm152_t1_*.nii.gz"))


def dark_palette():
    from PySide6 import QtGui

    palette = QtGui.QPalette()
    roles = {"Window": 0x35, "Base": 0x2A, "AlternateBase": 0x30, "Button": 0x3C, "ToolTipBase": 0x2A}
    roles |= {"Light": 0x50, "Midlight": 0x48, "Mid": 0x28, "Dark": 0x20}
    for name, grey in roles.items():
        palette.setColor(getattr(QtGui.QPalette, name), QtGui.QColor(grey, grey, grey))
    for name in ("WindowText", "Text", "ButtonText", "ToolTipText", "BrightText"):
        palette.setColor(getattr(QtGui.QPalette, name), QtGui.QColor(230, 230, 230))
    for name in ("Text", "WindowText", "ButtonText"):
        palette.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, name), QtGui.QColor(130, 130, 130))
    palette.setColor(QtGui.QPalette.PlaceholderText, QtGui.QColor(150, 150, 150))
    palette.setColor(QtGui.QPalette.Highlight, QtGui.QColor(42, 130, 218))
    return palette


class Tour:
    def __init__(self, application, widget, output: Path):
        self.application, self.widget, self.ui, self.output = application, widget, widget.ui, output

    def picture(self, name: str, scale: float = 1.0, width: int = PANEL_WIDTH) -> None:
        from PySide6 import QtCore, QtGui

        frame = self.widget.parent
        for _ in range(4):  # word wrap needs the width before it knows the height
            self.application.processEvents()
            frame.resize(width, self._full_height(width))
        self.application.processEvents()
        pixmap = QtGui.QPixmap(frame.size * scale)
        pixmap.setDevicePixelRatio(scale)
        pixmap.fill(frame.palette.window().color())
        frame.render(pixmap, QtCore.QPoint(0, 0))
        pixmap.save(str(self.output / f"{name}.png"))
        print(self.output / f"{name}.png")

    def _full_height(self, width: int) -> int:
        """So high that the current page needs no scrolling."""
        frame, area = self.widget.parent, self.ui.pageTabs.currentWidget()
        page = area.widget()
        wanted = page.layout().totalHeightForWidth(area.viewport().width) if page.layout().hasHeightForWidth() else 0
        rest = frame.height - area.viewport().height
        return max(wanted, page.sizeHint().height(), page.minimumSizeHint().height()) + rest + 2

    def choose(self, model: str) -> None:
        self.widget.panel.page("SegmentPage").models.choose(model)
        self.widget.panel.page("SegmentPage")._onChoice()

    def wait_until(self, condition) -> None:
        self.application.wait_until(condition, 600)

    def segment(self, pictures: str = "") -> None:
        self.ui.segmentButton.click()
        if pictures:
            jobs = self.widget.panel.jobs
            self.wait_until(lambda: not jobs.isRunning or (self.ui.timeLabel.text and self.ui.progressBar.value > 15))
            self.picture(pictures)
        self.wait_until(lambda: not self.widget.panel.jobs.isRunning)


def add_region(bounds_lps):
    import slicer

    x0, x1, y0, y1, z0, z1 = bounds_lps
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Hippocampi")
    roi.CreateDefaultDisplayNodes()
    roi.SetXYZ(-(x0 + x1) / 2, -(y0 + y1) / 2, (z0 + z1) / 2)
    roi.SetRadiusXYZ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2)
    roi.GetDisplayNode().SetFillVisibility(False)
    return roi


def views(tour: Tour, volume) -> None:
    from slicerhost import views as host_views

    volume.GetDisplayNode().AutoWindowLevelOn()
    for name, view in (("view_axial", "Red"), ("view_sagittal", "Yellow"), ("view_coronal", "Green")):
        print(host_views.save_slice_view(tour.output / f"{name}.png", volume, view, CENTER_RAS, size=(600, 600)))
    print(host_views.save_3d_view(tour.output / "view_3d.png", size=(600, 600), azimuth_deg=25))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="hippocampus", help="id of the model, default hippocampus")
    parser.add_argument("--models", default="", help="further folder with models")
    parser.add_argument("--python", default="", help="Python with torch, if this one has none")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    from slicerhost import application

    app = application.start()
    app.reset()
    settings = app.userSettings()
    settings.setValue("MambaSegmentation/modelFolders", arguments.models)
    settings.setValue("MambaSegmentation/pythonExecutable", arguments.python)
    tour = Tour(app, app.load_module(ROOT / "MambaSegmentation" / "MambaSegmentation.py"), arguments.output)
    try:
        run(tour, arguments.model)
    finally:
        app.reset()


def run(tour: Tour, model: str) -> None:
    light = tour.application.palette()
    result = segment_page(tour, model)
    settings_page(tour)
    tour.application.setPalette(dark_palette())
    tour.picture("segment_error_dark")
    tour.application.setPalette(light)
    tour.ui.logSection.collapsed = True
    tour.widget.panel.state.resultSegmentation = result
    correct_page(tour)
    finetune_page(tour)
    review_page(tour)


def segment_page(tour: Tour, model: str):
    """Every state of the page; returns the segmentation of the head, whose volume stays in the scene."""
    import slicer

    tour.choose(model)
    tour.picture("segment_empty")
    volume = slicer.util.loadVolume(str(head_file()), {"name": "MNI152 T1"})
    tour.wait_until(lambda: tour.ui.volumeSelector.currentNode() is volume)
    roi = add_region(REGION)
    tour.ui.roiSelector.setCurrentNode(roi)
    tour.wait_until(lambda: tour.ui.estimateLabel.visible and tour.ui.deviceSelector.count > 1)
    tour.picture("segment_ready")
    tour.ui.optionsSection.collapsed = False
    tour.picture("segment_options")
    tour.picture("segment_options_narrow", width=350)
    tour.ui.optionsSection.collapsed = True
    tour.segment(pictures="segment_running")
    result = tour.widget.panel.state.resultSegmentation
    tour.ui.showSurfaceCheckBox.checked = True
    roi.GetDisplayNode().SetVisibility(False)
    tour.picture("segment_done")
    tour.picture("segment_done_200_percent", scale=2.0)
    tour.picture("segment_done_narrow", width=350)
    views(tour, volume)
    queue(tour, volume)
    folder(tour)
    roi.SetXYZ(400, 400, 400)
    tour.segment()
    tour.ui.logSection.collapsed = False
    tour.picture("segment_error")
    return result


def settings_page(tour: Tour) -> None:
    tour.widget.panel.showPage("SettingsPage")
    tour.ui.checkPackagesButton.click()
    tour.wait_until(lambda: not tour.widget.panel.jobs.isRunning)
    tour.picture("settings")
    tour.ui.keysSection.collapsed = tour.ui.doctorSection.collapsed = False
    tour.ui.doctorButton.click()
    tour.wait_until(lambda: not tour.widget.panel.jobs.isRunning)
    tour.picture("settings_open_narrow", width=350)
    tour.picture("settings_200_percent", scale=2.0)
    tour.widget.panel.showPage("SegmentPage")


def queue(tour: Tour, volume) -> None:
    """Three volumes, the second one cancelled."""
    import slicer

    for name in ("Follow-up, six months later, with a long name", "Follow-up 2"):
        copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, volume, name)
        tour.ui.otherVolumesSelector.check(copy)
    tour.ui.segmentButton.click()
    tour.ui.queueTable.selectRow(1)
    tour.picture("segment_queue", width=350)
    tour.ui.cancelTaskButton.click()
    tour.wait_until(lambda: not tour.widget.panel.jobs.isRunning)
    for copy in tour.ui.otherVolumesSelector.checkedNodes():
        slicer.mrmlScene.RemoveNode(copy)


def folder(tour: Tour) -> None:
    """Crops of the head in a folder, and a file that is no image; the sections above are closed."""
    import SimpleITK as sitk

    ui, head = tour.ui, sitk.ReadImage(str(head_file()))
    above = [s for s in (ui.inputSection, ui.modelSection, ui.resultSection) if not s.collapsed]
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "Study"
        images.mkdir()
        for number in range(1, 4):
            sitk.WriteImage(head[60:100, 90:130, 50 + number : 90 + number], str(images / f"Patient {number}.nii.gz"))
        (images / "Patient 4.nrrd").write_text("half a file")
        for section in above:
            section.collapsed = True
        ui.folderSection.collapsed = False
        ui.folderInputEdit.currentPath = str(images)
        tour.wait_until(lambda: ui.segmentFolderButton.enabled)
        tour.picture("segment_folder", width=350)
        ui.segmentFolderButton.click()
        tour.wait_until(lambda: not tour.widget.panel.jobs.isRunning)
        tour.wait_until(lambda: ui.reviewFolderButton.visible)
        tour.picture("segment_folder_done", width=350)
        ui.folderInputEdit.currentPath = ui.folderOutputEdit.currentPath = ""
    for section in above:
        section.collapsed = False
    ui.folderSection.collapsed = True


if __name__ == "__main__":
    main()
