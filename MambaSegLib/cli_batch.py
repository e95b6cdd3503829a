"""``mambaseg batch``: one model over a folder, a list, or a CSV of images."""

import argparse

from .errors import UserError
from .terminal import print_json, run_job
from .wording import counted


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command to the parser's `commands`; `machine` has the options that every command shares."""
    parser = commands.add_parser("batch", parents=[machine], help="segment a cohort, on several processes")
    files = "images, folders of images, DICOM folders, or a CSV with a column 'image'"
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=files)
    parser.add_argument("-m", "--model", required=True, help="id of a model (see 'mambaseg models') or its folder")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="gets one file per case and summary.csv"
    )
    workers = "processes on this machine (default: 1); 0: in this process, which needs no dask"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=workers)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use the workers of this dask scheduler instead")
    there = "compute there, one case after the other; as for 'mambaseg segment'"
    parser.add_argument("--computer", metavar="COMPUTER", help=there)
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.set_defaults(command=_batch)


def _batch(options: argparse.Namespace) -> None:
    names = ("inputs", "model", "output", "workers", "scheduler", "computer", "resume", "device")
    request = {name: getattr(options, name) for name in names}
    if options.computer:
        request["workers"] = 0  # one connection
    result = run_job("batch", request, options.verbose)
    if options.json:
        print_json(result)
    else:
        counts = f"{result['done']} done, {result['skipped']} done before, {len(result['failed'])} failed"
        print(f"{counted(result['cases'], 'case')}: {counts}. Summary: {result['summary']}")
    if result["failed"]:  # the exit code tells a script
        first = result["failed"][0]
        raise UserError(
            f"{len(result['failed'])} of {result['cases']} cases failed; the first, {first['case']}: {first['error']}",
            f"{result['summary']} has the reasons. --resume tries those cases again.",
        )
