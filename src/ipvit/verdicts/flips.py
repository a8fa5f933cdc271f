"""The images that one of two models has right and the other has wrong."""

from __future__ import annotations

import numpy as np
import polars as pl

from ipvit.analysis.aggregate import side_by_side
from ipvit.analysis.perturbed import clean_conditions
from ipvit.analysis.reduction import Values
from ipvit.results import Run
from ipvit.verdicts.sides import Matched

FLIPS = {
    "experiment": pl.String,
    "model_a": pl.String,
    "model_b": pl.String,
    "image": pl.String,
    "now": pl.String,
    "label": pl.String,
    "prediction_a": pl.String,
    "prediction_b": pl.String,
    "confidence_a": pl.Float64,
    "confidence_b": pl.Float64,
}
"""Columns of flipped images; ``now`` is ``right`` where only the second model is, else ``wrong``."""

_ANSWERS = ("image", "label", "prediction", "confidence", "correct")


def flipped(a: Run, b: Run, pair: Matched, name: str, first: Values, second: Values) -> pl.DataFrame:
    """Return the images that flipped, as they are: not perturbed.

    Args:
        a: the first run.
        b: the second run.
        pair: the models.
        name: of the experiment.
        first: what the first model is compared by.
        second: what the second model is compared by.

    Returns:
        Those that are wrong now, then those that are right now, each group from the largest confidence of the model
        that is wrong; empty where no condition is that of the image as it is.
    """
    rows = _clean_rows(b, name, first, second)
    nothing = pl.DataFrame(schema=FLIPS)
    if rows is None:
        return nothing
    at_a, at_b = rows
    both = sorted(set(first.images) & set(second.images))
    mine, theirs, _ = side_by_side(first, at_a, second, at_b)
    if len(mine) != len(both):  # some were not measured under this condition
        return nothing
    images = pl.Series("image", both, dtype=pl.String)
    moved = images.filter(pl.Series(np.abs(theirs - mine) == 1))
    answers = [
        _answers(run, name, model, images, correct == 1)
        for run, model, correct in (
            (a, _label(a, name, pair.weights_a), mine),
            (b, _label(b, name, pair.weights_b), theirs),
        )
    ]
    if answers[0] is None or answers[1] is None or moved.is_empty():
        return nothing
    found = answers[0].filter(pl.col("image").is_in(moved.to_list())).join(answers[1], on="image", suffix="_b")
    wrong = pl.col("correct")  # of the first: then the second is wrong
    return (
        found.select(
            pl.lit(name).alias("experiment"),
            pl.lit(pair.model_a).alias("model_a"),
            pl.lit(pair.model_b).alias("model_b"),
            "image",
            pl.when(wrong).then(pl.lit("wrong")).otherwise(pl.lit("right")).alias("now"),
            "label",
            pl.col("prediction").alias("prediction_a"),
            "prediction_b",
            pl.col("confidence").alias("confidence_a"),
            "confidence_b",
            pl.when(wrong).then("confidence_b").otherwise("confidence").alias("sure"),
        )
        .sort(["now", "sure", "image"], descending=[True, True, False])
        .drop("sure")
    )  # pyright: ignore[reportArgumentType]


def _clean_rows(b: Run, name: str, first: Values, second: Values) -> tuple[int, int] | None:
    """Return the numbers of the condition of the image as it is, of both; None where there is none, or several."""
    if not (first.proportions and second.proportions):
        return None
    clean = b.analyses[name].clean
    found = [clean_conditions(values, clean) or ([0] if len(values.keys) == 1 else []) for values in (first, second)]
    if any(len(rows) != 1 for rows in found):
        return None
    return found[0][0], found[1][0]


def _label(run: Run, name: str, weights: str) -> str:
    return run.models_of(name)[weights]


def _answers(run: Run, name: str, model: str, images: pl.Series, correct: np.ndarray) -> pl.DataFrame | None:
    """Return what a model said of images: of several answers that it gave, those that it was judged by."""
    records = run.records(name).filter(pl.col("model") == model)
    if not set(_ANSWERS) <= set(records.columns):
        return None
    judged = pl.DataFrame({"image": images, "judged": correct})
    named = [
        pl.coalesce(f"{column}_name", pl.col(column).cast(pl.String)).alias(column)
        if f"{column}_name" in records.columns
        else pl.col(column).cast(pl.String)
        for column in ("label", "prediction")
    ]
    for _, group in records.group_by("condition", maintain_order=True):
        found = group.with_columns(pl.col("image").cast(pl.String)).join(judged, on="image")
        if found.height == judged.height and (found["correct"] == found["judged"]).all():
            return found.select("image", *named, pl.col("confidence").cast(pl.Float64), "correct")
    return None
