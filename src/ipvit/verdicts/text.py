"""A comparison for people: cells and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis.aggregate import told_by_others
from ipvit.analysis.base import Analysis
from ipvit.analysis.sentences import interval, is_missing
from ipvit.report.findings import Unit, headlines, p_text, unit_of
from ipvit.report.tables.cells import head, level_text

if TYPE_CHECKING:
    from ipvit.verdicts.families import Families

FIXED = ("model_a", "model_b", "n_images")
_MEASURED = ("value_a", "value_b", "gained", "lost", "detectable", "detectable_holm")


def told_of(table: pl.DataFrame | None, a: str, b: str) -> pl.DataFrame | None:
    """Return the rows of a pair of models; None where there are none."""
    if table is None or not table.height:
        return None
    rows = table.filter((pl.col("model_a") == a) & (pl.col("model_b") == b))
    rows = rows.select(column for column in rows.columns if rows[column].null_count() < rows.height)
    return rows if rows.height else None


def places_of(table: pl.DataFrame) -> list[str]:
    """Return the columns of a table of differences that tell its rows apart, without those that follow from others."""
    names = [name for name in table.columns[: table.columns.index("value_a")] if name not in FIXED]
    told = told_by_others(table, names) if names else []
    return [name for name in names if name not in told]


def cells(
    table: pl.DataFrame, analysis: Analysis, *, apart: str = " ", parts: Sequence[str] = ("values", "drops")
) -> tuple[list[tuple[str, bool]], list[list[str]], str]:
    """Return heads (and whether they stand over text), rows and title of a table of differences.

    Args:
        table: of one pair of models.
        analysis: what is known of its columns.
        apart: what stands between a number and its interval.
        parts: ``values`` and their differences, ``drops`` and theirs, or both.
    """
    unit, places = unit_of(analysis), places_of(table)
    drops = [kind for kind in ("drop", "retained") if "drops" in parts and f"{kind}_difference" in table.columns]
    heads = [(head(name, analysis.columns), True) for name in places]
    if "values" in parts:
        heads += [(text, False) for text in ("A", "B", "B − A", "p\n(Holm)", "better /\nworse")]
    heads += [({"drop": "drop\nB − A", "retained": "retained\nB − A"}[kind], False) for kind in drops]
    rows: list[list[str]] = []
    for row in table.to_dicts():
        said = [level_text(row[name], name, analysis.columns) for name in places]
        if "values" in parts:
            moved = interval(row["difference_low"], row["difference_high"], unit.digits, signed=True)
            said += [f"{row[name]:z.{unit.digits}f}" for name in ("value_a", "value_b")]
            said += [f"{unit.signed(row['difference'])}{apart}{moved}".strip(), p_text(row["p_holm"])]
            said.append(f"{row['gained']} / {row['lost']}")
        rows.append([*said, *(_drop(row, kind, apart) for kind in drops)])
    counts = table["n_images"]
    least, most = (f"{count:,}" for count in (counts.min(), counts.max()))
    n = most if least == most else f"{least} to {most}"
    return heads, rows, f"{analysis.heading}: {analysis.metric_column.title or analysis.metric}, n = {n} images"


def _drop(row: Mapping[str, Any], kind: str, apart: str) -> str:
    value = row.get(f"{kind}_difference")
    if is_missing(value):
        return ""
    ends = interval(row[f"{kind}_difference_low"], row[f"{kind}_difference_high"], 1, signed=True)
    return f"{value:+z.1f}{apart}{ends}".strip()


def verdict(table: pl.DataFrame, analysis: Analysis) -> list[str]:
    """Return what differs most between the two models, and how much of it is significant."""
    others = [name for name in table.columns[: table.columns.index("value_a")] if name not in FIXED]
    needless = {*_MEASURED, *others} - {*places_of(table)}
    plain = table.drop(name for name in needless if name in table.columns)
    return headlines(plain.rename({"model_a": "model_b", "model_b": "model_a"}), unit_of(analysis))


def could_find(table: pl.DataFrame, analysis: Analysis) -> str:
    """Say which differences the tests find in 80 of 100 such comparisons, each alone and after Holm's correction."""
    unit = unit_of(analysis)
    said = _span(table["detectable"], unit) if "detectable" in table.columns else ""
    if not said:
        return "Smallest difference that could have been found: not known, too few images vary."
    text = f"Smallest difference found with 80 % power: {said} by the test of one row"
    if table.height > 1 and "detectable_holm" in table.columns and (all_rows := _span(table["detectable_holm"], unit)):
        text += f", {all_rows} after Holm's correction for {table.height} rows"
    return f"{text}."


def _span(values: pl.Series, unit: Unit) -> str:
    known = values.fill_nan(None).drop_nulls()
    if known.is_empty():
        return ""
    ends = [f"{value:z.{unit.digits}f}" for value in (known.min(), known.max())]
    return f"{ends[0] if ends[0] == ends[1] else ' to '.join(ends)}{unit.word}"


def profile_cells(table: pl.DataFrame) -> list[list[str]]:
    """Return the rows of the differences of a profile as text."""
    rows: list[list[str]] = []
    for row in table.to_dicts():
        digits = 1 if row["unit"] == "percent" else 3
        ends = interval(row["difference_low"], row["difference_high"], digits, signed=True)
        rows.append(
            [
                row["title"],
                f"{row['value_a']:z.{digits}f}",
                f"{row['value_b']:z.{digits}f}",
                f"{row['difference']:+z.{digits}f} {ends}".strip(),
                p_text(row["p_holm"]),
            ]
        )
    return rows


def flip_line(row: Mapping[str, Any]) -> str:
    """Return a flipped image as one line: its id, its label, and what both models say of it."""
    said = [
        f"{side} {row[f'prediction_{side.lower()}']} ({100 * row[f'confidence_{side.lower()}']:.0f} %)" for side in "AB"
    ]
    return f"{row['image']}: {row['label']}; {', '.join(said)}"


def family_cells(found: Families) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a comparison of kinds of networks, as text."""
    rows: list[list[str]] = []
    for row in found.table.to_dicts():
        digits = 1 if row["unit"] == "percent" else 3
        ends = interval(row["difference_low"], row["difference_high"], digits, signed=True)
        shown = f"\n{ends}" if ends else ""
        rows.append(
            [
                row["title"],
                f"{row['group_a']} {row['mean_a']:z.{digits}f} ({row['n_a']})",
                f"{row['group_b']} {row['mean_b']:z.{digits}f} ({row['n_b']})",
                f"{row['difference']:+z.{digits}f}{shown}",
                p_text(row["p"]) or "no verdict",
                p_text(row["p_holm"]),
            ]
        )
    return ["question", "first", "second", "difference", "p", "p\n(Holm)"], rows
