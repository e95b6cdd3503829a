"""slicer.app.layoutManager(): the slice and 3D view nodes and logics of the standard layout, without windows."""

from __future__ import annotations

import slicer
import vtk

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class SliceWidget:
    def __init__(self, logic):
        self._logic = logic

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


class ThreeDWidget:
    """Also its own view: widget.threeDView().resetFocalPoint()."""

    def mrmlViewNode(self):
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLViewNode")

    def threeDView(self):
        return self

    def resetFocalPoint(self) -> None:
        """The offscreen view of views.py fits its camera itself."""

    resetCamera = resetFocalPoint


class LayoutManager:
    def __init__(self, scene, application_logic):
        self._slices, self.layout = vtk.vtkCollection(), 3
        self._views = vtk.vtkCollection()
        application_logic.SetSliceLogics(self._slices)
        application_logic.SetViewLogics(self._views)
        for name, orientation in SLICE_VIEWS.items():
            logic = self._add(slicer.vtkMRMLSliceLogic(), self._slices, scene, application_logic)
            logic.AddSliceNode(name).SetOrientation(orientation)
            logic.GetSliceNode().SetMappedInLayout(1)
        logic = self._add(slicer.vtkMRMLViewLogic(), self._views, scene, application_logic)
        logic.AddViewNode("1").SetMappedInLayout(1)

    @staticmethod
    def _add(logic, collection, scene, application_logic):
        logic.SetMRMLApplicationLogic(application_logic)
        collection.AddItem(logic)
        logic.SetMRMLScene(scene)
        return logic

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(SLICE_VIEWS)

    def sliceWidget(self, name: str) -> SliceWidget:
        return SliceWidget(self._slices.GetItemAsObject(list(SLICE_VIEWS).index(name)))

    def mrmlSliceLogics(self):
        return self._slices

    threeDViewCount = 1

    def threeDWidget(self, _index=0) -> ThreeDWidget:
        return ThreeDWidget()

    def setLayout(self, layout: int) -> None:
        self.layout = layout

    def resetSliceViews(self) -> None:
        for name in SLICE_VIEWS:
            self.sliceWidget(name).fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """See ThreeDWidget.resetFocalPoint."""

    def pauseRender(self) -> None:
        """Nothing renders on its own here."""

    resumeRender = pauseRender
