"""The model card: everything a person wants to know before using a model, as Markdown, generated from the bundle."""

from .wording import counted

_DISCLAIMER = (
    "**For research only. Not a medical device.** Not cleared or approved for diagnosis or treatment; "
    "a person who is qualified must check every result."
)
_CURVE_ROWS = 12
_DECISION_HEADER = ["Structure", "Cases", "Dice", "Change", "Surface Dice", "HD95 (mm)", "Volume error (%)"]


def card_markdown(data: dict, decision: dict | None = None) -> str:
    """The card of the bundle whose ``bundle.json`` is `data`, and of what the gate decided about it."""
    sections = [
        f"# {data['title']}\n\n{data['description']}".rstrip(),
        _DISCLAIMER,
        _section("Intended use", data["intended_use"]),
        _section("Limitations", data["limitations"]),
        _section("Structures", _structures(data)),
        _section("Input", _inputs(data)),
        _section("Measured", _metrics(data)),
        _section("Compared with its parent", decision_markdown(decision) if decision else ""),
        _section("Training", _training(data)),
        _section("Licence", _bullets((key.capitalize(), data["licence"][key]) for key in ("weights", "data", "code"))),
        _section("Provenance", _provenance(data)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def decision_markdown(decision: dict) -> str:
    """The gate's verdict, its reasons, and a table of every structure before and after."""
    accepted = "The gate **accepted** this model" if decision["accepted"] else "The gate did **not accept** this model"
    when = f" on {decision['date'][:10]}" if decision.get("date") else ""
    parts = [f"{accepted}{when}.", "\n".join(f"- {reason}" for reason in decision["reasons"])]
    if decision["rows"]:
        parts.append(_table(_DECISION_HEADER, [_decision_row(row) for row in decision["rows"]]))
        parts.append(
            f"Means over cases that neither model was trained on (protocol: {decision['protocol']}). Change: of Dice, "
            f"with its 95 % interval; a fall of more than {decision['margin']:g} is not accepted."
        )
    return "\n\n".join(parts)


def _decision_row(row: dict) -> list[str]:
    def both(measure: str, digits: int) -> str:
        before, after = (_number(row[f"{measure}_{when}"], digits) for when in ("before", "after"))
        return f"{before} → {after}"

    change = _number(row["difference"]) if row["difference"] is None else f"{row['difference']:+.3f}"
    if row["low"] is not None:
        change += f" ({row['low']:+.3f} to {row['high']:+.3f})"
    measures = [both("dice", 3), change, both("surface_dice", 3), both("hd95", 1), both("volume_error", 1)]
    return [row["structure"], str(row["cases"]), *measures]


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body.strip() else ""


def _bullets(pairs) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs if value not in ("", None))


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _structures(data: dict) -> str:
    rows = []
    for label in data["labels"]:
        terminology = label["terminology"] or {}
        codes = [terminology[key] for key in ("type", "type_modifier") if terminology.get(key)]
        red, green, blue = label["color"]
        coded = ", ".join(f"{meaning} ({scheme} {code})" for scheme, code, meaning in codes)
        rows.append([label["value"], label["name"], f"#{red:02x}{green:02x}{blue:02x}", coded or "-"])
    return _table(["Value", "Name", "Colour", "Coded as"], rows)


def _inputs(data: dict) -> str:
    recipe, inference = data["preprocessing"], data["inference"]
    lines = [f"- {item['name']} ({item['modality']}): {item['description']}" for item in data["inputs"]]
    lines.append(f"- Any grid; {_grid(recipe)}, {recipe['normalisation']['name']}")
    patch = " x ".join(map(str, inference["patch"]))
    lines.append(f"- Windows of {patch} voxels (z, y, x), overlap {inference['overlap']:g}")
    return "\n".join(lines)


def _grid(recipe: dict) -> str:
    """On what grid a recipe computes, as a card says it."""
    spacing = " x ".join("own" if value is None else f"{value:g}" for value in recipe["spacing_mm"])
    parts = [f"computed at {spacing} mm", recipe["orientation"] or "axes as acquired"]
    if size := recipe.get("size"):
        parts.append("whole image as " + " x ".join("own" if n is None else str(n) for n in size) + " voxels")
    return ", ".join(parts)


def _metrics(data: dict) -> str:
    values = data["metrics"]["values"]
    if not values:
        return "Nothing was measured."
    rows = [[v["structure"], _measure(v), _number(v["mean"]), _number(v["sd"]), v["n"]] for v in values]
    return "\n\n".join(
        filter(None, [data["metrics"]["protocol"], _table(["Structure", "Metric", "Mean", "SD", "n"], rows)])
    )


def _measure(value: dict) -> str:
    return f"{value['name']} ({value['unit']})" if value.get("unit") else value["name"]


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _training(data: dict) -> str:
    network, provenance = data["network"], data["provenance"]
    hyper = ", ".join(f"{key} = {value}" for key, value in network["hyper"].items())
    return _bullets(
        [
            ("Network", f"`{network['name']}`" + (f" ({hyper})" if hyper else "")),
            ("Data", provenance["data"]),
            ("Cases", f"{len(provenance['cases'])} to train, {len(provenance['validation_cases'])} to validate"),
            ("Time", _time(provenance["train_time_s"])),
            ("Keywords", ", ".join(data["keywords"])),
        ]
    )


def _provenance(data: dict) -> str:
    provenance, weights = data["provenance"], data["weights"]
    facts = _bullets(
        [
            ("Model", f"`{data['id']}`, version {data['version']}"),
            ("Parent", _parent(provenance)),
            ("Date", provenance["date"]),
            ("Code version", provenance["code_version"]),
            ("Seed", provenance["seed"]),
            ("Weights", f"{weights['dtype']}, {weights['bytes'] / 1e6:.1f} MB, sha256 `{weights['sha256']}`"),
        ]
    )
    return "\n\n".join(filter(None, [facts, _curve(provenance["curve"])]))


def _parent(provenance: dict) -> str:
    if not provenance["parent"]:
        return "none, trained from the start"
    sha256 = provenance.get("parent_sha256")
    lineage = provenance.get("lineage")
    return ", ".join(
        [
            f"`{provenance['parent']}`",
            *([f"sha256 `{sha256}`"] if sha256 else []),
            *([f"of the lineage `{lineage}`"] if lineage and lineage != provenance["parent"] else []),
        ]
    )


def _curve(curve: list) -> str:
    """At most `_CURVE_ROWS` points of the training curve, evenly chosen, first and last among them."""
    points = [
        point if isinstance(point, dict) else {"step": index, "value": point} for index, point in enumerate(curve)
    ]
    if not points:
        return ""
    count = min(len(points), _CURVE_ROWS)
    chosen = [points[round(row * (len(points) - 1) / max(count - 1, 1))] for row in range(count)]
    keys = list(dict.fromkeys(key for point in chosen for key in point))
    rows = [[_number(point.get(key), 4) for key in keys] for point in chosen]
    title = f"Training curve ({counted(len(points), 'point')}, {count} shown; all are in `bundle.json`):"
    return f"{title}\n\n{_table(keys, rows)}"
