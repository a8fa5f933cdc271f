"""What a reader must know of an experiment's numbers, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.analysis.reduction import Reduction
from ipvit.analysis.sentences import chosen_among, uneven
from ipvit.core.manifest import Manifest


def notes_of_numbers(
    analysis: Analysis,
    tables: Mapping[str, pl.DataFrame],
    reductions: Sequence[Reduction],
    manifest: Manifest,
    *,
    damaged: int,
    known: bool,
) -> list[str]:
    """Return what a reader must know of an experiment's numbers.

    Args:
        analysis: what was made of the records.
        tables: the tables that are shown.
        reductions: of the models that are shown.
        manifest: what the run says of itself.
        damaged: part files that could not be read.
        known: whether the experiment's own code is here, which says what its columns mean.
    """
    notes = [f"{damaged} damaged part files were left out; run the study again to replace them."] if damaged else []
    if not known:
        notes.append("What its columns mean is as of its last run: code that a run folder names is not run.")
    if type(analysis) is Analysis and analysis.own_code:
        notes.append(f"These tables are made without {analysis.own_code}, which makes others of the same records.")
    notes += _of_models(analysis.name, reductions, manifest)
    notes += uneven(tables, analysis.name)
    if analysis.labels:
        subject = manifest.subject(analysis.name)
        notes += chosen_among(subject.answers, subject.n_classes, subject.among.values())
    if analysis.among:
        notes.append(analysis.among)
    if unlabelled := frozenset().union(*(reduction.unlabelled for reduction in reductions)):
        notes.append(f"{len(unlabelled):,} images have no label and are left out of the accuracies.")
    for name, column in analysis.columns.items():
        counts = {reduction.model: reduction.missing.get(name, 0) for reduction in reductions}
        notes += [f"{model}: {count:,} {column.missing}" for model, count in counts.items() if count]
    return notes


def _of_models(experiment: str, reductions: Sequence[Reduction], manifest: Manifest) -> list[str]:
    """Return doubts about the models, those that give one answer only, and what failed on them."""
    shown = {reduction.model for reduction in reductions}
    notes = [model.doubt_in_words for model in manifest.models if model.name in shown and model.doubt]
    notes += [
        f"{reduction.model} gives all {reduction.one_answer:,} images the same answer, under all conditions."
        for reduction in reductions
        if reduction.one_answer
    ]
    for failure in manifest.failures:
        if failure.experiment == experiment:
            what = f" ({failure.condition})" if failure.condition else ""
            notes.append(f"Failed on {failure.model}{what}, so it is in no table: {failure.error}.")
    return notes
