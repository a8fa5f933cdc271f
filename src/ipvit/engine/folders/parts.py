"""Columns of a part, read one after the other: what is the same in all of its rows takes no memory."""

from __future__ import annotations

import io
from collections.abc import Collection, MutableMapping

import polars as pl

Alike = MutableMapping[str, str | None]
"""Values of the columns of text that are the same in all rows of a part, as far as they have been read."""


def read_part(data: bytes, columns: Collection[str] | None, alike: Alike) -> pl.DataFrame:
    """Return columns of a part in its order of them, text as categories.

    As strings, a million rows would take 16 MB a column and more, so that only one of them is in memory at a time. One
    that holds a single value is a literal, which polars keeps as one value whatever the number of rows.

    Args:
        data: the content of the file.
        columns: the columns; None for all.
        alike: what is known of the part; what is found is added.

    Raises:
        polars.exceptions.PolarsError: it is no such file.
    """
    schema = pl.read_parquet_schema(io.BytesIO(data))
    wanted = [name for name in schema if columns is None or name in columns]
    texts = [name for name in wanted if schema[name] == pl.String]
    others = [name for name in wanted if schema[name] != pl.String]
    found: list[pl.Series] = []
    for name in texts:
        if name not in alike:
            values = pl.read_parquet(io.BytesIO(data), columns=[name])[name]
            if _is_one_value(values):
                alike[name] = values[0]
            else:
                found.append(values.cast(pl.Categorical))
    numbers = pl.read_parquet(io.BytesIO(data), columns=others or list(schema)[:1])
    frame = numbers.with_columns(*found, *(_literal(name, alike[name]) for name in texts if name in alike))
    return frame.select(wanted)


def _is_one_value(values: pl.Series) -> bool:
    if not len(values) or 0 < values.null_count() < len(values):
        return False
    return values.null_count() == len(values) or bool((values == values[0]).all())


def _literal(name: str, value: str | None) -> pl.Expr:
    return pl.lit(value, dtype=pl.Categorical).alias(name)
