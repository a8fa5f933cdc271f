"""The confidences of models on clean images: reliability, risk against coverage, and another temperature."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.columns import CALIBRATION_NOTE
from ipvit.analysis.confidences.rows import Answers
from ipvit.core.digests import digest_of
from ipvit.metrics.calibration import brier_scores, reliability_bins, risk_coverage
from ipvit.metrics.calibration_intervals import Estimated, ece_estimate, mean_estimate
from ipvit.metrics.intervals import wilson
from ipvit.metrics.temperature import SCALED, TEMPERATURES, ScaledLogits, fit_temperature, temperature_interval

PARTS = ("temperature", "reliability", "risk")
"""Names of the tables."""
_POINTS = 50  # of a curve of risks


@dataclasses.dataclass(frozen=True)
class Clean:
    """The answers of a model on clean images.

    Attributes:
        experiment: whose records they are.
        model: its name.
        answers: with their confidences.
        logits: what a temperature is fitted to; None where it is not recorded of all answers.
        even: ``(N,)`` whether the digest of the image's id is even: the half that a temperature is fitted to.
    """

    experiment: str
    model: str
    answers: Answers
    logits: ScaledLogits | None
    even: np.ndarray

    @classmethod
    def of(cls, experiment: str, model: str, answers: Answers, records: pl.DataFrame) -> Clean:
        """Return the answers of some records with what these hold of the logits."""
        sure = records.filter(pl.col("confidence").is_finite().fill_null(value=False))
        ids = sure["image"].cast(pl.String)
        even = np.array([int(digest_of(image.encode(), 16), 16) % 2 == 0 for image in ids], dtype=bool)
        logits = None
        if set(SCALED) <= set(sure.columns):
            numbers = sure.select(pl.col(SCALED).cast(pl.Float64)).to_numpy()
            if np.isfinite(numbers).all():
                logits = ScaledLogits.of(numbers[:, 0], numbers[:, 1], numbers[:, 2:])
        return cls(experiment, model, answers, logits, even)


def tables_of(clean: Sequence[Clean]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the tables of temperatures, of bins of confidence, and of risks, empty where there is nothing."""
    fitted = [row for one in clean if (row := _temperature(one)) is not None]
    bins = [row for one in clean for row in _bins(one)]
    risks = [row for one in clean for row in _risks(one)]
    tables = [pl.DataFrame(rows, infer_schema_length=None, orient="row") for rows in (fitted, bins, risks)]
    return tables[0], tables[1], tables[2]


def _temperature(one: Clean) -> dict[str, Any] | None:
    """Return the row of a model: fitted to one half of the images, judged on the other."""
    if one.logits is None or one.even.all() or not one.even.any():
        return None
    fitted, judged = one.logits.rows(one.even), one.logits.rows(~one.even)
    temperature = fit_temperature(fitted)
    low, high = temperature_interval(fitted)
    right = one.answers.correct[~one.even]
    at_an_end = min(temperature / TEMPERATURES[0], TEMPERATURES[-1] / temperature) < 1.001
    row: dict[str, Any] = {
        "model": one.model,
        "experiment": one.experiment,
        "temperature": temperature,
        "temperature_low": low,
        "temperature_high": high,
    }
    remarks = ["the likelihood still rises at this end of the range of temperatures"] if at_an_end else []
    for end, at in (("", 1.0), ("_scaled", temperature)):
        likely = judged.label_log_probability(at)
        found = {"ece": ece_estimate(judged.confidence(at), right), "nll": mean_estimate(-likely)}
        if at >= 2 * TEMPERATURES[0]:
            found["brier"] = mean_estimate(brier_scores(judged.probability_squares(at), np.exp(likely)))
        for name, estimate in found.items():
            row |= _with_ends(f"{name}{end}", estimate)
            if estimate.reason:
                remarks.append(f"no interval of {name}{end}: {estimate.reason}")
    counts = {"n_fitted": int(one.even.sum()), "n_judged": len(right)}
    return row | counts | {CALIBRATION_NOTE: "; ".join(remarks) or None}


def _with_ends(name: str, one: Estimated) -> dict[str, float | None]:
    values = {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return {key: None if np.isnan(value) else value for key, value in values.items()}


def _bins(one: Clean) -> list[dict[str, Any]]:
    """Return the reliability diagram of a model: accuracy in 15 bins of equal mass, with Wilson's intervals."""
    found = reliability_bins(one.answers.confidence, one.answers.correct)
    rows: list[dict[str, Any]] = []
    for count, sure, right in zip(found.counts, found.confidence, found.accuracy, strict=True):
        low, high = wilson(float(right * count), float(count))
        ends = {"accuracy": float(right), "accuracy_low": low, "accuracy_high": high}
        rows.append({"model": one.model, "confidence": float(sure), **ends, "n_images": int(count)})
    return rows


def _risks(one: Clean) -> list[dict[str, Any]]:
    """Return the error among the most confident answers at up to 50 coverages."""
    coverage, risk = risk_coverage(one.answers.confidence, one.answers.correct)
    chosen = np.unique(np.linspace(0, len(coverage) - 1, min(_POINTS, len(coverage))).round().astype(int))
    return [{"model": one.model, "coverage": float(coverage[at]), "risk": float(risk[at])} for at in chosen]
