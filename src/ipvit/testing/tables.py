"""What follows from the records: reductions, tables, their files, figures and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import RESERVED, SCORES, SHARED_MASK
from ipvit.analysis.reduction import Reduction
from ipvit.core.files import LONGEST, path_component
from ipvit.engine.store import read_analysis
from ipvit.report.figures import save_figure
from ipvit.report.tables.files import write_table
from ipvit.results import Run
from ipvit.testing.contract import no_error
from ipvit.testing.subject import Subject


def check_tables(subject: Subject, run: Run) -> None:
    """Check what the analysis of an experiment makes of its records.

    Args:
        subject: what is tried.
        run: on all images and models.

    Raises:
        ContractError: a promise of the analysis is not kept.
    """
    name = subject.experiment.name
    analysis, records = run.analyses[name], run.records(name)
    _check_described(subject, analysis, records)
    reductions = _reductions(subject, analysis, records)
    tables = _tables(subject, analysis, reductions)
    _check_each_model_alone(subject, analysis, reductions, tables)
    _check_kept(subject, run, analysis, records, tables)
    _check_files(subject, analysis, tables)
    _check_sentences(subject, analysis, tables)


def _check_described(subject: Subject, analysis: Analysis, records: pl.DataFrame) -> None:
    """Everything that is measured is described, or read by code of the analysis' own."""
    described = {column.of or name for name, column in analysis.columns.items()}
    known = {*RESERVED, *SCORES, SHARED_MASK, *analysis.conditions, *subject.data.fields, *described}
    own = type(analysis).reduce is not Analysis.reduce
    read = set(records.columns if analysis.record_columns is None else analysis.record_columns) if own else set()
    lost = [name for name in records.columns if name not in known | read]
    subject.require(
        not lost,
        f"the column {', '.join(map(repr, lost))} is measured and nothing says what it means; describe it by an "
        "ipvit.Column of the analysis, with average= where it belongs into the table",
    )
    subject.require(
        own or analysis.metric in records.columns,
        f"models are compared by {analysis.metric!r}, which is no column of the records; set metric= of the analysis",
    )


def _reductions(subject: Subject, analysis: Analysis, records: pl.DataFrame) -> list[Reduction]:
    found = []
    for model in records["model"].unique(maintain_order=True):
        doing = f"{subject.name}: the analysis' reduce on {model}"
        with no_error(doing):
            reduction = analysis.reduce(records.filter(pl.col("model") == model))
        subject.require(
            isinstance(reduction, Reduction) and reduction.model == model,
            f"reduce on {model} returns no Reduction of that model; return self.reduced(...)",
        )
        found.append(reduction)
    return found


def _tables(subject: Subject, analysis: Analysis, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
    with no_error(f"{subject.name}: the analysis' tables"):
        tables = analysis.tables(reductions)
    frames = isinstance(tables, dict) and all(isinstance(table, pl.DataFrame) for table in tables.values())
    subject.require(frames, "tables returns no dict of polars frames by name")
    subject.require(tables, "tables returns no table; there are records")
    _check_names(subject, "table", tables)
    main = next(iter(tables))
    whole = tables[main].height > 0 and "model" in tables[main].columns
    subject.require(whole, f"the first table, {main!r}, has no rows with a column model")
    return tables


def _check_names(subject: Subject, what: str, found: Mapping[str, object]) -> None:
    """Files of several experiments lie side by side: their names begin with the experiment's."""
    own = subject.experiment.name
    strange = next((name for name in found if name != own and not str(name).startswith(f"{own}-")), None)
    subject.require(strange is None, f"the {what} {strange!r} must be called {own!r}, or {own + '-'!r} and more")


def _check_each_model_alone(
    subject: Subject, analysis: Analysis, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]
) -> None:
    """What a table says of one model does not depend on which others are beside it."""
    for reduction in reductions if len(reductions) > 1 else ():
        doing = f"{subject.name}: the analysis' tables of {reduction.model} alone"
        with no_error(doing):
            alone = analysis.tables([reduction])
        for name, whole in alone.items():
            if "model" not in whole.columns:
                continue
            table = whole.filter(pl.col("model") == reduction.model)
            beside = tables[name].filter(pl.col("model") == reduction.model) if name in tables else pl.DataFrame()
            common = [column for column in table.columns if column in beside.columns]
            subject.require(
                table.height == beside.height and _same(table.select(common), beside.select(common)),
                f"the table {name!r} says something else of {reduction.model} alone than beside other models; "
                "reduce and tables must keep the models apart",
            )


def _same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Tell whether two tables have the same rows, in any order."""
    one = one.cast(dict(zip(other.columns, other.dtypes, strict=True)))
    return one.sort(one.columns).equals(other.sort(other.columns))


def _check_kept(
    subject: Subject, run: Run, analysis: Analysis, records: pl.DataFrame, tables: Mapping[str, pl.DataFrame]
) -> None:
    """What is kept in the run folder makes tables without the experiment's code, the same where there is no other."""
    kept = read_analysis(run.out, analysis.name)
    assert kept is not None  # the run has written it
    with no_error(f"{subject.name}: making tables from what the run folder keeps of the analysis"):
        models = records["model"].unique(maintain_order=True)
        reductions = [kept.reduce(records.filter(pl.col("model") == model)) for model in models]
        made = kept.tables(reductions)
        said = kept.summary(made), kept.answer(made)
    if type(analysis) is Analysis:
        same = made.keys() == tables.keys() and all(made[name].equals(tables[name]) for name in made)
        subject.require(
            same and said == (analysis.summary(dict(tables)), analysis.answer(dict(tables))),
            "what the run folder keeps of the analysis makes other tables or sentences than the analysis itself; its "
            "fields must be plain data that JSON can hold",
        )


def _check_files(subject: Subject, analysis: Analysis, tables: dict[str, pl.DataFrame]) -> None:
    """Tables become files and figures become drawings."""
    for name, table in tables.items():
        stem = subject.folder / "tables" / path_component(name, most=LONGEST)
        with no_error(f"{subject.name}: writing the table {name!r}"):
            write_table(table, stem, analysis.columns)
    with no_error(f"{subject.name}: the analysis' figures"):
        figures = analysis.figures(tables)
    subject.require(isinstance(figures, dict), f"figures returns {type(figures).__name__}; it must be a dict by name")
    _check_names(subject, "figure", figures)
    for name, figure in figures.items():
        with no_error(f"{subject.name}: drawing the figure {name!r}"):
            save_figure(figure, subject.folder / "figures" / path_component(name, most=LONGEST), ("svg",))


def _check_sentences(subject: Subject, analysis: Analysis, tables: dict[str, pl.DataFrame]) -> None:
    with no_error(f"{subject.name}: the analysis' summary and answer"):
        summary: Any = analysis.summary(tables)
        answer: Any = analysis.answer(tables)
    subject.require(
        isinstance(summary, list) and all(isinstance(sentence, str) for sentence in summary),
        f"summary returns {summary!r}; it must be a list of sentences",
    )
    models = {model for table in tables.values() if "model" in table.columns for model in table["model"]}
    subject.require(
        isinstance(answer, dict)
        and all(isinstance(key, str) and isinstance(text, str) for key, text in answer.items())
        and set(answer) <= models,
        f"answer returns {answer!r}; it must be a dict from the models' names to sentences",
    )
