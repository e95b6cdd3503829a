"""Slice and 3D views of the scene rendered offscreen by MRML's own displayable managers, saved as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from vtkmodules.vtkRenderingCore import vtkActor2D, vtkImageMapper

_SLICE_MANAGERS = ("Crosshair", "ModelSlice", "SegmentationsDisplayableManager2D", "Markups", "ScalarBar")
_VIEW_MANAGERS = ("Camera", "View", "Model", "SegmentationsDisplayableManager3D", "Markups", "VolumeRendering")


class _View:
    def __init__(self, factory, managers, node, size):
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.ShowWindowOff()
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for short in managers:
            name = "vtkMRML" + short + ("" if "Displayable" in short else "DisplayableManager")
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)
        self.group.SetMRMLDisplayableNode(node)

    def save(self, path) -> Path:
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(path))
        writer.SetInputConnection(grab.GetOutputPort())
        writer.Write()
        self.close()
        return Path(path)

    def close(self) -> None:
        self.group.SetMRMLDisplayableNode(None)
        self.window.Finalize()


class _SliceView(_View):
    def __init__(self, name, size):
        widget = slicer.app.layoutManager().sliceWidget(name)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self.logic = widget.sliceLogic()
        super().__init__(factory, _SLICE_MANAGERS, widget.mrmlSliceNode(), size)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        mapper, self.actor = vtkImageMapper(), vtkActor2D()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self.actor.SetMapper(mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self.actor)

    def show(self, volume, ras) -> None:
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        self.logic.ResizeSliceNode(*self.window.GetSize())
        self.logic.GetSliceNode().RotateToVolumePlane(volume)
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()
        if ras is not None:
            self.logic.GetSliceNode().JumpSliceByOffsetting(*ras)
        self.logic.UpdatePipeline()
        self.actor.GetMapper().SetInputConnection(self.logic.GetImageDataConnection())


def save_slice_view(path, volume, name: str = "Red", ras=None, size=(500, 500)) -> Path:
    """PNG of a slice view (Red axial, Yellow sagittal, Green coronal) of this volume; ras: point (mm) to cut."""
    view = _SliceView(name, size)
    view.show(volume, ras)
    return view.save(path)


def save_3d_view(path, size=(500, 500), azimuth_deg: float = 0.0) -> Path:
    """PNG of the 3D view with everything visible in view; shown segments need a closed surface."""
    factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
    node = slicer.app.layoutManager().threeDWidget(0).mrmlViewNode()
    view = _View(factory, _VIEW_MANAGERS, node, size)
    view.renderer.ResetCamera()
    view.renderer.GetActiveCamera().Azimuth(azimuth_deg)
    view.renderer.ResetCameraClippingRange()
    return view.save(path)


class SliceMouse:
    """The mouse and keyboard in a slice view as Slicer's markups get them: placing, dragging, deleting points.

    Args:
        volume: shown in the view.
        name: Red, Yellow or Green; the view lies along the volume's axes.
        ras: point (mm) that the view cuts.
    """

    def __init__(self, volume, name: str = "Red", ras=None):
        self._view = _SliceView(name, (500, 500))
        self._view.show(volume, ras)
        self._node = self._view.logic.GetSliceNode()
        managers = (self._view.group.GetNthDisplayableManager(i) for i in range(len(_SLICE_MANAGERS)))
        self._markups = next(m for m in managers if m.IsA("vtkMRMLMarkupsDisplayableManager"))
        self._view.window.Render()

    def click(self, ras) -> None:
        """Left button down and up at a place of the cut slice."""
        for event in ("MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
            self.send(event, ras)

    def drag(self, start, end) -> None:
        for event, ras in (("MouseMoveEvent", start), ("LeftButtonPressEvent", start), ("MouseMoveEvent", end)):
            self.send(event, ras)
        self.send("LeftButtonReleaseEvent", end)

    def delete(self, ras) -> None:
        """The key Delete with the mouse there."""
        self.send("MouseMoveEvent", ras)
        self.send("KeyPressEvent", ras, "Delete")

    def send(self, event: str, ras, key: str = "") -> None:
        toView = np.linalg.inv(slicer.util.arrayFromVTKMatrix(self._node.GetXYToRAS()))
        data = slicer.vtkMRMLInteractionEventData()
        data.SetType(vtk.vtkCommand.GetEventIdFromString(event))
        data.SetDisplayPosition([round(float(v)) for v in (toView @ [*ras, 1.0])[:2]])
        data.SetWorldPosition(list(map(float, ras)))
        data.SetViewNode(self._node)
        data.SetRenderer(self._view.renderer)
        if key:
            data.SetKeySym(key)
            data.SetKeyRepeatCount("\x01")
            data.SetKeyCode("\x7f")
        if self._markups.CanProcessInteractionEvent(data, vtk.reference(0.0)):
            self._markups.ProcessInteractionEvent(data)
        self._view.window.Render()

    def save(self, path) -> Path:
        """PNG of the view; ends it."""
        return self._view.save(path)

    def close(self) -> None:
        self._view.close()
