"""``mambaseg networks`` and ``mambaseg export``: what networks there are, and models for other programs."""

import argparse
import dataclasses
import json
import re
from pathlib import Path
from textwrap import shorten

from .terminal import print_json, run_job, table
from .wording import counted

FORMATS = "bundle (one .zip file, for 'models add'), monai (for MONAI Label and Deploy), onnx or torch (torch.export)"
CASE_NAMES = (
    "leave the names of your own cases in the model's history; else they are left out, as they may be patients'"
)
COUNTED_ON = {2: (224, 224), 3: (128, 128, 128)}  # image size of the MACs by number of axes
_DATASET_WIDTH = 30
AUTHORS = """\
Authors' weights: mambaseg import FILE_OR_FOLDER --network {name} --trust"""


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the commands.

    Args:
        commands: where argparse keeps them.
        machine: parent with the options that all commands have.
    """
    networks = commands.add_parser("networks", parents=[machine], help="list the networks, or tell all about one")
    networks.add_argument("name", nargs="?", help="a network (default: list all)")
    networks.set_defaults(command=_networks)
    export = commands.add_parser("export", parents=[machine], help="write a model for other programs")
    export.add_argument("model", metavar="MODEL", help="id of a model or its folder")
    export.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE_OR_FOLDER",
        help="a new file (.zip for bundle), or folder for monai",
    )
    export.add_argument("--format", required=True, choices=("bundle", "monai", "onnx", "torch"), help=FORMATS)
    export.add_argument("--with-case-names", action="store_true", help=CASE_NAMES)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    request = {"model": options.model, "output": options.output, "format": options.format}
    request |= {"case_names": options.with_case_names}
    result = run_job("export", request, options.verbose)
    if options.json:
        print_json(result)
        return
    print(f"Written to {result['output']}")
    if result["withheld"]:
        print(f"The names of {counted(result['withheld'], 'case')} were left out of its history.")
    if result["input_shape"]:
        size = " x ".join(map(str, result["input_shape"]))
        print(f"Takes images of {size}; differs from the model by {result['difference']:.1e} of its largest logit.")


def _networks(options: argparse.Namespace) -> None:
    from .networks import names

    if options.name:
        facts = _facts(options.name, counted=True)
        print_json(facts) if options.json else print(_card(facts))
        return
    wanted = [name for name in names() if not name.endswith("_test")]
    if options.json:
        print_json([_facts(name) for name in names()])
        return
    header = ["Network", "Grid", "Parameters", "MACs", "CPU", "Memory", "Published", "Licence"]
    print(table(header, [_row(name) for name in wanted]))
    print("\nMACs, CPU seconds and memory as measured for one image of the size in brackets; '-': not measured.")
    print(
        "Published figures are the papers' own, each under its own protocol; 'mambaseg networks NAME' tells all of it."
    )


def _row(name: str) -> list[str]:
    from .networks import spec

    entry, cost = spec(name), measured(name)
    figure = "-"
    if entry.figures:
        figure = f"{shorten(entry.figures[0].dataset, _DATASET_WIDTH, placeholder=' ...')}: {entry.figures[0].value:g}"
    grid = "x".join(map(str, cost["size"])) if cost else ""
    macs = f"{cost['macs'] / 1e9:.1f} G ({grid})" if cost.get("macs") else "-"
    seconds = f"{cost['cpu_seconds']:.2f} s" if cost.get("cpu_seconds") else "-"
    memory = f"{cost['peak_memory_mb']:.0f} MB" if cost.get("peak_memory_mb") else "-"
    licence = re.split(r" [(]|;", entry.licence)[0]  # the whole of it stands in the network's card
    return [name, f"{entry.dims}-D", f"{entry.parameters[2] / 1e6:.2f} M", macs, seconds, memory, figure, licence]


def measured(name: str) -> dict:
    """What the benchmark wrote about a network ("size", "cpu_seconds", "peak_memory_mb", "macs" ...); {} if nothing."""
    path = Path(__file__).parent / "networks" / "measured.json"
    return json.loads(path.read_text(encoding="utf-8")).get("networks", {}).get(name, {}) if path.is_file() else {}


def _facts(name: str, counted: bool = False) -> dict:
    """Everything about a network; MACs are counted only where asked, for that takes a second."""
    from .networks import spec

    entry = spec(name)
    plain = ("name", "dims", "hyper", "divisor", "parameters", "paper", "url", "licence")
    facts = {key: getattr(entry, key) for key in plain} | {"measured": measured(name)}
    facts["figures"] = [dataclasses.asdict(figure) for figure in entry.figures]
    if counted:
        from .networks.macs import count_variant

        macs = count_variant(name, *entry.parameters[:2], COUNTED_ON[entry.dims])
        facts["macs"] = {"size": COUNTED_ON[entry.dims], "layers": macs.layers, "everything": macs.everything}
    return facts


def _card(facts: dict) -> str:
    inputs, outputs, count = facts["parameters"]
    size, cost = "x".join(map(str, facts["macs"]["size"])), facts["measured"]
    lines = [
        f"{facts['name']}: {facts['dims']}-D, {count:,} parameters ({counted(inputs, 'channel')}, "
        f"{counted(outputs, 'class', 'classes')})",
        f"Paper: {facts['paper']}",
        f"       {facts['url']}",
        f"Licence: {facts['licence']}",
        f"MACs at {size}: {facts['macs']['layers'] / 1e9:.3f} G in layers (what papers print), "
        f"{facts['macs']['everything'] / 1e9:.3f} G with scans, attention and deformable sampling",
    ]
    if cost:
        memory = f"{cost['peak_memory_mb']} MB" if cost.get("peak_memory_mb") else "not measured"
        at = "x".join(map(str, cost["size"]))
        lines.append(f"Measured at {at}: {cost['cpu_seconds']:.2f} CPU seconds, peak memory {memory}")
    settings = ", ".join(f"{key} = {value}" for key, value in facts["hyper"].items()) or "the class's defaults"
    lines += [f"Hyper-parameters: {settings}", AUTHORS.format(name=facts["name"])]
    rows = [[f["dataset"], f["metric"], f"{f['value']:g}", f["source"]] for f in facts["figures"]]
    published = table(["Published on", "Measure", "Value", "Table and protocol"], rows) if rows else "None published."
    return "\n".join([*lines, "", published])
