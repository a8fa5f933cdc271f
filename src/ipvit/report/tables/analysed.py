"""What follows from the records of one experiment: tables, differences between the models, notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl

from ipvit.analysis.aggregate import PAPER, with_n_answers
from ipvit.analysis.base import Analysis
from ipvit.analysis.last_run import LastRun
from ipvit.analysis.profile import Ranked
from ipvit.analysis.reduction import Reduction
from ipvit.core.manifest import Manifest
from ipvit.experiments.base import Experiment
from ipvit.report.last_run import as_of_last_run
from ipvit.report.notes import notes_of_numbers
from ipvit.report.paper import reference


@dataclasses.dataclass(frozen=True)
class Analysed:
    """What follows from the records of an experiment.

    Attributes:
        tables: by name, the main one first, the paper's last.
        differences: paired differences between the models, or None with a single one.
        notes: what a reader must know of the numbers.
        profile: the experiment's questions with ranks.
    """

    tables: dict[str, pl.DataFrame]
    differences: pl.DataFrame | None
    notes: list[str]
    profile: list[Ranked] = dataclasses.field(default_factory=list["Ranked"])


def analysed(
    analysis: Analysis,
    reductions: Sequence[Reduction],
    manifest: Manifest,
    experiment: Experiment | None,
    *,
    damaged: int,
) -> Analysed:
    """Return what follows from the reductions of the models, without the profile.

    Args:
        analysis: of the experiment.
        reductions: of the models that are shown.
        manifest: what the run says of itself.
        experiment: with its parameters; None where its own code is not here.
        damaged: part files that could not be read.
    """
    known = experiment is not None
    if not reductions:
        return Analysed({}, None, notes_of_numbers(analysis, {}, reductions, manifest, damaged=damaged, known=known))
    tables = _tables(analysis, reductions, manifest, experiment)
    differences = analysis.differences(reductions)
    notes = notes_of_numbers(analysis, tables, reductions, manifest, damaged=damaged, known=known)
    if differences is None and sum(reduction.values is not None for reduction in reductions) > 1:
        notes.append("The models are not compared: no condition was measured alike on both, with the same images.")
    return Analysed(tables, differences, notes)


def _tables(
    analysis: Analysis, reductions: Sequence[Reduction], manifest: Manifest, experiment: Experiment | None
) -> dict[str, pl.DataFrame]:
    """Return the experiment's tables with what is retained, calibration, and the paper's cells; how many answers."""
    tables = analysis.with_retained(analysis.tables(reductions), reductions)
    tables = analysis.with_calibration(tables, reductions)
    paper = reference(analysis.name, {analysis.name: tables}, manifest, experiment)
    if paper is not None and tables:
        tables = tables | {f"{analysis.name}{PAPER}": paper}
    if analysis.labels and _fewer_classes(manifest, analysis.name):
        answers = {reduction.model: reduction.n_answers for reduction in reductions if reduction.n_answers}
        tables = {key: with_n_answers(table, answers) for key, table in tables.items()}
    return tables


def _fewer_classes(manifest: Manifest, name: str) -> bool:
    """Tell whether a model had more outputs than the data have classes, so that it could choose among either."""
    subject = manifest.subject(name)
    return any(outputs > subject.n_classes > 0 for _, outputs in subject.among.values())


def as_last_analysed(analysis: Analysis, last_run: LastRun, left_out: Sequence[str]) -> Analysed:
    """Return what the experiment's own code made when it was last run.

    Args:
        analysis: what is known of the experiment without its code.
        last_run: what was kept.
        left_out: what is said of charts that are not drawn.
    """
    tables = {key: table.frame() for key, table in last_run.tables.items()}
    differences = None if last_run.differences is None else last_run.differences.frame()
    return Analysed(tables, differences, [as_of_last_run(analysis, last_run), *last_run.notes, *left_out])
