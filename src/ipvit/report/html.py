"""One self-contained page: opens offline, asks no server for anything."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ipvit.files import write_atomic
from ipvit.report.tables import for_people

MOST_ROWS = 400
"""Rows of a table that the page shows; the files beside it have all."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A picture of a condition: a caption and the bytes of a PNG file."""

    caption: str
    png: bytes

    @property
    def url(self) -> str:
        """The picture as a ``data:`` URL."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclasses.dataclass(frozen=True)
class Section:
    """One experiment on the page.

    Attributes:
        name: of the experiment.
        title: for people.
        reproduces: figure or table of the paper.
        question: one sentence.
        summary: sentences computed from the tables.
        tables: by name.
        figures: altair charts by name.
        examples: pictures of the conditions.
        comparisons: paired differences between models, or None.
        notes: whatever a reader must know.
    """

    name: str
    title: str
    reproduces: str = ""
    question: str = ""
    summary: Sequence[str] = ()
    tables: Mapping[str, pl.DataFrame] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    examples: Sequence[Example] = ()
    comparisons: pl.DataFrame | None = None
    notes: Sequence[str] = ()


def write_report(path: Path, *, title: str, manifest: Mapping[str, Any], sections: Sequence[Section]) -> Path:
    """Write the page.

    Args:
        path: of the HTML file.
        title: of the page.
        manifest: of the run, see :mod:`ipvit.engine.manifest`.
        sections: one per experiment.
    """
    environment = Environment(
        loader=PackageLoader("ipvit.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["people"] = _for_people
    charts = {
        f"chart-{i}-{j}": _without_nan(chart.to_dict())
        for i, section in enumerate(sections)
        for j, chart in enumerate(section.figures.values())
    }
    page = environment.get_template("template.html.j2").render(
        title=title,
        manifest=manifest,
        sections=sections,
        charts=Markup(_script_safe(json.dumps(charts, allow_nan=False, default=str))),
        bundle=Markup(_library()) if charts else "",
        most_rows=MOST_ROWS,
    )
    write_atomic(path, page.encode())
    return path


def _for_people(frame: pl.DataFrame) -> dict[str, Any]:
    heads, rows = for_people(frame.head(MOST_ROWS))
    numeric = [
        all(cell == "" or cell.lstrip("-")[:1].isdigit() for cell in column) for column in zip(*rows, strict=True)
    ]
    return {"heads": heads, "rows": rows, "numeric": numeric or [False] * len(heads), "height": frame.height}


def _without_nan(node: Any) -> Any:
    """The same specification with None for numbers that JSON does not know."""
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def _script_safe(json_text: str) -> str:
    """Keep JSON inside a script element from ending it; ``<`` is in strings only, where an escape is the same."""
    return json_text.replace("<", "\\u003c")


def _library() -> str:
    """The charting library; in its strings a closing script tag may be escaped, anything else is code."""
    whole = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue] - without a snippet it is the whole library
    return whole.replace("</script", "<\\/script").replace("<!--", "\\x3c!--")
