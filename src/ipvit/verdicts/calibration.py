"""Does a model know when it is wrong? What the records of a run say of its confidences, without a pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION, CALIBRATION_NOTE, CALIBRATION_RECORDS, COMMON, PLAIN, Column
from ipvit.analysis.confidences.rows import NOT_RECORDED, Answers, answers_of, calibration_of, groups_of, is_recorded
from ipvit.analysis.defaults import condition_columns
from ipvit.errors import InputError
from ipvit.metrics.calibration import ece
from ipvit.metrics.calibration_intervals import Estimated, ece_estimate
from ipvit.metrics.intervals import accuracy_interval
from ipvit.metrics.temperature import SCALED
from ipvit.report.tables.cells import text
from ipvit.results import Run
from ipvit.verdicts.clean_confidences import PARTS, Clean, tables_of

FILE = "calibration"
"""Stem of the tables and figures in the run folder."""

COLUMNS: dict[str, Column] = {
    **COMMON,
    **{name: column.model_copy(update={"detail": False}) for name, column in CALIBRATION.items()},
    CALIBRATION_NOTE: Column(title="remarks"),
    "ece_width": Column(title="ECE, equal width", digits=3, range=(0, 1)),
    "ece_plain": Column(title="ECE, equal width, with its bias", digits=3),
    "confidence": Column(digits=3),
    "temperature": Column(digits=2),
    "ece_scaled": Column(title="ECE at the temperature", digits=3, range=(0, 1)),
    "nll_scaled": Column(title="NLL at the temperature", digits=3, range=(0, None)),
    "brier_scaled": Column(title="Brier score at the temperature", digits=3, range=(0, 2)),
    "n_fitted": Column(title="images it was fitted to", unit="count"),
    "n_judged": Column(title="images of all other columns", unit="count"),
}
"""What the columns of the tables mean."""

HOW_TO_READ = (
    "ECE: Kumar et al. 2019, first power, less its bias, in 15 bins of equal mass; the files also have 15 bins of "
    "equal width, and these with their bias, as it is published. AUROC: how well confidence tells right answers from "
    "wrong ones (0.5: not at all)."
)
FITTED = (
    "A temperature is fitted to one half of the clean images, those whose id has an even digest; the errors are of the "
    "other half."
)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a run says of confidences.

    Attributes:
        tables: ``calibration`` (one row for each experiment, model and condition), and where clean images say it
            ``calibration-temperature``, ``calibration-reliability`` and ``calibration-risk``.
        levels: by experiment the column that its conditions are steps of, where there is one.
        sentences: one for each model and experiment.
        notes: what a reader must know.
    """

    tables: Mapping[str, pl.DataFrame]
    levels: Mapping[str, str]
    sentences: Sequence[str]
    notes: Sequence[str]


def calibration(run: Run) -> Calibration:
    """Return what the records of a run say of confidences; nothing is measured.

    Raises:
        InputError: there are no classifications with a label in it.
    """
    rows: list[dict[str, Any]] = []
    clean: dict[str, Clean] = {}
    levels: dict[str, str] = {}
    without: list[str] = []
    for name, analysis in run.analyses.items():
        there = list(_groups(run, name, analysis))
        if not there:
            without.append(name)
            continue
        level = next((names[0] for names in analysis.curve_columns if names[0] in there[0][1]), None)
        if level is not None:
            levels[name] = level
        varying = [key for key in there[0][1] if len({place[key] for _, place, _, _ in there}) > 1]
        for model, place, answers, records in there:
            is_clean = analysis.shows_clean(place)
            if is_clean and (model not in clean or clean[model].logits is None):
                found = Clean.of(name, model, answers, records)
                clean[model] = found if model not in clean or found.logits is not None else clean[model]
            said = {key: place[key] for key in varying}
            rows.append(_row(name, model, said, is_clean, answers, levels.get(name, ""), analysis))
    if not rows:
        raise InputError(
            f"{str(run.out)!r} has no records of confidences; accuracy, occlusion, shuffle, position, corruptions and "
            "shift keep them"
        )
    table = _in_order(pl.DataFrame(rows, infer_schema_length=None, orient="row"))
    tables = {FILE: table}
    for part, frame in zip(PARTS, tables_of(list(clean.values())), strict=True):
        if frame.height:
            tables[f"{FILE}-{part}"] = frame
    notes = [HOW_TO_READ, *([FITTED] if f"{FILE}-temperature" in tables else [])]
    if lacking := [one.model for one in clean.values() if one.logits is None]:
        notes.append(f"Temperature {NOT_RECORDED}: {', '.join(lacking)}. Records of earlier versions lack the logits.")
    if without:
        notes.append(f"No confidences are read of {', '.join(without)}.")
    return Calibration(tables, levels, list(_sentences(table)), notes)


def _groups(run: Run, name: str, analysis: Analysis) -> Iterator[tuple[str, dict[str, Any], Answers, pl.DataFrame]]:
    """Yield model, condition, answers and records of an experiment."""
    if analysis.metric != "correct":
        return
    if analysis.record_columns is not None and not set(CALIBRATION_RECORDS) <= set(analysis.record_columns):
        return
    for weights, model in run.models_of(name).items():
        records = run.calibrated_records(name, weights, SCALED)
        if records.is_empty() or not is_recorded(records):
            continue
        by = analysis.calibrated_by or analysis.compare_by
        for place, group in groups_of(records, condition_columns(analysis, records) if by is None else by):
            answers = answers_of(group)
            if len(answers.confidence):
                yield model, place, answers, group


def _row(
    name: str, model: str, place: dict[str, Any], is_clean: bool, answers: Answers, level: str, analysis: Analysis
) -> dict[str, Any]:
    sure, right = answers.confidence, answers.correct
    per_image, clusters = answers.per_image(right.astype(np.float64))
    runs = max(1, round(len(right) / len(per_image)))
    ends = accuracy_interval(per_image, runs) if clusters is None else (math.nan, math.nan)
    top1 = dict(zip(("top1", "top1_low", "top1_high"), (100 * v for v in (per_image.mean(), *ends)), strict=True))
    wide = Estimated(math.nan)
    if not answers.alone:
        wide = ece_estimate(sure, right, None if answers.independent else answers.clusters, scheme="width")
    found = calibration_of(answers)
    remarks = [found.pop(CALIBRATION_NOTE), f"no interval of ece_width: {wide.reason}" if wide.reason else None]
    return {
        "experiment": name,
        "model": model,
        "condition": "clean" if is_clean else _words(place, analysis) or "as measured",
        "setting": _words({key: value for key, value in place.items() if key != level}, analysis),
        "clean": is_clean,
        "level": float(at) if isinstance(at := place.get(level), int | float) else None,
        "n_images": len(per_image),
        "n_runs": runs,
        **{key: None if math.isnan(value) else value for key, value in top1.items()},
        "confidence": float(sure.mean()),
        **found,
        "ece_width": wide.value if not answers.alone else None,
        "ece_width_low": _or_none(wide.low),
        "ece_width_high": _or_none(wide.high),
        "ece_plain": ece(sure, right),
        CALIBRATION_NOTE: "; ".join(filter(None, remarks)) or None,
    }


def _in_order(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of each experiment and model with levels ascending; the others stay as they come."""
    places = [pl.col(name).rle_id().alias(f"{name} place") for name in ("experiment", "model")]
    found = table.with_columns(*places).sort(
        "experiment place", "model place", "setting", "level", nulls_last=True, maintain_order=True
    )
    return found.select(table.columns)


def _words(place: Mapping[str, Any], analysis: Analysis) -> str:
    """Return a condition as text."""
    columns = {**COLUMNS, **analysis.columns}
    return ", ".join(
        f"{columns.get(name, PLAIN).head(name)} {text(value, name, columns)}"
        for name, value in place.items()
        if value not in ("", None)
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _sentences(table: pl.DataFrame) -> Iterator[str]:
    """Say of each model and experiment how sure it is of clean images, and where it is most overconfident."""
    for (name, model), rows in table.group_by(["experiment", "model"], maintain_order=True):
        clean = next(iter(rows.filter(pl.col("clean")).to_dicts()), None)
        worst = max(rows.to_dicts(), key=lambda row: row["overconfidence"])
        parts = [] if clean is None else [f"clean {_sure(clean)}"]
        if worst is not clean and not worst["clean"]:
            parts.append(f"{'most overconfident' if clean else 'most so'} with {worst['condition']}: {_sure(worst)}")
        if parts:
            yield f"{name}, {model}: {'; '.join(parts)}."


def _sure(row: Mapping[str, Any]) -> str:
    return f"{100 * row['confidence']:.0f} % confident and {row['top1']:.0f} % right"
