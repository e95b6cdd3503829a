"""The model card as one HTML file that needs nothing else: for readers without a Markdown viewer."""

from __future__ import annotations

import html
import re

from .card import card_markdown

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2.5rem auto; padding: 0 1.25rem;
  color: #1d2127; background: #fff; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #d9dde3; }
p, ul { margin: .5rem 0; } ul { padding-left: 1.25rem; } li { margin: .15rem 0; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .75rem 0; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #e5e8ec; white-space: nowrap; }
th { font-weight: 600; color: #5a636e; font-size: .9em; }
@media (prefers-color-scheme: dark) { body { color: #e8eaed; background: #16181c; } th { color: #a2abb6; }
  h2 { border-color: #343a42; } th, td { border-color: #2a2f36; } }
"""


def card_html(data: dict, decision: dict | None = None) -> str:
    """The card of `card.card_markdown` as a page."""
    body = "\n".join(_block(text) for text in card_markdown(data, decision).strip().split("\n\n"))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(data['title'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _block(text: str) -> str:
    """One paragraph, heading, list or table of the card's Markdown."""
    heading = re.match(r"(#{1,2}) (.*)", text)
    if heading:
        level = len(heading[1])
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    lines = text.split("\n")
    if lines[0].startswith("| "):
        return _table_block(lines)
    if all(line.startswith("- ") for line in lines):
        return "<ul>\n" + "\n".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "\n</ul>"
    return f"<p>{_inline(text)}</p>"


def _table_block(lines: list[str]) -> str:
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:])
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _inline(text: str) -> str:
    """Bold and code; everything else is text, whatever it looks like."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
