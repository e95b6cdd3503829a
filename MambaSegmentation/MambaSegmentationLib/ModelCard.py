"""The card of a model as a reader at the workstation needs it; colours are left to the palette."""

from html import escape
from pathlib import Path

from slicer.i18n import tr as _

from MambaSegLib import catalogue

_MAX_NAMED_STRUCTURES = 12
_PICTURE_PIXELS = 96


def cardHtml(entry: catalogue.Entry | None, lastRun: dict | None = None, fit: str = "") -> str:
    """HTML of the card.

    Args:
        lastRun: as Models.lastRun gives it.
        fit: one line about how the model suits the image.
    """
    if entry is None:
        folder = catalogue.user_folder()
        text = _(
            "<b>No model was found.</b></p><p>Press 'Add or export' below, or copy a model's folder into<br>{folder}"
        )
        return f"<p>{text.format(folder=escape(str(folder)))}</p>"
    if entry.bundle is None:
        return _("<p><b>This model cannot be used.</b></p><p>{message}</p><p>{hint}</p>").format(
            message=escape(entry.error.message), hint=escape(entry.error.hint)
        )
    data = entry.bundle.data
    rows = [
        (_("For"), escape(data["intended_use"])),
        (_("Finds"), escape(_names(data["labels"]))),
        (_("Input"), "<br>".join(escape(_inputText(i)) for i in data["inputs"])),
        (_("This image"), escape(fit)),
        (_("Measured"), _measured(data["metrics"])),
        (_("Here"), escape(_lastRun(lastRun))),
        (_("Limits"), escape(data["limitations"])),
        (_("Trained on"), escape(data["provenance"]["data"])),
        (_("Licence"), escape(_licence(data["licence"]))),
        (_("Version"), escape(f"{data['version']}  ({data['id']}, {data['network']['name']})")),
    ]
    body = "".join(
        f'<tr><td style="padding-right:10px"><b>{name}</b></td><td>{text}</td></tr>' for name, text in rows if text
    )
    picture = _picture(catalogue.thumbnail_of(entry.bundle))
    return f'{picture}<p style="margin-top:2px">{escape(data["description"])}</p><table cellspacing="3">{body}</table>'


def _picture(path: Path | None) -> str:
    return f'<img src="{escape(path.as_uri())}" width="{_PICTURE_PIXELS}" align="right">' if path else ""


def _names(labels: list[dict]) -> str:
    names = [label["name"] for label in labels]
    more = len(names) - _MAX_NAMED_STRUCTURES
    text = ", ".join(names[:_MAX_NAMED_STRUCTURES])
    return text if more <= 0 else _("{names} and {n} more").format(names=text, n=more)


def _inputText(channel: dict) -> str:
    parts = [channel["modality"], channel["name"]]
    text = " ".join(dict.fromkeys(p for p in parts if p))
    return text if channel["description"] in ("", *parts) else f"{text}: {channel['description']}"


def _measured(metrics: dict) -> str:
    """One line per structure, with what it was measured on, or a plain statement that nobody has."""
    lines = []
    for value in metrics["values"]:
        if value["mean"] is None:
            continue
        spread = "" if value["sd"] is None else f" ± {value['sd']:.2f}"
        lines.append(f"{value['structure']}: {value['name']} {value['mean']:.2f}{spread} (n\u00a0=\u00a0{value['n']})")
    if not lines:
        return _("not measured yet")
    return "<br>".join(escape(line) for line in [*lines, *([metrics["protocol"]] if metrics["protocol"] else [])])


def _lastRun(run: dict | None) -> str:
    if run is None:
        return _("not yet run on this computer")
    text = _("{s:.0f} s on {device} for {m:.1f} million voxels").format(
        s=max(run["time_s"], 1), device=run["device"], m=run["voxels"] / 1e6
    )
    return text + (_(", about {gb} of memory").format(gb=memoryText(run["memory_mb"])) if run["memory_mb"] else "")


def memoryText(megabytes: float) -> str:
    """ "850 MB" or "3.2 GB"."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{max(megabytes, 10):.0f} MB"


def _licence(licence: dict) -> str:
    return _("weights {weights}; data {data}; code {code}").format(**licence)
