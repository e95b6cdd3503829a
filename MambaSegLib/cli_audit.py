"""``mambaseg audit``: check the log of reviews, and make a table of it."""

import argparse

from .errors import UserError
from .terminal import print_json
from .wording import counted


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command to the parser's `commands`; `machine` has the options that every command shares."""
    parser = commands.add_parser("audit", help="check the audit log of reviews, or export it")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    verifying = actions.add_parser("verify", parents=[machine], help="find changed, deleted or moved records")
    verifying.add_argument("log", metavar="FILE")
    verifying.add_argument("--head", metavar="HASH", help="a hash noted earlier, which must still be in the log")
    verifying.set_defaults(command=_verify)
    exporting = actions.add_parser("export", parents=[machine], help="write the log as CSV")
    exporting.add_argument("log", metavar="FILE")
    exporting.add_argument("-o", "--output", required=True, metavar="FILE.csv")
    exporting.set_defaults(command=_export)


def _verify(options: argparse.Namespace) -> None:
    from . import audit

    found = audit.verify(options.log, options.head)
    if options.json:
        print_json(found)
    if found["problems"]:
        more = f" (and {len(found['problems']) - 1} more)" if len(found["problems"]) > 1 else ""
        raise UserError(found["problems"][0] + more, "Keep the file: it is not as it was written.")
    if not options.json:
        print(f"{counted(found['records'], 'record')}, unbroken. Head: {found['head']}")


def _export(options: argparse.Namespace) -> None:
    from . import audit

    count = audit.export_csv(options.log, options.output)
    result = {"records": count, "output": options.output}
    print_json(result) if options.json else print(f"{counted(count, 'record')} written to {options.output}.")
