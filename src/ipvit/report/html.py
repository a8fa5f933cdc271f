"""One self-contained page: opens offline, asks no server for anything."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import itertools
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ipvit.analysis.columns import COMMON, Columns
from ipvit.analysis.looks import Looks
from ipvit.core.files import LONGEST, path_component, write_atomic
from ipvit.core.manifest import RunSummary
from ipvit.core.text.glued import glued
from ipvit.errors import harmless
from ipvit.report.figures import inline_svg, is_narrow, specification_of
from ipvit.report.keys import key
from ipvit.report.pictures import Gallery
from ipvit.report.profile import HOW_TO_READ, Profile
from ipvit.report.settings import Setting
from ipvit.report.tables.cells import cells_of, counted, has_details, head, side_by_side

MOST_ROWS = 400
"""Rows of a table that the page shows; the files beside it have all."""
MOST_SENTENCES = 8
"""Sentences of a list that are open to view; the rest unfolds."""
_LONGEST = 80  # characters of a cell
_OF_MODELS = ("model", "A", "B", "trained_on")  # columns that name models


@dataclasses.dataclass(frozen=True)
class Section:
    """One experiment on the page.

    Attributes:
        name: of the experiment.
        title: for people.
        reproduces: figure or table of the paper.
        question: one sentence.
        settings: of the experiment, those that depart from the defaults in front.
        headline: the one sentence for the top of the page.
        summary: sentences computed from the tables.
        findings: sentences computed from the differences between models.
        tables: by name, the main one first.
        columns: what is known of their columns.
        figures: altair charts by name, which Altair has checked.
        galleries: pictures of the conditions.
        differences: paired differences between models, as text, or None.
        comparison: our numbers beside the paper's, as text, or None.
        notes: whatever a reader must know.
    """

    name: str
    title: str
    reproduces: str = ""
    question: str = ""
    settings: Sequence[Setting] = ()
    headline: str = ""
    summary: Sequence[str] = ()
    findings: Sequence[str] = ()
    tables: Mapping[str, pl.DataFrame] = dataclasses.field(default_factory=dict)
    columns: Columns = dataclasses.field(default_factory=lambda: COMMON)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    galleries: Sequence[Gallery] = ()
    differences: pl.DataFrame | None = None
    comparison: pl.DataFrame | None = None
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """A chart on the page, for wide and for narrow screens (None where one serves both)."""

    name: str
    number: int
    wide: Markup
    narrow: Markup | None
    title: str


def write_report(
    path: Path,
    *,
    title: str,
    manifest: RunSummary,
    sections: Sequence[Section],
    profile: Profile | None = None,
    picture: Any = None,
    comparison_notes: Sequence[str] = (),
    told: Sequence[str] = (),
    studies: Mapping[str, str] = types.MappingProxyType({}),
    looks: Looks | None = None,
) -> Path:
    """Write the page.

    Args:
        path: of the HTML file.
        title: of the page.
        manifest: of the run, or what several have in common.
        sections: one per experiment.
        profile: what stands on top of the page; None where there is none.
        picture: of the profile.
        comparison_notes: what to bear in mind when reading our numbers beside the paper's.
        told: what a reader must know of all tables.
        studies: what was run, as YAML, by the names of the files.
        looks: the colours and marks of the models, which tables show beside their names; None shows none.
    """
    numbers = itertools.count(1)
    drawings = {
        section.name: [_draw(name, chart, next(numbers)) for name, chart in section.figures.items()]
        for section in sections
    }
    files = Path(__file__).with_name("page")
    script = (files / "page.js").read_text("utf-8")
    known = {model.name for model in manifest.models} if looks is not None and len(manifest.models) > 1 else set()

    def keyed(name: str, column: str) -> Markup:
        """Return the name of a model with its mark, and anything else as it is."""
        if looks is None or column not in _OF_MODELS or name not in known:
            return escape(name)
        return key(looks.of(name)) + name

    page = _template().render(
        title=title,
        manifest=manifest,
        sections=sections,
        drawings=drawings,
        keyed=keyed,
        side_by_side=side_by_side,
        has_details=has_details,
        profile=None if profile is None else profile.for_people(),
        profile_notes=[] if profile is None else [HOW_TO_READ, *profile.notes],
        questions=[] if profile is None else [(c.question.title, c.question.what) for c in profile.columns],
        picture=None if picture is None else Markup(inline_svg(picture, "profile")),
        next_number=itertools.count(1).__next__,
        style=Markup((files / "page.css").read_text("utf-8")),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        most_rows=MOST_ROWS,
        most_sentences=MOST_SENTENCES,
        comparison_notes=comparison_notes,
        told=told,
        studies=studies,
        script=Markup(script) if any(drawings.values()) or studies else "",
    )
    write_atomic(path, harmless(page).encode())
    return path


@functools.cache
def _template() -> Template:
    """Return the page's template: to translate it takes as long as to lay out a figure."""
    environment = Environment(
        loader=PackageLoader("ipvit.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "glued": glued,
        "counted": counted,
        "plain": _plain,
        "file": lambda name: path_component(name, most=LONGEST),
    }
    return environment.get_template("page.html.j2")


def _draw(name: str, figure: Any, number: int) -> _Drawing:
    chart = specification_of(figure)
    title = chart.get("title", "")
    text = title.get("text", "") if isinstance(title, dict) else title
    narrow = None if is_narrow(chart) else Markup(inline_svg(chart, f"n{number}", narrow=True))
    return _Drawing(name, number, Markup(inline_svg(chart, f"w{number}")), narrow, str(text) or name)


def _plain(frame: pl.DataFrame, columns: Columns = COMMON, details: bool = False) -> dict[str, Any]:
    """Return a table as text for the page: heads, rows, which columns are numbers, and how many rows there are."""
    names, cells = cells_of(frame.head(MOST_ROWS), columns, details=details)
    heads = [head(name, columns) for name in names]
    rows = [[" ".join(filter(None, cell)) for cell in row] for row in cells]
    rows = [[cell if len(cell) <= _LONGEST else f"{cell[:_LONGEST]}…" for cell in row] for row in rows]
    numeric = [
        all(cell == "" or cell.lstrip("+-−<= ")[:1].isdigit() for cell in column) for column in zip(*rows, strict=True)
    ]
    return {
        "names": names,
        "heads": heads,
        "rows": rows,
        "numeric": numeric or [False] * len(heads),
        "height": frame.height,
    }
