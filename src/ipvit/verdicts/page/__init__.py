"""The page of a comparison: tables, sentences, and the images that flipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import ipvit.report
from ipvit.core.files import write_atomic
from ipvit.core.text.words import counted
from ipvit.errors import harmless
from ipvit.verdicts.difference import Diff
from ipvit.verdicts.text import cells, could_find, flip_line, told_of, verdict

MOST_SHOWN = 24
"""Flipped images of each kind that the page shows, the most confident first; JSON has all."""


def write_page(path: Path, found: Diff, pictures: Mapping[str, str], pictures_note: str = "") -> Path:
    """Write the page, one file that asks no server for anything.

    Args:
        path: of the HTML file.
        found: the comparison.
        pictures: thumbnails as ``data:`` URLs, by the id of the image; those that are missing are named only.
        pictures_note: why there are none.
    """
    environment = Environment(
        loader=PackageLoader("ipvit.verdicts", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = (Path(ipvit.report.__file__).with_name("page") / "page.css").read_text("utf-8")
    page = environment.get_template("diff.html.j2").render(
        found=found,
        style=Markup(style),
        refused=[f"Not compared: {name} of {models}: {why}." for (name, models), why in found.refused.items()],
        parts=[_part(found, a, b, pictures) for a, b in found.pairs],
        pictures_note=pictures_note,
    )
    write_atomic(path, harmless(page).encode())
    return path


def shown_flips(found: Diff) -> list[str]:
    """Return the ids of the images that the page shows."""
    ids = [row["image"] for a, b in found.pairs for _, rows in _groups(found, a, b) for row in rows[:MOST_SHOWN]]
    return list(dict.fromkeys(ids))


def _part(found: Diff, a: str, b: str, pictures: Mapping[str, str]) -> dict[str, Any]:
    tables: list[dict[str, Any]] = []
    for name, analysis in found.analyses.items():
        table = told_of(found.tables.get(name), a, b)
        if table is not None:
            heads, rows, title = cells(table, analysis)
            said = [*verdict(table, analysis), could_find(table, analysis)]
            tables.append({"title": title, "heads": heads, "rows": rows, "sentences": said})
    flips = [
        {
            "title": f"{counted(len(rows), 'image')} unperturbed that {what}"
            + (f", the {MOST_SHOWN} most confident" if len(rows) > MOST_SHOWN else ""),
            "shown": [{"line": flip_line(row), "url": pictures.get(row["image"], "")} for row in rows[:MOST_SHOWN]],
        }
        for what, rows in _groups(found, a, b)
    ]
    return {"a": a, "b": b, "tables": tables, "flips": flips}


def _groups(found: Diff, a: str, b: str) -> list[tuple[str, list[dict[str, Any]]]]:
    flips = told_of(found.flips, a, b)
    rows = [] if flips is None else flips.to_dicts()
    kinds = (("wrong", "A has right and B has wrong"), ("right", "A has wrong and B has right"))
    return [(what, of) for now, what in kinds if (of := [row for row in rows if row["now"] == now])]
