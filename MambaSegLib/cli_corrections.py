"""``mambaseg corrections``: look into the store of corrected cases, add to it, remove from it."""

import argparse
import getpass
from pathlib import Path

from .errors import UserError
from .terminal import print_json, table
from .wording import counted


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command to the parser's `commands`; `machine` has the options that every command shares."""
    parser = commands.add_parser("corrections", help="the corrected cases from which a model learns")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    place = argparse.ArgumentParser(add_help=False, parents=[machine])
    place.add_argument("--folder", help="the store (default: this user's)")

    listing = actions.add_parser("list", parents=[place], help="list the cases")
    listing.set_defaults(command=_list)
    adding = actions.add_parser("add", parents=[place], help="add a corrected case")
    adding.add_argument("images", nargs="+", metavar="IMAGE", help="the image; several: its channels in their order")
    adding.add_argument("--labels", required=True, metavar="FILE", help="the corrected segmentation on the same grid")
    adding.add_argument("--patient", required=True, metavar="KEY", help="the patient's number; only its hash is stored")
    adding.add_argument("-m", "--model", help="the model that made the first draft; it names the structures too")
    adding.add_argument("--annotator", default=None, metavar="NAME", help="who corrected it (default: you)")
    adding.add_argument("--structures", metavar="A,B", help="the structures that are really done (default: all)")
    slices = "the slices that are really done, counted from 0 along x, y or z, as z:3-7,12 (default: all)"
    adding.add_argument("--slices", type=_slices, metavar="AXIS:FIRST-LAST,...", help=slices)
    adding.add_argument("--title", default="", help="what to call it in lists")
    adding.set_defaults(command=_add)
    removing = actions.add_parser("remove", parents=[place], help="delete a case and its earlier versions")
    removing.add_argument("case", metavar="ID", help="as 'mambaseg corrections list' tells it")
    removing.set_defaults(command=_remove)


def _slices(text: str) -> dict:
    try:
        axis, spans = text.split(":")
        bounds = [[int(number) for number in span.split("-")] for span in spans.split(",")]
        indices = [index for span in bounds for index in range(span[0], span[-1] + 1)]
        return {"axis": "zyx".index(axis), "indices": indices}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected an axis and slices such as z:3-7,12, got '{text}'") from error


def _list(options: argparse.Namespace) -> None:
    from . import corrections

    folder = _folder(options)
    found = corrections.cases(folder)
    if options.json:
        print_json([{**c.data, "folder": c.folder} for c in found])
        return
    rows = [[c.id, c.title, _done(c.annotated), c.annotator, c.part, c.data["version"]] for c in found]
    print(table(["Case", "Title", "Annotated", "By", "Part", "Version"], rows) if rows else f"No cases in {folder}.")


def _done(annotated: dict) -> str:
    slices = annotated["slices"]
    where = "" if slices is None else f" ({counted(len(slices['indices']), 'slice')} along {'zyx'[slices['axis']]})"
    return ", ".join(annotated["structures"]) + where


def _add(options: argparse.Namespace) -> None:
    from . import catalogue, corrections
    from .image import read_labels
    from .label_table import table_of

    labels = read_labels(options.labels)
    bundle = catalogue.find(options.model) if options.model else None
    structures = bundle.labels if bundle else table_of(options.labels, labels.array)
    names = [s.name for s in structures]
    done = [name.strip() for name in options.structures.split(",")] if options.structures else names
    annotated = {"structures": done, "slices": options.slices}
    case = corrections.add(
        _folder(options),
        options.images,
        labels,
        structures,
        annotated,
        options.patient,
        options.annotator or _user(),
        {"id": bundle.id, "sha256": bundle.sha256} if bundle else None,
        options.title,
    )
    if options.json:
        print_json({"id": case.id, "part": case.part, "folder": str(case.folder)})
    else:
        print(f"Added {case.id} ({case.part}) to {case.folder.parent}.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise UserError("The annotator's name was expected, but the system knows none.", "Give --annotator.") from error


def _remove(options: argparse.Namespace) -> None:
    from . import corrections

    count = corrections.remove(_folder(options), options.case)
    print_json({"removed": count}) if options.json else print(f"Removed {options.case} ({counted(count, 'version')}).")


def _folder(options: argparse.Namespace) -> Path:
    from . import corrections

    return Path(options.folder).expanduser() if options.folder else corrections.default_folder()
