"""slicer.app.layoutManager(): view nodes and logics of the standard layout and of described ones, no windows."""

from __future__ import annotations

import slicer
import vtk

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


_STANDARD_LAYOUTS = range(100)  # those have the views that are always there


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
        self._scene, self._application_logic, self._layout_logic = scene, application_logic, None
        self._slices, self._names, self.layout = vtk.vtkCollection(), list(SLICE_VIEWS), 3
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
        """Of the standard layout, or of one that was described to the layout node."""
        node = self._scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if name not in self._names and node is not None:
            logic = self._add(slicer.vtkMRMLSliceLogic(), self._slices, self._scene, self._application_logic)
            logic.SetSliceNode(node)
            self._names.append(name)
        return SliceWidget(self._slices.GetItemAsObject(self._names.index(name))) if name in self._names else None

    def layoutLogic(self):
        """Made when it is first asked for; it makes the view nodes of a described layout."""
        if self._layout_logic is None:
            self._layout_logic = slicer.vtkMRMLLayoutLogic()
            self._layout_logic.SetMRMLScene(self._scene)
        return self._layout_logic

    def mrmlSliceLogics(self):
        return self._slices

    threeDViewCount = 1

    def threeDWidget(self, _index=0) -> ThreeDWidget:
        return ThreeDWidget()

    def setLayout(self, layout: int) -> None:
        self.layout = layout
        if layout not in _STANDARD_LAYOUTS:
            self.layoutLogic().GetLayoutNode().SetViewArrangement(layout)

    def resetSliceViews(self) -> None:
        for name in SLICE_VIEWS:
            self.sliceWidget(name).fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """See ThreeDWidget.resetFocalPoint."""

    def pauseRender(self) -> None:
        """Nothing renders on its own here."""

    resumeRender = pauseRender
