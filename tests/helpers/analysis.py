"""Analyses of records that are all there at once, and a chart of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

import ipvit
from ipvit.analysis.aggregate import paired_differences
from ipvit.analysis.reduction import values_of

BAR: dict[str, Any] = {
    "mark": "bar",
    "encoding": {"x": {"field": "a", "type": "nominal"}},
    "data": {"values": [{"a": "b"}]},
}
"""A chart as it is kept, whose values stand in it."""


def tables_of(experiment: ipvit.Experiment, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the tables of an experiment, from the records of all models."""
    analysis = experiment.analysis()
    return analysis.tables([analysis.reduce(part) for (_,), part in records.group_by(["model"], maintain_order=True)])


def differences(records: pl.DataFrame, by: Sequence[str], metric: str = "correct") -> pl.DataFrame | None:
    """Return the paired differences between all models of the records."""
    parts = records.group_by(["model"], maintain_order=True)
    found = {str(model): values_of(part, by, metric, proportions=metric == "correct") for (model,), part in parts}
    return paired_differences({model: values for model, values in found.items() if values is not None})
