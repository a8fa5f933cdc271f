"""A profile: one number for each question and model, with its interval, and which models the numbers tell apart.

Ranks come from paired tests, not from the order of the numbers: a model's rank is the range of places that the tests
leave it. Models that were measured otherwise (other levels, another grid, another size where that matters) have no rank
beside each other.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ipvit.analysis.aggregate import condition_difference
from ipvit.analysis.columns import PLAIN, Columns
from ipvit.analysis.perturbed import Combination, Perturbed, means, of_combination
from ipvit.analysis.reduction import Reduction, Values
from ipvit.analysis.sentences import is_missing
from ipvit.core.text.words import counted
from ipvit.metrics.paired import holm
from ipvit.metrics.retained import Tested, retained_difference

if TYPE_CHECKING:
    from ipvit.analysis.base import Analysis

ALPHA = 0.05

Better = Literal["higher", ""]


@dataclasses.dataclass(frozen=True)
class Score:
    """One model's number.

    Attributes:
        model: its name.
        value: the number, in the unit of the question; NaN where there is none.
        low: end of its 95 % interval; NaN without one.
        high: the other end.
        n_images: that it rests on.
        protocol: how it was measured, in words; only models of one protocol are ranked together.
        note: why there is no number.
        perturbed: what two models are compared by, where it is what is retained.
        values: what two models are compared by otherwise, and the number of the condition.
    """

    model: str
    value: float
    low: float
    high: float
    n_images: int
    protocol: str = ""
    note: str = ""
    perturbed: Perturbed | None = None
    values: tuple[Values, int] | None = None


@dataclasses.dataclass(frozen=True)
class Question:
    """One column of a profile.

    Attributes:
        key: of the column, for programs.
        title: its head.
        what: what the number is, in words.
        unit: ``percent``, or empty for a plain number.
        digits: after the point.
        better: ``higher`` where a higher number is better; empty where it is neither better nor worse.
        scores: of the models.
        measure: column of the paper's numbers that it corresponds to.
        at: by value of the level, the weight that an accuracy has in the number; of the paper's numbers too. Empty
            where it is one number.
        clean_level: the level of the image as it is.
        place: values of the columns that tell this question's rows from others.
        level: the column of the levels.
    """

    key: str
    title: str
    what: str
    scores: tuple[Score, ...]
    unit: Literal["percent", ""] = "percent"
    digits: int = 1
    better: Better = "higher"
    measure: str = ""
    at: Mapping[Any, float] = dataclasses.field(default_factory=dict[Any, float])
    clean_level: Any = None
    place: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    level: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models by one number; the p-value is corrected by Holm for all pairs of the question."""

    model_a: str
    model_b: str
    tested: Tested
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the two are told apart."""
        return not is_missing(self.p_holm) and self.p_holm < ALPHA


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A question with the comparisons of its models, without what they were made from.

    Attributes:
        question: its scores hold no values of images.
        ranks: by model the first and the last place that the tests leave it; models without a comparison are not in it.
        comparisons: of all pairs that were measured alike.
    """

    question: Question
    ranks: Mapping[str, tuple[int, int]]
    comparisons: tuple[Comparison, ...]


def ranked(question: Question) -> Ranked:
    """Compare the models of a question and rank them by what the tests say."""
    known = [score for score in question.scores if not math.isnan(score.value)]
    pairs = [(a, b) for a, b in itertools.combinations(known, 2) if a.protocol == b.protocol]
    tests = [_compared(a, b) for a, b in pairs]
    corrected = holm([test.p for test in tests]) if tests else np.empty(0)
    comparisons = tuple(
        Comparison(a.model, b.model, test, float(p)) for (a, b), test, p in zip(pairs, tests, corrected, strict=True)
    )
    ahead: dict[str, int] = {}
    behind: dict[str, int] = {}
    others: dict[str, int] = {}
    for found in comparisons:
        first, second = found.model_a, found.model_b
        for model in (first, second):
            others[model] = others.get(model, 0) + 1
        if found.significant:
            better, worse = (first, second) if found.tested.difference > 0 else (second, first)
            ahead[worse] = ahead.get(worse, 0) + 1
            behind[better] = behind.get(better, 0) + 1
    ranks = {m: (1 + ahead.get(m, 0), 1 + count - behind.get(m, 0)) for m, count in others.items()}
    bare = tuple(dataclasses.replace(score, perturbed=None, values=None) for score in question.scores)
    return Ranked(dataclasses.replace(question, scores=bare), ranks, comparisons)


def _compared(a: Score, b: Score) -> Tested:
    """Compare two models image by image where their values are there, else by their intervals."""
    if a.perturbed is not None and b.perturbed is not None:
        found = retained_difference(*a.perturbed.beside(b.perturbed))
        return Tested(100 * found.difference, 100 * found.low, 100 * found.high, found.p)
    if a.values is not None and b.values is not None:
        (first, row_a), (second, row_b) = a.values, b.values
        row = condition_difference(first, row_a, second, row_b)
        if row is None:
            return Tested(math.nan, math.nan, math.nan, math.nan)
        return Tested(row["difference"], row["difference_low"], row["difference_high"], row["p"])
    return _by_intervals(a, b)


def _by_intervals(a: Score, b: Score) -> Tested:
    """Compare two numbers as if they were independent, by the widths of their intervals."""
    difference = a.value - b.value
    spread = math.hypot(a.high - a.low, b.high - b.low) / 2
    if not spread > 0 or math.isnan(spread):
        return Tested(difference, math.nan, math.nan, math.nan)
    return Tested(
        difference, difference - spread, difference + spread, math.erfc(1.96 * abs(difference) / spread / math.sqrt(2))
    )


def retained_questions(analysis: Analysis, reductions: Sequence[Reduction]) -> list[Question]:
    """Return what is retained under an experiment's perturbations, one question for each kind of them.

    It is the area under the curve where the experiment has a level, else the mean over all perturbations.
    """
    chances = analysis.chances(reductions)
    found: dict[tuple[Any, ...], list[tuple[Reduction, Combination]]] = {}
    for reduction in reductions:
        if reduction.model not in chances or reduction.values is None:
            continue
        combinations = _combinations(analysis, reduction.values)
        for combination in combinations:
            asked = [combination.place.get(name) for name in analysis.profile_by]
            alike = [c.place for c in combinations if [c.place.get(name) for name in analysis.profile_by] == asked]
            several = _varying(alike)
            names = [n for n in combination.place if n in analysis.profile_by or n in several]
            key = tuple((name, combination.place[name]) for name in names)
            found.setdefault(key, []).append((reduction, combination))
    return [_retained_question(analysis, key, those, chances) for key, those in found.items()]


PARTED = "; "
"""Stands between the parts of a protocol in words."""


def _combinations(analysis: Analysis, values: Values) -> list[Combination]:
    if analysis.mean_over:
        return means(values, analysis.clean, analysis.mean_over)
    return analysis.curves(values)


def _retained_question(
    analysis: Analysis,
    key: tuple[tuple[str, Any], ...],
    those: Sequence[tuple[Reduction, Combination]],
    chances: Mapping[str, float],
) -> Question:
    scores: list[Score] = []
    for reduction, combination in those:
        assert reduction.values is not None
        values = reduction.values
        chance = chances[reduction.model]
        here = of_combination(values, combination, chance)
        others = {n: v for n, v in combination.place.items() if (n, v) not in key and v not in (None, "", 0, False)}
        words = [f"{name.replace('_', ' ')} {_words(value)}" for name, value in others.items()]
        levels = _shown(combination.levels, _level_names(analysis, values), analysis.columns)
        protocol = PARTED.join(
            [
                *words,
                levels if analysis.mean_over else f"levels {levels}",
                *filter(None, (analysis.kind(reduction), f"guessing gives {100 * chance:.2f} %")),
            ]
        )
        if here is None:
            nothing = "no image was measured under all levels"
            scores.append(Score(reduction.model, math.nan, math.nan, math.nan, 0, protocol, nothing))
            continue
        kept, note = here.retained, ""
        if math.isnan(kept.value):
            clean = 100 * float(here.pair.clean.mean())
            verb = "not to be told from guessing" if clean > 100 * chance else "not above chance"
            images = (
                f"the {counted(here.n_images, 'image')} as they are" if clean > 100 * chance else "images as they are"
            )
            note = f"{verb} ({100 * chance:.1f} %) on {images} ({clean:.1f} %)"
        numbers = (100 * kept.value, 100 * kept.low, 100 * kept.high)
        scores.append(Score(reduction.model, *numbers, here.n_images, protocol, note, here))
    values, combination = those[0][0].values, those[0][1]
    assert values is not None
    place = dict(key)
    named = [analysis.value_title(name, value) for name, value in place.items() if value not in (None, "")]
    how = "mean over" if analysis.mean_over else "area under the curve over"
    over = _level_names(analysis, values)
    shown = _shown(combination.levels, over, analysis.columns)
    along = ", ".join(name.replace("_", " ") for name in over[: 1 if not analysis.mean_over else None])
    level = over[0]
    at = values.names.index(level) if level in values.names else 0
    weights: dict[Any, float] = {}
    for row, weight in combination.weights.items():
        weights[values.keys[row][at]] = weights.get(values.keys[row][at], 0.0) + weight
    return Question(
        "-".join([analysis.name, *(str(value) for _, value in key)]),
        ", ".join([analysis.short or analysis.name.replace("-", " "), *named]),
        f"accuracy above chance that is retained, {how} {along}: {shown}",
        tuple(scores),
        measure="top1",
        at=weights,
        clean_level=values.keys[combination.clean][at],
        place=place,
        level=level,
    )


def measured_question(
    analysis: Analysis,
    reductions: Sequence[Reduction],
    rows: Mapping[str, Mapping[str, Any]],
    measure: str,
    *,
    key: str = "",
    title: str = "",
    what: str,
    unit: Literal["percent", ""] = "percent",
    digits: int = 1,
    better: Better = "higher",
    factor: float = 1.0,
    condition: Mapping[str, Any] | None = None,
    protocol: Mapping[str, str] | None = None,
    place: Mapping[str, Any] | None = None,
) -> Question:
    """Return a question whose number stands in a table.

    Args:
        analysis: of the experiment.
        reductions: of all models.
        rows: of the table, one for each model.
        measure: column of the number, with its interval beside it.
        key: see :class:`Question`; the experiment's name by default.
        title: see :class:`Question`.
        what: see :class:`Question`.
        unit: see :class:`Question`.
        digits: see :class:`Question`.
        better: see :class:`Question`.
        factor: what the column is multiplied by.
        condition: values of columns of the condition that models are compared at; they must leave one of each model.
        protocol: by model, how it was measured.
        place: values of columns of the paper's numbers.
    """
    scores: list[Score] = []
    for reduction in reductions:
        row = rows.get(reduction.model)
        if row is None:
            continue
        value, low, high = (_number(row.get(name), factor) for name in (measure, f"{measure}_low", f"{measure}_high"))
        at = None if reduction.values is None else _condition(reduction.values, condition or {})
        values = None if reduction.values is None or at is None else (reduction.values, at)
        note = "undefined" if math.isnan(value) else ""
        how = PARTED.join(filter(None, ((protocol or {}).get(reduction.model, ""), analysis.kind(reduction))))
        n_images = int(row.get("n_images") or 0)
        scores.append(Score(reduction.model, value, low, high, n_images, how, note, values=values))
    name = key or analysis.name
    head = title or analysis.short or analysis.name.replace("-", " ")
    return Question(name, head, what, tuple(scores), unit, digits, better, measure=measure, place=place or {})


def default_questions(
    analysis: Analysis, reductions: Sequence[Reduction], main: Mapping[str, Mapping[str, Any]], measure: str | None
) -> list[Question]:
    """Return what is retained where images were perturbed, else the first measure where each model has one row."""
    if analysis.chances(reductions):
        return retained_questions(analysis, reductions)
    if measure is None or not main or analysis.clean:
        return []
    column = analysis.columns.get(measure)
    percent = column is not None and column.unit == "percent"
    return [
        measured_question(
            analysis,
            reductions,
            main,
            measure,
            what=(column.title if column is not None and column.title else measure.replace("_", " ")),
            unit="percent" if percent else "",
            digits=1 if percent else 3,
            better="higher" if percent else "",
        )
    ]


def _condition(values: Values, wanted: Mapping[str, Any]) -> int | None:
    """Return the one condition with some values; None where there is none, or several."""
    found = [
        row
        for row, key in enumerate(values.keys)
        if all(key[values.names.index(name)] == value for name, value in wanted.items() if name in values.names)
    ]
    return found[0] if len(found) == 1 else None


def _varying(places: Sequence[Mapping[str, Any]]) -> set[str]:
    names = {name for place in places for name in place}
    return {name for name in names if len({repr(place.get(name)) for place in places}) > 1}


def _number(value: Any, factor: float) -> float:
    return math.nan if is_missing(value) else factor * float(value)


def _level_names(analysis: Analysis, values: Values) -> tuple[str, ...]:
    """Return the columns whose values are the levels of a curve, or what a mean is over."""
    return analysis.mean_over or next(names for names in analysis.curve_columns if names[0] in values.names)


def _shown(levels: Sequence[Any], names: Sequence[str], columns: Columns) -> str:
    """Return levels for people; of many the ends and their number.

    Of levels that are pairs, such as a block and a rate, the values of each are said once where all were paired.
    """
    tuples = [cast("tuple[Any, ...]", level) for level in levels if isinstance(level, tuple)]
    pairs = [level for level in tuples if len(level) == len(names)]
    parts = [[*dict.fromkeys(values)] for values in zip(*pairs, strict=True)]
    if len(pairs) == len(levels) and len(names) > 1 and len(set(pairs)) == math.prod(map(len, parts)):
        said = zip(names, parts, strict=True)
        return " and ".join(f"{name.replace('_', ' ')} {_each(values, name, columns)}" for name, values in said)
    shown = [_words(level) for level in levels]
    return ", ".join(shown) if len(shown) <= 12 else f"{shown[0]} to {shown[-1]} ({len(shown)})"


def _each(values: Sequence[Any], name: str, columns: Columns) -> str:
    shown = [columns.get(name, PLAIN).level_text(value) or _words(value) for value in values]
    return ", ".join(shown) if len(shown) <= 12 else f"{shown[0]} to {shown[-1]} ({len(shown)})"


def _words(level: Any) -> str:
    parts: Sequence[Any] = cast("tuple[Any, ...]", level) if isinstance(level, tuple) else (level,)
    return " ".join(
        f"{p:g}" if isinstance(p, int | float) and not isinstance(p, bool) else str(p)
        for p in parts
        if p not in (None, "")
    )
