"""Tables, sentences and the chart of an experiment that only says what its columns mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from ipvit.analysis.aggregate import accuracy_table, mean_table, varying
from ipvit.analysis.columns import PLAIN, RESERVED, RUN, SCORES, SHARED_MASK
from ipvit.analysis.reduction import Reduction, joined

if TYPE_CHECKING:
    from ipvit.analysis.base import Analysis
    from ipvit.analysis.charts import Figure


def condition_columns(analysis: Analysis, records: pl.DataFrame) -> list[str]:
    """Return the columns of the records that are the condition's, without ``run``: runs are averaged.

    Where an older run folder does not state them, they are those that are the same for all images of a condition.
    """
    if analysis.conditions:
        return [name for name in analysis.conditions if name in records.columns and name != RUN]
    measured = {column.of or name for name, column in analysis.columns.items() if column.average}
    others = RESERVED | SCORES | measured | {RUN, SHARED_MASK}
    names = [name for name in records.columns if name not in others]
    return [name for name in names if name not in varying(records, names, within=("condition",))]


def averages(analysis: Analysis, records: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Average everything that says how it is averaged, what models are compared by first.

    Returns:
        The ``by`` columns, ``n_images``, ``n_runs`` and for each measure its mean, the ends of its interval and its
        spread. ``NAME_n`` is the number of images where a measure rests on fewer than ``n_images``.
    """
    columns = {name: c for name, c in analysis.columns.items() if c.average in ("proportion", "mean")}
    columns = {name: c for name, c in columns.items() if (c.of or name) in records.columns}
    ordered = sorted(columns, key=lambda name: (columns[name].of or name) != analysis.metric)
    images = records.group_by(by, maintain_order=True).agg(n_images=pl.col("image").n_unique().cast(pl.Int64))
    runs = pl.col(RUN).n_unique() if RUN in records.columns else pl.lit(1)
    found = images.join(records.group_by(by).agg(n_runs=runs.cast(pl.Int64)), on=by, nulls_equal=True)
    for name in ordered:
        source = records.with_columns(pl.col(columns[name].of or name).alias(name))
        one = columns[name].average == "proportion"
        table = accuracy_table(source, by, {name: name}) if one else mean_table(source, by, [name], columns)
        table = table.drop("n_runs").rename({"n_images": f"{name}_n"})
        found = found.join(table, on=by, how="left", nulls_equal=True, maintain_order="left")
        if (found[f"{name}_n"] == found["n_images"]).all():
            found = found.drop(f"{name}_n")
    return found


def default_tables(analysis: Analysis, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
    """Return one table: the conditions' columns that differ, levels last, and everything that is averaged."""
    main = joined(reductions, analysis.name)
    if main.is_empty():
        return {}
    start = main.columns.index("n_images")
    keys = [name for name in main.columns[1:start] if main[name].n_unique() > 1 or name in analysis.levels]
    keys.sort(key=lambda name: name in analysis.levels)
    table = main.select("model", *keys, *main.columns[start:])
    return {analysis.name: table.sort(keys, nulls_last=True, maintain_order=True) if keys else table}


def default_sentences(analysis: Analysis, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
    """Yield for each model, and each of its settings, the largest change of the first measure from the clean row."""
    main = tables.get(analysis.name, pl.DataFrame())
    measure = first_measure(main)
    if measure is None:
        return
    column = analysis.columns.get(measure, PLAIN)
    levels = [name for name in analysis.levels if name in main.columns]
    keys = main.columns[1 : main.columns.index("n_images")]
    settings = [name for name in keys if name not in (*levels, *analysis.clean)]
    for key, rows in main.filter(pl.col(measure).is_finite()).group_by(["model", *settings], maintain_order=True):
        who = ", ".join(str(part) for part in key if part not in (None, ""))
        clean = [row for row in rows.to_dicts() if all(row.get(n) == value for n, value in analysis.clean.items())]
        others = [row for row in rows.to_dicts() if row not in clean]
        if not analysis.clean or not clean or not others:
            least, most = cast("float", rows[measure].min()), cast("float", rows[measure].max())
            ends = dict.fromkeys(column.number(value) for value in (least, most))
            yield str(key[0]), f"{who}: {column.head(measure)} is {' to '.join(ends)}."
            continue
        start = clean[0][measure]
        far = max(others, key=lambda row: abs(row[measure] - start))
        verb = "falls" if far[measure] < start else "rises" if far[measure] > start else "stays"
        change = f"from {column.number(start)} to {column.number(far[measure])}{_place(analysis, far, levels)}"
        said = f"stays at {column.number(start)}" if verb == "stays" else f"{verb} {change}"
        yield str(key[0]), f"{who}: {column.head(measure)} {said}."


def _place(analysis: Analysis, row: dict[str, Any], levels: Sequence[str]) -> str:
    """Return at which levels, or other values of what tells the clean row, a row is."""
    names = [*levels, *(name for name in analysis.clean if name in row and name not in levels)]
    parts: list[str] = []
    for name in names:
        column = analysis.columns.get(name, PLAIN)
        value = row[name]
        text = column.level_text(value) or (f"{value:g}" if isinstance(value, float) else str(value))
        parts.append(f"{column.head(name)} {text}")
    return f" at {', '.join(parts)}" if parts else ""


def first_measure(table: pl.DataFrame) -> str | None:
    """Return the first column of a table that has an interval."""
    return next((name for name in table.columns if f"{name}_low" in table.columns), None)


def default_figures(analysis: Analysis, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
    """Return a curve of the main table's first measure over its level; where there is no level, dots with intervals.

    Lines and dots are told apart by the model and by every other setting that differs.
    """
    from ipvit.analysis import charts

    table = tables.get(analysis.name, pl.DataFrame())
    measure = first_measure(table)
    if measure is None:
        return {}
    level = next((name for name in analysis.levels if name in table.columns and table[name].n_unique() > 1), None)
    settings = [name for name in table.columns[1 : table.columns.index("n_images")] if name != level]
    words = [pl.col("model"), *(pl.col(name).cast(pl.String) for name in settings)]
    table = table.with_columns(pl.concat_str(words, separator=", ", ignore_nulls=True).alias("series"))
    column = analysis.columns.get(measure, PLAIN)
    shown, domain = column.head(measure), (0.0, 100.0) if column.unit == "percent" else None
    if level is None:
        encoding = charts.Encoding(x=measure, y="series", series="series", x_title=shown, x_domain=domain)
        return {analysis.name: charts.dots(table, encoding, title=analysis.title)}
    along = analysis.columns[level]
    encoding = charts.Encoding(
        x=level,
        y=measure,
        series="series",
        x_title=along.head(level),
        y_title=shown,
        x_format=".0%" if along.unit == "share" else None,
        y_domain=domain,
    )
    return {analysis.name: charts.curve(table, encoding, title=analysis.title)}
