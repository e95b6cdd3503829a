"""The panel in a real Slicer: real PythonQt, CTK and qMRML widgets, PythonSlicer as worker.

Run by CTest in a build of the extension (`ctest -R MambaSegmentation`), or in any Slicer with the module's folder among
its additional module paths:

    Slicer --testing --no-splash --additional-module-path <source>/MambaSegmentation \\
        --python-script <source>/Testing/slicer/MambaSegmentationPanelTest.py

The tests that segment are skipped without torch or without a model; the others run in every Slicer.
"""

import os
import signal
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class MambaSegmentationPanelTest(ScriptedLoadableModuleTest):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        slicer.util.selectModule("MambaSegmentation")
        self.widget = slicer.modules.MambaSegmentationWidget
        self.ui, self.panel = self.widget.ui, self.widget.panel
        self.panel.showPage("SegmentPage")

    def prepareRun(self) -> None:
        """A volume and a model; skips without them or without torch."""
        if find_spec("torch") is None:
            self.skipTest("torch is not installed in this Slicer")
        if self.ui.modelList.count == 0 or self.panel.page("SegmentPage").models.entry is None:
            self.skipTest("there is no model on this computer")
        voxels = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
        self.volume = slicer.util.addVolumeFromArray(voxels, name="Noise")
        self.ui.volumeSelector.setCurrentNode(self.volume)
        self.ui.deviceSelector.setCurrentIndex(self.ui.deviceSelector.findData("cpu"))

    def runTest(self) -> None:
        for test in (self.test_pages, self.test_settings, self.test_import, self.test_packages, self.test_geometry):
            self.setUp()
            test()
        for test in (self.test_segment, self.test_cancel, self.test_closeScene, self.test_killedWorker, self.test_mrb):
            self.setUp()
            self.prepareRun()
            test()

    def waitUntil(self, condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, f"the message in the panel: {self.ui.messageLabel.text}")
            slicer.app.processEvents()
            time.sleep(0.005)

    def test_segment(self) -> None:
        self.assertTrue(self.ui.segmentButton.enabled, self.ui.hintLabel.text)
        self.ui.segmentButton.click()
        self.waitUntil(lambda: not self.panel.jobs.isRunning, 300)
        segmentation = self.panel.state.resultSegmentation
        self.assertIsNotNone(segmentation, self.ui.messageLabel.text)
        labels = self.panel.page("SegmentPage").models.entry.bundle.labels
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), len(labels))
        self.assertEqual(self.ui.resultTable.rowCount, len(labels))

    def test_cancel(self) -> None:
        before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        self.ui.segmentButton.click()
        self.ui.cancelButton.click()
        self.waitUntil(lambda: not self.panel.jobs.isRunning, 2)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), before)
        self.assertTrue(self.ui.segmentButton.enabled)

    def test_closeScene(self) -> None:
        self.ui.segmentButton.click()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.panel.jobs.isRunning)
        self.assertFalse(self.ui.segmentButton.enabled)

    def test_killedWorker(self) -> None:
        """The background process dies in the middle of a job, as when memory runs out."""
        self.ui.segmentButton.click()
        worker = self.panel.services.worker
        self.waitUntil(lambda: worker.processId, 60)
        os.kill(worker.processId, getattr(signal, "SIGKILL", signal.SIGTERM))
        self.waitUntil(lambda: not self.panel.jobs.isRunning, 30)
        self.assertTrue(self.ui.messageFrame.visible and self.ui.messageLabel.text)
        self.assertTrue(self.ui.segmentButton.enabled)

    def test_mrb(self) -> None:
        """The panel's choices come back with the scene."""
        model = self.panel.state.modelId
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "Szene ä.mrb")
            self.assertTrue(slicer.util.saveScene(path))
            slicer.mrmlScene.Clear()
            self.assertIsNone(self.panel.state.inputVolume)
            slicer.util.loadScene(path)
        self.assertEqual(self.panel.state.inputVolume.GetName(), "Noise")
        self.assertEqual(self.panel.state.modelId, model)

    def test_import(self) -> None:
        """The selectors drop their nodes while a scene is added; what was chosen stays chosen."""
        volume = slicer.util.addVolumeFromArray(np.zeros((8, 8, 8), np.float32), name="Chosen")
        self.ui.volumeSelector.setCurrentNode(volume)
        with tempfile.TemporaryDirectory() as folder:
            path, scene = str(Path(folder) / "other.mrml"), slicer.vtkMRMLScene()
            scene.AddNewNodeByClass("vtkMRMLTextNode", "Other")
            scene.SetURL(path)
            self.assertTrue(scene.Commit(path))
            slicer.util.loadScene(path, {"clear": False})
        slicer.app.processEvents()
        self.assertIsNotNone(slicer.mrmlScene.GetFirstNodeByName("Other"))
        self.assertIs(self.panel.state.inputVolume, volume)
        self.assertIs(self.ui.volumeSelector.currentNode(), volume)

    def test_pages(self) -> None:
        """Every page can be shown, left and shown again, in an empty scene."""
        for name in (*self.panel.pages, "SegmentPage"):
            self.panel.showPage(name)
            slicer.app.processEvents()
            self.assertEqual(list(self.panel.pages)[self.ui.pageTabs.currentIndex], name)

    def test_settings(self) -> None:
        settings, key = slicer.app.userSettings(), "MambaSegmentation/threads"
        before = settings.value(key)
        self.panel.showPage("SettingsPage")
        self.ui.threadsSpinBox.value = 2
        self.assertEqual(str(settings.value(key)), "2")
        self.ui.threadsSpinBox.value = int(before or 0)
        self.assertGreater(self.ui.keysTable.rowCount, 0)

    def test_packages(self) -> None:
        """The worker looks at the packages in this Slicer's Python; nothing is installed."""
        self.panel.showPage("SettingsPage")
        self.ui.checkPackagesButton.click()
        self.waitUntil(lambda: not self.panel.jobs.isRunning, 300)
        states = [self.ui.packagesTable.item(row, 1).text() for row in range(self.ui.packagesTable.rowCount)]
        self.assertTrue(states and "not checked yet" not in states, states)

    def test_geometry(self) -> None:
        """A left-handed, oblique volume goes into a file with every voxel in its place."""
        import SimpleITK as sitk
        from MambaSegmentationLib import SceneIO

        matrix = np.array([[-0.6, 0.9, 0, 5], [0.5, 1.1, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
        matrix[:3, 1] = (matrix[1, 0], -matrix[0, 0], 0)
        voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
        volume = slicer.util.addVolumeFromArray(voxels, ijkToRAS=matrix, name="Oblique")
        folder = SceneIO.ExchangeFolder()
        image = sitk.ReadImage(str(folder.volumeFile(volume)))
        expected = (matrix @ (5, 4, 3, 1))[:3] * (-1, -1, 1)
        self.assertTrue(np.allclose(image.TransformIndexToPhysicalPoint((5, 4, 3)), expected, atol=1e-4))
        self.assertEqual(image[5, 4, 3], int(voxels[3, 4, 5]))
        folder.clear()


if __name__ == "__main__" and hasattr(slicer, "app"):
    import unittest

    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(MambaSegmentationPanelTest))
    slicer.util.exit(0 if result.wasSuccessful() else 1)
