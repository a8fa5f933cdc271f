"""Sentences that say what the differences between models show: computed, and no bolder than the numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from ipvit.analysis.aggregate import DROPS
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Columns
from ipvit.analysis.sentences import interval, is_missing
from ipvit.report.tables.cells import head, level_text

ALPHA = 0.05
"""A difference is called significant when its p-value, corrected for all comparisons of the section, is below this."""

_DROPS = tuple(
    f"{kind}_{name}" for kind in DROPS for name in ("difference", "difference_low", "difference_high", "p", "p_holm")
)
_FIXED = ("model_a", "model_b", "n_images", "difference", "difference_low", "difference_high", "p", "p_holm", *_DROPS)
_MOST_PAIRS = 10


@dataclasses.dataclass(frozen=True)
class Unit:
    """How differences are written: digits after the point, the word behind, and what is known of the columns."""

    digits: int
    word: str
    columns: Columns = dataclasses.field(default_factory=lambda: COMMON)

    def __call__(self, value: float) -> str:
        """Return a number without its sign, and its unit."""
        return f"{abs(value):.{self.digits}f}{self.word}"

    def signed(self, value: float) -> str:
        """Return a number with its sign."""
        return f"{value:+z.{self.digits}f}"


def unit_of(analysis: Analysis) -> Unit:
    """Return how differences between models are written in an experiment: points where it compares percentages."""
    if analysis.metric_column.unit == "percent":
        return Unit(1, " points", analysis.columns)
    return Unit(3, "", analysis.columns)


def findings(differences: pl.DataFrame, unit: Unit) -> list[str]:
    """Return a sentence for every pair of models, or with many models a few sentences for all of them.

    Args:
        differences: as made by :func:`ipvit.analysis.aggregate.paired_differences`.
        unit: of the differences.
    """
    pairs = {
        (str(a), str(b)): frame.to_dicts()
        for (a, b), frame in differences.group_by(["model_a", "model_b"], maintain_order=True)
    }
    places = [name for name in differences.columns if name not in _FIXED]
    if len(pairs) > _MOST_PAIRS:
        return _many(pairs)
    return [_pair(a, b, rows, places, unit) for (a, b), rows in pairs.items()]


def headlines(differences: pl.DataFrame, unit: Unit) -> list[str]:
    """Return what differs most between two models: in the quantity itself, and in what a perturbation takes of it.

    A model that is more accurate everywhere need not lose less, so the drops have sentences of their own.
    """
    said = [headline(differences, unit)]
    for kind, words in (("drop", _LOST), ("retained", _KEPT)):
        if f"{kind}_difference" in differences.columns:
            said.append(_of_drops(_drops(differences, kind), words, unit))
    return [sentence for sentence in said if sentence]


_LOST = ("Accuracy lost", "loses more than", " points")
_KEPT = ("Accuracy above chance retained", "retains more than", " points of it")


def _drops(differences: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Return the differences of one kind of drop under the names that all differences have."""
    ends = ("difference", "difference_low", "difference_high", "p", "p_holm")
    if kind == "drop" and "retained_difference" in differences.columns:  # who only guesses has nothing to lose
        differences = differences.filter(pl.col("retained_difference").is_finite())
    frame = differences.with_columns(pl.col(f"{kind}_{name}").cast(pl.Float64).alias(name) for name in ends)
    return frame.filter(pl.col("difference").is_finite())


def _of_drops(differences: pl.DataFrame, words: tuple[str, str, str], unit: Unit) -> str:
    """Say between which two models a drop differs most, and how many of the differences are significant."""
    rows = differences.to_dicts()
    if not rows:
        return ""
    title, verb, amount = words
    places = [name for name in differences.columns if name not in _FIXED]
    if _all_equal(rows):
        what = dataclasses.replace(unit, digits=1, word=amount)
        return f"{title}: no difference between the models{_still_possible(rows, places, what)}."
    significant = [row for row in rows if _is_significant(row)]
    largest = max(significant or rows, key=lambda row: abs(row["difference"]))
    first, second = _ordered(largest)
    what = dataclasses.replace(unit, digits=1, word=amount)
    text = f"{first} {verb} {second}, by {_amount(largest, what)}{_at(largest, places, unit)}"
    if not any(_is_tested(row) for row in rows):
        return f"{title}: no difference could be tested; the largest: {text}."
    if not significant:
        return f"{title}: no significant difference between the models; the largest: {text}."
    share = "" if len(rows) == 1 else f"; {len(significant)} of {len(rows)} comparisons are significant"
    return f"{title}, largest significant difference: {text}{share}."


def headline(differences: pl.DataFrame, unit: Unit) -> str:
    """Return one sentence: the largest difference between two models, and how many of all are significant."""
    rows = [row for row in differences.to_dicts() if math.isfinite(row["difference"])]
    if not rows:
        return ""
    places = [name for name in differences.columns if name not in _FIXED]
    if _all_equal(rows):
        return f"No difference between the models{_still_possible(rows, places, unit)}."
    significant = [row for row in rows if _is_significant(row)]
    largest = max(significant or rows, key=lambda row: abs(row["difference"]))
    first, second = _ordered(largest)
    what = f"{first} over {second} by {_amount(largest, unit)}{_at(largest, places, unit)}"
    if not any(_is_tested(row) for row in rows):
        return f"Largest difference: {what}; no difference between the models could be tested."
    if not significant:
        return f"No significant difference between the models; the largest is {what}."
    share = "" if len(rows) == 1 else f"; {len(significant)} of {len(rows)} comparisons are significant"
    return f"Largest significant difference: {what}{share}."


def _all_equal(rows: Sequence[dict[str, Any]]) -> bool:
    return all(row["difference"] == 0 for row in rows)


def _still_possible(rows: Sequence[dict[str, Any]], places: Sequence[str], unit: Unit) -> str:
    """Say where none was found how large a difference may still be, and where that is least certain."""

    def width(row: dict[str, Any]) -> float:
        return -1 if is_missing(row["difference_low"]) else row["difference_high"] - row["difference_low"]

    widest = max(rows, key=width)
    if len(rows) == 1:
        return f": {_amount(widest, unit)}"
    return f" in any of {len(rows)} comparisons; the least certain: {_amount(widest, unit)}{_at(widest, places, unit)}"


def p_text(p: float | None) -> str:
    """Return a p-value as papers print it."""
    if p is None or is_missing(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def for_page(differences: pl.DataFrame, unit: Unit) -> pl.DataFrame:
    """Return the differences as text, for people."""
    places = [name for name in differences.columns if name not in _FIXED]
    rows = [
        {head(name, unit.columns): level_text(row[name], name, unit.columns) for name in places}
        | {
            "A": row["model_a"],
            "B": row["model_b"],
            "images": f"{row['n_images']:,}",
            "A − B": f"{unit.signed(row['difference'])} {_interval(row, unit)}".strip(),
            "p": p_text(row["p"]),
            "p (Holm)": p_text(row["p_holm"]),
            "significant": "yes" if _is_significant(row) else "no" if _is_tested(row) else "not tested",
        }
        | _drops_for_page(row)
        for row in differences.to_dicts()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _drops_for_page(row: dict[str, Any]) -> dict[str, str]:
    """Return what the page says of the differences of drops in one row; nothing where there are none."""
    found: dict[str, str] = {}
    for kind, title in (("drop", "A loses − B loses"), ("retained", "A retains − B retains")):
        if f"{kind}_difference" not in row:
            continue
        value, ends = row[f"{kind}_difference"], (row[f"{kind}_difference_low"], row[f"{kind}_difference_high"])
        found[title] = "" if is_missing(value) else f"{value:+z.1f} {interval(*ends, 1)}".strip()
        found[f"p (Holm) of {'loses' if kind == 'drop' else 'retains'}"] = p_text(row[f"{kind}_p_holm"])
    return found


def _pair(a: str, b: str, rows: Sequence[dict[str, Any]], places: Sequence[str], unit: Unit) -> str:
    rows = [row for row in rows if math.isfinite(row["difference"])]
    if not rows:
        return f"{a} and {b} cannot be compared: nothing was measured on the same images."
    ahead = [row for row in rows if _is_significant(row) and row["difference"] > 0]
    behind = [row for row in rows if _is_significant(row) and row["difference"] < 0]
    largest = max(rows, key=lambda row: abs(row["difference"]))
    if not any(_is_tested(row) for row in rows):
        most = "by" if len(rows) == 1 else "by at most"
        return f"{a} and {b} differ {most} {_amount(largest, unit)}{_at(largest, places, unit)}, which was not tested."
    if not ahead and not behind:
        where = "" if len(rows) == 1 else f" in any of the {len(rows)} conditions"
        tail = f"the difference is {_amount(largest, unit)}" if len(rows) == 1 else f"at most {_amount(largest, unit)}"
        return f"{a} and {b} do not differ significantly{where} ({tail}{_at(largest, places, unit)})."
    if len(rows) == 1:
        first, second = _ordered(largest)
        return f"{first} lies significantly above {second}, by {_amount(largest, unit)}."
    parts = [
        f"{first} lies significantly above {second} in {len(found)} of {len(rows)} conditions, by up to "
        f"{_amount(most, unit)}{_at(most, places, unit)}"
        for first, second, found in ((a, b, ahead), (b, a, behind))
        if found
        for most in [max(found, key=lambda row: abs(row["difference"]))]
    ]
    rest = len(rows) - len(ahead) - len(behind)
    tail = f"; in the other {rest} the difference is not significant" if rest else ""
    return "; ".join(parts) + tail + "."


def _many(pairs: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """Sort the models by where they lie beside the one that all are compared with."""
    first = next(iter(pairs))[0]
    groups: dict[str, list[str]] = {"above": [], "below": [], "both": [], "neither": [], "untested": []}
    for (_, other), rows in pairs.items():
        signs = {row["difference"] < 0 for row in rows if _is_significant(row)}
        none = "neither" if any(_is_tested(row) for row in rows) else "untested"
        group = "both" if len(signs) == 2 else none if not signs else "above" if signs.pop() else "below"
        groups[group].append(other)
    words = {
        "above": f"Significantly above {first} in at least one condition, and in none below",
        "below": f"Significantly below {first} in at least one condition, and in none above",
        "both": f"Above {first} in some conditions and below in others, significantly",
        "neither": f"Not significantly different from {first} in any condition",
        "untested": f"Not tested against {first}",
    }
    return [f"{words[group]}: {', '.join(names)}." for group, names in groups.items() if names]


def _is_significant(row: dict[str, Any]) -> bool:
    return _is_tested(row) and row["p_holm"] < ALPHA


def _is_tested(row: dict[str, Any]) -> bool:
    """Tell whether there is a p-value: none where too few images are independent, as where all share one mask."""
    return not is_missing(row["p_holm"])


def _ordered(row: dict[str, Any]) -> tuple[str, str]:
    return (row["model_a"], row["model_b"]) if row["difference"] >= 0 else (row["model_b"], row["model_a"])


def _amount(row: dict[str, Any], unit: Unit) -> str:
    """The size of a difference, and its interval and p-value where it has them, the larger model first.

    An interval is that of one comparison. Where the p-value is corrected for several, both say so.
    """
    ends, p = _interval(row, unit, positive=True), p_text(row["p_holm"])
    alone = not p or is_missing(row["p"]) or row["p"] == row["p_holm"]
    said = " ".join(filter(None, (unit(row["difference"]), ends, "" if alone or not ends else "uncorrected")))
    shown = f"p {p if p.startswith('<') else f'= {p}'}{'' if alone else ' corrected'}"
    return f"{said}, {shown}" if p else said


def _interval(row: dict[str, Any], unit: Unit, *, positive: bool = False) -> str:
    low, high = row["difference_low"], row["difference_high"]
    if positive and row["difference"] < 0 and not is_missing(low):
        low, high = -high, -low
    return interval(low, high, unit.digits)


def _at(row: dict[str, Any], places: Sequence[str], unit: Unit) -> str:
    found = [
        f"{head(name, unit.columns)} {level_text(row[name], name, unit.columns)}"
        for name in places
        if row[name] not in (None, "")
    ]
    return f" at {', '.join(found)}" if found else ""
