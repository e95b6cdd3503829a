"""Tells when a chosen node has changed elsewhere: its voxels, its geometry, the handles of a region."""

from collections.abc import Callable, Iterable

import qt
import vtk
from slicer.util import VTKObservationMixin


class InputWatch(VTKObservationMixin):
    """`onChanged()` is called soon after any of the watched nodes has changed, once for many changes."""

    def __init__(self, onChanged: Callable[[], None]):
        VTKObservationMixin.__init__(self)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", onChanged)

    def watch(self, nodes: Iterable) -> None:
        """These and no others; None is left out, and one may come twice."""
        self.removeObservers()
        for node in {node.GetID(): node for node in nodes if node}.values():
            if node.IsA("vtkMRMLVolumeNode"):
                self.addObserver(node, node.ImageDataModifiedEvent, self._onModified)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onModified)

    def stop(self) -> None:
        self.removeObservers()
        self._soon.stop()

    def _onModified(self, caller, event) -> None:
        self._soon.start(0)
