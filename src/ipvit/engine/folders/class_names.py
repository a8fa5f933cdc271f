"""What the numbers of answers in records are called: kept once for each network, beside the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from ipvit.core.files import path_component, write_atomic
from ipvit.engine.store import RECORDS
from ipvit.engine.types import Task

FILE = "class-names.json"
NAMED = {"label": "label_name", "prediction": "prediction_name"}
"""Columns that hold the number of an answer, and the column of its name."""


class ClassNames(BaseModel, frozen=True):
    """The names of the answers that networks choose among in one experiment."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    lists: list[list[str | None]] = []
    """The names in the order of the answers' numbers; None for an answer that nobody has named."""
    networks: dict[str, int] = {}
    """By a network's digest and ``all`` or ``data``, among which it chose: the place of its names in ``lists``."""

    def of(self, weights: str, answers: str) -> list[str | None] | None:
        """Return the names of a network's answers, or None where they are not known."""
        place = self.networks.get(f"{weights} {answers}")
        return self.lists[place] if place is not None and place < len(self.lists) else None


def keep_class_names(root: Path, experiment: str, tasks: Sequence[Task]) -> None:
    """Keep the names of the answers of an experiment's networks; those that were kept before stay."""
    earlier = read_class_names(root, experiment)
    lists, networks = list(earlier.lists), dict(earlier.networks)
    for task in tasks:
        names = _names(task) if task.experiment.name == experiment else None
        if names is not None:
            if names not in lists:
                lists.append(names)
            networks[f"{task.identity.weights} {task.identity.answers}"] = lists.index(names)
    found = ClassNames(lists=lists, networks=networks)
    if found != earlier:
        write_atomic(_path(root, experiment), found.model_dump_json().encode())


def read_class_names(root: Path, experiment: str) -> ClassNames:
    """Return what was kept of an experiment; nothing where there is nothing that can be read."""
    try:
        return ClassNames.model_validate_json(_path(root, experiment).read_bytes())
    except (OSError, ValidationError):
        return ClassNames()


def with_names(records: pl.DataFrame, names: Sequence[str | None] | None) -> pl.DataFrame:
    """Return records with the name of the answer after each column that holds the number of one.

    Args:
        records: of one network.
        names: of its answers in their order; None where nobody knows.
    """
    for column, named in NAMED.items():
        if column not in records.columns or not records.schema[column].is_integer() or named in records.columns:
            continue
        known = pl.DataFrame(
            {column: range(len(names or ())), named: list(names or ())},
            schema={column: records.schema[column], named: pl.String},
        )
        found = records.select(column).join(known, on=column, how="left", maintain_order="left")[named]
        records = records.insert_column(records.columns.index(column) + 1, found)
    return records


def _names(task: Task) -> list[str | None] | None:
    """Return the names of a task's answers: the network's own, else those of the data's classes that it answers."""
    count, _ = task.among
    if not count:
        return None
    own = task.measurement.classes(task.model)
    if own is not None:
        return list(own)
    names: list[str | None] = [None] * count
    if task.classes is not None and task.classes.ndim == 1:
        for name, answer in zip(task.items.classes or (), task.classes.tolist(), strict=False):
            if 0 <= answer < count:
                names[answer] = name
    return names


def _path(root: Path, experiment: str) -> Path:
    return root / RECORDS / path_component(experiment) / FILE
