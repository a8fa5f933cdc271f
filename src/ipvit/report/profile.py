"""A profile of a run: one row a model, one column a question, each with its interval and its rank. No single score.

The paper's networks stand below the run's models where a number of theirs was measured as ours: on the same published
images, by the same protocol, at the same levels. What is comparable :mod:`ipvit.report.matching` decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.paper_numbers import PaperNumber
from ipvit.analysis.profile import PARTED, Comparison, Question, Ranked, Score
from ipvit.analysis.sentences import interval, is_missing
from ipvit.analysis.verdicts import NotComparableError
from ipvit.core.manifest import RunSummary
from ipvit.experiments.registry import paper_numbers
from ipvit.report.identification import other_data
from ipvit.report.matching import Tables, check_protocol
from ipvit.report.tables.files import json_number

FILE = "profile"
"""Name of the files with a profile, without suffix."""


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """A network of the paper and its number; there is no interval."""

    network: str
    value: float
    where: str


@dataclasses.dataclass(frozen=True)
class Column:
    """One question of a profile.

    Attributes:
        experiment: that asks it.
        ranked: the models' numbers and ranks.
        neighbours: numbers of the paper that were measured alike.
    """

    experiment: str
    ranked: Ranked
    neighbours: tuple[Neighbour, ...] = ()

    @property
    def question(self) -> Question:
        """The question."""
        return self.ranked.question

    def score(self, model: str) -> Score | None:
        """Return a model's number; None where it was not measured."""
        return next((score for score in self.question.scores if score.model == model), None)

    def rank(self, model: str) -> str:
        """Return the places that the tests leave a model: ``1``, or ``1-3``; empty where it has no rank."""
        found = self.ranked.ranks.get(model)
        return "" if found is None else str(found[0]) if found[0] == found[1] else f"{found[0]}-{found[1]}"


@dataclasses.dataclass(frozen=True)
class Profile:
    """All questions of a run.

    Attributes:
        models: in the order of the run.
        columns: the questions.
        notes: what a reader must know.
    """

    models: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()

    def cells(self) -> pl.DataFrame:
        """Return one row for each model and question, and for each network of the paper beside them."""
        rows: list[dict[str, Any]] = []
        for column in self.columns:
            question = column.question
            for score in question.scores:
                rank = column.ranked.ranks.get(score.model)
                rows.append(
                    {
                        "model": score.model,
                        "question": question.key,
                        "value": json_number(score.value),
                        "low": json_number(score.low),
                        "high": json_number(score.high),
                        "rank_first": None if rank is None else rank[0],
                        "rank_last": None if rank is None else rank[1],
                        "n_images": score.n_images,
                        "protocol": score.protocol,
                        "source": "measured",
                        "note": score.note,
                    }
                )
            rows += [
                {"model": near.network, "question": question.key, "value": near.value, "source": near.where}
                for near in column.neighbours
            ]
        return pl.DataFrame(rows, schema=CELLS)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "models": list(self.models),
            "questions": [
                {
                    "key": column.question.key,
                    "experiment": column.experiment,
                    "title": column.question.title,
                    "what": column.question.what,
                    "unit": column.question.unit,
                    "better": column.question.better or None,
                }
                for column in self.columns
            ],
            "cells": self.cells().to_dicts(),
            "comparisons": [
                {"question": column.question.key, **_plain(found)}
                for column in self.columns
                for found in column.ranked.comparisons
            ],
            "notes": list(self.notes),
        }

    def for_people(self) -> tuple[list[str], list[list[tuple[str, str, str]]]]:
        """Return heads and rows: each cell a value, its interval and its rank, as text; the models' names first."""
        heads = ["model", *(column.question.title for column in self.columns)]
        rows = [[(model, "", ""), *(_cell(column, model) for column in self.columns)] for model in self.models]
        networks = dict.fromkeys(near.network for column in self.columns for near in column.neighbours)
        for network in networks:
            found = [next((n for n in column.neighbours if n.network == network), None) for column in self.columns]
            cells = [
                ("", "", "") if near is None else (f"{near.value:z.{column.question.digits}f}", "", "")
                for near, column in zip(found, self.columns, strict=True)
            ]
            rows.append([(f"{network} (paper)", "", ""), *cells])
        return heads, rows


CELLS = {
    "model": pl.String,
    "question": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "rank_first": pl.Int64,
    "rank_last": pl.Int64,
    "n_images": pl.Int64,
    "protocol": pl.String,
    "source": pl.String,
    "note": pl.String,
}
"""Columns of :meth:`Profile.cells`. ``rank_first`` and ``rank_last``: the places that paired tests, corrected by Holm
for all pairs of the question, leave the model among those of the same ``protocol``; null where there is no other."""

HOW_TO_READ = (
    "Under a perturbation the number is what is retained of the accuracy above chance, in per cent (100: all of it, 0: "
    "the network guesses). "
    "A rank is the range of places that paired tests leave a model (Holm over the pairs of a column): models whose "
    "ranges overlap may be equal. Intervals are 95 % ones, each for itself."
)


def profile_of(
    ranked: Mapping[str, Sequence[Ranked]],
    tables: Tables,
    manifest: RunSummary,
    experiments: Mapping[str, Any],
    untold: Sequence[str] = (),
) -> Profile:
    """Return the profile of a run.

    Args:
        ranked: the questions of each experiment.
        tables: of the run, by experiment and by name.
        manifest: of the run.
        experiments: of the run, by name, with their parameters.
        untold: experiments that are shown as of their last run, whose numbers are not kept image by image.
    """
    columns = [
        Column(name, found, _neighbours(name, found.question, tables, manifest, experiments))
        for name, questions in ranked.items()
        for found in questions
        if found.question.scores
    ]
    columns.sort(key=lambda column: column.question.key != "clean")  # what all others are read beside
    seen = {score.model: None for column in columns for score in column.question.scores}
    order = [model.name for model in manifest.models]
    models = sorted(seen, key=lambda model: order.index(model) if model in order else len(order))
    return Profile(tuple(models), tuple(columns), tuple(_notes(columns, untold, manifest)))


def _apart(protocols: Mapping[str, Sequence[str]]) -> str:
    """Say how each model was measured, without what all have in common."""
    parts = {protocol: protocol.split(PARTED) for protocol in protocols}
    own = {
        protocol: [part for part in these if not all(part in others for others in parts.values())]
        for protocol, these in parts.items()
    }
    return "; ".join(f"{', '.join(models)} ({', '.join(own[key]) or 'not said'})" for key, models in protocols.items())


def _notes(columns: Sequence[Column], untold: Sequence[str], manifest: RunSummary) -> list[str]:
    notes: list[str] = []
    for column in columns:
        title = column.question.title
        notes += [f"{title}, {score.model}: no number, {score.note}." for score in column.question.scores if score.note]
        protocols: dict[str, list[str]] = {}
        for score in column.question.scores:
            if not math.isnan(score.value):
                protocols.setdefault(score.protocol, []).append(score.model)
        if len(protocols) > 1:
            notes.append(f"{column.question.title}: not ranked together, as measured otherwise: {_apart(protocols)}.")
    notes += [f"{name} is shown as of its last run and has no column: name its code to profile it." for name in untold]
    if manifest.limited:
        notes.append("Limited run: the numbers are of a part of the images.")
    if untrained := [model.name for model in manifest.models if model.untrained]:
        notes.append(f"Random weights: {', '.join(untrained)}.")
    notes += [model.doubt_in_words for model in manifest.models if model.doubt]
    if any(column.neighbours for column in columns):
        notes.append("Numbers of the paper have no interval and no rank; those read off a figure are less exact.")
        if manifest.limited or manifest.images_used < manifest.data.published_images:
            notes.append("The paper's numbers are for the whole set, this run used a part of it.")
    return notes


def _neighbours(
    name: str, question: Question, tables: Tables, manifest: RunSummary, experiments: Mapping[str, Any]
) -> tuple[Neighbour, ...]:
    """Return the paper's networks by the number of a question, where they were measured as the run was.

    A number that is made of several levels is made of the paper's at the very same levels, and of the network's clean
    accuracy; where one of them is missing there is none.
    """
    if not question.measure or not question.scores:
        return ()
    chances = {score.protocol.rpartition("guessing gives ")[2] for score in question.scores}
    found: dict[tuple[str, str], dict[Any, float]] = {}
    single: dict[tuple[str, str], float] = {}
    for number in paper_numbers():
        cell = next(
            (cell for cell in number.cells if cell.experiment == name and cell.measure == question.measure), None
        )
        if (
            cell is None
            or number.untrained
            or cell.along
            or not _fits(number, cell, question, tables, manifest, experiments)
        ):
            continue
        key = (number.title, number.where)
        if question.at:
            level = cell.conditions.get(question.level, number.drawn.get(question.level))
            found.setdefault(key, {})[level] = float(number.value)
        elif number.what.count(",") == 0 or question.key == "clean":
            single.setdefault(key, float(number.value))
    if not question.at:
        factor = 100.0 if question.measure == "shape_bias" else 1.0
        return tuple(Neighbour(title, factor * value, where) for (title, where), value in single.items())
    chance = 0.1 if chances == {"0.10 %"} else None
    if chance is None:  # the paper's networks choose among 1,000 answers
        return ()
    near: list[Neighbour] = []
    for (title, where), values in found.items():
        clean = _at(values, question.clean_level)
        parts = {level: _at(values, level) for level in question.at}
        if clean is None or any(value is None for value in parts.values()) or clean <= chance:
            continue
        mean = sum(weight * (parts[level] or 0.0) for level, weight in question.at.items())
        near.append(Neighbour(title, 100 * (mean - chance) / (clean - chance), where))
    return tuple(near)


def _fits(
    number: PaperNumber,
    cell: Any,
    question: Question,
    tables: Tables,
    manifest: RunSummary,
    experiments: Mapping[str, Any],
) -> bool:
    """Tell whether a number of the paper was measured as the run's: data, protocol, and the kind of perturbation."""
    if other_data(manifest, number.data)(cell.experiment):
        return False
    table = tables.get(cell.experiment, {}).get(cell.table or cell.experiment)
    if table is None:
        return False
    try:
        check_protocol(cell, table.columns, experiments.get(cell.experiment))
    except NotComparableError:
        return False
    asked = {**number.drawn, **cell.conditions}
    return all(asked[key] == value for key, value in question.place.items() if key in asked)


def _at(values: Mapping[Any, float], level: Any) -> float | None:
    """Return the value at a level, numbers compared as numbers."""
    for known, value in values.items():
        if known == level:
            return value
        if (
            isinstance(known, int | float)
            and isinstance(level, int | float)
            and math.isclose(known, level, abs_tol=1e-6)
        ):
            return value
    return None


def _cell(column: Column, model: str) -> tuple[str, str, str]:
    score = column.score(model)
    if score is None:
        return ("", "", "")
    if is_missing(score.value):
        return ("–", "", "")
    digits = column.question.digits
    return f"{score.value:z.{digits}f}", interval(score.low, score.high, digits), column.rank(model)


def _plain(found: Comparison) -> dict[str, Any]:
    test = found.tested
    return {
        "model_a": found.model_a,
        "model_b": found.model_b,
        "difference": json_number(test.difference),
        "difference_low": json_number(test.low),
        "difference_high": json_number(test.high),
        "p": json_number(test.p),
        "p_holm": json_number(found.p_holm),
    }
