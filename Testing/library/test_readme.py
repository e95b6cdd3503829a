"""The README tells of the models, networks, commands and messages that there are, and shows what was measured."""

import importlib.util
import re
from pathlib import Path

import pytest

from MambaSegLib import cli

ROOT = Path(__file__).resolve().parents[2]


README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = ("MambaSegLib", "MambaSegmentation", "Training")


def test_tables_are_what_the_registry_the_card_and_the_results_say():
    path = ROOT / "Testing" / "benchmarks" / "readme_tables.py"
    module_spec = importlib.util.spec_from_file_location("readme_tables", path)
    tables = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(tables)
    assert tables.filled(README) == README, "run Testing/benchmarks/readme_tables.py"


def test_every_command_is_told_and_every_told_command_is_there(capsys):
    told = {line.split()[1] for line in README.splitlines() if line.strip().startswith("mambaseg ")}
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    known = set(re.findall(r"^    ([a-z][a-z-]*)(?:  |$)", capsys.readouterr().out, flags=re.MULTILINE))
    assert known and told == known


def test_messages_of_the_troubleshooting_are_those_of_the_program():
    """Up to an ellipsis, which stands for names and numbers, every message must be in the code."""
    code = _flat("\n".join(p.read_text(encoding="utf-8") for s in SOURCES for p in (ROOT / s).rglob("*.py")))
    section = README.split("## When something goes wrong")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (.+?) \|", section, flags=re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", cell)]
    assert len(messages) > 20
    for message in messages:
        for part in filter(None, message.split("...")):
            assert part.strip() in code, f"{part!r} of {message!r} is said nowhere"


def _flat(code: str) -> str:
    """Source code with the pieces of a text that goes over several lines put together."""
    return re.sub(r'"\s*\n\s*f?"', "", code)


def test_pictures_and_files_that_it_links_to_are_there():
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert linked
    for target in linked:
        assert (ROOT / target).exists(), target
