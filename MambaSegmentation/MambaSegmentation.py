"""Mamba Segmentation: the four classes that Slicer asks for. Everything else is in MambaSegmentationLib."""

import sys
import time
from importlib.util import find_spec

import numpy as np
import slicer
from MambaSegmentationLib import Samples
from MambaSegmentationLib.Panel import Panel
from MambaSegmentationLib.SegmentLogic import SegmentLogic
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class MambaSegmentation(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Mamba Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy"]
        parent.contributors = ["SlicerMambaSegmentation contributors"]
        parent.helpText = _(
            "Segments medical images with Mamba networks, which need no compiled extension and run on CPU and GPU. "
            "Choose a volume and a model and press Segment: the result is a new segmentation with names, colours and "
            "standard terminology. For research only; not a medical device."
        )
        parent.acknowledgementText = _(
            "The networks follow published papers; each model's card names its paper, data and licence."
        )
        slicer.app.connect("startupCompleted()", Samples.registerAtStart)


class MambaSegmentationWidget(ScriptedLoadableModuleWidget):
    """Places the panel and tells it when the user comes and when Slicer ends."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MambaSegmentation.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MambaSegmentationLogic()
        self.panel = Panel(uiWidget, self.logic.segmentLogic, self.logic.getParameterNode, self.resourcePath)
        self.ui = slicer.util.childWidgetVariables(uiWidget)  # of all pages
        slicer.app.connect("aboutToQuit()", self.cleanup)

    def enter(self) -> None:
        self.panel.enter()

    def exit(self) -> None:
        self.panel.exit()

    def onReload(self) -> None:
        """For developers: Slicer loads this file again, and with it all parts of the panel and of the library."""
        packages = ("MambaSegmentationLib", "MambaSegLib", "MambaSegTraining")
        for name in [name for name in sys.modules if name.split(".")[0] in packages]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def cleanup(self) -> None:
        slicer.app.disconnect("aboutToQuit()", self.cleanup)
        self.panel.cleanup()


class MambaSegmentationLogic(ScriptedLoadableModuleLogic):
    """For scripts and other modules.

    >>> logic = slicer.modules.MambaSegmentationWidget.logic
    >>> logic.segment(volumeNode, "hippocampus", onFinished=lambda node, result: print(node.GetName()))
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.segmentLogic = SegmentLogic()

    def segment(self, volumeNode, modelId: str, **options) -> None:
        """Start a segmentation in the background; see SegmentLogic.start for options and callbacks."""
        self.segmentLogic.start(volumeNode, modelId, **options)


class MambaSegmentationTest(ScriptedLoadableModuleTest):
    """The core flow in this Slicer: a small volume, the first model of the catalogue, this Slicer's own worker."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_segmentationOfSmallVolume()

    def test_segmentationOfSmallVolume(self) -> None:
        from MambaSegLib import catalogue

        if find_spec("torch") is None or not catalogue.bundles():
            self.skipTest("needs torch in Slicer's Python and a model")
        voxels = np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32)
        volumeNode = slicer.util.addVolumeFromArray(voxels, name="Noise")
        ends = []
        logic = MambaSegmentationLogic()
        logic.segment(
            volumeNode,
            catalogue.bundles()[0].id,
            device="cpu",
            onFinished=lambda node, result: ends.append(node),
            onFailed=lambda problem: ends.append(problem.message),
        )
        deadline = time.monotonic() + 300
        while not ends and time.monotonic() < deadline:
            slicer.app.processEvents()
        logic.segmentLogic.close()
        self.assertTrue(ends and not isinstance(ends[0], str), f"the segmentation ended with {ends}")
        self.assertEqual(ends[0].GetSegmentation().GetNumberOfSegments(), len(catalogue.bundles()[0].labels))
