"""How a run shows itself: one line at the prompt, tables and figures in a notebook."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.core.manifest import RunSummary
from ipvit.core.text.notebook import escaped, paragraph, table
from ipvit.core.text.words import counted
from ipvit.errors import InputError, error_line
from ipvit.report.figures import svg_file
from ipvit.report.profile import HOW_TO_READ, Profile
from ipvit.report.tables.files import for_people, in_reading_order


class Shown(Protocol):
    """What shows itself: :class:`ipvit.results.Run`, :class:`ipvit.run_collection.RunCollection`."""

    out: Path
    analyses: dict[str, Analysis]

    @property
    def manifest(self) -> RunSummary:
        """Of the run, or of several."""
        ...

    @property
    def profile(self) -> Profile | None:
        """One row a model, one column a question; None of several runs."""
        ...

    @property
    def told(self) -> list[str]:
        """What a reader must know of all tables."""
        ...

    def tables_of(self, name: str) -> dict[str, pl.DataFrame]:
        """Return the tables of one experiment, the main one first."""
        ...

    def figures_of(self, name: str) -> Mapping[str, Any]:
        """Return the figures of one experiment."""
        ...

    def summary_of(self, name: str) -> list[str]:
        """Return what the numbers of one experiment show."""
        ...

    def notes_of(self, name: str) -> list[str]:
        """Return what a reader must know of an experiment's numbers."""
        ...


def one_line(results: Shown) -> str:
    """Return what was measured on what, and whether it is finished."""
    manifest = results.manifest
    what = ", ".join(results.analyses) or "nothing"
    used = counted(manifest.images_used, "image")
    if manifest.limited or not manifest.finished_well:
        used = f"{manifest.images_used:,} of {counted(manifest.data.images, 'image')}"
    state = "" if manifest.status == "done" else f"; {manifest.status}"
    rest = f"{what} of {counted(len(manifest.models), 'model')} on {used} of {manifest.data.name}{state}"
    return f"<ipvit.{type(results).__name__} {str(results.out)!r}: {rest}>"


def in_notebook(results: Shown) -> str:
    """Return tables, figures and sentences of every experiment as HTML; what cannot be made is left out and told."""
    parts = [f"<h3>{escaped(one_line(results)[1:-1])}</h3>"]
    if results.manifest.limited:
        used, whole = results.manifest.images_used, results.manifest.data.images
        parts.append(paragraph(f"Limited run: {used:,} of {whole:,} images."))
    parts += [paragraph(sentence) for sentence in results.told]
    parts += _profile(results)
    for name, analysis in results.analyses.items():
        parts.append(f"<h4>{escaped(analysis.heading)}</h4>")
        parts += [paragraph(sentence) for sentence in results.summary_of(name)]
        parts += [paragraph(f"Note: {note}") for note in results.notes_of(name)]
        main = next(iter(results.tables_of(name).values()), None)
        if main is not None:
            parts.append(table(*for_people(in_reading_order(main), analysis.columns), analysis.title))
        parts += [_picture(key, figure) for key, figure in results.figures_of(name).items()]
    return f"<div>{''.join(parts)}</div>"


def _profile(results: Shown) -> list[str]:
    """Return the profile of a run that asks several questions: its table, and what a reader must know."""
    asked = results.profile
    if asked is None or len(asked.columns) < 2:
        return []
    heads, rows = asked.for_people()
    cells = [[" ".join(filter(None, (value, ends, rank and f"#{rank}"))) for value, ends, rank in row] for row in rows]
    notes = [paragraph(note) for note in (HOW_TO_READ, *asked.notes)]
    return [table(heads, cells, "Profile (number, 95 % interval, rank)"), *notes]


def _picture(name: str, figure: Any) -> str:
    """Return a figure as a picture: as such, no style of it reaches the notebook, and none of the notebook's it."""
    try:
        svg = svg_file(figure)
    except Exception as error:  # noqa: BLE001 - somebody's chart; the tables do not wait for it
        return paragraph(f"The figure {name} cannot be drawn: {error_line(error, 300)}.")
    data = base64.b64encode(svg).decode()
    return f'<img alt="{escaped(name)}" style="max-width:100%;background:white" src="data:image/svg+xml;base64,{data}">'


def as_pandas(frame: pl.DataFrame) -> Any:
    """Return a table of polars as one of pandas.

    Raises:
        InputError: pandas, or what brings columns over, is not installed.
    """
    try:
        return frame.to_pandas()
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name or 'pandas'} is not installed: pip install 'ipvit[pandas]'") from None
