"""Whether assertions hold of a run, and what decided."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.perturbed import RETAINED
from ipvit.analysis.sentences import interval, is_missing
from ipvit.core.manifest import RunSummary
from ipvit.errors import InputError, did_you_mean, shown
from ipvit.results import Run
from ipvit.run_collection import RunCollection
from ipvit.verdicts.checking import (
    better_of,
    check_reference,
    experiment_of,
    is_relative,
    paired_prefix,
    refuse_neither,
)
from ipvit.verdicts.difference import Diff, compared_sides
from ipvit.verdicts.grammar import PROFILE, Assertion, Bound, NoWorse, Quantity, Within
from ipvit.verdicts.sides import Side, networks_of, side

_MOST_ROWS = 10  # that are told of one assertion


@dataclasses.dataclass(frozen=True)
class Decided:
    """An assertion, whether it holds, and by what.

    Attributes:
        assertion: what was asserted.
        holds: whether it does, of all rows.
        why: what decided, in a sentence.
        rows: the rows that it does not hold of, in words.
    """

    assertion: Assertion
    holds: bool
    why: str
    rows: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"assertion": self.assertion.text, "holds": self.holds, "why": self.why, "rows": list(self.rows)}


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row that is asserted of: what it is called, its number with its interval, and whether it has one at all."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    exact: bool = False


def decide(
    assertions: Sequence[Assertion], results: Run | RunCollection, references: Mapping[str, Side] | None = None
) -> list[Decided]:
    """Return whether assertions hold of what was measured.

    Args:
        assertions: what is asserted.
        results: what was measured.
        references: runs that are compared with, by the text that names them; opened here by default.

    Raises:
        InputError: a name is none of the results', or a run cannot be compared with; says which.
    """
    opened = dict(references or {})
    found: list[Decided] = []
    for assertion in assertions:
        try:
            found.append(_decided(assertion, results, opened))
        except InputError as error:
            raise InputError(f"--assert {shown(assertion.text, 120)}: {error}") from None
    return found


def _decided(assertion: Assertion, results: Run | RunCollection, opened: dict[str, Side]) -> Decided:
    if not results.manifest.finished_well:
        return Decided(assertion, False, "the run is not finished")
    if missing := _failed(assertion, results.manifest, list(results.analyses)):
        return Decided(assertion, False, missing)
    if is_relative(assertion):
        if isinstance(results, RunCollection):
            raise InputError(f"{str(results.out)!r} holds several runs; give one of them to compare with another run")
        if assertion.reference not in opened:
            opened[assertion.reference] = side(assertion.reference)
        reference = opened[assertion.reference]
        check_reference(assertion, results.analyses, reference)
        return _of_differences(assertion, results, reference)
    return _of_values(assertion, results)


def _failed(assertion: Assertion, manifest: RunSummary, names: Sequence[str]) -> str:
    """Say which part failed that rows of an assertion are of; empty where none did."""
    measured = list(dict.fromkeys([*names, *(failure.experiment for failure in manifest.failures)]))
    name, where = experiment_of(assertion, measured), dict(assertion.quantity.where)
    for failure in manifest.failures:
        if name and failure.experiment != name:
            continue
        if where.get("model", failure.model) not in (failure.model, failure.model.partition(" (")[0]):
            continue
        if not failure.condition or any(_may_be(part, where) for part in failure.condition.split("; ")):
            what = f" ({failure.condition})" if failure.condition else ""
            return f"{failure.experiment}{what} failed on {failure.model}: {failure.error}"
    return ""


def _may_be(condition: str, where: Mapping[str, str]) -> bool:
    """Tell whether a condition, in the manifest's words, may be one of the rows that are meant."""
    stated = dict(part.split("=", 1) for part in condition.split() if "=" in part)
    return all(column not in stated or _same(stated[column], value) for column, value in where.items())


def _of_values(assertion: Assertion, results: Run | RunCollection) -> Decided:
    quantity = assertion.quantity
    rows = _profile_rows(quantity, results) if quantity.table == PROFILE else _table_rows(quantity, results)
    claim = assertion.claim
    assert isinstance(claim, Bound)
    upward = claim.sign in (">=", ">")

    def margin(row: _Row) -> float:
        """How far the end that decides lies on the right side of the number."""
        end = row.value if row.exact else (row.low if upward else row.high)
        if is_missing(row.value) or end is None or is_missing(end):
            return -math.inf
        return (end - claim.number) * (1 if upward else -1)

    strict = claim.sign in (">", "<")
    end = (
        "no interval, the value itself counts"
        if rows and rows[0].exact
        else (f"the {'lower' if upward else 'upper'} end of the 95 % interval counts")
    )
    return _told(assertion, rows, [margin(row) for row in rows], end, strict=strict)


def _of_differences(assertion: Assertion, results: Run, reference: Side) -> Decided:
    claim, quantity = assertion.claim, assertion.quantity
    assert isinstance(claim, NoWorse | Within)
    name = experiment_of(assertion, results.analyses)
    rows: list[_Row] = []
    better = "" if quantity.table == PROFILE or not name else better_of(results.analyses[name])
    for found in _diffs(quantity, results, reference, name):
        if quantity.table == PROFILE:
            of_question = found.profile.filter(pl.col("question") == quantity.measure) if found.profile.height else None
            if of_question is None or not of_question.height:
                known = found.profile["question"].unique(maintain_order=True).to_list() if found.profile.height else []
                raise InputError(
                    f"the profiles have no common question {shown(quantity.measure)}; there are: {', '.join(known)}."
                    f"{did_you_mean(quantity.measure, known)}"
                )
            better = of_question["better"][0]
            rows += [_difference_row(row, "", [], quantity.measure) for row in of_question.to_dicts()]
            continue
        prefix = paired_prefix(results.analyses[name], quantity.table, quantity.measure)
        assert prefix is not None
        if name not in found.tables:
            raise InputError("; ".join(found.refused.values()) or f"{name} could not be compared")
        places = found.tables[name].columns[: found.tables[name].columns.index("model_a")]
        where = [one for one in quantity.where if one[0] != "model"]
        chosen = _matching(found.tables[name].to_dicts(), where, places, {}, name)
        places = [place for place in places if found.tables[name][place].n_unique() > 1]
        chosen = [row for row in chosen if not prefix or row.get(f"{prefix}difference") is not None] or chosen
        rows += [_difference_row(row, prefix, places, quantity.measure) for row in chosen]
    margin = claim.margin
    if isinstance(claim, NoWorse):
        refuse_neither(better, str(quantity))
        lower = better == "lower"
        margins = [(-_end(row.high) if lower else _end(row.low)) + margin for row in rows]
        end = "upper" if lower else "lower"
        counts = f"the {end} end of the paired 95 % interval counts, against {margin if lower else -margin:g}"
        return _told(assertion, rows, margins, counts, strict=True)
    margins = [margin - max(-_end(row.low), _end(row.high, -1)) for row in rows]
    return _told(assertion, rows, margins, f"the whole paired 95 % interval counts, against ±{margin:g}", strict=False)


def _end(value: float | None, sign: int = 1) -> float:
    """Return an end of an interval; where there is none, one that decides against the assertion."""
    return -sign * math.inf if value is None or is_missing(value) else value


def _diffs(quantity: Quantity, results: Run, reference: Side, name: str) -> list[Diff]:
    """Compare the models that are meant with their counterparts in the other run."""
    networks = networks_of(results)
    wanted = dict(quantity.where).get("model")
    if wanted is not None:
        networks = {weights: label for weights, label in networks.items() if _is_model(wanted, label)}
        if not networks:
            known = list(networks_of(results).values())
            raise InputError(f"there is no model {shown(wanted)}; there are: {', '.join(known)}")
    names = [name] if name else None
    ours = [Side(str(results.out), results, {weights: label}) for weights, label in networks.items()]
    if reference.chosen or len(reference.networks) == len(ours) == 1:
        return [compared_sides(reference, one, names) for one in ours]
    return [compared_sides(reference, Side(str(results.out), results, networks, chosen=True), names)]


def _difference_row(row: Mapping[str, Any], prefix: str, places: Sequence[str], measure: str) -> _Row:
    named = [f"{name.replace('_', ' ')} {row[name]}" for name in places if row[name] not in (None, "")]
    value, low, high = (row.get(f"{prefix}difference{end}") for end in ("", "_low", "_high"))
    return _Row(", ".join([f"{row['model_b']} less {row['model_a']}", *named]) + f": {measure}", value, low, high)


def _table_rows(quantity: Quantity, results: Run | RunCollection) -> list[_Row]:
    table = results.tables[quantity.table]
    measure = quantity.measure
    if measure not in table.columns or not table.schema[measure].is_numeric():
        known = [name for name in table.columns if table.schema[name].is_numeric()]
        raise InputError(
            f"{quantity.table} has no measure {shown(measure)}; there are: {', '.join(known)}."
            f"{did_you_mean(measure, known)}"
        )
    exact = f"{measure}_low" not in table.columns
    first = min(table.columns.index(name) for name in table.columns if name == measure or name == "n_images")
    places = [name for name in table.columns[:first] if name != "model" and table[name].n_unique() > 1]
    constant = _constants(quantity, results)
    rows = _matching(table.to_dicts(), quantity.where, table.columns, constant, quantity.table)
    return [
        _Row(
            ", ".join([str(row.get("model", quantity.table)), *_named(row, places)]),
            row[measure],
            row.get(f"{measure}_low"),
            row.get(f"{measure}_high"),
            exact or (measure == RETAINED and row[measure] == 100 and row[f"{measure}_low"] is None),
        )
        for row in rows
    ]


def _named(row: Mapping[str, Any], places: Sequence[str]) -> list[str]:
    return [f"{name.replace('_', ' ')} {row[name]}" for name in places if row[name] not in (None, "")]


def _constants(quantity: Quantity, results: Run | RunCollection) -> dict[str, Any]:
    """Return the fields of conditions that all rows have in common, so that the table has no column of them."""
    missing = [column for column, _ in quantity.where if column not in results.tables[quantity.table].columns]
    if not missing or isinstance(results, RunCollection):
        return {}
    name = max((one for one in results.analyses if quantity.table.startswith(one)), key=len, default="")
    found: dict[str, set[Any]] = {}
    for weights in results.models_of(name) if name else ():
        conditions = results.conditions_of(name, weights)
        for column in conditions.columns:
            found.setdefault(column, set()).update(conditions[column].to_list())
    return {column: next(iter(values)) for column, values in found.items() if len(values) == 1}


def _profile_rows(quantity: Quantity, results: Run | RunCollection) -> list[_Row]:
    asked = results.profile
    columns = {} if asked is None else {column.question.key: column for column in asked.columns}
    if quantity.measure not in columns:
        raise InputError(
            f"the profile has no question {shown(quantity.measure)}; there are: {', '.join(columns) or 'none'}."
            f"{did_you_mean(quantity.measure, columns)}"
        )
    scores = [dataclasses.asdict(s) for s in columns[quantity.measure].question.scores]
    rows = _matching(scores, quantity.where, ["model"], {}, "the profile")
    return [_Row(row["model"], row["value"], row["low"], row["high"]) for row in rows]


def _matching(
    rows: Sequence[Mapping[str, Any]],
    where: Sequence[tuple[str, str]],
    columns: Sequence[str],
    constant: Mapping[str, Any],
    table: str,
) -> list[Mapping[str, Any]]:
    """Return the rows with the values that are asked for.

    Raises:
        InputError: there is no such column, or no such row.
    """
    found = list(rows)
    for column, value in where:
        if column not in columns and column not in constant:
            known = [name for name in columns if not name.endswith(("_low", "_high", "_std"))]
            raise InputError(
                f"{table} has no column {shown(column)}; there are: {', '.join(known)}.{did_you_mean(column, known)}"
            )
        compare = _is_model if column == "model" else _same
        kept = [row for row in found if compare(value, row.get(column, constant.get(column)))]
        if not kept:
            there = list(dict.fromkeys(str(row.get(column, constant.get(column))) for row in found))
            raise InputError(
                f"no row of {table} has {column}={value}; there are: {', '.join(there[:12])}"
                f"{' ...' if len(there) > 12 else ''}.{did_you_mean(value, there)}"
            )
        found = kept
    if not found:
        raise InputError(f"{table} has no rows")
    return found


def _same(text: str, value: Any) -> bool:
    """Tell whether a value is what was written: numbers as numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() == text.lower() if isinstance(value, bool) else str(value or "") == text
    try:
        return math.isclose(float(text), value, rel_tol=1e-6, abs_tol=1e-9)
    except ValueError:
        return False


def _is_model(text: str, value: Any) -> bool:
    return text in (str(value), str(value).partition(" (")[0])


def _told(
    assertion: Assertion, rows: Sequence[_Row], margins: Sequence[float], counts: str, *, strict: bool
) -> Decided:
    """Return the decision: every row must hold, and the one nearest to not holding is told."""
    holding = [margin > 0 if strict else margin >= 0 for margin in margins]
    failing = [row for row, held in zip(rows, holding, strict=True) if not held]
    nearest = rows[min(range(len(rows)), key=lambda number: margins[number])]
    of = f", nearest of {len(rows)} rows" if len(rows) > 1 else ""
    why = f"{_said(nearest)} ({counts}{of if not failing else ''})"
    if len(failing) > 1:
        why += f"; {len(failing)} of {len(rows)} rows do not hold"
    more = [f"and {len(failing) - _MOST_ROWS} more rows"] if len(failing) > _MOST_ROWS else []
    return Decided(assertion, not failing, why, (*map(_said, failing[:_MOST_ROWS]), *more))


def _said(row: _Row) -> str:
    if row.value is None or is_missing(row.value):
        return f"{row.name} has no value"
    ends = interval(row.low, row.high, 2)
    return f"{row.name} {row.value:z.2f} {ends or ('' if row.exact else '(no interval)')}".strip()
