"""How objects show themselves in a notebook: small pieces of HTML, whose texts are shown and never obeyed."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from ipvit.errors import harmless

__all__ = ["definition_table", "escaped", "few", "paragraph", "table"]


def escaped(text: object) -> str:
    """Return text for a page."""
    return html.escape(harmless(str(text)))


def definition_table(title: str, rows: Mapping[str, str]) -> str:
    """Return a title and a table of what is what; rows without content are left out."""
    body = "".join(
        f'<tr><th style="text-align:left">{escaped(name)}</th><td style="text-align:left">{escaped(value)}</td></tr>'
        for name, value in rows.items()
        if value
    )
    return f"<div><strong>{escaped(title)}</strong><table>{body}</table></div>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, most: int = 60) -> str:
    """Return a table of texts, at most so many rows of it."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows[:most])
    more = paragraph(f"The first {most} of {len(rows):,} rows.") if len(rows) > most else ""
    content = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p><strong>{escaped(caption)}</strong></p>{content}{more}"


def paragraph(text: str) -> str:
    """Return a sentence as a paragraph."""
    return f"<p>{escaped(text)}</p>"


def few(names: Sequence[str], most: int = 5) -> str:
    """Return some names, and how many there are.

    >>> few(["a", "b", "c"], 2)
    'a, b, ... (3)'
    """
    shown = ", ".join(names[:most])
    return f"{shown}, ... ({len(names):,})" if len(names) > most else shown
