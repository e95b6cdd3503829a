"""The panel in a real Slicer: real PythonQt, CTK and qMRML widgets, PythonSlicer as worker. Run by CTest."""

import time
from importlib.util import find_spec

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class MambaSegmentationPanelTest(ScriptedLoadableModuleTest):
    def setUp(self) -> None:
        if find_spec("torch") is None:
            self.skipTest("torch is not installed in this Slicer")
        slicer.mrmlScene.Clear()
        slicer.util.selectModule("MambaSegmentation")
        self.widget = slicer.modules.MambaSegmentationWidget
        self.ui, self.panel = self.widget.ui, self.widget.panel
        if self.ui.modelList.count == 0 or self.panel.page("SegmentPage").models.entry is None:
            self.skipTest("there is no model on this computer")
        voxels = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
        self.volume = slicer.util.addVolumeFromArray(voxels, name="Noise")
        self.ui.volumeSelector.setCurrentNode(self.volume)
        self.ui.deviceSelector.setCurrentIndex(self.ui.deviceSelector.findData("cpu"))

    def runTest(self) -> None:
        for test in (self.test_segment, self.test_cancel, self.test_closeScene):
            self.setUp()
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
