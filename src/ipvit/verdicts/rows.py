"""What a comparison could have found: both means, images gained and lost, the smallest detectable difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.aggregate import side_by_side
from ipvit.analysis.reduction import Values
from ipvit.metrics.intervals import variance_of_mean
from ipvit.metrics.power import detectable_mean, detectable_proportion

ALPHA = 0.05


def with_what_was_found(frame: pl.DataFrame, kept: Sequence[str], a: Values, b: Values) -> pl.DataFrame:
    """Return a comparison of B with A with further columns.

    Args:
        frame: as made by :func:`ipvit.analysis.aggregate.paired_differences`, B less A.
        kept: columns of it that tell conditions apart.
        a: what the first model is compared by.
        b: what the second model is compared by.

    Returns:
        With all columns that tell conditions apart, ``value_a`` and ``value_b`` (means on the images of both),
        ``gained`` and ``lost`` (images on which B is better, and worse), ``detectable`` (the smallest difference that
        the test finds in 80 of 100 such samples, at the 5 % level), and ``detectable_holm`` (the same at the level of
        Holm's first step, for all rows).
    """
    shared = conditions_of_rows(frame, kept, a, b)
    added: list[dict[str, Any]] = []
    for at_a, at_b in shared:
        first, second, clusters = side_by_side(a, at_a, b, at_b)
        n_runs = len(a.runs[at_a] | b.runs[at_b])
        factor = 100 if b.proportions else 1
        moved = second - first
        numbers = {"value_a": factor * float(first.mean()), "value_b": factor * float(second.mean())}
        numbers |= {"gained": int((moved > 1e-9).sum()), "lost": int((moved < -1e-9).sum())}
        for name, level in (("detectable", ALPHA), ("detectable_holm", ALPHA / frame.height)):
            numbers[name] = factor * _detectable(moved, clusters, n_runs, level, proportions=b.proportions)
        added.append(numbers)
    ends = frame.columns.index("difference")
    names = list(dict.fromkeys((*kept, *b.names)))
    conditions = [dict(zip(b.names, b.keys[at], strict=True)) for _, at in shared]
    return pl.concat(
        [
            pl.DataFrame(
                {name: [condition.get(name) for condition in conditions] for name in names}, infer_schema_length=None
            ),
            frame.select(name for name in frame.columns[:ends] if name not in names),
            pl.DataFrame(added).select("value_a", "value_b"),
            frame.select("difference", "difference_low", "difference_high", "p", "p_holm"),
            pl.DataFrame(added).select("gained", "lost", "detectable", "detectable_holm"),
            frame.select(name for name in frame.columns[ends:] if name.startswith(("drop_", "retained_"))),
        ],
        how="horizontal",
    )


def conditions_of_rows(frame: pl.DataFrame, kept: Sequence[str], a: Values, b: Values) -> list[tuple[int, int]]:
    """Return the numbers of the conditions that the rows of a comparison are of, in both models.

    Args:
        frame: the comparison, without the columns that merely follow from those in ``kept``.
        kept: columns of it that tell its conditions apart.
        a: what the first model is compared by.
        b: what the second model is compared by.
    """
    names = list(dict.fromkeys((*a.names, *b.names)))
    keys_a, keys_b = (_keys(values, names) for values in (a, b))
    places = [names.index(name) for name in kept]
    shared = {tuple(key[place] for place in places): (at, keys_b[key]) for key, at in keys_a.items() if key in keys_b}
    return [shared[tuple(row[name] for name in kept)] for row in frame.iter_rows(named=True)]


def _keys(values: Values, names: Sequence[str]) -> dict[tuple[Any, ...], int]:
    rows = [dict(zip(values.names, key, strict=True)) for key in values.keys]
    return {tuple(row.get(name) for name in names): number for number, row in enumerate(rows)}


def _detectable(
    moved: np.ndarray, clusters: np.ndarray | None, n_runs: int, level: float, *, proportions: bool
) -> float:
    """Return the smallest mean difference that the test of a row finds, in the unit of the values."""
    n, moment = len(moved), float((moved**2).mean())
    if clusters is not None:
        owners, place = np.unique(clusters, return_inverse=True)
        if owners[0] < 0 or len(owners) < 2:
            return math.nan
        variance = variance_of_mean(moved - moved.mean(), place, len(owners))
        return detectable_mean(moment / variance, moment, level) if variance > 0 else math.nan
    if proportions and (n_runs == 1 or moment == 0):
        return detectable_proportion(n, moment, level)
    return detectable_mean(n, moment, level)
