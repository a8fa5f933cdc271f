"""From what was measured on a batch to rows of records: one frame for all conditions that have the same columns."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.experiments.base import Condition

Measured = Sequence[tuple[Condition, Mapping[str, np.ndarray]]]
"""Per condition one value an image in each column."""


class RowMaker:
    """Makes rows; what is the same for all rows of a condition is put into columns once and kept."""

    def __init__(self) -> None:
        self._fixed: dict[tuple[object, ...], pl.DataFrame] = {}

    def frames(self, identity: Any, model_name: str, ids: Sequence[str], measured: Measured) -> Iterator[pl.DataFrame]:
        """Yield the rows of a batch, condition after condition.

        Args:
            identity: a dataclass whose fields are columns.
            model_name: of the network.
            ids: of the images.
            measured: on them.

        Raises:
            polars.exceptions.PolarsError: a column cannot stand in a table.
        """
        image = pl.Series("image", ids, dtype=pl.String)
        for _, alike in itertools.groupby(measured, key=_look):
            group = list(alike)
            fixed = self._of_conditions(identity, model_name, [condition for condition, _ in group])
            names = group[0][1]
            whole = column_frame({name: np.concatenate([columns[name] for _, columns in group]) for name in names})
            whole = whole.insert_column(0, pl.concat([image] * len(group)))
            # what is fixed stands for itself, whatever was measured under its name
            yield whole.with_columns(fixed[np.repeat(np.arange(len(group)), len(ids))].get_columns())

    def _of_conditions(self, identity: Any, model_name: str, conditions: Sequence[Condition]) -> pl.DataFrame:
        """Return the columns of conditions that are the same for all images, one row each."""
        key = (identity, model_name, *(condition.key for condition in conditions))
        if key not in self._fixed:
            rows = [
                pl.select(
                    pl.lit(value).alias(name)
                    for name, value in {
                        **dataclasses.asdict(condition),
                        "condition": condition.key,
                        "model": model_name,
                        **dataclasses.asdict(identity),
                    }.items()
                )
                for condition in conditions
            ]
            self._fixed[key] = pl.concat(rows, how="vertical_relaxed")
        return self._fixed[key]


def _look(entry: tuple[Condition, Mapping[str, np.ndarray]]) -> tuple[object, ...]:
    """Return what must be the same of conditions whose rows are made together."""
    condition, columns = entry
    kinds = [("U" if values.dtype.kind == "U" else values.dtype, values.shape[1:]) for values in columns.values()]
    return type(condition), *columns, *kinds


def column_frame(columns: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """Return measured columns as a frame; float64 is narrowed to float32, which the measures do not exceed."""
    narrowed = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in columns.items()
    }
    return pl.DataFrame(narrowed)
