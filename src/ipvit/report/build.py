"""The report of a run: everything that is written into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.analysis.looks import Looks, using
from ipvit.core.files import LONGEST, path_component
from ipvit.core.links import refuse_links
from ipvit.core.manifest import RunSummary
from ipvit.core.outdated import MADE, PAGE, clear_mark, put_earlier_aside
from ipvit.errors import error_line
from ipvit.report import comparison
from ipvit.report.figures import save_figure, specification_of
from ipvit.report.findings import findings, for_page, headlines, unit_of
from ipvit.report.html import Section, write_report
from ipvit.report.paper_figures import save_for_paper
from ipvit.report.pictures import Album
from ipvit.report.profile import FILE, Profile
from ipvit.report.profile_picture import draw
from ipvit.report.settings import Setting
from ipvit.report.tables.files import write_table


class Results(Protocol):
    """What a report is made of: :class:`ipvit.results.Run`, :class:`ipvit.run_collection.RunCollection`."""

    out: Path
    analyses: dict[str, Analysis]

    @property
    def studies(self) -> Mapping[str, str]:
        """The studies as YAML, by the names of their files."""
        ...

    @property
    def looks(self) -> Looks:
        """The colours and marks of the models."""
        ...

    @property
    def manifest(self) -> RunSummary:
        """What the page says of the run, or of several."""
        ...

    def settings_of(self, name: str) -> list[Setting]:
        """Return the settings of an experiment, those that depart from the defaults in front."""
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

    def notes_of(self, name: str) -> list[str]:
        """Return what a reader must know of an experiment's numbers."""
        ...

    @property
    def told(self) -> list[str]:
        """What a reader must know of all tables."""
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
    beside = write_tables(results)
    asked = results.profile
    picture = None
    album = Album()
    sections = []
    made: set[str] = set()
    if asked is not None and len(asked.columns) > 1:
        picture = _draw_profile(asked, results.out, results.looks)
        made.add(FILE)
    for name, analysis in _measured(results).items():
        figures, undrawn = _drawn(results.out, results.figures_of(name))
        made |= {path_component(figure, most=LONGEST) for figure in figures}
        sections.append(_section(results, analysis, results.tables_of(name), figures, beside, album, undrawn))
    _settle(results.out / "figures", made)
    titles = [section.title for section in sections]
    heading = titles[0] if len(titles) == 1 else "What the networks rely on"
    return write_report(
        results.out / PAGE,
        title=heading,
        manifest=results.manifest,
        studies=results.studies,
        looks=results.looks,
        sections=sections,
        profile=None if picture is None else asked,
        picture=picture,
        comparison_notes=comparison.notes(results.manifest) if beside.height else [],
        told=results.told,
    )


def write_tables(results: Results) -> pl.DataFrame:
    """Write ``tables/`` into the run folder; return our numbers beside the paper's."""
    refuse_links(results.out, MADE)
    folder = results.out / "tables"
    made: set[str] = set()
    for name, analysis in _measured(results).items():
        for key, table in results.tables_of(name).items():
            stem = path_component(key, most=LONGEST)
            made.add(stem)
            of = f"{analysis.heading}, {key.removeprefix(name)}".removesuffix(", ")
            title = "; ".join([f"{of}, {results.manifest.data.name}", *results.manifest.zero_shot])
            write_table(table, folder / stem, analysis.columns, title)
    asked = results.profile
    if asked is not None and len(asked.columns) > 1:
        made.add(FILE)
        write_table(asked.cells(), folder / FILE)
    beside = results.compare()
    if beside.height:
        made.add(comparison.FILE)
        write_table(beside, folder / comparison.FILE)
    _settle(folder, made)
    return beside


def write_profile(asked: Profile, out: Path, looks: Looks) -> None:
    """Write a profile's table and picture into a run folder.

    Args:
        asked: the profile.
        out: the run folder.
        looks: colours and marks of the models.
    """
    refuse_links(out, MADE)
    write_table(asked.cells(), out / "tables" / FILE)
    _draw_profile(asked, out, looks)


def _draw_profile(asked: Profile, out: Path, looks: Looks) -> dict[str, Any]:
    with using(looks):
        picture = draw(asked)
    save_figure(picture, out / "figures" / FILE, ("svg", "pdf"))
    return picture


def _measured(results: Results) -> dict[str, Analysis]:
    return {name: analysis for name, analysis in results.analyses.items() if results.tables_of(name)}


def _settle(folder: Path, made: set[str]) -> None:
    """Move what an earlier study made aside, so that a folder is of one study, and take the mark of outdated away."""
    records = folder.parent / "records"
    names = {path.name for path in records.iterdir()} if records.is_dir() else set[str]()
    put_earlier_aside(folder, made, {*names, comparison.FILE, FILE} if names else set())
    clear_mark(folder)


def write_paper_figures(results: Results) -> list[Path]:
    """Write every figure as wide as one and as both columns of a paper into ``figures/``; return the paths."""
    refuse_links(results.out, ("figures",))
    paths: list[Path] = []
    for name in results.analyses:
        for figure, chart in results.figures_of(name).items():
            paths += save_for_paper(chart, results.out / "figures" / path_component(figure, most=LONGEST))
    return paths


def _drawn(out: Path, figures: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write figures as files; return those that can be drawn, and a sentence about each that cannot.

    Raises:
        OSError: a file cannot be written.
    """
    drawn: dict[str, Any] = {}
    notes: list[str] = []
    for name, figure in figures.items():
        try:
            chart = specification_of(figure)
            save_figure(chart, out / "figures" / path_component(name, most=LONGEST), ("svg", "pdf"))
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - somebody's chart; the rest of the page does not wait for it
            notes.append(f"The figure {name} cannot be drawn: {error_line(error, 300)}.")
        else:
            drawn[name] = chart
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
    headline = results.lead_of(name) or next(iter(summary), "")
    own = beside.filter(pl.col("experiment") == name)
    return Section(
        name=name,
        title=analysis.title,
        reproduces=analysis.reproduces,
        question=analysis.question,
        settings=results.settings_of(name),
        headline=headline,
        summary=[sentence for sentence in summary if sentence not in headline],
        findings=[] if differences is None else [*headlines(differences, unit), *findings(differences, unit)],
        tables=tables,
        columns=analysis.columns,
        figures=figures,
        galleries=album.galleries(results.pictures(name)),
        differences=None if differences is None else for_page(differences, unit),
        comparison=comparison.for_people(own) if own.height else None,
        notes=[*results.notes_of(name), *undrawn],
    )
