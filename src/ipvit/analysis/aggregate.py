"""From one row per image and condition to tables with confidence intervals."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import polars as pl

from ipvit.analysis.columns import COMMON, PLAIN, RUN, SHARED_MASK, Columns
from ipvit.analysis.perturbed import Perturbed, clean_condition, differences_of_drops, perturbed
from ipvit.analysis.records.frames import groups
from ipvit.analysis.reduction import Values, labelled, shared_masks
from ipvit.metrics.crossed import crossed_interval
from ipvit.metrics.intervals import accuracy_interval, clustered_interval, clustered_mean_interval, mean_interval
from ipvit.metrics.paired import holm, paired_means, paired_proportions, sign_flip_test

PAPER = "-paper"
"""Ending of the name of a table that holds the paper's own numbers."""


def accuracy_table(
    records: pl.DataFrame, by: Sequence[str], columns: dict[str, str] | None = None, shared: str = ""
) -> pl.DataFrame:
    """Average correctness over runs, then over images.

    Args:
        records: one row per image, condition and model, with boolean columns.
        by: columns that make a row of the table, for example ``model`` and ``information_loss``.
        columns: boolean column -> name in the table; ``correct`` -> ``top1`` and ``correct5`` -> ``top5`` by default.
        shared: column of what all images of a run share, such as one trained patch; intervals are then over images and
            over these, see :func:`ipvit.metrics.crossed.crossed_interval`.

    Returns:
        The ``by`` columns, ``n_images``, ``n_runs`` and for each measure its mean in percent, the ends of its 95 %
        confidence interval over images (``_low``, ``_high``) and its standard deviation over runs (``_std``, null with
        one run), as the paper reports it. Images that share a mask are taken together; where all of them share one,
        the ends are NaN.
    """
    columns = columns or {"correct": "top1", "correct5": "top5"}
    records = labelled(records)
    rows: list[dict[str, Any]] = []
    for key, group in groups(records, by, ["image", RUN, SHARED_MASK, *columns, *([shared] if shared else [])]):
        n_runs = group[RUN].n_unique() if RUN in group.columns else 1
        per_image = group.group_by("image", maintain_order=True).agg(
            *(pl.col(name).mean() for name in columns), *shared_masks(group)
        )
        row: dict[str, Any] = dict(zip(by, key, strict=True)) | {"n_images": per_image.height, "n_runs": n_runs}
        for name, measure in columns.items():
            if group[name].null_count() == group.height:  # such as the five best of fewer answers
                row |= dict.fromkeys((measure, f"{measure}_low", f"{measure}_high", f"{measure}_std"))
                continue
            if shared:
                correct, images, whose = (group[part].to_numpy() for part in (name, "image", shared))
                low, high = crossed_interval(correct, images, whose)
            else:
                low, high = _interval(per_image, name, n_runs)
            mean = float(per_image[name].to_numpy().mean())
            row |= {measure: 100 * mean, f"{measure}_low": 100 * low, f"{measure}_high": 100 * high}
            row[f"{measure}_std"] = None
            if n_runs > 1:
                over_runs = group.group_by(RUN, maintain_order=True).agg(pl.col(name).mean())[name].to_numpy()
                row[f"{measure}_std"] = 100 * float(over_runs.std(ddof=1))
        rows.append(row)
    ends = ("", "_low", "_high", "_std")
    return _frame(rows, [f"{measure}{end}" for measure in columns.values() for end in ends])


def with_n_answers(table: pl.DataFrame, answers: Mapping[str, int]) -> pl.DataFrame:
    """Return a table of measures with a column ``n_answers`` beside the number of images.

    Args:
        table: with columns ``model`` and ``n_images``; another one is returned as it is.
        answers: how many answers each model chose among.
    """
    if not {"model", "n_images"} <= set(table.columns) or "n_answers" in table.columns:
        return table
    column = pl.col("model").cast(pl.String).replace_strict(answers, default=None, return_dtype=pl.Int64)
    place = table.columns.index("n_images")
    return table.insert_column(place, table.select(column.alias("n_answers")).to_series())


def _interval(per_image: pl.DataFrame, name: str, n_runs: int) -> tuple[float, float]:
    means = per_image[name].to_numpy()
    if SHARED_MASK not in per_image.columns:
        return accuracy_interval(means, n_runs)
    masks = per_image[SHARED_MASK].to_numpy()
    return (math.nan, math.nan) if (masks < 0).any() else clustered_interval(means, masks, n_runs)


def _mean_interval(per_image: pl.DataFrame, name: str, limits: tuple[float, float]) -> tuple[float, float]:
    values = per_image[name].cast(pl.Float64).to_numpy()  # NaN where nothing was measured
    if SHARED_MASK not in per_image.columns:
        return mean_interval(values[~np.isnan(values)], limits=limits)
    masks = per_image[SHARED_MASK].to_numpy()
    return (math.nan, math.nan) if (masks < 0).any() else clustered_mean_interval(values, masks, limits=limits)


def mean_table(
    records: pl.DataFrame,
    by: Sequence[str],
    columns: Sequence[str],
    limits: Columns = COMMON,
) -> pl.DataFrame:
    """Average quantities such as correlations over runs, then over images.

    Args:
        records: one row an image, run and condition.
        by: columns that tell the rows of the table apart.
        columns: quantities.
        limits: what is known of the columns: the smallest and largest value that a quantity can have. No interval
            leaves them; see :func:`ipvit.metrics.intervals.mean_interval`.

    Returns:
        The ``by`` columns, ``n_images`` (those with a finite value of the first quantity; others are left out),
        ``n_runs`` and for each quantity its mean, the ends of its 95 % confidence
        interval (``_low``, ``_high``; Student's t over images, images that share a mask taken together) and its
        standard deviation over images and runs (``_std``).
    """
    rows: list[dict[str, Any]] = []
    for key, group in groups(records, by, ["image", RUN, SHARED_MASK, *columns]):
        n_runs = group[RUN].n_unique() if RUN in group.columns else 1
        group = group.with_columns(pl.when(pl.col(name).is_finite()).then(name).alias(name) for name in columns)
        per_image = group.group_by("image", maintain_order=True).agg(
            *(pl.col(name).mean() for name in columns), *shared_masks(group)
        )
        measured = per_image[columns[0]].drop_nulls().len()
        row: dict[str, Any] = dict(zip(by, key, strict=True)) | {"n_images": measured, "n_runs": n_runs}
        for name in columns:
            values = per_image[name].drop_nulls()
            low, high = _mean_interval(per_image, name, limits.get(name, PLAIN).limits)
            row |= {name: values.mean() if len(values) else math.nan, f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_std"] = group[name].drop_nulls().std()
        rows.append(row)
    return _frame(rows, [f"{name}_std" for name in columns])


def with_paper(table: pl.DataFrame, tables: dict[str, pl.DataFrame], name: str) -> pl.DataFrame:
    """Append the paper's rows for an experiment, where there are any, so that a figure shows both."""
    paper = tables.get(f"{name}{PAPER}")
    if paper is None:
        return table
    known = [column for column in paper.columns if column in table.columns]
    return pl.concat([table, paper.select(known)], how="diagonal_relaxed")


def _frame(rows: list[dict[str, Any]], floats: Sequence[str]) -> pl.DataFrame:
    """Make a table; a column of spreads is a number even where there is none."""
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(name).cast(pl.Float64) for name in floats)


def varying(records: pl.DataFrame, columns: Sequence[str], within: Sequence[str] = ("model",)) -> list[str]:
    """Return those of the columns that differ within a group: the ones a table must tell apart.

    A column that merely follows from the group, such as the token that a model is read out at, is left out.
    """
    present = [name for name in columns if name in records.columns]
    groups = [name for name in within if name in records.columns]
    counts = records.group_by(groups).agg(pl.col(name).n_unique() for name in present) if present else None
    return [] if counts is None else [name for name in present if cast("int", counts[name].max() or 0) > 1]


DROPS = ("drop", "retained")
"""What columns of the differences of drops begin with: in points, and of retained accuracy."""


def paired_differences(
    models: Mapping[str, Values],
    most_models: int = 5,
    clean: Mapping[str, Any] | None = None,
    chances: Mapping[str, float] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> pl.DataFrame | None:
    """Compare models image by image.

    Args:
        models: what each model is compared by, in the order of the tables.
        most_models: with more models than this, each is compared with the first of its kind only.
        clean: values of columns in the condition of the image as it is, where there is one.
        chances: what guessing gives for each model, as a share, where it is known.
        kinds: what must be equal of two models for them to be compared, in words.

    Returns:
        Per condition and pair of models, on the images both were measured on: the difference of the means (in
        percentage points where the values say what is right, else in their own unit) and its 95 % interval (Tango's
        score interval for what is right, Student's t for anything else, within what a difference can be), the p-value
        of the sign-flip test (McNemar's exact test with one run), and the same corrected by Holm for the number of
        rows. Where there are images as they are, also the differences of the drops, see
        :func:`ipvit.analysis.perturbed.differences_of_drops`, each with p-values of its own, corrected by Holm for
        their number. None where nothing can be compared.
    """
    if len(models) < 2:
        return None
    groups: dict[str, list[str]] = {}
    for name in models:
        groups.setdefault((kinds or {}).get(name, ""), []).append(name)
    pairs = [(a, b) for alike in groups.values() for i, a in enumerate(alike) for b in alike[i + 1 :]]
    if len(models) > most_models:
        pairs = [(alike[0], other) for alike in groups.values() for other in alike[1:]]

    kept = list(dict.fromkeys(name for values in models.values() for name in values.names))
    places = {
        model: {
            tuple(dict(zip(v.names, key, strict=True)).get(name) for name in kept): i for i, key in enumerate(v.keys)
        }
        for model, v in models.items()
    }
    lost = _drops_of(models, clean or {}, chances or {}, most_models + 1)
    rows: list[dict[str, Any]] = []
    for key in dict.fromkeys(key for found in places.values() for key in found):
        runs = frozenset[int]().union(*(models[m].runs[found[key]] for m, found in places.items() if key in found))
        for a, b in pairs:
            if key in places[a] and key in places[b]:
                first, second, clusters = side_by_side(models[a], places[a][key], models[b], places[b][key])
                if not len(first):
                    continue
                place = dict(zip(kept, key, strict=True)) | {"model_a": a, "model_b": b}
                if clusters is None:
                    row = _difference(first, second, len(runs), models[a])
                else:
                    row = _of_clusters(first, second, clusters, len(runs), models[a])
                rows.append(place | row | lost(a, places[a][key], b, places[b][key]))
    if not rows:
        return None
    frame = pl.DataFrame(rows, infer_schema_length=None)
    frame = frame.drop(told_by_others(frame, kept))
    frame = frame.sort([name for name in kept if name in frame.columns], maintain_order=True) if kept else frame
    frame = frame.with_columns(pl.Series("p_holm", holm(frame["p"].to_numpy())))
    return _with_corrected_drops(frame)


def _drops_of(
    models: Mapping[str, Values], clean: Mapping[str, Any], chances: Mapping[str, float], most: int
) -> Callable[[str, int, str, int], dict[str, float | None]]:
    """Return what compares the drops of two models, each in a condition of its own numbering.

    It is asked condition by condition: only what a few models were under the last one is kept, not all of them under
    all, which would be several times what they are compared by.
    """

    @functools.lru_cache(maxsize=most)
    def under(model: str, row: int) -> Perturbed | None:
        values = models[model]
        start = clean_condition(values, row, clean)
        if start is None or start == row or model not in chances or not values.proportions:
            return None
        return perturbed(values, {row: 1.0}, start, chances[model])

    def lost(a: str, row_a: int, b: str, row_b: int) -> dict[str, float | None]:
        first, second = under(a, row_a), under(b, row_b)
        return {} if first is None or second is None else differences_of_drops(first, second)

    return lost


def _with_corrected_drops(frame: pl.DataFrame) -> pl.DataFrame:
    """Correct the p-values of the differences of drops, each kind for its own number."""
    for kind in DROPS:
        if (name := f"{kind}_p") in frame.columns:
            corrected = pl.Series(f"{name}_holm", holm(frame[name].cast(pl.Float64).to_numpy())).fill_nan(None)
            frame = frame.insert_column(frame.columns.index(name) + 1, corrected)
    return frame


def condition_difference(a: Values, row_a: int, b: Values, row_b: int) -> dict[str, float] | None:
    """Return the paired difference of two models in one condition each, as a row of :func:`paired_differences`.

    Returns:
        None where no image was measured on both.
    """
    first, second, clusters = side_by_side(a, row_a, b, row_b)
    if not len(first):
        return None
    n_runs = len(a.runs[row_a] | b.runs[row_b])
    if clusters is None:
        return _difference(first, second, n_runs, a)
    return _of_clusters(first, second, clusters, n_runs, a)


def side_by_side(a: Values, row_a: int, b: Values, row_b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the values of two models on the images both were measured on, and the masks these images share."""
    in_a, in_b = np.arange(len(a.images)), np.arange(len(b.images))
    if not a.images.equals(b.images):
        _, in_a, in_b = np.intersect1d(a.images.to_numpy(), b.images.to_numpy(), return_indices=True)
    first, second = a.means[row_a][in_a], b.means[row_b][in_b]
    both = ~(np.isnan(first) | np.isnan(second))
    clusters = next(
        (found[there] for found, there in ((a.clusters[row_a], in_a), (b.clusters[row_b], in_b)) if found is not None),
        None,
    )
    return first[both], second[both], None if clusters is None else clusters[both]


def told_by_others(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns that tell no rows apart which the rest of them does not, the last ones first."""
    told: list[str] = []
    for name in reversed(columns):
        rest = [other for other in columns if other != name and other not in told]
        if frame.n_unique(rest) == frame.n_unique([*rest, name]) if rest else frame[name].n_unique() == 1:
            told.append(name)
    return told


def _difference(first: np.ndarray, second: np.ndarray, n_runs: int, of: Values) -> dict[str, float]:
    one = of.proportions
    paired = paired_proportions(first, second, n_runs) if one else paired_means(first, second, span=of.span)
    factor = 100 if one else 1
    return {
        "n_images": len(first),
        "difference": factor * paired.difference,
        "difference_low": factor * paired.low,
        "difference_high": factor * paired.high,
        "p": sign_flip_test(first, second, n_runs),
    }


def _of_clusters(first: np.ndarray, second: np.ndarray, masks: np.ndarray, n_runs: int, of: Values) -> dict[str, float]:
    """Compare two models on images of which some share a mask: those decide together."""
    low = high = p = math.nan
    owners, place = np.unique(masks, return_inverse=True)
    if owners[0] >= 0 and len(owners) > 1:
        low, high = clustered_mean_interval(first - second, place, limits=(-of.span, of.span))
        one, other = (np.bincount(place, weights=values, minlength=len(owners)) for values in (first, second))
        p = sign_flip_test(one, other, n_runs)
    if of.proportions:
        low, high = max(low, -1.0), min(high, 1.0)
    factor = 100 if of.proportions else 1
    return {
        "n_images": len(first),
        "difference": factor * float((first - second).mean()),
        "difference_low": factor * low,
        "difference_high": factor * high,
        "p": p,
    }
