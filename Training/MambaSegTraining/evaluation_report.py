"""What an evaluation leaves behind: ``cases.csv``, ``summary.csv`` and the page ``report.html``."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from MambaSegLib.bundle import ModelBundle
from MambaSegLib.errors import UserError
from MambaSegLib.safe_file import cannot_write, write_text

from .evaluation_page import page
from .evaluation_pictures import WorstCases

FILES = ("cases.csv", "summary.csv", "report.html")


def check_folder(folder: Path) -> Path:
    """Make the folder for the files, before any work is done.

    Raises:
        UserError: one of the files is there already, or the folder cannot be made.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise UserError(f"There is a {there[0]} in {folder} already.", "Choose another folder; nothing is overwritten.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def write_report(folder: Path, result: dict, bundle: ModelBundle | None, request: dict, worst: WorstCases) -> list[str]:
    """Write the three files; returns their paths.

    Args:
        result: of `evaluation.run`.
        bundle: the model; None where label maps were given.
        request: what was asked.
        worst: the cases to show.
    """
    texts = {
        "cases.csv": csv_text(result["rows"]),
        "summary.csv": csv_text(result["values"] + result["published"]),
        "report.html": page(result, bundle, request, worst.pictures),
    }
    return [str(write_text(folder / name, text)) for name, text in texts.items()]


def csv_text(rows: list[dict]) -> str:
    """A table with the keys as its first line; what does not exist is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if _is_nan(value) else _rounded(value) for key, value in row.items()})
    return text.getvalue()


def _is_nan(value) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _rounded(value):
    return round(value, 5) if isinstance(value, float) else value
