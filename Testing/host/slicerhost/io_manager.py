"""The calls that slicer.util makes on Slicer's IO manager: nodes and scenes from and to files, by the real logics."""

from __future__ import annotations

import tempfile
from pathlib import Path

import SimpleITK as sitk
import slicer

_WRITERS = {"vtkMRMLVolumeNode": "VolumeFile", "vtkMRMLSegmentationNode": "SegmentationFile"}

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class IOManager:
    def __init__(self, scene, application_logic):
        self._scene, self._application_logic = scene, application_logic
        self._readers = {
            "VolumeFile": self._load_volume,
            "SegmentationFile": self._load_segmentation,
            "SceneFile": self._load_scene,
        }

    def fileType(self, name) -> str:
        text = str(name).lower()
        if text.endswith((".seg.nrrd", ".seg.nhdr", ".seg.vtm")):
            return "SegmentationFile"
        return "SceneFile" if text.endswith((".mrb", ".mrml")) else "VolumeFile"

    def fileWriterFileType(self, node) -> str:
        return next((kind for base, kind in _WRITERS.items() if node.IsA(base)), "NodeFile")

    def loadNodes(self, file_type: str, properties: dict, loaded, messages=None) -> bool:
        """Load one file; `loaded` (vtkCollection) receives the node. False on failure, as in Slicer."""
        if file_type == "SceneFile":
            return self._load_scene(properties)
        node = self._readers[file_type](properties)
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def _load_volume(self, properties: dict):
        path = properties["fileName"]
        name = properties.get("name") or Path(path).name.split(".")[0]
        logic = slicer.modules.volumes.logic()
        if path.lower().endswith(_PICTURES):
            path = self._as_nrrd(path)
        return logic.AddArchetypeVolume(path, name, 1 if properties.get("labelmap") else 0)

    @staticmethod
    def _as_nrrd(path: str) -> str:
        """A picture as a slice: the wheel, unlike Slicer, was built without readers of pictures."""
        slice_ = sitk.JoinSeries(sitk.ReadImage(path))
        copy = Path(tempfile.mkdtemp(dir=slicer.app.temporaryPath)) / "picture.nrrd"
        sitk.WriteImage(slice_, str(copy))
        return str(copy)

    def _load_segmentation(self, properties: dict):
        path = properties["fileName"]
        name = properties.get("name") or Path(path).name.split(".")[0]
        return slicer.modules.segmentations.logic().LoadSegmentationFromFile(path, True, name)

    def _load_scene(self, properties: dict) -> bool:
        path = properties["fileName"]
        if path.endswith(".mrb"):
            return bool(
                self._application_logic.OpenSlicerDataBundle(path, tempfile.mkdtemp(dir=slicer.app.temporaryPath))
            )
        self._scene.SetURL(path)
        return bool(self._scene.Import() if properties.get("clear") is False else self._scene.Connect())

    def saveNodes(self, file_type: str, properties: dict, messages=None) -> bool:
        path = str(properties["fileName"])
        if file_type == "SceneFile":
            self._scene.SetURL(path)
            return bool(self._scene.WriteToMRB(path, None) if path.endswith(".mrb") else self._scene.Commit(path))
        node = self._scene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        storage.SetUseCompression(1 if properties.get("useCompression", True) else 0)
        return bool(storage.WriteData(node))
