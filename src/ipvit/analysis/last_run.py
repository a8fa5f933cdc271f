"""What an experiment's own code made of its records, kept as plain data for readers who do not run that code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, model_validator

from ipvit.analysis.inert_charts import inert_chart

Kind = Literal["text", "whole", "number", "flag"]

_TYPES: dict[Kind, Any] = {"text": pl.String, "whole": pl.Int64, "number": pl.Float64, "flag": pl.Boolean}


class StoredTable(BaseModel, frozen=True):
    """A table: the kinds of its columns by name, and its rows."""

    model_config = ConfigDict(strict=True, ser_json_inf_nan="constants")

    columns: dict[str, Kind]
    rows: list[list[str | int | float | bool | None]]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has not as many values as there are columns")
        self.frame()
        return self

    @classmethod
    def of(cls, frame: pl.DataFrame) -> StoredTable:
        """Return a table of polars; what is no number is kept as text, and what has no text is left out."""
        columns: dict[str, Kind] = {}
        for name, dtype in frame.schema.items():
            if dtype == pl.Boolean:
                columns[name] = "flag"
            elif dtype.is_numeric():
                columns[name] = "whole" if dtype.is_integer() else "number"
            elif not (dtype.is_nested() or dtype == pl.Binary or dtype == pl.Object):
                columns[name] = "text"
        plain = frame.select(pl.col(name).cast(_TYPES[kind]) for name, kind in columns.items())
        return cls(columns=columns, rows=[list(row) for row in plain.rows()])

    def frame(self) -> pl.DataFrame:
        """Return the table as polars has it."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        found = zip(self.columns.items(), columns, strict=True)
        try:
            return pl.DataFrame(
                [pl.Series(name, list(column), dtype=_TYPES[kind], strict=True) for (name, kind), column in found]
            )
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"a column has values of another kind: {error}") from None


class LastRun(BaseModel, frozen=True):
    """Tables, sentences and charts of one experiment as its own code made them when it was last run."""

    model_config = ConfigDict(use_attribute_docstrings=True, ser_json_inf_nan="constants")

    name: str
    """Of the experiment."""
    finished: str
    """When that run ended: date and time, ISO 8601, UTC."""
    tables: dict[str, StoredTable]
    """The main one first; each is called as the experiment, or that and ``-`` and something."""
    differences: StoredTable | None = None
    """Between models."""
    notes: list[str] = []
    """What a reader must know."""
    summary: list[str] = []
    """What the numbers show."""
    answers: dict[str, str] = {}
    """What is said of each model."""
    lead: str = ""
    """The sentence that answers the question for each model."""
    figures: dict[str, dict[str, Any]] = {}
    """Vega-Lite specifications by name, as they were drawn."""

    @model_validator(mode="after")
    def _names_are_its_own(self) -> Self:
        for name in (*self.tables, *self.figures):
            if name != self.name and not name.startswith(f"{self.name}-"):
                raise ValueError(f"{name!r} is no table or figure of {self.name!r}")
        return self

    @classmethod
    def of(
        cls,
        name: str,
        finished: str,
        tables: Mapping[str, pl.DataFrame],
        differences: pl.DataFrame | None,
        figures: Mapping[str, Any],
        *,
        notes: Sequence[str],
        summary: Sequence[str],
        answers: Mapping[str, str],
        lead: str = "",
    ) -> LastRun:
        """Return what is kept of an experiment's tables and of what is made of them."""
        return cls(
            name=name,
            finished=finished,
            tables={key: StoredTable.of(table) for key, table in tables.items()},
            differences=None if differences is None else StoredTable.of(differences),
            notes=list(notes),
            summary=list(summary),
            answers=dict(answers),
            lead=lead,
            figures={key: figure.to_dict() for key, figure in figures.items()},
        )

    def charts(self) -> tuple[dict[str, Any], list[str]]:
        """Return the charts that load and evaluate nothing, and say which are left out."""
        import altair as alt

        drawn: dict[str, Any] = {}
        left_out: list[str] = []
        for name, specification in self.figures.items():
            try:
                drawn[name] = alt.Chart.from_dict(inert_chart(specification))
            except Exception as error:  # noqa: BLE001 - a specification of anybody's
                reason = str(error) if type(error) is ValueError else "it is no chart that can be read"
                left_out.append(f"The figure {name} of its last run is not drawn: {reason}.")
        return drawn, left_out
