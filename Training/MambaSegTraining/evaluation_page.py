"""The page of an evaluation: what was measured, how it spreads, and the cases that went worst. One file, no scripts."""

from __future__ import annotations

import base64
import math
from datetime import date
from html import escape

from MambaSegLib.bundle import Label, ModelBundle
from MambaSegLib.catalogue import version_name
from MambaSegLib.metrics_published import MODES
from MambaSegLib.terminal import DISCLAIMER
from MambaSegLib.wording import counted

from .evaluate import MEASURES, TOLERANCE_MM
from .evaluation_pictures import Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #5c6570; --line: #dfe3e8; --ground: #fff; --dot: #0b6e99; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e9ec; --quiet: #9aa3ad; --line: #2c3239; --ground: #14171b; --dot: #5ab6dc; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", sans-serif; color: var(--ink); background: var(--ground);
  max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.5rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.facts { color: var(--quiet); margin: .4rem 0 0; } .facts b { color: var(--ink); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem .4rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .names th { text-align: left; }
th { font-weight: 600; color: var(--quiet); font-size: .85rem; }
td small { color: var(--quiet); }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .5em; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--quiet); font-size: 12px; }
svg .name { fill: var(--ink); font-size: 13px; } svg line { stroke: var(--line); }
svg circle { fill: var(--dot); fill-opacity: .45; } svg .mean { stroke: var(--ink); stroke-width: 2; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1.75rem 1.5rem; }
figure { margin: 0; } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; background: #000; }
.pair > div { position: relative; aspect-ratio: 1; }
.pair img { width: 100%; height: 100%; object-fit: contain; display: block; }
.pair span { position: absolute; left: 6px; top: 4px; font-size: .75rem; font-weight: 600; color: #fff;
  text-shadow: 0 0 3px #000, 0 0 3px #000; }
figcaption { margin-top: .5rem; font-size: .85rem; color: var(--quiet); }
figcaption b { display: block; color: var(--ink); font-size: .95rem; overflow-wrap: anywhere; }
details { margin-top: .5rem; } summary { cursor: pointer; }
.how { color: var(--quiet); font-size: .85rem; max-width: 75ch; }
"""
_DIGITS = {"dice": 3, "iou": 3, "surface_dice": 3, "hd95_mm": 2, "assd_mm": 2, "volume_error_percent": 1}


def page(result: dict, bundle: ModelBundle | None, request: dict, worst: list[Picture]) -> str:
    """The HTML text.

    Args:
        result: of `evaluation.run`.
        bundle: the model; None where label maps were given.
        request: what was asked.
        worst: the cases to show, worst first.
    """
    title = bundle.title if bundle else f"Label maps in {request['predictions']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _facts(result, bundle, request),
        "<h2>Mean over cases</h2>" + _summary_table(result["values"], bundle),
        "<h2>Dice, case by case</h2>" + _strip(result["rows"]),
        _worst(worst),
        _published(result),
        f"<h2>All cases</h2><details><summary>Show {counted(len(result['cases']), 'case')}</summary>",
        f"{_cases(result)}</details>",
        f'<h2>How it was measured</h2><p class="how">{_how(result)}</p>',
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Evaluation: {escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _facts(result: dict, bundle: ModelBundle | None, request: dict) -> str:
    about = f" &middot; version <b>{escape(version_name(bundle))}</b>" if bundle else ""
    return (
        f'<p class="facts"><b>{len(result["cases"])}</b> cases of <b>{escape(str(request["data"]))}</b>{about}'
        f" &middot; {date.today().isoformat()} &middot; {escape(DISCLAIMER)}</p>"
    )


def _swatches(bundle: ModelBundle | None) -> dict[str, str]:
    labels: tuple[Label, ...] = bundle.labels if bundle else ()
    return {label.name: f'<i class="swatch" style="background:rgb{label.color}"></i>' for label in labels}


def _summary_table(values: list[dict], bundle: ModelBundle | None) -> str:
    swatch = _swatches(bundle)
    head = "".join(f"<th>{_heading(name, unit)}</th>" for name, unit in MEASURES.values())
    rows = []
    for structure in dict.fromkeys(value["structure"] for value in values):
        own = {value["name"]: value for value in values if value["structure"] == structure}
        cells = []
        for measure, (name, _) in MEASURES.items():
            digits = _DIGITS[measure]
            cells.append(
                f"<td>{_number(own[name]['mean'], digits)} <small>&plusmn; {own[name]['sd']:.{digits}f}</small></td>"
            )
        count = max(value["n"] for value in own.values())
        rows.append(f"<tr><td>{swatch.get(structure, '')}{escape(structure)}</td><td>{count}</td>{''.join(cells)}</tr>")
    return _table(f"<th>Structure</th><th>Cases</th>{head}", rows)


def _published(result: dict) -> str:
    if not result["published"]:
        return ""
    names = list(dict.fromkeys((row["name"], row["unit"]) for row in result["published"]))
    values = {(row["structure"], row["name"]): row["mean"] for row in result["published"]}
    rows = []
    for structure in dict.fromkeys(row["structure"] for row in result["published"]):
        cells = "".join(f"<td>{_number(values[structure, name], 4)}</td>" for name, _ in names)
        rows.append(f"<tr><td>{escape(structure)}</td>{cells}</tr>")
    head = "<th>Structure</th>" + "".join(f"<th>{_heading(*name)}</th>" for name in names)
    return f"<h2>As papers measure it: {escape(MODES[result['mode']].title)}</h2>" + _table(head, rows)


def _table(head: str, rows: list[str]) -> str:
    lines = "\n".join(rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div>'


def _heading(name: str, unit: str) -> str:
    return escape(f"{name} ({unit})" if unit else name)


def _number(value: float | None, digits: int) -> str:
    return "&ndash;" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "&minus;")


def _strip(rows: list[dict]) -> str:
    """One line of dots per structure, a dot per case; a bar at the mean."""
    structures = list(dict.fromkeys(row["structure"] for row in rows))
    width, left, step = 1032, 220, 34
    height = step * len(structures) + 30
    lowest = min((row["dice"] for row in rows if not math.isnan(row["dice"])), default=0.0)
    low = 0.0 if lowest < 0.5 else math.floor(10 * lowest) / 10
    low = min(low, 0.9)

    def x(value: float) -> float:
        return left + (value - low) / (1 - low) * (width - left - 12)

    marks = []
    count = round(10 * (1 - low))
    for tick in range(count + 1):
        value = low + tick / 10
        marks.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="0" y2="{height - 22}"/>')
        marks.append(f'<text x="{x(value):.1f}" y="{height - 6}" text-anchor="middle">{value:.1f}</text>')
    for line, structure in enumerate(structures):
        y = step * line + step / 2
        own = [row for row in rows if row["structure"] == structure and not math.isnan(row["dice"])]
        marks.append(f'<text class="name" x="0" y="{y + 4:.1f}">{escape(_short(structure))}</text>')
        for number, row in enumerate(own):
            wobble = (number * 7 % 5 - 2) * 2.4  # dots with the same Dice lie beside each other
            tip = f"{escape(row['case'])}: {row['dice']:.3f}"
            marks.append(f'<circle cx="{x(row["dice"]):.1f}" cy="{y + wobble:.1f}" r="4"><title>{tip}</title></circle>')
        if own:
            middle = x(sum(row["dice"] for row in own) / len(own))
            marks.append(
                f'<line class="mean" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 11:.1f}" y2="{y + 11:.1f}"/>'
            )
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Dice of every case">{"".join(marks)}</svg>'


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:29] + "\N{HORIZONTAL ELLIPSIS}"


def _worst(pictures: list[Picture]) -> str:
    if not pictures:
        return ""
    figures = "\n".join(_figure(picture) for picture in pictures)
    return f'<h2>The cases that went worst</h2>\n<div class="worst">\n{figures}\n</div>'


def _figure(picture: Picture) -> str:
    def image(content: bytes, what: str) -> str:
        text = base64.b64encode(content).decode("ascii")
        alt = f"{what} of {escape(picture.name)}"
        return f'<div><img src="data:image/png;base64,{text}" alt="{alt}"><span>{what}</span></div>'

    scores = "<br>".join(f"{escape(row['structure'])}: Dice {_number(row['dice'], 2)}" for row in picture.rows)
    where = f" &middot; {picture.where}" if picture.where else ""
    return (
        f'<figure><div class="pair">{image(picture.truth_png, "Truth")}{image(picture.found_png, "Result")}</div>'
        f"<figcaption><b>{escape(picture.name)}</b>Mean Dice {picture.score:.2f}{where}<br>{scores}</figcaption>"
        "</figure>"
    )


def _cases(result: dict) -> str:
    head = "<th>Case</th><th>Structure</th>"
    head += "".join(f"<th>{_heading(name, unit)}</th>" for name, unit in MEASURES.values())

    def place(row: dict) -> float:
        return -1.0 if math.isnan(row["dice"]) else row["dice"]

    rows = []
    for row in sorted(result["rows"], key=place):
        cells = "".join(f"<td>{_number(row[measure], _DIGITS[measure])}</td>" for measure in MEASURES)
        rows.append(f"<tr><td>{escape(row['case'])}</td><td>{escape(row['structure'])}</td>{cells}</tr>")
    return _table(head, rows)


def _how(result: dict) -> str:
    text = (
        "Every measure is taken per case and structure on the grid of the case's own labels, in millimetres, and then "
        "averaged over the cases (&plusmn; is the standard deviation). A measure that does not exist because a "
        "structure is absent is left out of the mean; a structure that was missed has Dice 0. HD95 is the larger of "
        "the two 95th percentiles of the surface distances, ASSD their mean, surface Dice the share of both surfaces "
        f"within {TOLERANCE_MM:g} mm of the other; the volume error is relative to the truth, negative when too little "
        "was found."
    )
    if result["model"]:
        text += " Cases that the model was trained on were left out."
    return text
