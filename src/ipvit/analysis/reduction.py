"""What is left of the records of one model: sums per condition, and one value for each image and condition.

Tables, comparisons and the notes on an experiment are made of reductions: the records of two models are never in memory
together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ipvit.analysis.columns import RUN, SHARED_MASK, Column, Columns
from ipvit.analysis.records.frames import groups, matching, ranks
from ipvit.analysis.records.packed import PackedRows

_NUMBER = "number of the image"


@dataclasses.dataclass(frozen=True)
class Values:
    """What two models are compared by: one value for each image and condition of one model.

    Attributes:
        images: ids of the N images, sorted.
        names: the columns that tell conditions apart.
        keys: their values, one tuple for each condition; runs are taken together.
        means: ``(len(keys), N)`` float64, means over runs; NaN where an image was not measured. They are held in fewer
            bytes where that loses nothing.
        runs: the numbers of the runs of each condition.
        clusters: for each condition None where every image has its own mask, else ``(N,)`` int64: the number of the
            mask that an image shares with others, -1 where the records do not say.
        proportions: whether the values say what is right or wrong.
        span: the largest difference that two means can have.
    """

    images: pl.Series
    names: tuple[str, ...]
    keys: tuple[tuple[Any, ...], ...]
    means: np.ndarray | PackedRows
    runs: tuple[frozenset[int], ...]
    clusters: tuple[np.ndarray | None, ...]
    proportions: bool
    span: float = math.inf

    def sharing(self, other: Values) -> Values:
        """Return the same values, with those images and clusters of another model that are equal in place of its own.

        Models are measured on the same images: a million ids take 50 MB, which is more than what they are compared by.
        """
        images = other.images if self.images.dtype == other.images.dtype and self.images.equals(other.images) else None
        known = [found for found in other.clusters if found is not None] if images is not None else []
        shared = tuple(
            next((one for one in known if found is not None and np.array_equal(one, found)), found)
            for found in self.clusters
        )
        return dataclasses.replace(self, images=self.images if images is None else images, clusters=shared)

    def without(self, *names: str) -> Values:
        """Return the values with conditions that some columns no longer tell apart; they must differ without them."""
        kept = [place for place, name in enumerate(self.names) if name not in names]
        keys = tuple(tuple(key[place] for place in kept) for key in self.keys)
        if len(set(keys)) < len(keys):
            raise ValueError(f"{', '.join(names)} tell conditions apart")
        return dataclasses.replace(self, names=tuple(self.names[place] for place in kept), keys=keys)


@dataclasses.dataclass(frozen=True)
class Reduction:
    """The records of one model, reduced.

    Attributes:
        model: its name in the tables.
        weights: its digest.
        parts: frames that tables are made of, by name; each has a column ``model``.
        values: what it is compared with other models by, or None.
        missing: number of missing values by column of the records, see :attr:`ipvit.Column.missing`.
        unlabelled: ids of the images without label.
        n_answers: how many answers the model chose among; 0 where there are none, or nobody knows.
        size: height and width of its input in pixels; None where nobody knows.
        one_answer: how many images it gave one and the same answer, under all conditions; 0 where it gave several.
        calibration: one row for each condition, see :func:`ipvit.analysis.confidences.rows.calibration_rows`; None
            where no confidences are read.
    """

    model: str
    weights: str
    parts: Mapping[str, pl.DataFrame]
    values: Values | None = None
    missing: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    unlabelled: frozenset[str] = frozenset()
    n_answers: int = 0
    size: tuple[int, int] | None = None
    one_answer: int = 0
    calibration: pl.DataFrame | None = None


def images_of_one_answer(records: pl.DataFrame) -> int:
    """Return on how many images of several classes a model gave one and the same answer always; 0 where it did not."""
    if not {"prediction", "label", "image"} <= set(records.columns):
        return 0
    answers = records["prediction"].drop_nulls()
    alike = answers.n_unique() == 1 and len(answers) == records.height and answers[0] >= 0  # below 0: none
    return records["image"].n_unique() if alike and records["label"].drop_nulls().n_unique() > 1 else 0


def joined(reductions: Sequence[Reduction], part: str) -> pl.DataFrame:
    """Return a part of all models below each other, in their order; an empty frame where no model has it."""
    frames = [found for reduction in reductions if (found := reduction.parts.get(part)) is not None and found.width]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def in_study_order(table: pl.DataFrame, by: Sequence[str | pl.Expr]) -> pl.DataFrame:
    """Sort a table, with models in the order of the study, which is that of their first appearance, and not by name.

    Args:
        table: rows of the models, each model's together or in the study's order.
        by: columns to sort by; ``model`` may be one of them.
    """
    numbers = {model: number for number, model in enumerate(table["model"].unique(maintain_order=True))}
    first = pl.col("model").replace_strict(numbers, return_dtype=pl.Int64)
    places = [first if isinstance(name, str) and name == "model" else name for name in by]
    return table.sort(places, maintain_order=True)


def labelled(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records of images with a label: one without is neither right nor wrong."""
    if "label" in records.columns and records["label"].max() != -1:
        return matching(records, [pl.col("label") >= 0])
    return records


def values_of(records: pl.DataFrame, by: Sequence[str], metric: str, *, proportions: bool) -> Values | None:
    """Return what one model is compared by.

    Args:
        records: of one model.
        by: columns that tell conditions apart, as far as the records have them; runs are averaged.
        metric: column of the records.
        proportions: whether the metric is true or false for an image; images without label are then left out.

    Returns:
        None where the records lack the metric, or no row is left.
    """
    if metric not in records.columns:
        return None
    if proportions:
        records = labelled(records)
    if records.is_empty():
        return None
    names = tuple(name for name in by if name in records.columns)
    images = records["image"].unique().cast(pl.String).sort()
    records = records.with_columns(pl.Series(_NUMBER, ranks(records["image"])))
    keys: list[tuple[Any, ...]] = []
    means: list[NDArray[np.float64]] = []
    runs: list[frozenset[int]] = []
    clusters: list[NDArray[np.int64] | None] = []
    for key, group in groups(records, names, [_NUMBER, metric, RUN, SHARED_MASK]):
        per_image = group.group_by(_NUMBER, maintain_order=True).agg(
            pl.col(metric).cast(pl.Float64).fill_nan(None).mean(), *shared_masks(group)
        )
        rows = per_image[_NUMBER].to_numpy()
        mean = np.full(len(images), np.nan)
        mean[rows] = per_image[metric].to_numpy()
        cluster = None
        if SHARED_MASK in per_image.columns:
            cluster = np.full(len(images), -1, dtype=np.int64)
            cluster[rows] = per_image[SHARED_MASK].fill_null(-1).to_numpy()
        keys.append(key)
        means.append(mean)
        runs.append(frozenset(group[RUN].unique()) if RUN in group.columns else frozenset({0}))
        clusters.append(cluster)
    return Values(images, names, tuple(keys), PackedRows(means), tuple(runs), tuple(clusters), proportions)


def shared_masks(group: pl.DataFrame) -> list[pl.Expr]:
    """Return what says which images share a mask, where some do; a number below 0: they do, but not which."""
    if SHARED_MASK not in group.columns or group[SHARED_MASK].null_count() == group.height:
        return []
    return [pl.col(SHARED_MASK).first().fill_null(-1)]


def without_flagged(records: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Return the records without the results that a flag marks as missing."""
    flags = [column.of or name for name, column in columns.items() if column.average == "flag"]
    flags = [name for name in flags if name in records.columns]
    return records.filter(*(pl.col(name) for name in flags)) if flags else records


def count_missing(records: pl.DataFrame, columns: Columns) -> dict[str, int]:
    """Return the number of missing values of each column that says what they mean, where there are any."""
    counts: dict[str, int] = {}
    for name, column in columns.items():
        of = column.of or name
        if column.missing and of in records.columns and (count := _missing(records[of], column)):
            counts[name] = count
    return counts


def _missing(values: pl.Series, column: Column) -> int:
    if column.average == "flag":
        return int((~values).sum())
    if values.dtype.is_float():
        return int((~values.is_finite()).sum())
    if values.dtype.is_integer():
        return int((values < 0).sum())
    return int((values == "").sum()) if isinstance(values.dtype, pl.String | pl.Categorical) else 0
