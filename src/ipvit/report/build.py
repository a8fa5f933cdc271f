"""The report of a run: everything that is written into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.core.files import LONGEST, path_component
from ipvit.core.links import refuse_links
from ipvit.core.manifest import RunSummary
from ipvit.errors import error_line
from ipvit.report import comparison
from ipvit.report.figures import save_figure
from ipvit.report.findings import findings, for_page, headlines, unit_of
from ipvit.report.html import Section, write_report
from ipvit.report.pictures import Album
from ipvit.report.profile import FILE, Profile
from ipvit.report.profile_picture import draw
from ipvit.report.tables import write_table

PAGE = "report.html"


class Results(Protocol):
    """What a report is made of: :class:`ipvit.results.Run`, :class:`ipvit.run_collection.RunCollection`."""

    out: Path
    analyses: dict[str, Analysis]

    @property
    def manifest(self) -> RunSummary:
        """What the page says of the run, or of several."""
        ...

    def tables_of(self, name: str) -> dict[str, pl.DataFrame]:
        """Return the tables of one experiment."""
        ...

    def figures_of(self, name: str) -> Mapping[str, Any]:
        """Return the figures of one experiment."""
        ...

    def summary_of(self, name: str) -> list[str]:
        """Return what the numbers of one experiment show."""
        ...

    def lead_of(self, name: str) -> str:
        """Return the sentence that answers an experiment's question for each model."""
        ...

    def differences_of(self, name: str) -> pl.DataFrame | None:
        """Return the paired differences between the models in an experiment."""
        ...

    def notes(self, name: str) -> list[str]:
        """Return what a reader must know of an experiment's numbers."""
        ...

    def pictures(self, name: str) -> Mapping[str, Sequence[Any]]:
        """Return the pictures of an experiment by model."""
        ...

    @property
    def profile(self) -> Profile | None:
        """One row a model, one column a question; None for several runs together."""
        ...

    def compare(self) -> pl.DataFrame:
        """Return our numbers beside the paper's."""
        ...


def build_report(results: Results) -> Path:
    """Write ``tables/``, ``figures/`` and ``report.html`` into the run folder; return the path of the page."""
    refuse_links(results.out, ("tables", "figures"))
    measured = {name: analysis for name, analysis in results.analyses.items() if results.tables_of(name)}
    beside = results.compare()
    asked = results.profile
    picture = None
    if asked is not None and len(asked.columns) > 1:
        picture = write_profile(asked, results.out)
    album = Album()
    sections = []
    for name, analysis in measured.items():
        tables = results.tables_of(name)
        for key, table in tables.items():
            write_table(table, results.out / "tables" / path_component(key, most=LONGEST), analysis.columns)
        figures, undrawn = _drawn(results.out, results.figures_of(name))
        sections.append(_section(results, analysis, tables, figures, beside, album, undrawn))
    if beside.height:
        write_table(beside, results.out / "tables" / comparison.FILE)
    titles = [analysis.title for analysis in measured.values()]
    title = titles[0] if len(titles) == 1 else "What the networks rely on"
    return write_report(
        results.out / PAGE,
        title=title,
        manifest=results.manifest,
        sections=sections,
        profile=None if picture is None else asked,
        picture=picture,
        comparison_notes=comparison.notes(results.manifest) if beside.height else [],
    )


def write_profile(asked: Profile, out: Path) -> Any:
    """Write a profile's table and picture into a run folder; return the picture."""
    refuse_links(out, ("tables", "figures"))
    write_table(asked.cells(), out / "tables" / FILE)
    picture = draw(asked)
    save_figure(picture, out / "figures" / FILE, ("svg", "pdf"))
    return picture


def _drawn(out: Path, figures: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write figures as files; return those that can be drawn, and a sentence about each that cannot.

    Raises:
        OSError: a file cannot be written.
    """
    drawn: dict[str, Any] = {}
    notes: list[str] = []
    for name, figure in figures.items():
        try:
            save_figure(figure, out / "figures" / path_component(name, most=LONGEST), ("svg", "pdf"))
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - somebody's chart; the rest of the page does not wait for it
            notes.append(f"The figure {name} cannot be drawn: {error_line(error, 300)}.")
        else:
            drawn[name] = figure
    return drawn, notes


def _section(
    results: Results,
    analysis: Analysis,
    tables: dict[str, pl.DataFrame],
    figures: Mapping[str, Any],
    beside: pl.DataFrame,
    album: Album,
    undrawn: Sequence[str],
) -> Section:
    name, unit = analysis.name, unit_of(analysis)
    differences = results.differences_of(name)
    summary = results.summary_of(name)
    own = beside.filter(pl.col("experiment") == name)
    return Section(
        name=name,
        title=analysis.title,
        reproduces=analysis.reproduces,
        question=analysis.question,
        headline=results.lead_of(name) or next(iter(summary), ""),
        summary=summary,
        findings=[] if differences is None else [*headlines(differences, unit), *findings(differences, unit)],
        tables=tables,
        columns=analysis.columns,
        figures=figures,
        galleries=album.galleries(results.pictures(name)),
        differences=None if differences is None else for_page(differences, unit),
        comparison=comparison.for_people(own) if own.height else None,
        notes=[*results.notes(name), *undrawn],
    )
