"""How well confidences say how often answers are right, from the records of one model: rows of the tables."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ipvit.analysis.columns import CALIBRATION, CALIBRATION_NOTE, CALIBRATION_RECORDS, SHARED_MASK
from ipvit.analysis.records.frames import groups, matching, ranks
from ipvit.metrics.calibration import Floats, brier_scores
from ipvit.metrics.calibration_intervals import Estimated, auroc_estimate, ece_estimate, mean_estimate
from ipvit.metrics.numbering import distinct

_ENDS = ("", "_low", "_high")
_READ = ("image", SHARED_MASK, "correct", *CALIBRATION_RECORDS)
NOT_RECORDED = "not recorded"
"""What is said of a measure that earlier records hold no numbers for."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of one model under one condition that have a confidence.

    Attributes:
        confidence: ``(N,)``.
        correct: ``(N,)`` bool.
        log_likelihood: ``(N,)`` logarithm of the label's probability; None where it is not recorded.
        brier: ``(N,)`` Brier's score of each; None where it is not recorded.
        images: ``(N,)`` numbers of the images, from 0 on, in the order of their ids.
        clusters: ``(N,)`` numbers of what is independent: images, or masks that images share.
        left_out: answers without a finite confidence.
        refused: by measure, why there is none.
        alone: there is no telling which answers are independent, or all hang together.
    """

    confidence: Floats
    correct: np.ndarray
    log_likelihood: Floats | None
    brier: Floats | None
    images: np.ndarray
    clusters: np.ndarray
    left_out: int
    refused: Mapping[str, str]
    alone: bool

    @functools.cached_property
    def independent(self) -> bool:
        """Whether every answer is of an image of its own, with a mask of its own."""
        return _differ(self.clusters)

    @functools.cached_property
    def _of_images(self) -> tuple[NDArray[np.int64], np.ndarray | None]:
        """How many answers each image has, and what it belongs to where images hang together."""
        counts = np.bincount(self.images)
        first = np.zeros(len(counts), dtype=np.int64)
        first[self.images[::-1]] = np.arange(len(self.images))[::-1]  # the last one written stays
        clusters = self.clusters[first]
        return counts, None if _differ(clusters) else clusters

    def per_image(self, values: Floats) -> tuple[Floats, np.ndarray | None]:
        """Return the means of values over the runs of each image, and what the images belong to."""
        counts, clusters = self._of_images
        return np.bincount(self.images, weights=values) / counts, clusters


def _differ(numbers: np.ndarray) -> bool:
    return len(distinct(numbers)[0]) == len(numbers)


def is_recorded(records: pl.DataFrame) -> bool:
    """Tell whether records are of classifications whose confidence was kept."""
    return {"confidence", "correct", "label_probability"} <= set(records.columns)


def answers_of(records: pl.DataFrame) -> Answers:
    """Return the answers under one condition.

    Args:
        records: of one model, one row an image and run, of images with a label.
    """
    sure = pl.col("confidence").is_finite().fill_null(value=False)
    kept = matching(records, [sure])
    refused: dict[str, str] = {}
    log_likelihood = _log_likelihood(kept, refused)
    brier = None
    lacking = kept.height - (kept["probability_squares"].count() if "probability_squares" in kept.columns else 0)
    if lacking:
        refused["brier"] = _lacking(lacking, kept.height)
    else:
        brier = brier_scores(kept["probability_squares"].to_numpy(), kept["label_probability"].to_numpy())
    images = ranks(kept["image"])
    clusters, alone = images, False
    if SHARED_MASK in kept.columns and kept[SHARED_MASK].count():
        clusters = kept[SHARED_MASK].fill_null(-1).to_numpy()
        alone = bool((clusters < 0).any()) or len(distinct(clusters)[0]) < 2
    return Answers(
        kept["confidence"].cast(pl.Float64).to_numpy(),
        kept["correct"].to_numpy(),
        log_likelihood,
        brier,
        images,
        clusters,
        records.height - kept.height,
        refused,
        alone,
    )


def _log_likelihood(records: pl.DataFrame, refused: dict[str, str]) -> Floats | None:
    """Return the logarithms of the labels' probabilities, of earlier records from the probabilities themselves."""
    found = records["label_probability"].cast(pl.Float64).log()
    if "label_log_probability" in records.columns:
        found = records["label_log_probability"].cast(pl.Float64).fill_null(found)
    infinite = int((~found.is_finite()).fill_null(value=True).sum())
    if infinite:
        refused["nll"] = f"{_lacking(infinite, records.height)}, where the label's probability is 0 to seven digits"
        return None
    return found.to_numpy()


def _lacking(count: int, of: int) -> str:
    return NOT_RECORDED if count == of else f"{NOT_RECORDED} for {count:,} of {of:,} answers"


def calibration_of(answers: Answers) -> dict[str, Any]:
    """Return the columns of a row: each measure with its interval, and what is to be said of them."""
    if not len(answers.confidence):
        return _row({}, ["no answer has a finite confidence"])
    clusters = None if answers.independent else answers.clusters
    sure, right = answers.confidence, answers.correct

    def mean(values: Floats | None, low: float, high: float) -> Estimated | None:
        return None if values is None else mean_estimate(*answers.per_image(values), (low, high))

    found = {
        "ece": ece_estimate(sure, right, clusters),
        "nll": mean(None if answers.log_likelihood is None else -answers.log_likelihood, 0.0, math.inf),
        "brier": mean(answers.brier, 0.0, 2.0),
        "overconfidence": mean(sure - right, -1.0, 1.0),
        "auroc": auroc_estimate(sure, right, clusters),
    }
    said = [f"{name} {reason}" for name, reason in answers.refused.items()]
    if answers.alone:
        said.append("no interval: the answers hang together by their masks")
        found = {name: one and Estimated(one.value) for name, one in found.items()}
    by_reason: dict[str, list[str]] = {}
    for name, one in found.items():
        if one is not None and one.reason:
            what = name if math.isnan(one.value) else f"interval of {name}"
            by_reason.setdefault(one.reason, []).append(what)
    said += [f"no {' and '.join(names)}: {reason}" for reason, names in by_reason.items()]
    if answers.left_out:
        said.append(f"without {answers.left_out:,} answers whose confidence is not finite")
    return _row(found, said)


def _row(found: Mapping[str, Estimated | None], said: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in CALIBRATION:
        one = found.get(name) or Estimated(math.nan)
        for end, value in zip(_ENDS, (one.value, one.low, one.high), strict=True):
            row[f"{name}{end}"] = None if math.isnan(value) else value
    return row | {CALIBRATION_NOTE: "; ".join(said) or None}


def groups_of(
    records: pl.DataFrame, by: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Yield the records of each condition with the values of the columns that tell it from the others.

    Args:
        records: of one model.
        by: columns that tell conditions apart.
        columns: those that are returned; all by default.
    """
    names = [name for name in by if name in records.columns]
    if not names:
        yield {}, records
        return
    for key, group in groups(records, names, records.columns if columns is None else columns):
        yield dict(zip(names, key, strict=True)), group


def calibration_rows(
    records: pl.DataFrame,
    by: Sequence[str],
    measure: Callable[[Answers], dict[str, Any]] = calibration_of,
) -> pl.DataFrame:
    """Return one row for each condition of one model.

    Args:
        records: of the model, of images with a label.
        by: columns that tell conditions apart; runs are taken together.
        measure: what the row says of the answers.
    """
    rows = [place | measure(answers_of(group)) for place, group in groups_of(records, by, _READ)]
    schema = {name: pl.Float64 for column in CALIBRATION for name in (column + end for end in _ENDS)}
    return pl.DataFrame(
        rows, schema_overrides=schema | {CALIBRATION_NOTE: pl.String}, infer_schema_length=None, orient="row"
    )


def with_calibration(table: pl.DataFrame, conditions: pl.DataFrame, parts: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return a table with the measures of each row that is one condition of one model, on the right.

    Args:
        table: with a column ``model``.
        conditions: its rows, with the columns that tell conditions apart as the records have them.
        parts: by model what :func:`calibration_rows` returned.
    """
    added = [f"{name}{end}" for name in CALIBRATION for end in _ENDS] + [CALIBRATION_NOTE]
    if not parts or set(added) & set(table.columns):
        return table
    found: dict[str, tuple[list[str], dict[tuple[Any, ...], list[dict[str, Any]]]]] = {}
    for model, part in parts.items():
        names = [name for name in part.columns if name not in added and name in conditions.columns]
        cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in part.iter_rows(named=True):
            cells.setdefault(tuple(row[name] for name in names), []).append(row)
        found[model] = names, cells
    rows: list[dict[str, Any]] = []
    for row in conditions.iter_rows(named=True):
        names, cells = found.get(row["model"], ([], {}))
        own = cells.get(tuple(row[name] for name in names), [])
        rows.append({name: own[0][name] if len(own) == 1 else None for name in added})
    schema = {name: pl.String if name == CALIBRATION_NOTE else pl.Float64 for name in added}
    new = pl.DataFrame(rows, schema=schema, orient="row")
    if all(new[name].null_count() == new.height for name in CALIBRATION):
        return table
    return pl.concat([table, new], how="horizontal")
