"""The verb Correct: what the user edited and clicked -> job -> a preview -> accepted changes. Knows no widgets.

Nothing that the user edited, locked, hid or masked off changes, bit for bit, and nothing outside of the region: the job
gets the edits and the locked structures, and whatever it answers is placed only where all of these rules allow it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from MambaSegLib.bundle import ModelBundle
from MambaSegLib.clicks import CLICKED, Click, decide
from MambaSegLib.errors import UserError

from . import Decisions, DoneSlices, Regions, SceneIO, SegmentVoxels, Snapshots
from .Clicks import Point
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
        points: the clicks that it was made from.
        initial: label values as the model left them.
        edited: label values as the user decided, as the model left them elsewhere.
        decided: uint8, as Decisions.marks gives it, with the clicks.
        after: label values as the job wants them, where allowed; None before the job has ended.
    """

    segmentation: object
    volume: object
    valueOf: dict[str, int]
    before: np.ndarray
    allowed: np.ndarray
    locked: tuple[str, ...]
    output: Path
    points: list[Point]
    initial: np.ndarray
    edited: np.ndarray
    decided: np.ndarray
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


def _firstLayers(segmentationNode) -> list:
    """As SegmentVoxels.layers, of the segmentation as the model left it."""
    return Snapshots.layers(Snapshots.first(segmentationNode))


def begin(
    segmentationNode,
    editorNode,
    locked: tuple[str, ...],
    bundle: ModelBundle,
    output: Path,
    points: list[Point],
    roiNode,
) -> Correction:
    """Read how everything stands now.

    Args:
        locked: IDs of segments that may not change, besides the hidden ones.
        points: the user's clicks.
        roiNode: nothing changes outside of it; None for the whole image.

    Raises:
        UserError: a click that cannot be followed, a region beside the image, too many segments.
    """
    volume = SegmentVoxels.volumeOf(segmentationNode)
    known = {label.name: label.value for label in bundle.labels}
    valueOf = SegmentVoxels.values(segmentationNode, known)
    before, isShared = SegmentVoxels.labels(segmentationNode, volume, valueOf)
    hidden = (i for i in valueOf if not SegmentVoxels.isVisible(segmentationNode, i))
    kept = tuple(dict.fromkeys([*locked, *hidden]))
    allowed = ~isShared & ~np.isin(before, [valueOf[i] for i in kept if i in valueOf])
    allowed &= _editable(editorNode, segmentationNode, volume, before)
    if roiNode:
        allowed &= Regions.inside(roiNode, volume)
    initial, _shared = SegmentVoxels.labels(segmentationNode, volume, valueOf, _firstLayers(segmentationNode))
    decided = Decisions.marks(segmentationNode, initial, before)
    state = (segmentationNode, volume, valueOf, before, allowed, kept, output, points, initial, before, decided)
    correction = Correction(*state)
    clicks = [_click(point, correction, set(known.values())) for point in points]
    wanted, clicked = decide(clicks, before, volume.GetSpacing(), allowed)
    correction.decided = np.where(clicked, CLICKED, decided).astype(np.uint8)
    # What earlier corrections changed is decided anew: they are no user, and this one knows more.
    isDone = DoneSlices.mask(segmentationNode, before.shape)
    correction.edited = np.where(isDone | (correction.decided > 0), wanted, initial)
    return correction


def placeProblem(point, volumeNode) -> str:
    """Why there is nothing to click at a place (RAS mm); "" if there is."""
    voxel = np.round(Regions.voxelOf(point, volumeNode))
    isInside = (voxel >= 0).all() and (voxel < volumeNode.GetImageData().GetDimensions()).all()
    return "" if isInside else _("There is no image of '{name}' where you clicked.").format(name=volumeNode.GetName())


def _click(point: Point, correction: Correction, known: set[int]) -> Click:
    """Raises UserError when the click cannot be followed."""
    outside = placeProblem(point.place, correction.volume)
    if outside:
        raise UserError(outside, _("Remove that click, or drag it onto the image."))
    name, value = SegmentVoxels.nameOf(correction.segmentation, point.segmentId), correction.valueOf[point.segmentId]
    if value not in known:
        raise UserError(
            _("The model does not know '{name}', so that it cannot learn from a click on it.").format(name=name),
            _("Draw that structure with the tools above, and remove the click."),
        )
    place = tuple(int(v) for v in np.round(Regions.voxelOf(point.place, correction.volume))[::-1])
    if point.segmentId in correction.locked or not correction.allowed[place]:
        raise UserError(
            _("A click for '{name}' lies where nothing may change.").format(name=name),
            _("Tick and show the structures at that place, look at region and masking, or remove the click."),
        )
    return Click(place, value, point.belongs)


def request(correction: Correction, bundle: ModelBundle, inputs: list[str], device: str, files: ExchangeFolder) -> dict:
    """The params of the job "correct"; writes its files. Raises UserError."""
    initial, edited = correction.initial, correction.edited
    if not ((initial != edited) | (correction.decided == CLICKED)).any():
        raise UserError(
            _("There are no edits to learn from yet."),
            _("Correct a few slices with the tools above, best where the model was in doubt, or click in a view."),
        )
    isDone = DoneSlices.mask(correction.segmentation, initial.shape)
    touched = np.where(isDone & (correction.decided == 0), 1, correction.decided)
    folder = correction.output.parent
    written = {
        name: str(SegmentVoxels.writeLabels(array, correction.volume, folder / f"{name}.nrrd"))
        for name, array in (("initial", initial), ("edited", edited), ("touched", touched))
    }
    nameOf = {label.value: label.name for label in bundle.labels}
    locked = [nameOf[correction.valueOf[i]] for i in correction.locked if correction.valueOf.get(i) in nameOf]
    region = _region(initial > 0, initial != edited, correction.volume)
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


def _editable(editorNode, segmentationNode, volume, before: np.ndarray) -> np.ndarray:
    """bool, (Z, Y, X): where the masking settings of the Segment Editor allow edits."""
    voxels = slicer.util.arrayFromVolume(volume)
    voxels = voxels[..., 0] if voxels.ndim > 3 else voxels  # of a picture the editor masks by the first colour
    result = np.ones(voxels.shape, bool)
    if editorNode.GetSourceVolumeIntensityMask():
        low, high = editorNode.GetSourceVolumeIntensityMaskRange()
        result &= (voxels >= low) & (voxels <= high)
    if editorNode.GetOverwriteMode() == editorNode.OverwriteNone:
        result &= before == 0
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
    Decisions.record(
        node, correction.before, np.where(changed, correction.after, correction.before), correction.decided
    )
    return int(changed.sum())
