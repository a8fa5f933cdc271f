"""Tables for a terminal: as wide as it is, every row told apart, every interval on one line."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.table import Table

from ipvit.analysis.columns import COMMON, Columns
from ipvit.report.tables.cells import (
    MOST_LEVELS,
    among,
    cell_of,
    cells_of,
    columns_of_rows,
    counted,
    head,
    level_text,
    levels_of,
    text,
)
from ipvit.report.tables.names import shortened

WIDTH = 80
"""Columns of a terminal that does not say how many it has."""
_NARROWEST = 9
"""Characters that a name is never cut below."""
_BESIDE = 3
"""Columns that a border takes beside a cell."""


def terminal_tables(
    tables: dict[str, pl.DataFrame], title: str, columns: Columns = COMMON, width: int = WIDTH
) -> list[Table]:
    """Return what a terminal shows of the main table: levels down and models across, where there are levels.

    Args:
        tables: of one experiment, the main one first.
        title: of the experiment.
        columns: what is known of the columns.
        width: of the terminal, in characters.
    """
    main = next(iter(tables.values()), None)
    if main is None:
        return []
    level = next((name for name in levels_of(main, columns) if main[name].n_unique() <= MOST_LEVELS), None)
    value = next((name for name in main.columns if f"{name}_low" in main.columns), None)
    said = f"{title}, {counted(main)}" if counted(main) else title
    if level is None or value is None:
        return [_listed(main, value, said, columns, width)]
    said = ", ".join(filter(None, (f"{title}: {head(value, columns)}", among(main), counted(main))))
    others = [name for name in columns_of_rows(main) if name not in ("model", level) and main[name].n_unique() > 1]
    return _pivoted(main, others, level, value, said, columns, width)


def _pivoted(
    frame: pl.DataFrame, others: Sequence[str], level: str, value: str, title: str, columns: Columns, width: int
) -> list[Table]:
    """Levels down, models across, as many side by side as the terminal has room for."""
    models = frame["model"].unique(maintain_order=True).to_list()
    cells = {(row["model"], *(row[name] for name in (*others, level))): row for row in frame.iter_rows(named=True)}
    places = _in_order(frame, [*others, level])
    left = [[text(x, name, columns) for name, x in zip(others, place, strict=False)] for place in places]
    for row, place in zip(left, places, strict=True):
        row.append(level_text(place[-1], level, columns))
    heads = [head(name, columns) for name in (*others, level)]
    rows = [
        ["" if row is None else " ".join(filter(None, cell_of(row, value, columns))) for row in found]
        for found in ([cells.get((model, *place)) for model in models] for place in places)
    ]
    widest = max((len(cell) for row in rows for cell in row), default=0)
    wrapped = [max(map(len, name.split())) for name in heads]  # heads may take several lines, cells may not
    taken = [max([wrapped[i], *(len(row[i]) for row in left)]) for i in range(len(heads))]
    if (room := width - 1 - widest - _BESIDE - sum(taken) - _BESIDE * len(taken)) < 0:  # long names of modes and files
        taken = _squeezed(taken, -room)
        for i, most in enumerate(taken):
            for row, cut in zip(left, shortened([row[i] for row in left], most), strict=True):
                row[i] = cut
    room = width - 1 - sum(taken) - _BESIDE * len(taken)
    across = max(1, room // (max(widest, _NARROWEST) + _BESIDE))
    n_tables = math.ceil(len(models) / across)
    stops = [i * len(models) // n_tables for i in range(n_tables + 1)]
    named = shortened(models, max(_NARROWEST, room // max(b - a for a, b in itertools.pairwise(stops)) - _BESIDE))
    made: list[Table] = []
    for start, stop in itertools.pairwise(stops):
        table = Table(title=title, title_justify="left")
        for name, most in zip(heads, taken, strict=True):
            table.add_column(_in_lines(name, most), no_wrap=True)
        for name in named[start:stop]:
            table.add_column(name, justify="right", no_wrap=True)
        for place, row in zip(left, rows, strict=True):
            table.add_row(*place, *row[start:stop])
        made.append(table)
    return made


def _in_order(frame: pl.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the places of a table's rows: numbers in their order, texts as they come."""
    orders: list[dict[Any, Any]] = []
    for name in names:
        values = frame[name].unique(maintain_order=True).to_list()
        if frame.schema[name].is_numeric():
            values.sort(key=lambda value: (value is None, value if value is not None else 0))
        orders.append({value: number for number, value in enumerate(values)})
    places = dict.fromkeys(frame.select(names).iter_rows())
    return sorted(places, key=lambda place: [order[x] for order, x in zip(orders, place, strict=True)])


def _listed(frame: pl.DataFrame, value: str | None, title: str, columns: Columns, width: int) -> Table:
    """A row of the table a line, without what every row says alike, and without what does not fit."""
    names, rows = cells_of(_without_second_measures(frame, value), columns)
    alike = [
        place
        for place, name in enumerate(names)
        if name in ("n_images", "n_runs") and len({row[place] for row in rows}) == 1
    ]
    kept = [place for place in range(len(names)) if place not in alike]
    texts = [[" ".join(filter(None, row[place])) for place in kept] for row in rows]
    heads = [head(names[place], columns) for place in kept]
    wrapped = [max(map(len, name.split()), default=0) for name in heads]
    taken = [max([wrapped[i], *(len(row[i]) for row in texts)]) for i in range(len(heads))]
    texty = [
        not any(row[place][1] for row in rows) and not _are_numbers(row[place][0] for row in rows) for place in kept
    ]
    shown = list(range(len(heads)))
    for i in _dispensable([names[place] for place in kept], value, texts):
        if _least([taken[j] for j in shown], [texty[j] for j in shown]) > width:
            shown.remove(i)
    over = sum(taken[i] + _BESIDE for i in shown) + 1 - width
    if over > 0:
        cut = dict(zip(shown, _squeezed([taken[i] if texty[i] else 0 for i in shown], over), strict=True))
        for i in (i for i in shown if texty[i]):
            for row, short in zip(texts, shortened([row[i] for row in texts], cut[i]), strict=True):
                row[i] = short
    table = Table(title=title, title_justify="left")
    for i in shown:
        table.add_column(_in_lines(heads[i], taken[i]), justify="left" if texty[i] else "right", no_wrap=True)
    for row in texts:
        table.add_row(*(row[i] for i in shown))
    if absent := [heads[i] for i in range(len(heads)) if i not in shown]:
        table.caption = f"not shown: {', '.join(absent)}; the files have them"
        table.caption_justify = "left"
    return table


def _in_lines(name: str, width: int) -> str:
    """Break the head of a column between words."""
    return textwrap.fill(name, max(1, width), break_long_words=False, break_on_hyphens=False)


def _dispensable(names: Sequence[str], value: str | None, texts: Sequence[Sequence[str]]) -> list[int]:
    """Return the places of columns that a narrow table can do without, the first to go first.

    These are what stands behind the measure, from the right, and what is the same in every row that has it.
    """
    measure = names.index(value) if value in names else len(names)
    behind = [i for i in reversed(range(len(names))) if i > measure]
    alike = [i for i in range(1, measure) if len({row[i] for row in texts} - {""}) == 1]
    return [*behind, *alike] if value in names else behind


def _least(taken: Sequence[int], texty: Sequence[bool]) -> int:
    """Return how wide a table is at least, with its texts as short as they may be."""
    return 1 + sum((min(most, _NARROWEST + 6) if texty[i] else most) + _BESIDE for i, most in enumerate(taken))


def _squeezed(widths: Sequence[int], over: int) -> list[int]:
    """Take ``over`` characters off, from the widest column first, down to the narrowest that a name may be."""
    found = list(widths)
    for _ in range(over):
        widest = max(range(len(found)), key=found.__getitem__)
        if found[widest] <= _NARROWEST:
            break
        found[widest] -= 1
    return found


def _are_numbers(cells: Any) -> bool:
    return all(not cell or cell.lstrip("+-−<= ")[:1].isdigit() for cell in cells)


def _without_second_measures(frame: pl.DataFrame, first: str | None) -> pl.DataFrame:
    """Leave out what does not fit into a terminal beside the first measure; the files have it."""
    others = [name for name in frame.columns if f"{name}_low" in frame.columns and name != first]
    drop = {f"{name}{end}" for name in others for end in ("", "_low", "_high", "_std")} | {f"{first}_std"}
    return frame.drop([name for name in frame.columns if name in drop])
