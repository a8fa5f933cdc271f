"""From the records of a study to reductions, one model after the other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.analysis.reduction import Reduction, images_of_one_answer
from ipvit.core.manifest import Manifest
from ipvit.engine.folders import kept_reductions
from ipvit.engine.folders.study_records import StudyRecords

_FEWEST_FOR_TOP_5 = 6
"""Answers from which on being among the five best says something."""


def reductions_of(
    records: StudyRecords, manifest: Manifest, analysis: Analysis, labels: Mapping[str, str]
) -> list[Reduction]:
    """Return the reductions of models; the records of no two are in memory together.

    Args:
        records: of the run folder.
        manifest: of the run folder.
        analysis: of the experiment.
        labels: by digest the names of the models, in their order.
    """
    found: list[Reduction] = []
    for weights, label in labels.items():
        reduction = _kept(records, manifest, analysis, weights, label)
        if reduction is not None:
            found.append(_sharing(reduction, found))
    return found


def _sharing(reduction: Reduction, earlier: Sequence[Reduction]) -> Reduction:
    """Return a reduction that holds what is equal in the first that has values, and no copy of it."""
    first = next((one.values for one in earlier if one.values is not None), None)
    if first is None or reduction.values is None:
        return reduction
    return dataclasses.replace(reduction, values=reduction.values.sharing(first))


def _kept(records: StudyRecords, manifest: Manifest, analysis: Analysis, weights: str, label: str) -> Reduction | None:
    make = functools.partial(_made, records, manifest, analysis, weights, label)
    ours = type(analysis).__module__.partition(".")[0] == "ipvit"  # another's code may change without our knowing
    about = records.stated(analysis.name, analysis.version, weights, kept_reductions.FEWEST_BYTES) if ours else None
    if about is None:
        return make()[0]
    about |= {
        "analysis": [f"{type(analysis).__module__}.{type(analysis).__qualname__}", analysis.model_dump_json()],
        "subject": manifest.subject(analysis.name).model_dump_json(),
        "model": [label, _size(manifest, weights)],
    }
    return kept_reductions.kept_or_made(about, make)


def _made(
    records: StudyRecords, manifest: Manifest, analysis: Analysis, weights: str, label: str
) -> tuple[Reduction | None, bool]:
    """Return the reduction of a model, and whether nothing else lies among its records, which readers are told of."""
    columns = analysis.record_columns
    columns = None if columns is None else (*columns, "label", "prediction", "labels")
    found = records.of_model(analysis.name, analysis.version, weights, columns)
    if found.is_empty():
        return None, False
    n_answers, _ = manifest.subject(analysis.name).among.get(weights, (0, 0))
    if 0 < n_answers < _FEWEST_FOR_TOP_5 and "correct5" in found.columns:
        found = found.with_columns(pl.lit(None, pl.Boolean).alias("correct5"))
    one_answer = images_of_one_answer(found)
    reduction = analysis.reduce(found.with_columns(pl.lit(label).alias("model")))
    size = _size(manifest, weights)
    reduction = dataclasses.replace(reduction, n_answers=n_answers, size=size, one_answer=one_answer)
    return reduction, (analysis.name, weights) not in records.mixed


def _size(manifest: Manifest, weights: str) -> tuple[int, int] | None:
    return {model.digest: model.preprocessing.size for model in manifest.models}.get(weights)
