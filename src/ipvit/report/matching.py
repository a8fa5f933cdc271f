"""Finds our counterpart of a number of the paper in the tables of a run, or says why there is none."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.paper_numbers import LAST, PaperNumber, SetNamed, TableCell
from ipvit.analysis.verdicts import NotComparableError

Tables = Mapping[str, Mapping[str, pl.DataFrame]]


@dataclasses.dataclass(frozen=True)
class Found:
    """A number of ours."""

    model: str
    value: float
    low: float | None
    high: float | None
    n_images: int | None
    experiment: str


def counterpart(
    number: PaperNumber,
    tables: Tables,
    names: Sequence[str],
    experiments: Mapping[str, Any],
    other_data: Callable[[str], str] = lambda _experiment: "",
) -> tuple[Found | None, str]:
    """Return our counterpart of a number, or None and why what there is does not count.

    Args:
        number: of the paper.
        tables: of a run, by experiment and by name.
        names: of the run's models that are the number's network.
        experiments: of the run, by name.
        other_data: by experiment, why its data are not the paper's; empty where they are.

    Returns:
        What the first cell that can be read holds, and the reasons, empty where the run has nothing to refuse.
    """
    reasons: dict[str, None] = {}
    for cell in number.cells:
        table = tables.get(cell.experiment, {}).get(_name(cell))
        if table is None:
            continue
        for model in table["model"].unique(maintain_order=True).to_list() if cell.any_network else names:
            try:
                if refusal := other_data(cell.experiment):
                    raise NotComparableError(refusal)
                check_protocol(cell, table.columns, experiments.get(cell.experiment))
                found = _look_up(cell, table.filter(pl.col("model") == model))
            except NotComparableError as refusal:
                reasons[str(refusal)] = None
                continue
            if found is not None:
                return found, ""
    return None, "; ".join(reasons)


def check_protocol(cell: TableCell, columns: Sequence[str], experiment: Any) -> None:
    """Compare how an experiment was run with what the paper did.

    Args:
        cell: where the number stands.
        columns: of its table: what a column tells is looked up in the rows.
        experiment: with its parameters; None where nothing is known of them.

    Raises:
        NotComparableError: a condition is told neither by a column nor by a parameter, or a parameter has another value
            than the paper's.
    """
    if cell.measure not in columns:
        raise NotComparableError(f"the table {_name(cell)} has no column {cell.measure}")
    parameters = {} if experiment is None else type(experiment).model_fields
    told = set(cell.free if cell.free is not None else parameters)
    for name, asked in cell.implied.items():
        told |= asked.keys()
        for parameter, wanted in asked.items() if name not in columns else ():
            _check_parameter(cell, parameter, wanted, experiment)
    for name, wanted in {**cell.conditions, **cell.settings}.items():
        if wanted == LAST:
            _check_last(cell, experiment)
        elif name in columns:
            told.add(name)
        elif name in parameters:
            _check_parameter(cell, name, wanted, experiment)
        elif name not in cell.implied:
            raise NotComparableError(
                f"neither a column of the table {_name(cell)} nor a parameter of {cell.experiment} says which {name} "
                f"it is, the paper's is {wanted}"
            )
    for name in parameters.keys() - told - cell.conditions.keys() - cell.settings.keys():
        _check_parameter(cell, name, parameters[name].get_default(call_default_factory=True), experiment)


def measured_alike(
    cell: TableCell, tables: Tables, names: Sequence[str], experiment: Any, besides: Collection[str]
) -> bool:
    """Tell whether a table holds numbers that were measured as a number of the paper, at whatever place.

    Args:
        cell: where our counterpart of the number would stand.
        tables: of a run, by experiment and by name.
        names: models that are the number's network.
        experiment: with its parameters.
        besides: columns that say at which place it is, such as the level.
    """
    table = tables.get(cell.experiment, {}).get(_name(cell))
    if table is None:
        return False
    try:
        check_protocol(cell, table.columns, experiment)
    except NotComparableError:
        return False
    rows = table.filter(pl.col("model").is_in(names))
    for name, wanted in {**cell.settings, **cell.conditions}.items():
        if (
            name in rows.columns
            and name not in besides
            and wanted != LAST
            and not (cell.along and name == cell.along[0])
        ):
            rows = rows.filter(_is(name, rows.schema[name], wanted))
    return not rows.is_empty()


def _name(cell: TableCell) -> str:
    return cell.table or cell.experiment


def _check_parameter(cell: TableCell, name: str, wanted: Any, experiment: Any) -> None:
    ours = getattr(experiment, name, None)
    if not _same(ours, wanted):
        raise NotComparableError(
            f"{cell.experiment} was run with {name} {_written(ours)}, the paper's is {_written(wanted)}"
        )


def _check_last(cell: TableCell, experiment: Any) -> None:
    blocks = getattr(experiment, "blocks", (-1,))
    if blocks and -1 not in blocks:
        raise NotComparableError(
            f"{cell.experiment} was run with blocks {_written(blocks)}, the paper's is the last one"
        )


def _written(value: Any) -> str:
    """Write a parameter's value for people."""
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value) or "by default"
    return "none" if value in (None, "") else str(value)


def _same(ours: Any, wanted: Any) -> bool:
    if isinstance(wanted, SetNamed):
        return isinstance(ours, str) and ours.partition(":")[0] == wanted.scheme
    if isinstance(ours, float) and isinstance(wanted, int | float):
        return math.isclose(ours, wanted, abs_tol=1e-6)
    return ours.partition("@")[0] == wanted if isinstance(ours, str) else ours == wanted


def _look_up(cell: TableCell, rows: pl.DataFrame) -> Found | None:
    """Return the number of a cell among the rows of one model, where all rows that fit say the same."""
    wanted = {**cell.settings, **cell.conditions}  # what has a column is written as there
    for name in sorted(wanted, key=lambda name: name in cell.settings):
        if name not in rows.columns:
            continue
        if wanted[name] == LAST:
            rows = rows.filter(pl.col(name) == pl.col(name).max())
            continue
        left = rows.filter(_is(name, rows.schema[name], wanted[name]))
        if name in cell.settings and left.is_empty() and not rows.is_empty():
            raise NotComparableError(
                f"the table {_name(cell)} has other values of {name} than the paper's, {wanted[name]}"
            )
        rows = left
    if cell.along is not None:
        return _between(cell, rows, *cell.along)
    rows = rows.unique(_told(cell, rows), keep="first", maintain_order=True)
    if rows.height > 1:
        raise NotComparableError(f"{rows.height} rows of the table {_name(cell)} fit, and differ")
    if rows.is_empty() or rows[cell.measure][0] is None:
        return None
    return _found(cell, rows.row(0, named=True))


def _is(name: str, kind: pl.DataType, wanted: Any) -> pl.Expr:
    """Tell the rows whose column has the value; none where the column is of another kind."""
    column = pl.col(name)
    if isinstance(wanted, str):
        return column.cast(pl.String) == wanted
    if not kind.is_numeric() and kind != pl.Boolean:
        return pl.lit(False)
    return (column - wanted).abs() < 1e-6 if isinstance(wanted, float) else column == wanted


def _told(cell: TableCell, rows: pl.DataFrame) -> list[str]:
    """Return the columns in which rows must agree that tell the same number."""
    names = (cell.measure, f"{cell.measure}_low", f"{cell.measure}_high", "n_images", "n_episodes")
    return [name for name in names if name in rows.columns]


def _between(cell: TableCell, rows: pl.DataFrame, column: str, at: float) -> Found | None:
    """Interpolate between the two rows on either side; nothing outside them."""
    ordered = rows.unique([column, *_told(cell, rows)], maintain_order=True).sort(column).to_dicts()
    if any(a[column] == b[column] for a, b in itertools.pairwise(ordered)):
        raise NotComparableError(f"several curves of the table {_name(cell)} fit")
    for left, right in itertools.pairwise(ordered):
        if left[column] - 1e-9 <= at <= right[column] + 1e-9:
            share = (at - left[column]) / (right[column] - left[column])
            mixed = dict(left)
            for name in (f"{cell.measure}{end}" for end in ("", "_low", "_high")):
                if left.get(name) is not None and right.get(name) is not None:
                    mixed[name] = (1 - share) * left[name] + share * right[name]
            return _found(cell, mixed)
    return None


def _found(cell: TableCell, row: Mapping[str, Any]) -> Found:
    measure = cell.measure
    n_images = row.get("n_images", row.get("n_episodes"))
    low, high = row.get(f"{measure}_low"), row.get(f"{measure}_high")
    return Found(row["model"], row[measure], low, high, n_images, cell.experiment)
