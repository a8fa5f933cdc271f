"""The content of a part: columns, and the devices that they were measured on.

Columns are read one after the other: what is the same in all rows takes no memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, MutableMapping
from pathlib import Path
from typing import IO

import polars as pl
from polars.io.plugins import register_io_source

Alike = MutableMapping[str, str | None]
"""Values of the columns of text that are the same in all rows of a part, as far as they have been read."""

_DEVICES = "devices"
"""Where parts name them."""


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


def together(frames: Collection[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of frames one after the other; where one lacks a column, it is missing there.

    Columns stand as in the frame that has most, and not in an order that the order of the frames decides: that of
    parts follows their digests, and their digests what was measured in one go.

    >>> few, many = pl.DataFrame({"image": "a", "seed": 0}), pl.DataFrame({"image": "b", "correct": True, "seed": 0})
    >>> together([few, many]).columns, together([many, few]).columns
    (['image', 'correct', 'seed'], ['image', 'correct', 'seed'])
    """
    if len(frames) == 1:
        return next(iter(frames))
    orders = sorted((frame.columns for frame in frames), key=lambda names: (-len(names), names))
    columns = dict.fromkeys(name for names in orders for name in names)
    return pl.concat(frames, how="diagonal_relaxed").select(*columns)


def write_part(frame: pl.DataFrame, devices: Collection[str] = ()) -> bytes:
    """Return a frame as the content of a part.

    Args:
        frame: the rows.
        devices: names of what they were measured on; they stand in the file beside the rows.
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False, metadata=_metadata(devices))
    return buffer.getvalue()


def write_pieces(
    file: IO[bytes], pieces: Iterator[pl.DataFrame], kinds: pl.Schema, devices: Collection[str] = ()
) -> None:
    """Write a part piece after piece, each of which becomes a row group; only few of them are in memory.

    Args:
        file: into which.
        pieces: frames of rows.
        kinds: the columns of each of them.
        devices: as in :func:`write_part`.

    Raises:
        polars.exceptions.PolarsError: it cannot be written.
    """

    def asked_for(*_: object) -> Iterator[pl.DataFrame]:  # nothing less than everything is
        return pieces

    source = register_io_source(asked_for, schema=kinds)
    source.sink_parquet(file, compression="zstd", statistics=False, metadata=_metadata(devices))


def _metadata(devices: Collection[str]) -> dict[str, str] | None:
    return {_DEVICES: json.dumps(sorted(devices))} if devices else None


def devices_of(part: Path) -> list[str]:
    """Return the names of what the rows were measured on, as the end of a part says; none where it does not."""
    return json.loads(pl.read_parquet_metadata(part).get(_DEVICES, "[]"))


def _is_one_value(values: pl.Series) -> bool:
    if not len(values) or 0 < values.null_count() < len(values):
        return False
    return values.null_count() == len(values) or bool((values == values[0]).all())


def _literal(name: str, value: str | None) -> pl.Expr:
    return pl.lit(value, dtype=pl.Categorical).alias(name)
