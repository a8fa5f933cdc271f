"""Numbers in sentences, also where there are none, and what must be said beside them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from ipvit.analysis.aggregate import PAPER


def ends(row: Mapping[str, Any], name: str, digits: int, *, signed: bool = False) -> str:
    """Return the interval of a column for a sentence, with a space before it; empty where there is none.

    Args:
        row: of a table with the columns ``NAME_low`` and ``NAME_high``.
        name: of the column.
        digits: after the point.
        signed: write the sign of positive numbers too.

    >>> ends({"top1_low": 61.25, "top1_high": 70.0}, "top1", 1), ends({"top1_low": None, "top1_high": None}, "top1", 1)
    (' [61.2, 70.0]', '')
    """
    text = interval(row.get(f"{name}_low"), row.get(f"{name}_high"), digits, signed=signed)
    return f" {text}" if text else ""


def interval(low: float | None, high: float | None, digits: int, *, signed: bool = False) -> str:
    """Return an interval as papers print it; empty where an end is missing.

    >>> interval(-1.5, 0.25, 2), interval(-1.5, 0.25, 2, signed=True), interval(0.0, float("nan"), 2)
    ('[-1.50, 0.25]', '[-1.50, +0.25]', '')
    """
    if is_missing(low) or is_missing(high):
        return ""
    sign = "+" if signed else ""
    return f"[{low:{sign}z.{digits}f}, {high:{sign}z.{digits}f}]"  # a zero has no minus


def is_missing(value: float | None) -> bool:
    """Tell whether a number is missing: null, or not finite."""
    return value is None or not math.isfinite(value)


def chosen_among(answers: str, classes: int, among: Collection[tuple[int, int]]) -> list[str]:
    """Say among which answers models chose, where that could have been others.

    Args:
        answers: ``all`` outputs, or those of the classes of the ``data``.
        classes: how many classes the data have.
        among: for each model how many answers it chose among, and how many outputs it has.

    >>> chosen_among("data", 50, [(50, 1000)])
    ['Answers are among the 50 classes of the data, not all 1,000 outputs (--answers all); guessing gives 2.0 %.']
    """
    more = sorted({outputs for _, outputs in among if outputs > classes > 0})
    if not more:
        return []
    outputs = f"{more[0]:,}" if len(more) == 1 else f"{more[0]:,} to {more[-1]:,}"
    if answers == "data":
        return [
            f"Answers are among the {classes:,} classes of the data, not all {outputs} outputs (--answers all); "
            f"guessing gives {100 / classes:.1f} %."
        ]
    return [f"Answers are among all {outputs} outputs, not only the {classes:,} classes of the data (--answers data)."]


def uneven(tables: Mapping[str, pl.DataFrame], name: str) -> list[str]:
    """Say where rows that are read together rest on different images.

    In the main table these are all rows. Other tables may have a row a category, which has images of its own; there
    rows are compared that differ in the model alone.

    Args:
        tables: of one experiment, by name.
        name: of the main one.
    """
    notes: list[str] = []
    for key, table in tables.items():
        if key.endswith(PAPER) or not {"model", "n_images"} <= set(table.columns):
            continue
        places = [column for column in table.columns[: table.columns.index("n_images")] if column != "model"]
        groups = [table] if key == name or not places else [part for _, part in table.group_by(places)]
        counts = [part["n_images"].drop_nulls() for part in groups]
        odd = [(int(part.min()), int(part.max())) for part in counts if part.n_unique() > 1]  # pyright: ignore
        if odd:
            where = "" if key == name else f" of {key}"
            low, high = min(low for low, _ in odd), max(high for _, high in odd)
            if key != name and places:
                low, high = max(odd, key=lambda ends: ends[1] - ends[0])
            notes.append(f"Not all rows{where} rest on the same images: n is {low:,} to {high:,}.")
    return notes
