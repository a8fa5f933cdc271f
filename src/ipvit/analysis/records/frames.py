"""Records of a million rows and more: numbers in place of texts, groups and filters that copy no more than needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


def ranks(values: pl.Series) -> NDArray[np.int64]:
    """Return for each value its place among the distinct ones in order, from 0; text by its characters.

    Categories are looked up by their codes: to compare a million texts would take a second.

    Args:
        values: ``(N,)`` without a missing one.

    Example:
        >>> ranks(pl.Series(["b", "a", "b"])).tolist()
        [1, 0, 1]
    """
    if values.dtype != pl.Categorical:
        return values.rank("dense").to_numpy().astype(np.int64) - 1
    distinct = values.unique()
    codes = distinct.to_physical().to_numpy()[distinct.cast(pl.String).arg_sort().to_numpy()].astype(np.int64)
    places = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    places[codes] = np.arange(len(codes))
    return places[values.to_physical().to_numpy()]


def matching(records: pl.DataFrame, conditions: Sequence[pl.Expr]) -> pl.DataFrame:
    """Return the rows that fulfil all conditions; the frame itself, and no copy, where all rows do."""
    whole = not conditions or records.select(pl.all_horizontal(conditions).all(ignore_nulls=False)).item()
    return records if whole else records.filter(*conditions)


def differing(records: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns that hold more than one value: no others tell groups of rows apart."""
    counts = records.select(pl.col(name).n_unique() for name in dict.fromkeys(columns))
    return [name for name in columns if counts[name][0] > 1]


def groups(
    records: pl.DataFrame, by: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    """Yield the rows of each group with the values of the columns that tell it apart, in the order of the first rows.

    As ``group_by(by, maintain_order=True)`` does, which copies every column and compares those that are the same in all
    rows, too.

    Args:
        records: of any number of rows.
        by: columns.
        columns: those that are returned, as far as there are any.
    """
    if records.is_empty():
        return
    kept = [name for name in dict.fromkeys(columns) if name in records.columns]
    varying = differing(records, by)
    first = records.select(pl.col(name).first() for name in by).row(0) if by else ()
    if not varying:
        yield first, records.select(kept)
        return
    same = dict(zip(by, first, strict=True))
    for key, group in records.select(list(dict.fromkeys((*varying, *kept)))).group_by(varying, maintain_order=True):
        known = same | dict(zip(varying, key, strict=True))
        yield tuple(known[name] for name in by), group.select(kept)
