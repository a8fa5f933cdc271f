"""Tables for people and for programs: terminal, Markdown, CSV, JSON.

A measured column ``top1`` may have its interval beside it as ``top1_low`` and ``top1_high`` and its spread over runs as
``top1_std``; people see one column ``top1`` with the interval in brackets.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from ipvit.files import write_atomic

LEVELS = ("information_loss", "cells", "rate", "severity", "epsilon")
"""Columns whose values make good column heads in a terminal."""

_MOST_LEVELS = 14
_MODELS_ACROSS = 3
"""Models side by side whose values and intervals stay on one line of 80 characters."""


def to_records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain values for JSON; what is not a finite number becomes None."""
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]


def write_table(frame: pl.DataFrame, stem: Path) -> list[Path]:
    """Write ``STEM.csv``, ``STEM.json`` and ``STEM.md``; return the paths."""
    contents = {
        "csv": frame.write_csv(),
        "json": json.dumps(to_records(frame), indent=1, ensure_ascii=False),
        "md": to_markdown(frame),
    }
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in contents]
    for path, text in zip(paths, contents.values(), strict=True):
        write_atomic(path, text.encode())
    return paths


def for_people(frame: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows as text, with every interval merged into the column it belongs to."""
    measured = [name for name in frame.columns if f"{name}_low" in frame.columns and f"{name}_high" in frame.columns]
    hidden = {f"{name}_{end}" for name in measured for end in ("low", "high")}
    spreads = {name for name in frame.columns if name.endswith("_std") and frame[name].null_count() == frame.height}
    columns = [name for name in frame.columns if name not in hidden | spreads]
    rows = [
        [_with_interval(row, name) if name in measured else text(row[name]) for name in columns]
        for row in frame.iter_rows(named=True)
    ]
    return [head(name) for name in columns], rows


def to_markdown(frame: pl.DataFrame) -> str:
    """Return a table in GitHub's Markdown, intervals in brackets."""
    heads, rows = for_people(frame)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def terminal_tables(tables: dict[str, pl.DataFrame], title: str) -> list[Table]:
    """Return what a terminal shows of the main table: levels down and models across, where there are levels."""
    main = next(iter(tables.values()), None)
    if main is None:
        return []
    level = next((name for name in LEVELS if name in main.columns and main[name].n_unique() <= _MOST_LEVELS), None)
    value = next((name for name in main.columns if f"{name}_low" in main.columns), None)
    if level is None or value is None:
        return [_rich(*for_people(_without_second_measures(main, value)), title)]
    keys = main.columns[: main.columns.index("n_images")] if "n_images" in main.columns else main.columns
    index = [name for name in keys if name != level]
    models = main["model"].unique(maintain_order=True).to_list()
    n_tables = math.ceil(len(models) / _MODELS_ACROSS)
    ends = [i * len(models) // n_tables for i in range(n_tables + 1)]
    parts = [main.filter(pl.col("model").is_in(models[start:stop])) for start, stop in itertools.pairwise(ends)]
    return [_pivoted(part, index, level, value, title) for part in parts]


def text(value: Any) -> str:
    """Return a cell as text: at most three decimals, nothing for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)


def head(name: str) -> str:
    """Return a column's name for people."""
    known = {"top1": "top-1 (%)", "top5": "top-5 (%)", "top1_std": "std over runs", "top5_std": "std over runs (top-5)"}
    return known.get(name, name.replace("_", " "))


def _with_interval(row: dict[str, Any], name: str) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if value is None or not math.isfinite(value):
        return ""
    digits = 1 if name in ("top1", "top5") or abs(value) >= 10 else 3
    if low is None or not math.isfinite(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _without_second_measures(frame: pl.DataFrame, first: str | None) -> pl.DataFrame:
    """Leave out what does not fit into a terminal beside the first measure; the files have it."""
    others = [name for name in frame.columns if f"{name}_low" in frame.columns and name != first]
    drop = {f"{name}{end}" for name in others for end in ("", "_low", "_high", "_std")} | {f"{first}_std"}
    return frame.drop([name for name in frame.columns if name in drop])


def _pivoted(frame: pl.DataFrame, index: Sequence[str], level: str, value: str, title: str) -> Table:
    """Levels down, models across: as narrow as the number of models, however many levels there are."""
    others = [name for name in index if name != "model" and frame[name].n_unique() > 1]
    models = frame["model"].unique(maintain_order=True).to_list()
    table = Table(title=f"{title}: {head(value)}", title_justify="left")
    for name in (*others, level):
        table.add_column(head(name))
    for model in models:
        table.add_column(str(model), justify="right", overflow="fold")
    cells = {(row["model"], *(row[name] for name in (*others, level))): row for row in frame.iter_rows(named=True)}
    places = list(dict.fromkeys(key[1:] for key in cells))  # as the experiment sorted them
    for place in places:
        found = [cells.get((model, *place)) for model in models]
        shown = [_level(place[-1], level)]
        table.add_row(
            *(text(x) for x in place[:-1]),
            *shown,
            *("" if row is None else _with_interval(row, value) for row in found),
        )
    return table


def _level(value: Any, name: str) -> str:
    return f"{value:.0%}" if name in ("information_loss", "rate") else text(value)


def _rich(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table
