"""A picture of a segmentation: three slices through the structures with their outlines, and a legend with volumes."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from scipy.ndimage import gaussian_filter

from .bundle import Label
from .volume import Volume

_PAPER, _INK, _QUIET = "#14161a", "#f2f3f5", "#9aa1ab"
_OUTLINED = {"path_effects": [withStroke(linewidth=2, foreground=_PAPER)]}
_MARGIN_MM = 22.0
_SMOOTHING_VOXELS = 0.8
_HEIGHT, _LEGEND_WIDTH, _GAP, _ABOVE, _BELOW = 3.1, 2.6, 0.2, 0.95, 0.36  # inches
_DPI = 160


def draw(
    path: Path,
    title: str,
    volume: Volume,
    labels: Volume,
    segments: Sequence[Label],
    rows: list[dict],
    roi_mm: Sequence[float],
) -> None:
    """Write a PNG, complete or not at all.

    Args:
        path: the file to write.
        title: what the picture shows.
        volume: the image, (Z, Y, X).
        labels: the segmentation on the same grid.
        segments: names and colours of its numbers.
        rows: {"structure", "left_ml", "right_ml", "total_ml"} per segment.
        roi_mm: x0, x1, y0, y1, z0, z1 in LPS mm: what to show, with some surroundings.
    """
    image, mask = _upright(volume, roi_mm), _upright(labels, roi_mm, nearest=True)
    low, high = np.percentile(image.array[image.array > image.array.min()], [1, 99.7])
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.color": _INK}):
        figure, panels = _layout(image, title)
        for panel, (name, axis) in zip(panels, (("Coronal", 1), ("Axial", 0), ("Sagittal", 2)), strict=False):
            _draw_slice(panel, name, axis, image, mask, segments, (low, 1.12 * high))
        _draw_legend(panels[-1], segments, rows)
        temporary = path.with_name(f".{path.stem}.part.png")
        FigureCanvasAgg(figure).print_png(temporary)
    os.replace(temporary, path)


def _layout(image: Volume, title: str) -> tuple[Figure, list]:
    """A figure with panels for coronal, axial and sagittal slices, equally high, and for the legend."""
    z, y, x = image.shape
    widths = [_HEIGHT * x / z, _HEIGHT * x / y, _HEIGHT * y / z, _LEGEND_WIDTH]
    size = (sum(widths) + _GAP * (len(widths) + 1), _HEIGHT + _ABOVE + _BELOW)
    figure = Figure(figsize=size, dpi=_DPI, facecolor=_PAPER)
    panels, left = [], _GAP
    for width in widths:
        panels.append(figure.add_axes((left / size[0], _BELOW / size[1], width / size[0], _HEIGHT / size[1])))
        left += width + _GAP
    figure.text(_GAP / size[0], 1 - 0.32 / size[1], title, fontsize=15, weight="bold", va="center")
    quiet = {"fontsize": 7.5, "color": _QUIET, "va": "center", "ha": "right"}
    figure.text(1 - _GAP / size[0], 0.16 / size[1], "For research only, not a medical device.", **quiet)
    return figure, panels


def _upright(volume: Volume, roi_mm: Sequence[float], nearest: bool = False) -> Volume:
    """The region with its margin on an LPS grid of half-size voxels, so that slices and outlines are smooth."""
    low, high = np.array(roi_mm[::2]) - _MARGIN_MM, np.array(roi_mm[1::2]) + _MARGIN_MM
    step = min(volume.spacing_mm) / 2
    size = np.ceil((high - low) / step).astype(int)
    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    grid = [size.tolist(), sitk.Transform(), method, low.tolist(), [step] * 3, np.eye(3).ravel().tolist()]
    pixel = sitk.sitkUInt16 if nearest else sitk.sitkFloat32
    return Volume.from_sitk(sitk.Resample(volume.to_sitk(), *grid, 0, pixel))


def _draw_slice(panel, name: str, axis: int, image: Volume, mask: Volume, segments, window) -> None:
    """One slice across array axis `axis`, where most of the structures lie; the patient's right is on the left."""
    index = _fullest(mask.array, axis)
    origin = "upper" if axis == 0 else "lower"
    grey = image.array.take(index, axis)
    panel.imshow(grey, cmap="gray", vmin=window[0], vmax=window[1], origin=origin, interpolation="bicubic")
    for segment in segments:
        inside = (mask.array.take(index, axis) == segment.value).astype(float)
        if inside.any():
            soft, color = gaussian_filter(inside, 2 * _SMOOTHING_VOXELS), np.array(segment.color) / 255
            panel.contourf(soft, levels=[0.5, 2], colors=[color], alpha=0.28)
            panel.contour(soft, levels=[0.5], colors=[color], linewidths=1.6)
    panel.set_axis_off()
    _annotate(panel, name, axis, index, image)


def _fullest(mask: np.ndarray, axis: int) -> int:
    """The slice with most labelled voxels; the middle one when there are none."""
    count = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
    return int(count.argmax()) if count.any() else mask.shape[axis] // 2


def _annotate(panel, name: str, axis: int, index: int, image: Volume) -> None:
    """Plane and RAS position above, patient directions at the edges, a bar of 1 cm."""
    world_axis = 2 - axis
    position = image.origin_mm[world_axis] + index * image.spacing_mm[world_axis]
    ras = position if world_axis == 2 else -position
    title = f"{name}   {'xyz'[world_axis]} = {ras:+.0f} mm".replace("-", "\N{MINUS SIGN}")
    panel.set_title(title, loc="left", fontsize=9, color=_QUIET, pad=5)
    left, right = ("A", "P") if axis == 2 else ("R", "L")
    for x, letter in ((0.025, left), (0.975, right)):
        panel.text(x, 0.5, letter, transform=panel.transAxes, ha="center", va="center", weight="bold", **_OUTLINED)
    height, length = image.array.take(0, axis).shape[0], 10 / image.spacing_mm[0]
    y = height * (0.95 if axis == 0 else 0.05)
    panel.plot([6, 6 + length], [y, y], color=_INK, linewidth=2, solid_capstyle="butt")
    panel.text(10 + length, y, "1 cm", fontsize=7.5, va="center", **_OUTLINED)


def _draw_legend(panel, segments: Sequence[Label], rows: list[dict]) -> None:
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_axis_off()
    columns = ((0.56, "Right", "right_ml"), (0.78, "Left", "left_ml"), (1.0, "Both", "total_ml"))
    y = 0.93
    for x, title, _ in columns:
        panel.text(x, y, title, ha="right", color=_QUIET, fontsize=8.5)
    lines = [(tuple(np.array(segment.color) / 255), row) for segment, row in zip(segments, rows, strict=True)]
    if len(rows) > 1:
        keys = ("right_ml", "left_ml", "total_ml")
        lines.append((None, {"structure": "Together"} | {key: sum(row[key] for row in rows) for key in keys}))
    for color, row in lines:
        y -= 0.115
        if color is None:
            panel.plot([0.03, 1], [y + 0.06] * 2, color=_QUIET, linewidth=0.6)
        else:
            panel.add_patch(Rectangle((0.03, y - 0.006), 0.035, 0.035, facecolor=color))
        panel.text(0.09, y, row["structure"], fontsize=10)
        y -= 0.07
        for x, _, key in columns:
            panel.text(x, y, f"{row[key]:.2f}", ha="right", fontsize=10, weight="bold")
    panel.text(1.0, y - 0.085, "volumes in mL", ha="right", fontsize=7.5, color=_QUIET)
