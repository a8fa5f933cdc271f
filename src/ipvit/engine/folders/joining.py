"""Rows of many parts in one order, each result once, without a second copy of all of them.

A network's records are hundreds of bytes a row in memory. So what is the same in all rows is kept once, the order is
found from what identifies a row, and whole rows are made a piece at a time, when they are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from ipvit.analysis.records.frames import differing
from ipvit.engine.folders.parts import together

_PLACE = "place in the frame"

PIECE_ROWS = 120 * 1024
"""About as many rows make a piece, which becomes a row group of the file: as many as polars puts into one by itself."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows in an order.

    Attributes:
        names: of all columns, in their order.
        alike: the columns that have one value in all rows, in one row.
        frame: the other columns, at least one, in any order of the rows.
        places: positions of the rows in ``frame``; some may be left out.
    """

    names: tuple[str, ...]
    alike: pl.DataFrame
    frame: pl.DataFrame
    places: pl.Series

    def take(self, places: pl.Series) -> pl.DataFrame:
        """Return rows with all of their columns, texts as texts.

        Args:
            places: their positions in ``frame``.
        """
        literals = [pl.lit(self.alike[name][0], dtype=kind).alias(name) for name, kind in self.alike.schema.items()]
        return plain(self.frame[places].with_columns(*literals).select(self.names))

    def each_once(self, identified_by: Sequence[str]) -> Rows:
        """Return the rows sorted by what identifies them, without those that were there before."""
        order, again = in_order(self.frame, identified_by)
        return dataclasses.replace(self, places=order.filter(~again))

    def by(self, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Rows]]:
        """Yield the values of some columns of text with the rows that have them, in the order of the first of these."""
        known = {name: self.alike[name][0] for name in names if name in self.alike}
        varying = [name for name in names if name not in known]
        if not varying:
            yield tuple(str(known[name]) for name in names), self
            return
        table = self.frame.select(varying)[self.places].with_columns(self.places.alias(_PLACE))
        for values, rows in table.group_by(varying, maintain_order=True):
            of = known | dict(zip(varying, values, strict=True))
            yield tuple(str(of[name]) for name in names), dataclasses.replace(self, places=rows[_PLACE])

    @property
    def kinds(self) -> pl.Schema:
        """The columns as :meth:`pieces` has them."""
        return self.take(self.places.clear()).schema

    def pieces(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in their order, :data:`PIECE_ROWS` or about as many at a time."""
        n = len(self.places)
        count = max(1, round(n / PIECE_ROWS))
        for piece in range(count):
            start, end = (piece * (n // count) + min(piece, n % count) for piece in (piece, piece + 1))
            yield self.take(self.places[start:end])


def rows_of(frames: list[pl.DataFrame]) -> Rows:
    """Return the rows of frames, one after the other, as :func:`ipvit.engine.folders.parts.together` does.

    Args:
        frames: at least one, with texts as categories; the list is emptied, so that no column is there twice.
    """
    kinds = together([frame.clear() for frame in frames]).schema
    alike = _alike(frames, kinds)
    if len(alike) == len(kinds):  # one column tells how many rows there are
        alike.popitem()
    columns: list[pl.Series] = []
    for name, kind in kinds.items():
        if name not in alike:
            columns.append(pl.concat([_column(frame, name, kind) for frame in frames], rechunk=True))
        frames[:] = [frame.drop(name, strict=False) if frame.width > 1 else frame for frame in frames]
    frames.clear()
    places = pl.int_range(len(columns[0]), dtype=pl.UInt32, eager=True)
    return Rows(tuple(kinds), pl.DataFrame(alike), pl.DataFrame(columns), places)


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Return categorical columns as text, as all parts have them."""
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def each_once(frame: pl.DataFrame, identified_by: Sequence[str]) -> pl.DataFrame:
    """Return rows sorted by what identifies them, without those that were there before."""
    order, again = in_order(frame, identified_by)
    if not again.any() and order.is_sorted():  # as in a part that was joined: to copy takes memory
        return frame
    return frame[order.filter(~again)]


def in_order(frame: pl.DataFrame, identified_by: Sequence[str]) -> tuple[pl.Series, pl.Series]:
    """Return the order of rows by what identifies them, and which of the sorted ones are identified as the one before.

    Args:
        frame: the rows.
        identified_by: columns, as far as the frame has them.

    Returns:
        ``(N,)`` positions, of equal rows the earlier one first, and ``(N,)`` booleans.
    """
    key = differing(frame, [name for name in identified_by if name in frame.columns])
    if not key:
        order = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
        return order, order > 0
    order = frame.select(pl.arg_sort_by(key, maintain_order=True)).to_series()
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in key]
    again = frame.select(key)[order].select(pl.all_horizontal(same) & (pl.int_range(pl.len()) > 0)).to_series()
    return order, again.rechunk()  # a shifted column has two chunks, and so has what is filtered by it


def _alike(frames: Sequence[pl.DataFrame], kinds: Mapping[str, pl.DataType]) -> dict[str, pl.Series]:
    """Return the columns of one value. Quantities are left alone: zeros that are equal may differ in their sign."""
    firsts: dict[str, pl.Series] = {}
    for name, kind in kinds.items():
        if isinstance(kind, pl.Categorical | pl.Boolean) or kind.is_integer():
            parts = [frame for frame in frames if frame.height]
            if parts and all(name in frame.columns for frame in parts):
                first = parts[0].select(pl.col(name).first().cast(kind)).to_series()
                same = pl.col(name).cast(kind).eq_missing(pl.lit(first[0], dtype=kind)).all()
                if all(frame.select(same).item() for frame in parts):
                    firsts[name] = first
    return firsts


def _column(frame: pl.DataFrame, name: str, kind: pl.DataType) -> pl.Series:
    if name in frame.columns:
        return frame[name].cast(kind)
    return pl.Series(name, [None], dtype=kind).new_from_index(0, frame.height)
