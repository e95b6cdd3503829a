"""``mambaseg``: the library on the command line. Results go to stdout, progress and complaints to stderr.

Exit codes: 0 done, 1 an error in the program, 2 something the user can put right, 130 cancelled.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from . import (
    __version__,
    cli_audit,
    cli_batch,
    cli_corrections,
    cli_dicom,
    cli_evaluate,
    cli_import,
    cli_models,
    cli_networks,
    cli_plan,
    cli_segment,
    cli_train,
)
from .errors import UserError
from .terminal import DISCLAIMER, guarded, print_json, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(_with_joined_bounds(arguments))
    return guarded(lambda: options.command(options), "mambaseg", options.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mambaseg", description=f"Mamba segmentation of medical images. {DISCLAIMER}")
    parser.add_argument("--version", action="version", version=f"mambaseg {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--verbose", action="store_true", help="show every message, and the traceback of an error")
    machine = argparse.ArgumentParser(add_help=False, parents=[common])
    machine.add_argument("--json", action="store_true", help="print the result as JSON")

    cli_segment.add_to(commands, machine)
    cli_models.add_to(commands, machine)
    cli_plan.add_to(commands, machine)
    info = commands.add_parser("info", parents=[machine], help="tell about a volume")
    info.add_argument("file", metavar="FILE")
    info.set_defaults(command=_info)
    commands.add_parser(
        "doctor", parents=[common], help="what works on this machine, and why the rest does not"
    ).set_defaults(command=_doctor)
    worker = "work for another computer, which starts this by ssh (its --computer, or its setting 'Compute on')"
    commands.add_parser("worker", parents=[common], help=worker).set_defaults(command=_worker)
    cli_train.add_to(commands, machine)
    cli_evaluate.add_to(commands, machine)
    for module in (cli_corrections, cli_audit, cli_dicom, cli_batch):
        module.add_to(commands, machine)
    cli_import.add_to(commands, machine)
    cli_networks.add_to(commands, machine)
    return parser


def _with_joined_bounds(arguments: list[str]) -> list[str]:
    """``--roi -40,40,...`` -> ``--roi=-40,40,...``: argparse would take the minus for another option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--roi", "--roi-ras") and re.match(r"-[\d.]", argument):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def _info(options: argparse.Namespace) -> None:
    path = Path(options.file).expanduser()
    if not path.exists():
        raise UserError(
            f"There is no file or folder {options.file!r}.", "Models are told of by 'mambaseg models show'."
        )
    facts = _volume_facts(path)
    print_json(facts) if options.json else print(table(["Property", "Value"], [list(f) for f in facts.items()]))


def _volume_facts(path: Path) -> dict:
    from .image import read_volume
    from .volume import axis_code

    volume = read_volume(path, lambda text: print(f"warning: {text}", file=sys.stderr))
    size = volume.shape[::-1]
    return {
        "file": str(path),
        "size (x, y, z)": _triple(size),
        "spacing (mm)": _triple(volume.spacing_mm),
        "extent (mm)": _triple([n * step for n, step in zip(size, volume.spacing_mm, strict=True)]),
        "origin (LPS mm)": _triple(volume.origin_mm),
        "axes point to": axis_code(volume.direction),
        "number type": str(volume.array.dtype),
        "values": f"{volume.array.min():g} to {volume.array.max():g}, mean {volume.array.mean():g}",
    }


def _triple(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _doctor(options: argparse.Namespace) -> None:
    from . import doctor

    for line in doctor.as_lines(doctor.examine()):
        print(line, flush=True)


def _worker(options: argparse.Namespace) -> None:
    from . import remote_worker

    sys.exit(remote_worker.main())


if __name__ == "__main__":
    sys.exit(main())
