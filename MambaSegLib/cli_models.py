"""``mambaseg models``: which models there are, how their versions compare, and which one is in use."""

import argparse

from . import catalogue, model_store
from .bundle import ModelBundle
from .model_versions import Version
from .terminal import print_json, run_job, table

TEXT = """\
A model that was made from another one is a version of the same lineage. One version of a lineage is in use: it answers
to the lineage's name, such as 'hippocampus'. Every version also has a name of its own, such as
'hippocampus-2a336a8fc64b', see 'mambaseg models list --all'.
"""


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command.

    Args:
        commands: where argparse keeps them.
        machine: parent with the options that all commands have.
    """
    models = commands.add_parser("models", help="list, compare and choose models and their versions", description=TEXT)
    actions = models.add_subparsers(title="actions", required=True, metavar="ACTION")
    folder = argparse.ArgumentParser(add_help=False, parents=[machine])
    folder.add_argument("--folder", help=f"folder of models (default: {catalogue.user_folder()})")

    def add(name: str, command, text: str, parent=folder) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[parent], help=text)
        action.set_defaults(command=command)
        return action

    listed = add("list", _list, "list the models that are there")
    listed.add_argument("search", nargs="*", help="only those with all these words in title, structures or keywords")
    listed.add_argument("--all", action="store_true", help="every version, also those refused or not in use")
    add("show", _show, "print the card of a model").add_argument("model", help="name of a model or of a version")
    compared = add("compare", _compare, "measure two models on cases that neither was trained on", machine)
    compared.add_argument("parent", help="the model in use: its name or folder")
    compared.add_argument("candidate", help="the new one: the name of a version, or a folder")
    compared.add_argument("data", help="folder of labelled cases or of corrected cases")
    compared.add_argument("--margin", type=float, default=0.01, help="loss of Dice that is let pass (default: 0.01)")
    compared.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    promoted = add("promote", _promote, "put a version in use")
    promoted.add_argument("version", help="its name, see 'list --all'")
    promoted.add_argument("--despite-gate", action="store_true", help="also when the gate did not accept it")
    back = add("rollback", _rollback, "go back to the version that the one in use was made from")
    back.add_argument("model", help="name of the lineage, such as hippocampus")
    added = add("add", _add, "add a model that somebody exported as a .zip file, or its folder")
    added.add_argument("source", metavar="FILE_OR_FOLDER")
    added.add_argument("--name", help="what to call it here (default: its own name)")
    use = "put a version of another model in use, whatever the gate said"
    added.add_argument("--use", action="store_true", help=use)
    add("remove", _remove, "delete a version that is not in use").add_argument("version")
    card = add("export-card", _export_card, "write the card of a model as a file")
    card.add_argument("model", help="name of a model or of a version")
    card.add_argument("file", metavar="FILE", help=".md or .html")


def _list(options: argparse.Namespace) -> None:
    extra = [options.folder] if options.folder else []
    found = catalogue.search(" ".join(options.search), extra, options.all)
    versions = {version.folder: version for version in model_store.versions(options.folder)} if options.all else {}
    place = {folder: number for number, folder in enumerate(versions)}
    found.sort(key=lambda entry: place.get(entry.folder, len(place)))  # stable: as they were where it says nothing
    if options.json:
        print_json([_facts(entry) | _version_facts(versions.get(entry.folder)) for entry in found])
        return
    usable = [entry for entry in found if entry.bundle]
    if options.all:
        rows = [_version_row(entry, versions.get(entry.folder)) for entry in usable]
        print(table(["Version", "In use", "Gate", "Made from", "Date", "Title"], rows) if rows else "No models found.")
    else:
        rows = [[e.id, e.title, ", ".join(label.name for label in e.bundle.labels), _size(e.bundle)] for e in usable]
        print(table(["Model", "Title", "Structures", "Size"], rows) if rows else "No models found.")
    for entry in found:
        if entry.error:
            print(f"\nBroken: {entry.error}")


def _facts(entry: catalogue.Entry) -> dict:
    facts = {"id": entry.id, "title": entry.title, "folder": str(entry.folder), "origin": entry.origin, "error": None}
    if entry.error:
        return facts | {"error": str(entry.error)}
    keys = ("version", "description", "keywords", "network", "labels", "inputs", "metrics", "licence", "weights")
    return facts | {"name": entry.version} | {key: entry.bundle.data[key] for key in keys}


def _version_facts(version: Version | None) -> dict:
    if version is None:
        return {}
    facts = {"lineage": version.lineage, "parent": version.parent, "date": version.date}
    return facts | {"in_use": version.is_active, "decision": version.decision}


def _version_row(entry: catalogue.Entry, version: Version | None) -> list[str]:
    if version is None:  # of another folder, such as one given besides
        return [entry.version, "", "", "", entry.bundle.data["provenance"]["date"], entry.title]
    verdict = {None: "", True: "accepted", False: "refused"}[version.decision and version.decision["accepted"]]
    if version.decision and version.decision["protocol"] == "none":
        verdict = "not proven"
    return [version.id, "yes" if version.is_active else "", verdict, version.parent or "", version.date, entry.title]


def _size(bundle: ModelBundle) -> str:
    return f"{bundle.data['weights']['bytes'] / 1e6:.1f} MB"


def _show(options: argparse.Namespace) -> None:
    bundle = catalogue.find(options.model, [options.folder] if options.folder else [])
    decision = catalogue.decision_of(bundle.folder)
    if options.json:
        print_json(bundle.data | {"folder": str(bundle.folder), "decision": decision})
    else:
        print(bundle.card(decision))


def _compare(options: argparse.Namespace) -> None:
    request = {key: getattr(options, key) for key in ("parent", "candidate", "data", "margin", "device")}
    decision = run_job("gate", request, options.verbose)
    if options.json:
        print_json(decision)
        return
    header = ["Structure", "Cases", "Dice before", "after", "Change", "95 % interval", "HD95 before", "after (mm)"]
    if decision["rows"]:
        print(table(header, [_decision_row(row) for row in decision["rows"]]) + "\n")
    print("The gate accepts the new model." if decision["accepted"] else "The gate does not accept the new model.")
    for reason in decision["reasons"]:
        print(f"  {reason}")


def _decision_row(row: dict) -> list[str]:
    values = [row["dice_before"], row["dice_after"], row["hd95_before"], row["hd95_after"]]
    before, after, far_before, far_after = ("-" if value is None else f"{value:.3f}" for value in values)
    change, between = "-", "-"
    if row["difference"] is not None:
        change, between = f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}"
    return [row["structure"], str(row["cases"]), before, after, change, between, far_before, far_after]


def _promote(options: argparse.Namespace) -> None:
    _tell(options, model_store.promote(options.version, options.folder, despite_gate=options.despite_gate))


def _rollback(options: argparse.Namespace) -> None:
    _tell(options, model_store.rollback(model_store.lineage(options.model, options.folder), options.folder))


def _tell(options: argparse.Namespace, version: Version) -> None:
    if options.json:
        print_json({"name": version.id, "folder": version.folder, **_version_facts(version)})
    else:
        print(f"'{version.lineage}' is now {version.id}.")


def _add(options: argparse.Namespace) -> None:
    request = {"source": options.source, "name": options.name, "use": options.use, "output": options.folder}
    result = run_job("add_model", request, options.verbose)
    if options.json:
        print_json(result)
        return
    print(f"{result['title']} {'was here already' if result['was_there'] else 'is here now'}: {result['id']}.")
    if not result["in_use"]:
        print(f"Another version is in use. To use this one: mambaseg models promote {result['id']} --despite-gate")


def _remove(options: argparse.Namespace) -> None:
    model_store.remove(options.version, options.folder)
    print_json({"removed": options.version}) if options.json else print(f"{options.version} was removed.")


def _export_card(options: argparse.Namespace) -> None:
    path = model_store.export_card(options.model, options.file, options.folder)
    print_json({"file": path}) if options.json else print(f"Written to {path}")
