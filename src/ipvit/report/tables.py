"""Tables for people and for programs: terminal, Markdown, CSV, JSON.

A measured column ``top1`` may have its interval beside it as ``top1_low`` and ``top1_high`` and its spread over runs as
``top1_std``; people see one column ``top1`` with the interval in brackets.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from ipvit.analysis.columns import COMMON, PLAIN, Columns
from ipvit.analysis.sentences import ends, is_missing
from ipvit.core.files import write_atomic
from ipvit.errors import printable

_MOST_LEVELS = 14
_MODELS_ACROSS = 3
"""Models side by side whose values and intervals stay on one line of 80 characters."""
_ALWAYS_SHOWN = ("model", "n_answers")
"""Columns without which no number of a table says what it is."""
_FORMULA = "^[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]"
"""What a cell begins with that a spreadsheet evaluates: = + - @, their wide forms, and what it skips before them."""
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_LATEX = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}


def json_number(value: Any) -> Any:
    """Return a value as JSON can hold it: None for a number that is not finite.

    >>> json_number(0.5), json_number(float("nan")), json_number("a")
    (0.5, None, 'a')
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain values for JSON; what is not a finite number becomes None."""
    return [{key: json_number(value) for key, value in row.items()} for row in frame.iter_rows(named=True)]


def write_table(frame: pl.DataFrame, stem: Path, columns: Columns = COMMON) -> list[Path]:
    """Write ``STEM.csv``, ``STEM.json``, ``STEM.md`` and ``STEM.tex``; return the paths.

    Args:
        frame: the table.
        stem: path without suffix.
        columns: what is known of its columns.
    """
    contents = {
        "csv": _without_formulas(frame).write_csv(),
        "json": json.dumps(to_records(frame), indent=1, ensure_ascii=False),
        "md": to_markdown(frame, columns),
        "tex": to_latex(frame, columns),
    }
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in contents]
    for path, text in zip(paths, contents.values(), strict=True):
        write_atomic(path, text.encode())
    return paths


def _without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table for CSV, with ``'`` before every text that a spreadsheet would take for a formula."""
    names = [name for name, dtype in frame.schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
    texts = [pl.col(name).cast(pl.String) for name in names]
    harmless = frame.with_columns(
        pl.when(text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER))
        .then(pl.lit("'") + text)
        .otherwise(text)
        .alias(name)
        for name, text in zip(names, texts, strict=True)
    )
    return harmless.rename({name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)})


def for_people(frame: pl.DataFrame, columns: Columns = COMMON) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows as text, with every interval merged into the column it belongs to."""
    measured = [name for name in frame.columns if f"{name}_low" in frame.columns and f"{name}_high" in frame.columns]
    hidden = {f"{name}_{end}" for name in measured for end in ("low", "high")}
    spreads = {name for name in frame.columns if name.endswith("_std") and frame[name].null_count() == frame.height}
    shown = [name for name in frame.columns if name not in hidden | spreads]
    rows = [
        [_with_interval(row, name, columns) if name in measured else text(row[name]) for name in shown]
        for row in frame.iter_rows(named=True)
    ]
    return [head(name, columns) for name in shown], rows


def to_markdown(frame: pl.DataFrame, columns: Columns = COMMON) -> str:
    """Return a table in GitHub's Markdown, intervals in brackets."""
    heads, rows = for_people(frame, columns)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_markdown(cell) for cell in line) + " |\n" for line in lines)


def _markdown(cell: str) -> str:
    """Return a cell on one line that is neither a column's end nor a tag, and holds no link."""
    text = printable(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    # [text](address), and addresses that are made links by themselves
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", text.replace("](", "]\\(").replace("://", "&#58;//"))


def to_latex(frame: pl.DataFrame, columns: Columns = COMMON) -> str:
    """Return a LaTeX ``tabular`` for booktabs, levels side by side where there are levels, as the paper prints them.

    A value with its 95 % interval is ``$80.0_{78.0}^{82.0}$``.
    """
    grid = side_by_side(frame, columns)
    if grid is None:
        heads, rows = for_people(frame, columns)
        cells = [[_latex(cell) for cell in row] for row in rows]
        left = len(heads)
    else:
        heads, left = grid.heads, grid.left
        cells = [[_latex(text) if not ends else _latex_interval(text, ends) for text, ends in row] for row in grid.rows]
    lines = [
        "% needs \\usepackage{booktabs}; small numbers are the ends of 95 % confidence intervals",
        f"\\begin{{tabular}}{{{'l' * left}{'r' * (len(heads) - left)}}}",
        "\\toprule",
        " & ".join(_latex(head) for head in heads) + r" \\",
        "\\midrule",
        *(" & ".join(row) + r" \\" for row in cells),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class TableGrid:
    """A table as papers print it: models down, levels across.

    Attributes:
        heads: of the columns.
        rows: cells, each a text and the interval that belongs to it, or "".
        left: how many columns name the row.
        value: what the cells hold.
        level: what the columns after them are.
        n_images: on which every cell rests, or None where they differ.
    """

    heads: list[str]
    rows: list[list[tuple[str, str]]]
    left: int
    value: str
    level: str
    n_images: int | None


def side_by_side(frame: pl.DataFrame, columns: Columns = COMMON) -> TableGrid | None:
    """Return a table with its levels side by side, or None where it has none, or too many."""
    value = next((name for name in frame.columns if f"{name}_low" in frame.columns), None)
    levels = [name for name in levels_of(frame, columns) if not frame[name].null_count()]
    level = next((name for name in levels if 1 < frame[name].n_unique() <= _MOST_LEVELS), None)
    if value is None or level is None or "n_images" not in frame.columns:
        return None
    keys = [name for name in frame.columns[: frame.columns.index("n_images")] if name != level]
    # what merely follows from the level, such as the grid from the number of cells, names no row
    told = frame[level].n_unique()
    followed = [name for name in keys if name not in _ALWAYS_SHOWN and frame.select(level, name).n_unique() == told]
    keys = [name for name in keys if name not in followed]
    if frame.select(*keys, level).n_unique() < frame.height:
        return None
    places = frame[level].unique(maintain_order=True).to_list()
    places = sorted(places) if frame.schema[level].is_numeric() else places
    cells: dict[tuple[Any, ...], dict[Any, tuple[str, str]]] = {}
    for row in frame.iter_rows(named=True):
        shown, _, ends = _with_interval(row, value, columns).partition(" ")
        cells.setdefault(tuple(row[name] for name in keys), {})[row[level]] = (shown, ends)
    rows = [
        [*((text(part), "") for part in key), *(found.get(place, ("", "")) for place in places)]
        for key, found in cells.items()
    ]
    counts = frame["n_images"].unique().to_list()
    heads = [*(head(name, columns) for name in keys), *(level_text(place, level, columns) for place in places)]
    of = _shared_by_levels(frame, level, followed)
    along = head(level, columns) + (f" of {', '.join(of)}" if of else "")
    return TableGrid(heads, rows, len(keys), head(value, columns), along, counts[0] if len(counts) == 1 else None)


def _shared_by_levels(frame: pl.DataFrame, level: str, names: Sequence[str]) -> list[str]:
    """Return what all levels but one share, such as the one corruption: its column is not shown, so it must be said."""
    found: list[str] = []
    for name in names:
        counts = frame.unique([level, name], maintain_order=True)[name].value_counts(sort=True)
        if frame[level].n_unique() > 2 and counts.height == 2 and counts["count"][1] == 1 and counts["count"][0] > 1:
            found.append(text(counts[name][0]).replace("_", " "))
    return found


def _latex(cell: str) -> str:
    return re.sub(r"[\\{}&%$#_^~]", lambda m: _LATEX.get(m[0], f"\\{m[0]}"), printable(cell))


def _latex_interval(value: str, ends: str) -> str:
    low, high = ends.strip("[]").split(", ")
    return f"${value}_{{{low}}}^{{{high}}}$"


def terminal_tables(tables: dict[str, pl.DataFrame], title: str, columns: Columns = COMMON) -> list[Table]:
    """Return what a terminal shows of the main table: levels down and models across, where there are levels."""
    main = next(iter(tables.values()), None)
    if main is None:
        return []
    level = next((name for name in levels_of(main, columns) if main[name].n_unique() <= _MOST_LEVELS), None)
    value = next((name for name in main.columns if f"{name}_low" in main.columns), None)
    if level is None or value is None:
        return [_rich(*for_people(_without_second_measures(main, value), columns), title)]
    keys = main.columns[: main.columns.index("n_images")] if "n_images" in main.columns else main.columns
    index = [name for name in keys if name != level]
    models = main["model"].unique(maintain_order=True).to_list()
    n_tables = math.ceil(len(models) / _MODELS_ACROSS)
    ends = [i * len(models) // n_tables for i in range(n_tables + 1)]
    parts = [main.filter(pl.col("model").is_in(models[start:stop])) for start, stop in itertools.pairwise(ends)]
    return [_pivoted(part, index, level, value, title, columns) for part in parts]


def text(value: Any) -> str:
    """Return a cell as text: at most three decimals, nothing for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)


def head(name: str, columns: Columns) -> str:
    """Return a column's name for people."""
    return columns.get(name, PLAIN).head(name)


def levels_of(frame: pl.DataFrame, columns: Columns) -> list[str]:
    """Return the columns whose values are steps of one quantity, which make good column heads."""
    return [name for name in frame.columns if columns.get(name, PLAIN).level]


def _with_interval(row: dict[str, Any], name: str, columns: Columns) -> str:
    value = row[name]
    if is_missing(value):
        return ""
    column = columns.get(name, PLAIN)
    digits = column.digits if column.digits is not None else 1 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}{ends(row, name, digits)}"


def _without_second_measures(frame: pl.DataFrame, first: str | None) -> pl.DataFrame:
    """Leave out what does not fit into a terminal beside the first measure; the files have it."""
    others = [name for name in frame.columns if f"{name}_low" in frame.columns and name != first]
    drop = {f"{name}{end}" for name in others for end in ("", "_low", "_high", "_std")} | {f"{first}_std"}
    return frame.drop([name for name in frame.columns if name in drop])


def _pivoted(frame: pl.DataFrame, index: Sequence[str], level: str, value: str, title: str, columns: Columns) -> Table:
    """Levels down, models across: as narrow as the number of models, however many levels there are."""
    others = [name for name in index if name != "model" and frame[name].n_unique() > 1]
    models = frame["model"].unique(maintain_order=True).to_list()
    answers = frame["n_answers"].drop_nulls().unique().to_list() if "n_answers" in frame.columns else []
    among = f", among {answers[0]:,} answers" if len(answers) == 1 else ""
    table = Table(title=f"{title}: {head(value, columns)}{among}", title_justify="left")
    for name in (*others, level):
        table.add_column(head(name, columns))
    for model in models:
        table.add_column(str(model), justify="right", overflow="fold")
    cells = {(row["model"], *(row[name] for name in (*others, level))): row for row in frame.iter_rows(named=True)}
    places = list(dict.fromkeys(key[1:] for key in cells))  # as the experiment sorted them
    for place in places:
        found = [cells.get((model, *place)) for model in models]
        shown = [level_text(place[-1], level, columns)]
        table.add_row(
            *(text(x) for x in place[:-1]),
            *shown,
            *("" if row is None else _with_interval(row, value, columns) for row in found),
        )
    return table


def level_text(value: Any, name: str, columns: Columns) -> str:
    """Return the value of a level as text; shares in per cent."""
    return columns.get(name, PLAIN).level_text(value) or text(value)


def _rich(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table
