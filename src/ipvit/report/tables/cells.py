"""What people see of a table, wherever it is printed: heads and cells as text.

A measured column ``top1`` may have its interval beside it as ``top1_low`` and ``top1_high`` and its spread over runs as
``top1_std``; people see one column ``top1`` with the interval in brackets.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from ipvit.analysis.columns import COMMON, PLAIN, Columns
from ipvit.analysis.sentences import interval, is_missing

MOST_LEVELS = 14
"""Levels that stand side by side, or below each other in a terminal."""

_ALWAYS_SHOWN = ("model", "n_answers")
"""Columns without which no number of a table says what it is."""

Cell = tuple[str, str]
"""A value as text, and its interval in brackets or an empty text."""


def for_people(frame: pl.DataFrame, columns: Columns = COMMON) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows as text, with every interval merged into the column it belongs to.

    Columns without any value, such as the accuracy among the five best of three classes, are left out.
    """
    names, rows = cells_of(frame, columns)
    return [head(name, columns) for name in names], [[" ".join(filter(None, cell)) for cell in row] for row in rows]


def cells_of(
    frame: pl.DataFrame, columns: Columns = COMMON, *, details: bool = False
) -> tuple[list[str], list[list[Cell]]]:
    """Return the names of the columns that people see, and their cells: a text, and the interval or an empty text.

    Args:
        frame: the table.
        columns: what is known of its columns.
        details: with those that are details.
    """
    measured = [name for name in frame.columns if f"{name}_low" in frame.columns and f"{name}_high" in frame.columns]
    hidden = {f"{name}_{end}" for name in measured for end in ("low", "high")}
    empty = {name for name in frame.columns if frame.height and frame[name].null_count() == frame.height}
    shown = [name for name in frame.columns if name not in hidden | empty and (details or not is_detail(name, columns))]
    rows = [
        [cell_of(row, name, columns) if name in measured else (text(row[name], name, columns), "") for name in shown]
        for row in frame.iter_rows(named=True)
    ]
    return shown, rows


def is_detail(name: str, columns: Columns) -> bool:
    """Tell whether a column is shown among all columns only."""
    return (columns.get(name) or COMMON.get(name, PLAIN)).detail


def has_details(frame: pl.DataFrame, columns: Columns) -> bool:
    """Tell whether a table has columns with values that are shown among all columns only."""
    return any(is_detail(name, columns) and frame[name].count() for name in frame.columns)


@dataclasses.dataclass(frozen=True)
class TableGrid:
    """A table as papers print it: models down, levels across.

    Attributes:
        names: of the columns that name the row.
        heads: of the columns.
        rows: cells, each a text and the interval that belongs to it, or "".
        left: how many columns name the row.
        value: what the cells hold.
        level: what the columns after them are.
        n_images: on which every cell rests, or None where they differ.
    """

    names: list[str]
    heads: list[str]
    rows: list[list[Cell]]
    left: int
    value: str
    level: str
    n_images: int | None


def side_by_side(frame: pl.DataFrame, columns: Columns = COMMON) -> TableGrid | None:
    """Return a table with its levels side by side, or None where it has none, or too many."""
    value = next((name for name in frame.columns if f"{name}_low" in frame.columns), None)
    levels = [name for name in levels_of(frame, columns) if not frame[name].null_count()]
    level = next((name for name in levels if 1 < frame[name].n_unique() <= MOST_LEVELS), None)
    if value is None or level is None or "n_images" not in frame.columns:
        return None
    keys = [name for name in columns_of_rows(frame) if name != level]
    # what merely follows from the level, such as the grid from the number of cells, names no row
    told = frame[level].n_unique()
    followed = [name for name in keys if name not in _ALWAYS_SHOWN and frame.select(level, name).n_unique() == told]
    keys = [name for name in keys if name not in followed]
    if frame.select(*keys, level).n_unique() < frame.height:
        return None
    places = frame[level].unique(maintain_order=True).to_list()
    places = sorted(places) if frame.schema[level].is_numeric() else places
    cells: dict[tuple[Any, ...], dict[Any, Cell]] = {}
    for row in frame.iter_rows(named=True):
        cells.setdefault(tuple(row[name] for name in keys), {})[row[level]] = cell_of(row, value, columns)
    rows = [
        [
            *((text(part, name, columns), "") for name, part in zip(keys, key, strict=True)),
            *(found.get(place, ("", "")) for place in places),
        ]
        for key, found in cells.items()
    ]
    counts = frame["n_images"].unique().to_list()
    heads = [*(head(name, columns) for name in keys), *(level_text(place, level, columns) for place in places)]
    n_images = counts[0] if len(counts) == 1 else None
    of = _shared_by_levels(frame, level, followed, columns)
    along = head(level, columns) + (f" of {', '.join(of)}" if of else "")
    return TableGrid(keys, heads, rows, len(keys), head(value, columns), along, n_images)


def _shared_by_levels(frame: pl.DataFrame, level: str, names: Sequence[str], columns: Columns) -> list[str]:
    """Return what all levels but one share, such as the one corruption: its column is not shown, so it must be said."""
    found: list[str] = []
    for name in names:
        counts = frame.unique([level, name], maintain_order=True)[name].value_counts(sort=True)
        if frame[level].n_unique() > 2 and counts.height == 2 and counts["count"][1] == 1 and counts["count"][0] > 1:
            found.append(text(counts[name][0], name, columns).replace("_", " "))
    return found


def columns_of_rows(frame: pl.DataFrame) -> list[str]:
    """Return the columns that say what a row is of: those before the first count or measure."""
    measured = (name for name in frame.columns if f"{name}_low" in frame.columns)
    first = next((name for name in frame.columns if name == "n_images"), None)
    ends = [frame.columns.index(name) for name in (first, next(measured, None)) if name is not None]
    return frame.columns[: min(ends, default=len(frame.columns))]


def counted(frame: pl.DataFrame) -> str:
    """Return on how many images a table rests, for a caption; empty where it does not say."""
    counts = frame["n_images"].drop_nulls() if "n_images" in frame.columns else pl.Series(dtype=pl.Int64)
    if counts.is_empty():
        return ""
    least, most = (f"{count:,}" for count in (counts.min(), counts.max()))
    return f"n = {most if least == most else f'{least} to {most}'} image{'' if most == '1' else 's'}"


def among(frame: pl.DataFrame) -> str:
    """Return among how many answers the models chose, for a caption; empty where that differs or is not told."""
    answers = frame["n_answers"].drop_nulls().unique().to_list() if "n_answers" in frame.columns else []
    return f"among {answers[0]:,} answers" if len(answers) == 1 else ""


def text(value: Any, name: str = "", columns: Columns = COMMON) -> str:
    """Return a cell as text, nothing for a missing value.

    Args:
        value: of a row.
        name: of its column, which may say how values are written: shares in per cent, counts with a comma between
            thousands, a word for a value that is no number of anything. Percentages have three digits, other numbers
            at most three decimals.
        columns: what is known of the columns.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    column = columns.get(name, PLAIN)
    if (word := column.special.get(str(value))) is not None:
        return word
    if (share := column.level_text(value)) is not None:
        return share
    if isinstance(value, float) and column.unit == "percent":
        return f"{value:.3g}"
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}".rstrip("0").rstrip(".")
    counts = column.unit == "count" or name.startswith("n_")
    return f"{value:,}" if counts and isinstance(value, int) else str(value)


def head(name: str, columns: Columns) -> str:
    """Return a column's name for people."""
    return columns.get(name, PLAIN).head(name)


def levels_of(frame: pl.DataFrame, columns: Columns) -> list[str]:
    """Return the columns whose values are steps of one quantity, which make good column heads."""
    return [name for name in frame.columns if columns.get(name, PLAIN).level]


def cell_of(row: dict[str, Any], name: str, columns: Columns) -> Cell:
    """Return a measured value of a row, and its interval."""
    value = row[name]
    if is_missing(value):
        return "", ""
    column = columns.get(name, PLAIN)
    digits = column.digits if column.digits is not None else 1 if abs(value) >= 10 else 3
    return f"{value:z.{digits}f}", interval(row[f"{name}_low"], row[f"{name}_high"], digits)


def level_text(value: Any, name: str, columns: Columns) -> str:
    """Return the value of a level as text; shares in per cent."""
    return text(value, name, columns)
