"""Tables as files, for people and for programs: CSV, JSON, Markdown, LaTeX."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.analysis.columns import COMMON, Columns
from ipvit.core.files import write_atomic
from ipvit.errors import printable
from ipvit.report.tables.cells import for_people
from ipvit.report.tables.latex import to_latex

_FORMULA = "^[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]"
"""What a cell begins with that a spreadsheet evaluates: = + - @, their wide forms, and what it skips before them."""
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def json_number(value: Any) -> Any:
    """Return a value as JSON can hold it: None for a number that is not finite.

    >>> json_number(0.5), json_number(float("nan")), json_number("a")
    (0.5, None, 'a')
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain values for JSON; what is not a finite number becomes None."""
    return [{key: json_number(value) for key, value in row.items()} for row in frame.iter_rows(named=True)]


def write_table(frame: pl.DataFrame, stem: Path, columns: Columns = COMMON, title: str = "") -> list[Path]:
    """Write ``STEM.csv``, ``STEM.json``, ``STEM.md`` and ``STEM.tex``; return the paths.

    Args:
        frame: the table.
        stem: path without suffix.
        columns: what is known of its columns.
        title: what the table is of, for a caption.
    """
    contents = {
        "csv": _without_formulas(frame).write_csv(),
        "json": json.dumps(to_records(frame), indent=1, ensure_ascii=False),
        "md": to_markdown(frame, columns),
        "tex": to_latex(frame, columns, title=title, name=stem.name),
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


def to_markdown(frame: pl.DataFrame, columns: Columns = COMMON) -> str:
    """Return a table in GitHub's Markdown, intervals in brackets."""
    return markdown_table(*for_people(frame, columns))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return texts as a table in GitHub's Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_markdown(cell) for cell in line) + " |\n" for line in lines)


def _markdown(cell: str) -> str:
    """Return a cell on one line that is neither a column's end nor a tag, and holds no link."""
    text = printable(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    # [text](address), and addresses that are made links by themselves
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", text.replace("](", "]\\(").replace("://", "&#58;//"))


def in_reading_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose measures come right after what its rows are of, and whose counts come last.

    A wide table that is printed shows its first and its last columns only.
    """
    if "n_images" not in frame.columns:
        return frame
    place = frame.columns.index("n_images")
    counts = [name for name in frame.columns[place:] if name.startswith("n_") and not name.endswith(("_low", "_high"))]
    spreads = [name for name in frame.columns[place:] if name.endswith("_std")]
    measures = [name for name in frame.columns[place:] if name not in {*counts, *spreads}]
    return frame.select(*frame.columns[:place], *measures, *spreads, *counts)
