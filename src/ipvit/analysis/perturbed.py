"""A model on images as they are and perturbed: what it retains, condition by condition and over whole curves."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from ipvit.analysis.reduction import Values
from ipvit.metrics.intervals import accuracy_interval, clustered_interval
from ipvit.metrics.retained import Pair, Retained, drop_difference, retained_accuracy, retained_difference

Scale = Literal["linear", "log"]

RETAINED = "retained"
"""Column of retained accuracy, in per cent."""
CHANCE = "chance"
"""Column of what guessing gives, in per cent."""

_ENDS = ("", "_low", "_high")


@dataclasses.dataclass(frozen=True)
class Perturbed:
    """One model under one perturbation, or over several, on the images that were measured under all of them.

    Attributes:
        images: ids of all N images of the model, sorted.
        measured: ``(N,)`` which of them are in ``pair``.
        pair: the values of these images.
        n_runs: how many perturbed pictures of an image are averaged.
    """

    images: pl.Series
    measured: np.ndarray
    pair: Pair
    n_runs: int = 1

    @functools.cached_property
    def retained(self) -> Retained:
        """What is retained, as a share."""
        clusters = self.pair.clusters
        return retained_accuracy(self.pair.clean, self.pair.perturbed, self.pair.chance, clusters=clusters)

    @property
    def accuracy(self) -> tuple[float, float, float]:
        """The mean of the perturbed accuracy, and its interval, as shares."""
        values, clusters = self.pair.perturbed, self.pair.clusters
        if not len(values):
            return math.nan, math.nan, math.nan
        if clusters is None:
            ends = accuracy_interval(values, self.n_runs)
        else:
            ends = (math.nan, math.nan) if (clusters < 0).any() else clustered_interval(values, clusters, self.n_runs)
        return float(values.mean()), *ends

    @property
    def n_images(self) -> int:
        """Images that the values rest on."""
        return len(self.pair.clean)

    def beside(self, other: Perturbed) -> tuple[Pair, Pair]:
        """Return the pairs of both models on the images that both were measured on."""
        if self.images.equals(other.images):
            both = self.measured & other.measured
            return _part(self.pair, both[self.measured]), _part(other.pair, both[other.measured])
        ours, theirs = self.images.to_numpy()[self.measured], other.images.to_numpy()[other.measured]
        _, mine, their = np.intersect1d(ours, theirs, return_indices=True)
        return _part(self.pair, mine), _part(other.pair, their)


def perturbed(values: Values, weights: Mapping[int, float], clean: int, chance: float) -> Perturbed | None:
    """Return a model under a weighted mean of conditions.

    Args:
        values: of the model.
        weights: by the number of a condition; they add up to 1.
        clean: number of the condition of images as they are.
        chance: what guessing gives, as a share.

    Returns:
        None where no image was measured under all of them.
    """
    rows = sorted(weights)
    whole = np.array([weights[row] for row in rows]) @ values.means[rows]
    measured = np.isfinite(whole) & np.isfinite(values.means[clean])
    if not measured.any():
        return None
    shared = next((found for row in rows if (found := values.clusters[row]) is not None), None)
    pair = Pair(
        values.means[clean][measured],
        np.clip(whole[measured], 0.0, 1.0),  # sums of thirds
        chance,
        None if shared is None else shared[measured],
    )
    return Perturbed(values.images, measured, pair, sum(len(values.runs[row]) for row in rows))


def clean_condition(values: Values, row: int, clean: Mapping[str, Any]) -> int | None:
    """Return the condition of the image as it is that belongs to another one; None where there is none, or several.

    Of several it is the one that agrees with the other condition in most of what ``clean`` does not say.

    Args:
        values: of one model.
        row: number of the condition.
        clean: values of columns in the condition of the image as it is.
    """
    found = clean_conditions(values, clean)
    if len(found) < 2:
        return found[0] if found else None
    others = [place for place, name in enumerate(values.names) if name not in clean]
    alike = {at: sum(values.keys[at][place] == values.keys[row][place] for place in others) for at in found}
    best = max(alike.values())
    nearest = [at for at, count in alike.items() if count == best]
    return nearest[0] if len(nearest) == 1 else None


def clean_conditions(values: Values, clean: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the conditions of images as they are."""
    if not clean or not set(clean) <= set(values.names):
        return []
    places = {name: values.names.index(name) for name in clean}
    return [
        row for row, key in enumerate(values.keys) if all(_same(key[at], clean[name]) for name, at in places.items())
    ]


@dataclasses.dataclass(frozen=True)
class Combination:
    """Several conditions of one model, taken together.

    Attributes:
        place: what they have in common.
        levels: what they differ in, in order; of a curve they begin with that of the image as it is.
        weights: by the number of the condition, adding up to 1.
        clean: number of the condition of images as they are.
    """

    place: Mapping[str, Any]
    levels: tuple[Hashable, ...]
    weights: Mapping[int, float]
    clean: int


def curves(values: Values, clean: Mapping[str, Any], over: Sequence[str], scale: Scale = "linear") -> list[Combination]:
    """Return the curves of a model over a level, with the weights of the area under each, divided by its span.

    Args:
        values: of the model.
        clean: values of columns in the condition of the image as it is, whose level begins every curve.
        over: the level, and the columns that follow from it.
        scale: ``log``: the trapezoids are those over the logarithm of the level.

    Returns:
        Curves of at least two levels. Several conditions at one level share its weight.
    """
    level = over[0]
    if level not in values.names:
        return []
    at = values.names.index(level)
    found: list[Combination] = []
    for place, rows in _groups(values, clean, over).items():
        start = clean_condition(values, rows[0], clean)
        if start is None:
            continue
        by_level: dict[float, list[int]] = {}
        for row in dict.fromkeys([start, *rows]):
            number = values.keys[row][at]
            if isinstance(number, int | float) and math.isfinite(number):
                by_level.setdefault(float(number), []).append(row)
        steps = sorted(by_level)
        if len(steps) < 2 or (scale == "log" and steps[0] <= 0):
            continue
        along = np.log(steps) if scale == "log" else np.array(steps)
        widths = np.diff(along) / (along[-1] - along[0])
        of_level = (np.append(0.0, widths) + np.append(widths, 0.0)) / 2
        weights = {
            row: float(w) / len(by_level[s]) for s, w in zip(steps, of_level, strict=True) for row in by_level[s]
        }
        found.append(Combination(dict(place), tuple(steps), weights, start))
    return found


def means(values: Values, clean: Mapping[str, Any], over: Sequence[str]) -> list[Combination]:
    """Return the means over all conditions that differ in some columns, each with the same weight.

    Args:
        values: of a model.
        clean: values of columns in the condition of the image as it is, which is in none of them.
        over: the columns.
    """
    found: list[Combination] = []
    for place, rows in _groups(values, clean, over).items():
        start = clean_condition(values, rows[0], clean)
        if start is not None:
            levels = sorted((_levels(values, row, over) for row in rows), key=repr)
            found.append(Combination(dict(place), tuple(levels), dict.fromkeys(rows, 1 / len(rows)), start))
    return found


def of_combination(values: Values, combination: Combination, chance: float) -> Perturbed | None:
    """Return a model under conditions that are taken together."""
    return perturbed(values, combination.weights, combination.clean, chance)


def with_retained(
    table: pl.DataFrame,
    conditions: pl.DataFrame,
    models: Mapping[str, Values],
    clean: Mapping[str, Any],
    chances: Mapping[str, float],
    measure: str = "top1",
) -> pl.DataFrame:
    """Return a table with what is retained beside its accuracy.

    Args:
        table: with a column ``model``.
        conditions: its rows, with the columns that tell conditions apart as the values have them.
        models: what each model was measured at.
        clean: values of columns in the condition of the image as it is.
        chances: what guessing gives for each model, as a share.
        measure: column of the accuracy; the new ones stand behind it, its interval and its spread.

    Returns:
        With ``retained`` and its interval, and ``chance``, in per cent. Retained is null where the clean accuracy is
        not above chance, or where a row is not one condition; 100 without an interval in the row of the image as it is.
    """
    cells = {model: _cells(models[model], conditions.columns, clean, chances[model]) for model in chances}
    names = {model: [name for name in models[model].names if name in conditions.columns] for model in chances}
    rows: list[dict[str, float | None]] = []
    for row in conditions.iter_rows(named=True):
        model = row["model"]
        found = None
        if model in cells:
            found = cells[model].get(tuple(row[name] for name in names[model]))
        chance = chances.get(model)
        numbers = (None, None, None) if found is None else found
        rows.append(
            {f"{RETAINED}{end}": number for end, number in zip(_ENDS, numbers, strict=True)}
            | {CHANCE: None if chance is None else 100 * chance}
        )
    schema = dict.fromkeys([*(f"{RETAINED}{end}" for end in _ENDS), CHANCE], pl.Float64)
    added = pl.DataFrame(rows, schema=schema)
    if added[RETAINED].null_count() == added.height:
        added = added.select(CHANCE) if added[CHANCE].null_count() < added.height else added.select()
    if not added.width:
        return table
    behind = [
        name for name in table.columns if name in (measure, *(f"{measure}{e}" for e in ("_low", "_high", "_std")))
    ]
    place = max((table.columns.index(name) for name in behind), default=table.width - 1) + 1
    return pl.concat(
        [table.select(table.columns[:place]), added, table.select(table.columns[place:])], how="horizontal"
    )


def _cells(
    values: Values, columns: Sequence[str], clean: Mapping[str, Any], chance: float
) -> dict[tuple[Any, ...], tuple[float | None, float | None, float | None]]:
    """Return what is retained in each condition that the columns tell from all others."""
    places = [place for place, name in enumerate(values.names) if name in columns]
    rows: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(values.keys):
        rows.setdefault(tuple(key[place] for place in places), []).append(row)
    unperturbed = set(clean_conditions(values, clean))
    found: dict[tuple[Any, ...], tuple[float | None, float | None, float | None]] = {}
    for key, several in rows.items():
        start = clean_condition(values, several[0], clean) if len(several) == 1 else None
        model = None if start is None else perturbed(values, {several[0]: 1.0}, start, chance)
        if model is None or math.isnan(model.retained.value):
            continue
        if several[0] in unperturbed:
            found[key] = (100.0, None, None)
            continue
        kept = model.retained
        value, low, high = (None if math.isnan(p) else 100 * p for p in (kept.value, kept.low, kept.high))
        found[key] = (value, low, high)
    return found


def area_table(
    model: str, values: Values, found: Sequence[Combination], chance: float, *, shown: str
) -> list[dict[str, Any]]:
    """Return rows of areas under the curves of one model.

    Args:
        model: its name.
        values: of the model.
        found: its curves.
        chance: what guessing gives, as a share.
        shown: name of the column that holds the levels.
    """
    rows: list[dict[str, Any]] = []
    for curve in found:
        here = of_combination(values, curve, chance)
        if here is None:
            continue
        numbers = {f"area_top1{end}": 100 * value for end, value in zip(_ENDS, here.accuracy, strict=True)}
        kept = dataclasses.astuple(here.retained)
        numbers |= {
            f"area_{RETAINED}{end}": None if math.isnan(value) else 100 * value
            for end, value in zip(_ENDS, kept, strict=True)
        }
        levels = " ".join(f"{cast('float', level):g}" for level in curve.levels)
        rows.append(
            {"model": model, **curve.place, shown: levels, "n_images": here.n_images, **numbers, CHANCE: 100 * chance}
        )
    return rows


def differences_of_drops(a: Perturbed, b: Perturbed) -> dict[str, float | None]:
    """Return by how much more of its accuracy one model loses than another, and by how much more of it is retained.

    Returns:
        ``drop_difference`` (what A loses less what B loses, in points) and ``retained_difference`` (what A retains less
        what B retains, in points of retained accuracy), each with the ends of its 95 % interval and a p-value; null
        where there is none.
    """
    first, second = a.beside(b)
    found: dict[str, float | None] = {}
    for name, test in (("drop", drop_difference(first, second)), ("retained", retained_difference(first, second))):
        for end, value in zip(_ENDS, (test.difference, test.low, test.high), strict=True):
            found[f"{name}_difference{end}"] = None if math.isnan(value) else 100 * value
        found[f"{name}_p"] = None if math.isnan(test.p) else test.p
    return found


def _groups(
    values: Values, clean: Mapping[str, Any], over: Sequence[str]
) -> dict[tuple[tuple[str, Any], ...], list[int]]:
    """Return the conditions by what they have in common beside some columns, without those of images as they are."""
    unperturbed = set(clean_conditions(values, clean))
    kept = [place for place, name in enumerate(values.names) if name not in over]
    groups: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for row, key in enumerate(values.keys):
        if row not in unperturbed:
            groups.setdefault(tuple((values.names[place], key[place]) for place in kept), []).append(row)
    return groups


def _levels(values: Values, row: int, over: Sequence[str]) -> Hashable:
    """Return the values of some columns of a condition; the value itself where it is one column."""
    found = tuple(values.keys[row][values.names.index(name)] for name in over if name in values.names)
    return found[0] if len(found) == 1 else found


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, abs_tol=1e-9)
    return value == wanted


def _part(pair: Pair, rows: np.ndarray) -> Pair:
    return Pair(
        pair.clean[rows],
        pair.perturbed[rows],
        pair.chance,
        None if pair.clusters is None else pair.clusters[rows],
    )
