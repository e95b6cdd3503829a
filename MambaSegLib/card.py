"""The model card: everything a person wants to know before using a model, as Markdown, generated from the bundle."""

_DISCLAIMER = (
    "**For research only. Not a medical device.** Not cleared or approved for diagnosis or treatment; "
    "a person who is qualified must check every result."
)
_CURVE_ROWS = 12


def card_markdown(data: dict) -> str:
    """The card of the bundle whose ``bundle.json`` is `data`."""
    sections = [
        f"# {data['title']}\n\n{data['description']}".rstrip(),
        _DISCLAIMER,
        _section("Intended use", data["intended_use"]),
        _section("Limitations", data["limitations"]),
        _section("Structures", _structures(data)),
        _section("Input", _inputs(data)),
        _section("Measured", _metrics(data)),
        _section("Training", _training(data)),
        _section("Licence", _bullets((key.capitalize(), data["licence"][key]) for key in ("weights", "data", "code"))),
        _section("Provenance", _provenance(data)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


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


def _training(data: dict) -> str:
    network, provenance = data["network"], data["provenance"]
    hyper = ", ".join(f"{key} = {value}" for key, value in network["hyper"].items())
    return _bullets(
        [
            ("Network", f"`{network['name']}`" + (f" ({hyper})" if hyper else "")),
            ("Data", provenance["data"]),
            ("Cases", f"{len(provenance['cases'])} to train, {len(provenance['validation_cases'])} to validate"),
            ("Time", f"{provenance['train_time_s'] / 60:.0f} min" if provenance["train_time_s"] else ""),
            ("Keywords", ", ".join(data["keywords"])),
        ]
    )


def _provenance(data: dict) -> str:
    provenance, weights = data["provenance"], data["weights"]
    facts = _bullets(
        [
            ("Model", f"`{data['id']}`, version {data['version']}"),
            ("Parent", f"`{provenance['parent']}`" if provenance["parent"] else "none, trained from the start"),
            ("Date", provenance["date"]),
            ("Code version", provenance["code_version"]),
            ("Seed", provenance["seed"]),
            ("Weights", f"{weights['dtype']}, {weights['bytes'] / 1e6:.1f} MB, sha256 `{weights['sha256']}`"),
        ]
    )
    return "\n\n".join(filter(None, [facts, _curve(provenance["curve"])]))


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
    return f"Training curve ({len(points)} points, {count} shown; all are in `bundle.json`):\n\n{_table(keys, rows)}"
