"""``mambaseg segment`` and ``mambaseg correct``: their options, and what they print."""

import argparse
import json

from .job import to_json_value
from .terminal import DISCLAIMER, duration, run_job, table

FIELDS = ("model", "output", "uncertainty", "frame", "roi", "roi_ras", "roi_mask", "device", "overlap", "mirror")
FIELDS += ("labels", "smoothing_mm", "largest_component")
CORRECT_FIELDS = ("model", "initial", "edited", "touched", "output", "locked", "frame")
CORRECT_FIELDS += ("roi", "roi_ras", "roi_mask", "device")


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the commands to the `commands` of an argument parser; `machine` holds the options of all of them."""
    _add_segment(commands.add_parser("segment", parents=[machine], help="segment a volume"))
    _add_correct(commands.add_parser("correct", parents=[machine], help="learn from a few edited slices of a volume"))


def _add_segment(parser: argparse.ArgumentParser) -> None:
    _add_image(parser)
    parser.add_argument("-o", "--output", required=True, help="file to write: .seg.nrrd, .nrrd or .nii.gz")
    parser.add_argument("--uncertainty", metavar="FILE", help="also write a map of the model's doubt, 0 to 100")
    parser.add_argument("--overlap", type=float, help="of neighbouring windows, 0 to 0.95 (default: the model's)")
    faster = "no averaging over mirrored input: faster"
    parser.add_argument("--no-mirror", dest="mirror", action="store_false", default=None, help=faster)
    only = "only these structures (default: all)"
    parser.add_argument("--labels", type=names, metavar="A,B", help=only)
    smooth = "smooth the surfaces by a Gaussian of this width"
    parser.add_argument("--smoothing-mm", type=float, metavar="MM", help=smooth)
    largest = "keep only the largest part of each structure"
    parser.add_argument("--largest-component", action="store_true", default=None, help=largest)
    parser.set_defaults(command=_segment)


def _add_correct(parser: argparse.ArgumentParser) -> None:
    _add_image(parser)
    parser.add_argument("--initial", required=True, metavar="FILE", help="labels as the model gave them")
    parser.add_argument("--edited", required=True, metavar="FILE", help="the same labels after your edits")
    looked = "label map: 1 where you edited or looked and agreed, such as whole slices, 2 where a single click did"
    parser.add_argument("--touched", required=True, metavar="FILE", help=looked)
    parser.add_argument("-o", "--output", required=True, help="file to write: .seg.nrrd, .nrrd or .nii.gz")
    parser.add_argument("--locked", type=names, metavar="A,B", help="structures that must not change")
    parser.set_defaults(command=_correct)


def _add_image(parser: argparse.ArgumentParser) -> None:
    """The options that say which image, with which model, where in it and on what."""
    files = ".nrrd, .nii.gz, .mha, a DICOM folder or one of its files; several for a model with several inputs"
    parser.add_argument("input", metavar="INPUT", nargs="+", help=files)
    parser.add_argument("-m", "--model", required=True, help="id of a model (see 'mambaseg models list') or its folder")
    parser.add_argument("--frame", type=int, metavar="N", help="time point of a sequence, from 0 on")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    there = "compute there: user@host (by ssh), user@host:/path/to/mambaseg, or a whole command; see 'mambaseg worker'"
    parser.add_argument("--computer", metavar="COMPUTER", help=there)
    region = parser.add_mutually_exclusive_group()
    bounds = "X0,X1,Y0,Y1,Z0,Z1"
    region.add_argument("--roi", type=_bounds, metavar=bounds, help="only inside this box: LPS mm, as in DICOM and ITK")
    region.add_argument("--roi-ras", type=_bounds, metavar=bounds, help="the same in RAS mm, as Slicer shows it")
    region.add_argument("--roi-mask", metavar="FILE", help="only inside the non-zero part of this label map")


def names(text: str) -> list[str]:
    """'A, B' -> ['A', 'B']."""
    return [name.strip() for name in text.split(",")]


def _bounds(text: str) -> list[float]:
    try:
        bounds = [float(number) for number in text.split(",")]
    except ValueError:
        bounds = []
    if len(bounds) != 6 or any(low >= high for low, high in zip(bounds[::2], bounds[1::2], strict=True)):
        raise argparse.ArgumentTypeError(f"expected six numbers X0,X1,Y0,Y1,Z0,Z1 with X0 < X1 and so on, got '{text}'")
    return bounds


def _request(options: argparse.Namespace, fields) -> dict:
    """A job's request: the image files, the region, and those of the `fields` that were given."""
    request = {name: getattr(options, name) for name in fields}
    request |= {"input": options.input[0] if len(options.input) == 1 else options.input}
    return {name: value for name, value in request.items() if value is not None}


def _run(job: str, options: argparse.Namespace, fields) -> dict:
    """The job's result, from this computer or the one of the options."""
    request = _request(options, fields)
    if options.computer:
        job, request = "remote", {"computer": options.computer, "job": job, "params": request}
    return run_job(job, request, options.verbose)


def _correct(options: argparse.Namespace) -> None:
    result = _run("correct", options, CORRECT_FIELDS)
    if options.json:
        _print_json(result)
        return
    print(table(["Structure", "Voxels added", "Voxels removed"], [list(row.values()) for row in result["changed"]]))
    print(f"\nWritten to {result['output']} after {duration(result['time_s'])}.")


def _print_json(result: dict) -> None:
    print(json.dumps(to_json_value(result), indent=2, ensure_ascii=False))


def _segment(options: argparse.Namespace) -> None:
    result = _run("segment", options, FIELDS)
    if options.json:
        _print_json(result)
        return
    doubt = {item["structure"]: item["score"] for item in result["review"]}
    rows = [[s["name"], float(s["volume_ml"]), s["voxels"], round(doubt[s["name"]], 2)] for s in result["segments"]]
    print(table(["Structure", "Volume (mL)", "Voxels", "Doubt (0-1)"], rows))
    print(f"\nWritten to {result['output']}")
    how = f"{result['device']}, {result['backend']}"
    print(f"Model {result['model']} on {how}, {duration(result['time_s'])}. {DISCLAIMER}")
