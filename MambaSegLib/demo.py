"""The first thing to run: both hippocampi of the MNI152 brain, from a T1 image to a segmentation, a picture, a table.

The image (ICBM 2009a nonlinear, 1 mm, skull-stripped) comes with the Python package nilearn; nothing is downloaded.
"""

import argparse
import csv
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import catalogue
from .bundle import Label
from .errors import UserError
from .image import read_labels, read_volume
from .terminal import DISCLAIMER, duration, guarded, run_job, table
from .volume import Volume

# A box in MNI space around both hippocampi: x 40 left to 40 right, y 45 to 0 behind, z 32 below to 8 above the
# anterior commissure, written in LPS mm.
ROI_MM = [-40.0, 40.0, 0.0, 45.0, -32.0, 8.0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code (see `terminal.guarded`)."""
    parser = argparse.ArgumentParser(prog="demo", description=f"Segment the hippocampi of MNI152. {DISCLAIMER}")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for the results (default: output)")
    parser.add_argument("--model", default="hippocampus", help="id of a model or its folder")
    parser.add_argument("--verbose", action="store_true", help="show every message, and the traceback of an error")
    options = parser.parse_args(arguments)
    return guarded(lambda: _demonstrate(options), "demo", options.verbose)


def template_file() -> Path:
    """The MNI152 T1 image inside the nilearn package, found without importing it. UserError without one."""
    package = importlib.util.find_spec("nilearn")
    folders = package.submodule_search_locations if package else []
    found = [path for folder in folders for path in sorted(Path(folder).glob("datasets/data/*152*t1*.nii.gz"))]
    if not found:
        came = "it has no such file" if package else "it is not installed"
        raise UserError(f"The image comes with the package nilearn, but {came}.", "Run: pip install 'nilearn>=0.10'")
    return found[0]


def volumes_by_side(labels: Volume, segments: Sequence[Label]) -> list[dict]:
    """Volume of each structure to the left and to the right of the plane x = 0 of the patient space.

    Args:
        labels: whole numbers, (Z, Y, X).
        segments: which numbers mean what.

    Returns:
        One {"structure", "left_ml", "right_ml", "total_ml"} per segment; voxels on the plane count as right.
    """
    rows = []
    to_world_x = labels.world_from_index()[0]
    for segment in segments:
        z, y, x = np.nonzero(labels.array == segment.value)
        is_left = to_world_x @ np.stack([x, y, z, np.ones_like(x)]) > 0  # LPS: x grows to the patient's left
        left, total = (count * labels.voxel_volume_mm3 / 1000 for count in (int(is_left.sum()), is_left.size))
        rows.append({"structure": segment.name, "left_ml": left, "right_ml": total - left, "total_ml": total})
    return rows


def _demonstrate(options: argparse.Namespace) -> None:
    bundle = catalogue.find(options.model)
    folder = _made(options.output)
    image, output = template_file(), folder / "mni152_hippocampus.seg.nrrd"
    print(f"Image  MNI152 T1, 1 mm ({image})\nModel  {bundle.title} ({bundle.id} {bundle.version})", flush=True)
    request = {"input": str(image), "model": str(bundle.folder), "output": str(output), "roi": ROI_MM, "device": "auto"}
    result = run_job("segment", request, options.verbose)

    labels = read_labels(output)
    rows = volumes_by_side(labels, bundle.labels)
    _write_csv(folder / "volumes.csv", rows)
    from . import overview  # matplotlib takes a second to load

    title = "Hippocampi of MNI152"
    overview.draw(folder / "overview.png", title, read_volume(image), labels, bundle.labels, rows, ROI_MM)
    cells = [list(row.values()) for row in rows]
    print("\n" + table(["Structure", "Left (mL)", "Right (mL)", "Both (mL)"], cells) + "\n")
    for name, what in ((output.name, "segmentation"), ("overview.png", "picture"), ("volumes.csv", "table")):
        print(f"{what.capitalize():<13} {(folder / name).resolve()}")
    print(f"Segmented in {duration(result['time_s'])} on {result['device']} ({result['backend']}). {DISCLAIMER}")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be made: {error.strerror}.", "Choose another --output.") from error
    return folder


def _write_csv(path: Path, rows: list[dict]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows({key: f"{v:.3f}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
