"""``mambaseg export-seg``: a label map as a DICOM Segmentation object, with a Structured Report if wanted."""

import argparse

from .errors import UserError
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
    report = parser.add_argument_group("report", "volumes, of a CT also mean and SD, as DICOM SR (TID 1500)")
    report.add_argument("--report", metavar="FILE.dcm", help="write one that refers to the segmentation")
    report.add_argument("--reviewer", metavar="NAME", help="who reviewed the segmentation")
    report.add_argument("--decision", metavar="completed|flagged", help="of the reviewer (else: partial)")
    report.add_argument("--comment", help="of the reviewer")
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    names = ("labels", "source", "output", "model", "corrected", "description", "creator")
    about = ("reviewer", "decision", "comment")
    if not options.report and any(getattr(options, name) for name in about):
        raise UserError("A file for the report was expected, but only what it says came.", "Add --report FILE.dcm.")
    result = run_job(
        "export_seg", {name: getattr(options, name) for name in (*names, "report", *about)}, options.verbose
    )
    if options.json:
        print_json(result)
        return
    heads = ["Segment", "Name", "Voxels", "mL"]
    rows = [[s["number"], s["name"], s["voxels"], f"{s['volume_mm3'] / 1000:.2f}"] for s in result["segments"]]
    if "mean_hu" in result["segments"][0]:
        heads += ["Mean HU", "SD"]
        rows = [[*r, f"{s['mean_hu']:.1f}", f"{s['sd_hu']:.1f}"] for r, s in zip(rows, result["segments"], strict=True)]
    print(table(heads, rows))
    print(f"\nWritten to {result['output']}" + (f" and {result['report']}" if result["report"] else ""))
