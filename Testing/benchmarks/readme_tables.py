"""Writes the tables of README.md from what they are about: the model's card, the registry, the benchmarks' results.

    python Testing/benchmarks/readme_tables.py

Each table stands between ``<!-- name -->`` and ``<!-- end -->``; `Testing/library/test_readme.py` checks that model and
networks are up to date.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from MambaSegLib import catalogue  # noqa: E402
from MambaSegLib.networks import names, spec  # noqa: E402

README = ROOT / "README.md"
RESULTS = Path(__file__).parent / "results"
MEASURED = ROOT / "MambaSegLib" / "networks" / "measured.json"


def table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def model() -> str:
    """Every model that ships: its training, and what was measured on the held-out cases."""
    shipped = sorted(catalogue.shipped_folder().glob("*/bundle.json"))
    return "\n\n".join(_model(json.loads(path.read_text(encoding="utf-8"))) for path in shipped)


def _model(data: dict) -> str:
    measures = list(dict.fromkeys(v["name"] for v in data["metrics"]["values"]))
    rows = []
    for label in data["labels"]:
        found = {v["name"]: v for v in data["metrics"]["values"] if v["structure"] == label["name"]}
        cells = [f"{found[n]['mean']:.3f} ± {found[n]['sd']:.3f}" if n in found else "" for n in measures]
        rows.append([label["name"], *cells, max(v["n"] for v in found.values())])
    training = data["provenance"]
    cases, minutes = len(training["cases"]), training["train_time_s"] / 60
    card = f"[Its card](MambaSegLib/models/{data['id']}/README.md)"
    text = (
        f"**`{data['id']}`** {data['version']}: {data['description']} {data['weights']['bytes'] / 1e6:.1f} MB. "
        f"Trained on {cases} cases ({training['data'].split('; context')[0]}) in {minutes:.0f} minutes on CPU, seed "
        f"{training['seed']}; measured on {data['metrics']['protocol']}. Weights: {data['licence']['weights']}. "
        f"{card} has the rest.\n\n"
    )
    units = {v["name"]: v.get("unit") for v in data["metrics"]["values"]}
    heads = [f"{name}, {units[name]}" if units[name] else name for name in measures]
    return text + table(["Structure", *heads, "Cases"], rows)


def networks() -> str:
    """Every variant but the toys; figures are the papers' own, under the papers' protocols, not ours."""
    data = json.loads(MEASURED.read_text()) if MEASURED.exists() else {"networks": {}}
    rows = []
    for name in names():
        entry = spec(name)
        if not name.endswith("_test"):
            paper = f"[{entry.paper}]({entry.url})" if entry.url else entry.paper
            inputs, outputs, count = entry.parameters
            row = [f"`{name}`", f"{entry.dims}-D", f"{count / 1e6:.2f} M ({inputs} in, {outputs} out)"]
            row += measured_cells(data["networks"].get(name))
            rows.append([*row, published(entry.figures), entry.licence, paper])
    text = f"{len(rows)} variants, built from their specifications; `mambaseg networks --json` has the rest. "
    if data["networks"]:
        text += (
            f"Seconds and memory of one image at the stated size are measured: {data['machine']['processor']}, "
            f"{data['threads']} threads, torch {data['machine']['torch']}. "
        )
    text += "Published figures are the papers' own, under their protocols.\n\n"
    header = ["Network", "Grid", "Parameters", "Size", "GMAC", "Seconds", "Memory, MB", "Published", "Licence", "Paper"]
    return text + table(header, rows)


def measured_cells(row: dict | None) -> list[str]:
    """Size, GMAC, seconds and memory of a row of measured.json; empty where nothing was measured."""
    if row is None:
        return [""] * 4
    memory = "" if row["peak_memory_mb"] is None else str(row["peak_memory_mb"])
    size = "x".join(map(str, row["size"]))
    return [size, f"{row['macs'] / 1e9:.1f}", f"{row['seconds']:.2g}", memory]


def published(figures) -> str:
    """The first figure, and how many more there are."""
    if not figures:
        return ""
    first, more = figures[0], len(figures) - 1
    return f"{first.dataset}: {first.metric} {first.value:g}" + (f", and {more} more" if more else "")


def ratios() -> str:
    """networks.json: what the scan adds to a network."""
    data = json.loads((RESULTS / "networks.json").read_text())
    rows = [
        [
            r["pair"],
            "x".join(map(str, r["size"])),
            f"{r['seconds']:.2f}",
            f"{r['floor_seconds']:.2f}",
            f"{r['ratio']:.2f}",
        ]
        for r in data["ratios"]
    ]
    header = ["Pair", "Size", "Network, s", "Other, s", "Ratio"]
    return f"{data['threads']} threads, taken in turns in one process. {data['note']}\n\n{table(header, rows)}"


def operators() -> str:
    """Selected rows of operators.json."""
    path = RESULTS / "operators.json"
    data = json.loads(path.read_text())
    rows = []
    for r in data["results"]:
        base = next(
            b
            for b in data["results"]
            if (b["row"], b["threads"], b["implementation"]) == (r["row"], r["threads"], "sequential")
        )
        times = [f"{r[k] * 1e3:.0f} ({base[k] / r[k]:.1f}x)" for k in ("forward_s", "forward_backward_s")]
        memory = "" if r["peak_memory_of_u"] is None else f"{r['peak_memory_of_u']:.1f}"
        rows.append([r["row"], r["threads"], r["implementation"] + r.get("timed_on", ""), *times, memory])
    machine = data["machine"]
    text = (
        f"Selective scan, N = 16 unless said, {machine['processor']} with {machine['cores']} cores, torch "
        f"{machine['torch']}; milliseconds and, in brackets, how many times faster than the published sequential form "
        f"in the same run. {data['note']}\n\n"
    )
    header = ["Shape", "Threads", "Implementation", "Forward", "Forward and backward", "Peak memory / size of u"]
    return (
        text
        + table(header, rows)
        + f"\n\nFirst call in a fresh process, compiling both kernels: {data['first_call_s']:.1f} s."
    )


def main_job() -> str:
    """main_job.json."""
    data = json.loads((RESULTS / "main_job.json").read_text())
    rows = [[r["job"], r["command_s"], r["peak_mb"], r["worker_first_s"], r["worker_again_s"]] for r in data["rows"]]
    header = ["Job", "Command, s", "Peak memory, MB", "In the worker, first run, s", "Again, s"]
    return f"Two CPU cores, no GPU; `Testing/benchmarks/main_job.py`.\n\n{table(header, rows)}"


def correct() -> str:
    """correct.json: per set of images and number of edited slices the mean over the planes, and the worst case."""
    data = json.loads((RESULTS / "correct.json").read_text())
    rows = []
    for model_name, looks in data.items():
        for look, measured in looks.items():
            for count in sorted({r["slices"] for r in measured}):
                planes = [r for r in measured if r["slices"] == count]
                before, after, change = (
                    sum(r[key] for r in planes) / len(planes) for key in ("before", "after", "mean_change")
                )
                worst = min(r["worst_change"] for r in planes)
                numbers = [f"{before:.3f}", f"{after:.3f}", f"{change:+.3f}", f"{worst:+.3f}"]
                rows.append([model_name, look, count, *numbers, sum(r["cases"] for r in planes)])
    header = ["Model", "Images", "Slices corrected", "Dice before", "after", "Mean change", "Worst change", "Results"]
    return table(header, rows)


def clicks() -> str:
    """clicks.json: mean Dice after so many clicks."""
    data = json.loads((RESULTS / "clicks.json").read_text())
    rows = []
    for model_name, looks in data.items():
        for look, row in looks.items():
            dice = [f"{value:.3f}" for value in row["dice"]["mean"]]
            rows.append([model_name, look, row["cases"], *dice, f"{row['worst_single_click']:+.3f}"])
    header = ["Model", "Images", "Cases", "No click", "1 click", "3", "5", "10 clicks", "Worst single click"]
    return table(header, rows)


def review_score() -> str:
    """review_score.json: how well the shipped score puts the worst first."""
    data = json.loads((RESULTS / "review_score.json").read_text())
    rows = []
    for model, looks in data.items():
        for look, row in looks.items():
            rows.append(
                [f"`{model}`", look, row["results"], f"{row['dice']:.3f} ± {row['sd']:.3f}", f"{row['shipped']:.2f}"]
            )
    return table(["Model", "Images", "Results", "Dice", "Correlation"], rows)


def finetune() -> str:
    """finetune.json: before and after, per scenario and structure."""
    data = json.loads((RESULTS / "finetune.json").read_text())
    rows = []
    for name, run in data.items():
        for row in (row for row in run["rows"] if row["cases"]):
            numbers = [f"{row['dice_before']:.3f}", f"{row['dice_after']:.3f}", f"{row['difference']:+.3f}"]
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            rows.append([name, run["taught_cases"], row["structure"], row["cases"], *numbers, interval, run["steps"]])
    runs = [f"- `{run['command']}`: {run['time_s'] / 60:.1f} minutes, {run['machine']}" for run in data.values()]
    header = ["Data", "Corrected cases", "Structure", "Held out", "Dice before", "after", "Change", "95 %", "Steps"]
    return "\n".join(runs) + "\n\n" + table(header, rows)


BLOCKS = {
    **{"model": model, "networks": networks, "ratios": ratios, "operators": operators, "main job": main_job},
    **{"correct": correct, "clicks": clicks, "review score": review_score, "finetune": finetune},
}


def filled(readme: str, wanted=BLOCKS) -> str:
    """The text of README.md with the wanted blocks made anew."""
    for name in wanted:
        block = f"<!-- {name} -->\n{BLOCKS[name]()}\n<!-- end -->"
        readme, count = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _, b=block: b, readme, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"README.md: expected one block '{name}', found {count}")
    return readme


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
