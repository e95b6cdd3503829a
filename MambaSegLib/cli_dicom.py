"""``mambaseg export-seg``: a label map as a DICOM Segmentation object."""

import argparse

from .terminal import print_json, run_job, table


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command to the parser's `commands`; `machine` has the options that every command shares."""
    parser = commands.add_parser("export-seg", parents=[machine], help="write a segmentation as DICOM SEG")
    parser.add_argument("labels", metavar="LABELS", help="the segmentation, on the voxels of the series")
    parser.add_argument("--source", required=True, metavar="FOLDER", help="the DICOM series it was drawn on")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.dcm")
    parser.add_argument("-m", "--model", help="the model that drew it (default: drawn by hand)")
    parser.add_argument("--corrected", action="store_true", help="a person corrected the model's result")
    parser.add_argument("--description", help="of the new series (default: the model's title)")
    parser.add_argument("--creator", metavar="NAME", help="who made it")
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    names = ("labels", "source", "output", "model", "corrected", "description", "creator")
    result = run_job("export_seg", {name: getattr(options, name) for name in names}, options.verbose)
    if options.json:
        print_json(result)
        return
    print(table(["Segment", "Name", "Voxels"], [[s["number"], s["name"], s["voxels"]] for s in result["segments"]]))
    print(f"\nWritten to {result['output']}")
