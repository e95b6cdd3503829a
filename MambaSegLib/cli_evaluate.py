"""``mambaseg evaluate``: how well a model, or somebody's label maps, agree with labelled cases."""

import argparse

from .terminal import print_json, run_job, table

MODES = ("synapse", "acdc", "isic")
TEXT = """\
Measures every case and structure: Dice, IoU, HD95, ASSD, surface Dice at 1 mm and volume error, in mm; what is absent
is left out of the means. With --output, the folder gets cases.csv, summary.csv and report.html, a page with the cases
that went worst. --mode adds the numbers as papers compute them on a data set, to stand beside theirs and nowhere else.
"""


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command.

    Args:
        commands: where argparse keeps them.
        machine: parent with the options that all commands have.
    """
    parser = commands.add_parser(
        "evaluate", parents=[machine], help="measure a model on labelled cases", description=TEXT
    )
    parser.add_argument("data", metavar="DATA", help="folder or table of labelled cases, or of corrected cases")
    measured = parser.add_mutually_exclusive_group(required=True)
    measured.add_argument("-m", "--model", help="name of a model or its folder")
    measured.add_argument("--predictions", metavar="FOLDER", help="label maps, named as the cases, instead of a model")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write tables and a page there")
    parser.add_argument("--mode", choices=MODES, help="also as the papers on this data set measure")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    request = {key: getattr(options, key) for key in ("data", "model", "predictions", "output", "mode", "device")}
    result = run_job("evaluate", {key: value for key, value in request.items() if value is not None}, options.verbose)
    if options.json:
        print_json(result)
        return
    header = ["Structure", "Measure", "Mean", "SD", "Cases"]
    for values in filter(None, (result["values"], result["published"])):
        rows = [[row["structure"], _measure(row), *map(_number, (row["mean"], row["sd"])), row["n"]] for row in values]
        print(table(header, rows) + "\n")
    if result["files"]:
        print("Written: " + ", ".join(result["files"]))


def _measure(row: dict) -> str:
    return f"{row['name']} ({row['unit']})" if row["unit"] else row["name"]


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"
