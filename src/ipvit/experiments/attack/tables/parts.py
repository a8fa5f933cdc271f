"""What the tables and figures of attacks share."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ipvit.analysis.reduction import labelled
from ipvit.analysis.sentences import is_missing

TOP1 = {"correct": "top1"}


def beside(table: pl.DataFrame, other: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return a table with the columns of another one beside its own; a key that nobody has may be of any type."""
    mine = [pl.col(name).cast(other.schema[name]) for name in by if table.schema[name] == pl.Null]
    theirs = [pl.col(name).cast(table.schema[name]) for name in by if other.schema[name] == pl.Null]
    table, other = table.with_columns(mine), other.with_columns(theirs)
    return table.join(other, on=by, how="left", nulls_equal=True, maintain_order="left")


def series(names: list[str], settings: list[str]) -> pl.Expr:
    """Return what a curve is called: some columns, and settings with their names where they have a value."""
    parts = [pl.col(name) for name in names]
    for name in settings:
        said = pl.lit(f"{name.replace('_', ' ')} ") + pl.col(name).cast(pl.String)
        parts.append(pl.when(pl.col(name).cast(pl.String) != "").then(said))
    return pl.concat_str(parts, separator=", ", ignore_nulls=True).alias("series")


def share_without_gradient(table: pl.DataFrame, rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return a table with the percentage of images on which an attack had no gradient to follow."""
    blind = labelled(rows).group_by(by).agg((100 * pl.col("flat").fill_null(False).mean()).alias("no_gradient"))
    return beside(table, blind, by)


def without_zeros(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table without the column that says where gradients were lacking, if they never were."""
    return table if table["no_gradient"].sum() else table.drop("no_gradient")


def in_percent(rows: pl.DataFrame) -> str:
    """Return accuracies in words, in the order of the rows."""
    return ", ".join("nothing known" if is_missing(value) else f"{value:.1f} %" for value in rows["top1"])
