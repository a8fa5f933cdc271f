"""Records that are written by hand, and what the analyses make of them: edge cases that no network gives on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

import ipvit
from ipvit.analysis.base import Analysis
from ipvit.analysis.profile import Ranked, ranked
from ipvit.report.findings import findings, headlines, unit_of

Cells = Mapping[str, Sequence[tuple[dict[str, Any], Sequence[bool | None]]]]
"""By model: conditions, and for each what is right of the images; None where an image was not measured."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What an analysis makes of records.

    Attributes:
        analysis: of the experiment.
        tables: with what is retained.
        differences: between the models, or None.
        profile: the questions with ranks.
    """

    analysis: Analysis
    tables: dict[str, pl.DataFrame]
    differences: pl.DataFrame | None
    profile: list[Ranked]

    @property
    def lead(self) -> str:
        """The sentence that answers the question."""
        return self.analysis.lead(self.tables)

    @property
    def said(self) -> list[str]:
        """All sentences: the answer, those on each model, and those on the differences."""
        unit = unit_of(self.analysis)
        more = (
            [] if self.differences is None else [*headlines(self.differences, unit), *findings(self.differences, unit)]
        )
        return [self.lead, *self.analysis.summary(self.tables), *more]

    @property
    def table(self) -> pl.DataFrame:
        """The main table."""
        return self.tables[self.analysis.name]


def made_of(
    experiment: ipvit.Experiment, cells: Cells, n_answers: int = 10, sizes: Mapping[str, int] | None = None
) -> Made:
    """Return what an experiment's analysis makes of records.

    Args:
        experiment: whose analysis it is.
        cells: the records.
        n_answers: how many answers there are; 0 where nobody knows.
        sizes: height and width of a model's input.
    """
    analysis = experiment.analysis()
    reductions = []
    for model, rows in cells.items():
        frame = pl.DataFrame(
            [
                {
                    "model": model,
                    "weights": model,
                    "image": f"i{number:03d}",
                    "label": 1,
                    "prediction": 1 if correct else 0,
                    "correct": correct,
                    "correct5": correct,
                    **condition,
                }
                for condition, answers in rows
                for number, correct in enumerate(answers)
                if correct is not None
            ],
            infer_schema_length=None,
        )
        size = (sizes or {}).get(model)
        found = analysis.reduce(frame)
        reductions.append(dataclasses.replace(found, n_answers=n_answers, size=None if size is None else (size, size)))
    tables = analysis.with_retained(analysis.tables(reductions), reductions)
    questions = [ranked(question) for question in analysis.questions(reductions, tables)]
    return Made(analysis, tables, analysis.differences(reductions), questions)


def right(n: int, of: int = 60) -> list[bool | None]:
    """Return answers of which the first few are right."""
    return [number < n for number in range(of)]


def corners(whole: Sequence[bool | None], **places: Sequence[bool | None]) -> list[tuple[dict[str, Any], Any]]:
    """Return conditions of the position experiment; ``top_left`` and so on."""
    found: list[tuple[dict[str, Any], Any]] = [({"place": "whole image", "scale": 1.0}, whole)]
    return found + [({"place": name.replace("_", "-"), "scale": 0.5}, answers) for name, answers in places.items()]


_OCCLUSION = {
    **{"run": 0, "grid": "4x4", "offset": "0,0", "fill": "black", "removal": "pixels", "nested": False},
    **{"mask_scope": "image", "salience": ""},
}


def occluded(mode: str = "random", share: float | None = None, /, **levels: Sequence[bool | None]) -> list[Any]:
    """Return conditions of the occlusion experiment; ``l50`` is an information loss of half."""
    found: list[Any] = []
    for name, answers in levels.items():
        level = int(name[1:]) / 100
        dropped = level if share is None or level == 0 else share
        found.append(({"mode": mode, "information_loss": level, "dropped": dropped, **_OCCLUSION}, answers))
    return found


def shuffled(whole: Sequence[bool | None], **grids: Sequence[bool | None]) -> list[Any]:
    """Return conditions of the shuffle experiment; ``g2x2`` is a grid."""
    found: list[Any] = [({"grid": "1x1", "cells": 1, "run": 0}, whole)]
    for name, answers in grids.items():
        rows, columns = (int(part) for part in name[1:].split("x"))
        found.append(({"grid": name[1:], "cells": rows * columns, "run": 0}, answers))
    return found


def corrupted(
    clean: Sequence[bool | None], made: str = "on the fly, JPEG 85", **cells: Sequence[bool | None]
) -> list[Any]:
    """Return conditions of the corruption experiment; ``fog_1`` is fog at severity 1."""
    common = {"made": made, "frost": "", "imagenet": False}
    found: list[Any] = [({"corruption": "clean", "severity": 0, **common}, clean)]
    for name, answers in cells.items():
        corruption, _, severity = name.rpartition("_")
        found.append(({"corruption": corruption, "severity": int(severity), **common}, answers))
    return found


def attacked(clean: Sequence[bool | None], **attacks: Sequence[bool | None]) -> list[Any]:
    """Return conditions of the attack experiment; ``fgsm_4`` is FGSM at an epsilon of 4."""
    common = {"steps": 0, "step_size": 0.0, "restarts": 0, "random_start": False, "area": 0.0, "source": ""}
    common |= {"shape": "", "placement": "", "grid": "", "scale": 0.0, "target": "", "training": "", "run": 0}
    common |= {"flat": False, "covered": None, "hit": None, "of_target": None, "trained_on": ""}
    found: list[Any] = [({"attack": "clean", "epsilon": 0.0, **common}, clean)]
    for name, answers in attacks.items():
        attack, _, epsilon = name.rpartition("_")
        found.append(({"attack": attack, "epsilon": float(epsilon), **common}, answers))
    return found
