"""The verb Correct: what the user edited -> job -> a preview -> accepted changes. Knows no widgets.

Nothing that the user edited, locked, hid or masked off changes, bit for bit: the job gets the edits and the locked
structures, and whatever it answers is placed only where all of these rules allow it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError

from . import DoneSlices, SceneIO, SegmentVoxels, Snapshots
from .Models import Models
from .SceneIO import ExchangeFolder

_MARGIN_MM = 20.0  # around what the model found: further away a correction of it has no business


@dataclass
class Correction:
    """One correction from its start to Accept or Discard.

    Attributes:
        segmentation, volume: nodes.
        valueOf: {segment ID: label value}.
        before: label values when it began, (Z, Y, X).
        allowed: bool, the voxels that may change.
        locked: IDs of segments that may not change.
        after: label values as the job wants them, where allowed; None before the job has ended.
    """

    segmentation: object
    volume: object
    valueOf: dict[str, int]
    before: np.ndarray
    allowed: np.ndarray
    locked: tuple[str, ...]
    output: Path
    after: np.ndarray | None = field(default=None)

    def changes(self) -> list[tuple[str, int, int]]:
        """(segment ID, voxels added, voxels removed) of the segments that change."""
        rows = []
        for segmentId, value in self.valueOf.items():
            was, now = self.before == value, self.after == value
            added, removed = int((now & ~was).sum()), int((was & ~now).sum())
            if added or removed:
                rows.append((segmentId, added, removed))
        return rows


def modelOf(segmentationNode, models: Models, chosenId: str) -> ModelBundle:
    """The model that made the segmentation; for any other segmentation the chosen one.

    Raises:
        UserError: it is not on this computer.
    """
    result = SceneIO.resultOf(segmentationNode)
    return models.find(result["model"] if result else chosenId)


def problem(segmentationNode) -> str:
    """What the user has to do before the segmentation can be corrected; "" if nothing."""
    if segmentationNode is None:
        return _("Segment a volume first, or choose a segmentation.")
    if SegmentVoxels.volumeOf(segmentationNode) is None:
        return _("The image of this segmentation is not in the scene: load it and segment it anew.")
    if isInSequence(segmentationNode):
        return _("This is one frame of a sequence. Copy it in the Data module, then correct the copy.")
    return ""


def isInSequence(segmentationNode) -> bool:
    module = getattr(slicer.modules, "sequences", None)
    return bool(module and module.logic().GetFirstBrowserNodeForProxyNode(segmentationNode))


def keepFirst(segmentationNode) -> None:
    """Keep how the segmentation is before the user edits it, and which segment is which structure; once."""
    if Snapshots.first(segmentationNode) is None:
        result = SceneIO.resultOf(segmentationNode)
        if result:
            SegmentVoxels.values(segmentationNode, {row["name"]: row["value"] for row in result["segments"]})
        Snapshots.take(segmentationNode, _("as the model left it") if result else _("as it was at first"), isFirst=True)


def begin(segmentationNode, editorNode, locked: tuple[str, ...], bundle: ModelBundle, output: Path) -> Correction:
    """Read how everything stands now. Raises UserError."""
    volume = SegmentVoxels.volumeOf(segmentationNode)
    known = {label.name: label.value for label in bundle.labels}
    valueOf = SegmentVoxels.values(segmentationNode, known)
    before, isShared = SegmentVoxels.labels(segmentationNode, volume, valueOf)
    hidden = (i for i in valueOf if not SegmentVoxels.isVisible(segmentationNode, i))
    kept = tuple(dict.fromkeys([*locked, *hidden]))
    allowed = ~isShared & ~np.isin(before, [valueOf[i] for i in kept if i in valueOf])
    allowed &= _editable(editorNode, segmentationNode, volume)
    if editorNode.GetOverwriteMode() == editorNode.OverwriteNone:
        allowed &= before == 0
    return Correction(segmentationNode, volume, valueOf, before, allowed, kept, output)


def request(correction: Correction, bundle: ModelBundle, inputs: list[str], device: str, files: ExchangeFolder) -> dict:
    """The params of the job "correct"; writes its files. Raises UserError."""
    first = Snapshots.first(correction.segmentation)
    layers = Snapshots.layers(first)
    initial, _shared = SegmentVoxels.labels(correction.segmentation, correction.volume, correction.valueOf, layers)
    touched = DoneSlices.mask(correction.segmentation, initial.shape) | (initial != correction.before)
    if not (initial != correction.before).any():
        raise UserError(
            _("There are no edits to learn from yet."),
            _("Correct a few slices with the tools above, best where the model was in doubt, then try again."),
        )
    folder = correction.output.parent
    written = {
        name: str(SegmentVoxels.writeLabels(array, correction.volume, folder / f"{name}.nrrd"))
        for name, array in (("initial", initial), ("edited", correction.before), ("touched", touched))
    }
    nameOf = {label.value: label.name for label in bundle.labels}
    locked = [nameOf[correction.valueOf[i]] for i in correction.locked if correction.valueOf.get(i) in nameOf]
    region = _region(initial > 0, initial != correction.before, correction.volume)
    params = {"roi": region, "input": inputs, "model": str(bundle.folder), "device": device, "locked": locked}
    return {**params, **written, "output": str(correction.output)}


def _region(found: np.ndarray, edited: np.ndarray, volume) -> list[float]:
    """Where to look at all, xmin xmax ymin ymax zmin zmax in LPS mm: around what the model found, and the edits.

    It stays the same from edit to edit, so that the worker need not look at the image again.
    """
    spacing = np.array(volume.GetSpacing())[::-1]
    margin = np.ceil(_MARGIN_MM / spacing).astype(int)
    boxes = [np.argwhere(mask) for mask in (found, edited)]
    low = np.maximum(np.min([b.min(axis=0) for b in boxes if len(b)], axis=0) - margin, 0)
    high = np.minimum(np.max([b.max(axis=0) for b in boxes if len(b)], axis=0) + margin, np.array(found.shape) - 1)
    # Whole voxels, as a picture has but one slice; arrays count K, J, I.
    return np.c_[SceneIO.lpsBounds(volume, low[::-1] - 0.5, high[::-1] + 0.5)].ravel().tolist()


def _editable(editorNode, segmentationNode, volume) -> np.ndarray:
    """bool, (Z, Y, X): where the masking settings of the Segment Editor allow edits."""
    voxels = slicer.util.arrayFromVolume(volume)
    voxels = voxels[..., 0] if voxels.ndim > 3 else voxels  # of a picture the editor masks by the first colour
    result = np.ones(voxels.shape, bool)
    if editorNode.GetSourceVolumeIntensityMask():
        low, high = editorNode.GetSourceVolumeIntensityMaskRange()
        result &= (voxels >= low) & (voxels <= high)
    mode, node = editorNode.GetMaskMode(), slicer.vtkMRMLSegmentationNode
    if mode == node.EditAllowedEverywhere:
        return result
    ids = SegmentVoxels.segmentIds(segmentationNode)
    if mode in (node.EditAllowedInsideVisibleSegments, node.EditAllowedOutsideVisibleSegments):
        ids = [i for i in ids if SegmentVoxels.isVisible(segmentationNode, i)]
    if mode == node.EditAllowedInsideSingleSegment:
        ids = [editorNode.GetMaskSegmentID()]
    inside = np.zeros(voxels.shape, bool)
    for segmentId, mask in SegmentVoxels.masks(segmentationNode, volume):
        if segmentId in ids:
            inside |= mask
    isOutside = mode in (node.EditAllowedOutsideAllSegments, node.EditAllowedOutsideVisibleSegments)
    return result & (~inside if isOutside else inside)


def finish(correction: Correction) -> None:
    """Read what the job wrote. Raises UserError."""
    found = SegmentVoxels.readLabels(correction.output)
    values = [0, *(v for i, v in correction.valueOf.items() if i not in correction.locked)]
    correction.after = np.where(correction.allowed & np.isin(found, values), found, correction.before)


def showPreview(correction: Correction):
    """A segmentation of the changing structures, outlined over the present one; never saved. Returns its node."""
    name = _("{name} (correction)").format(name=correction.segmentation.GetName())
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentationNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetSaveWithScene(False)
    node.SetAndObserveTransformNodeID(correction.segmentation.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(correction.volume)
    for segmentId, _added, _removed in correction.changes():
        source = correction.segmentation.GetSegmentation().GetSegment(segmentId)
        node.GetSegmentation().AddEmptySegment(segmentId, source.GetName(), source.GetColor())
        mask = correction.after == correction.valueOf[segmentId]
        SegmentVoxels.setMask(node, segmentId, correction.volume, mask)
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(3)
    return node


def accept(correction: Correction, saveForUndo) -> int:
    """Place the changes; returns how many voxels changed.

    A voxel that the user has edited since the job began stays. One undo step; a snapshot is taken before.

    Args:
        saveForUndo: the Segment Editor's saveStateForUndo.
    """
    node, volume = correction.segmentation, correction.volume
    now = dict(SegmentVoxels.masks(node, volume))
    isSame = np.ones(correction.before.shape, bool)
    for segmentId, mask in now.items():
        isSame &= mask == (correction.before == correction.valueOf.get(segmentId, -1))
    changed = isSame & correction.allowed & (correction.after != correction.before)
    Snapshots.take(node, _("before the correction"))
    saveForUndo()
    # First all that goes, then all that comes: no voxel ever belongs to two segments in between.
    for segmentId in now:
        loses = changed & (correction.before == correction.valueOf.get(segmentId, -1))
        if loses.any():
            now[segmentId] = now[segmentId] & ~loses
            SegmentVoxels.setMask(node, segmentId, volume, now[segmentId])
    for segmentId in now:
        gains = changed & (correction.after == correction.valueOf.get(segmentId, -1))
        if gains.any():
            SegmentVoxels.setMask(node, segmentId, volume, now[segmentId] | gains)
    return int(changed.sum())
