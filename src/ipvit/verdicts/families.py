"""Kinds of networks side by side: the unit is the network, and not the image."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.analysis.profile import ALPHA, Question, Score
from ipvit.core.text.words import counted
from ipvit.errors import InputError, did_you_mean, shown
from ipvit.metrics.paired import holm
from ipvit.metrics.permutation import permutation_difference
from ipvit.report.tables.files import to_records
from ipvit.results import Run
from ipvit.verdicts.sides import networks_of, side

FEWEST = 3
"""Networks of each group below which nothing is said of groups."""

COLUMNS = {
    "question": pl.String,
    "title": pl.String,
    "unit": pl.String,
    "group_a": pl.String,
    "group_b": pl.String,
    "n_a": pl.Int64,
    "n_b": pl.Int64,
    "mean_a": pl.Float64,
    "mean_b": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "smallest_p": pl.Float64,
    "p_holm": pl.Float64,
    "note": pl.String,
}
"""Columns of :attr:`Families.table`."""


@dataclasses.dataclass(frozen=True)
class Families:
    """Groups of networks, compared by the numbers of the profile.

    Attributes:
        groups: names of the models of each group.
        table: one row a question and pair of groups: the means over networks, their difference (the first group less
            the second) with its 95 % interval over networks, the p-value of the permutation test, the smallest one
            that so many networks can give, and the p-value corrected by Holm for all rows. Interval and p-values are
            null where a group has fewer than three networks; an end is null too where so few networks exclude nothing.
        values: one row a network and question.
        told: what it rests on, in sentences.
    """

    groups: Mapping[str, tuple[str, ...]]
    table: pl.DataFrame
    values: pl.DataFrame
    told: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "groups": {name: list(models) for name, models in self.groups.items()},
            "unit": "network",
            "comparisons": to_records(self.table),
            "values": to_records(self.values),
            "verdicts": self.verdicts(),
            "told": list(self.told),
        }

    def verdicts(self) -> list[str]:
        """Return a sentence for each question in which two groups are told apart."""
        found: list[str] = []
        for row in self.table.to_dicts():
            if row["p_holm"] is None or not row["p_holm"] < ALPHA:
                continue
            first, second = ("a", "b") if row["difference"] > 0 else ("b", "a")
            digits = 1 if row["unit"] == "percent" else 3
            found.append(
                f"{row['title']}: {row[f'group_{first}']} lies above {row[f'group_{second}']} by "
                f"{abs(row['difference']):.{digits}f}{' points' if row['unit'] == 'percent' else ''}, p = "
                f"{row['p_holm']:.3f} over {row['n_a'] + row['n_b']} networks, corrected for {self.table.height} rows."
            )
        return found


def read_groups(given: Sequence[str]) -> dict[str, list[str]]:
    """Return groups given as ``NAME=MODEL,MODEL,...``.

    Raises:
        InputError: one is none, or there are fewer than two.

    >>> read_groups(["vit=a,b", "cnn=c"])
    {'vit': ['a', 'b'], 'cnn': ['c']}
    """
    found: dict[str, list[str]] = {}
    for text in given:
        name, sign, models = text.partition("=")
        members = [model.strip() for model in models.split(",") if model.strip()]
        if not (name.strip() and sign and members):
            raise InputError(f"--group {shown(text)}: write NAME=MODEL,MODEL,MODEL, for example vit=A,B,C")
        if name.strip() in found:
            raise InputError(f"--group {shown(text)}: {name.strip()!r} is given twice; put all of its models into one")
        found[name.strip()] = members
    if len(found) == 1:
        raise InputError("--group: one group has nothing to be compared with; give a second one")
    return found


def families(run: str | Path | Run, groups: Mapping[str, Sequence[str]], *, everything: bool = False) -> Families:
    """Compare kinds of networks, with the network, or the training seed, as the unit.

    A claim about kinds of networks is about further networks of these kinds. How sure it is depends on how much the
    networks of a kind differ; intervals over images say nothing of that.

    Args:
        run: a run with all networks, or its folder.
        groups: by the name of a group the names of its models.
        everything: take all models that the folder holds on the same data.

    Raises:
        InputError: there is no such model, or one is in two groups, or nothing can be compared.
    """
    found = run if isinstance(run, Run) else side(run, everything=everything).run
    if len(groups) < 2:
        raise InputError("families need two groups or more")
    members = _members(found, groups)
    columns = found.profile.columns
    if not columns:
        raise InputError(f"{str(found.out)!r} has no number that a profile could show, so nothing to compare by")
    rows: list[dict[str, Any]] = []
    values: list[dict[str, Any]] = []
    notes: list[str] = []
    for column in columns:
        asked = {
            name: [score for model in models if (score := column.score(model)) is not None]
            for name, models in members.items()
        }
        if not any(asked.values()):
            continue
        if why := _measured_otherwise(asked):
            notes.append(f"{column.question.title}: not compared, the networks were measured otherwise: {why}.")
            continue
        notes += _without_value(column.question, asked, members)
        known = {name: [score for score in scores if not math.isnan(score.value)] for name, scores in asked.items()}
        values += [
            {"group": name, "model": score.model, "question": column.question.key, "value": score.value}
            for name, scores in known.items()
            for score in scores
        ]
        rows += [
            _row(column.question, (a, known[a]), (b, known[b]))
            for a, b in itertools.combinations(known, 2)
            if known[a] and known[b]
        ]
    if not rows:
        raise InputError("; ".join(notes) or "no question was measured on networks of two groups")
    corrected = holm([math.nan if row["p"] is None else row["p"] for row in rows])
    for row, p in zip(rows, corrected, strict=True):
        row["p_holm"] = None if math.isnan(p) else float(p)
    untrained = [model.name for model in found.manifest.models if model.untrained]
    notes += [f"Random weights: {', '.join(untrained)}."] if untrained else []
    told = (*_rests_on(members, rows), *found.told, *dict.fromkeys(notes))
    return Families(members, pl.DataFrame(rows, schema=COLUMNS), pl.DataFrame(values), told)


def _members(run: Run, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the names of the models of each group as the run has them; each network is one unit."""
    networks = networks_of(run)
    owners: dict[str, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for name, models in groups.items():
        labels: list[str] = []
        for model in models:
            (label,) = side_names(run, model, networks)
            if label in owners:
                where = f"in the groups {owners[label]} and {name}" if owners[label] != name else f"in {name} twice"
                raise InputError(f"{label} is {where}; a network counts once")
            owners[label] = name
            labels.append(label)
        found[name] = tuple(labels)
    return found


def side_names(run: Run, model: str, networks: Mapping[str, str]) -> list[str]:
    """Return the name in the tables of the one model that a user named.

    Raises:
        InputError: there is none; says which there are.
    """
    labels = list(networks.values())
    for label in labels:
        if model in (label, label.partition(" (")[0]):
            return [label]
    raise InputError(
        f"{str(run.out)!r} has no model {shown(model)}; there are: {', '.join(labels)}.{did_you_mean(model, labels)}"
    )


def _measured_otherwise(asked: Mapping[str, Sequence[Score]]) -> str:
    """Say in which ways the networks were measured; empty where in one."""
    protocols = dict.fromkeys(score.protocol for scores in asked.values() for score in scores)
    return "" if len(protocols) < 2 else "; ".join(protocol or "not said" for protocol in protocols)


def _without_value(
    question: Question, asked: Mapping[str, Sequence[Score]], members: Mapping[str, Sequence[str]]
) -> list[str]:
    notes = [
        f"{question.title}: {score.model} left out, {score.note or 'it has no value'}."
        for scores in asked.values()
        for score in scores
        if math.isnan(score.value)
    ]
    there = {score.model for scores in asked.values() for score in scores}
    missing = [model for models in members.values() for model in models if model not in there]
    return [*notes, *([f"{question.title}: not measured on {', '.join(missing)}."] if missing else [])]


def _row(question: Question, a: tuple[str, Sequence[Score]], b: tuple[str, Sequence[Score]]) -> dict[str, Any]:
    first, second = ([score.value for score in scores] for _, scores in (a, b))
    row: dict[str, Any] = {
        "question": question.key,
        "title": question.title,
        "unit": question.unit,
        "group_a": a[0],
        "group_b": b[0],
        "n_a": len(first),
        "n_b": len(second),
        "mean_a": sum(first) / len(first),
        "mean_b": sum(second) / len(second),
    }
    row["difference"] = row["mean_a"] - row["mean_b"]
    unknown = dict.fromkeys(("difference_low", "difference_high", "p", "smallest_p", "p_holm"))
    if min(len(first), len(second)) < FEWEST:
        return row | unknown | {"note": f"no verdict: it takes {FEWEST} networks of each group"}
    tested = permutation_difference(first, second)
    ends = [end if math.isfinite(end) else None for end in (tested.low, tested.high)]
    row |= {"difference_low": ends[0], "difference_high": ends[1], "p": tested.p, "smallest_p": tested.smallest_p}
    return row | {"p_holm": None, "note": "" if tested.exact else "100,000 of all divisions drawn"}


def _rests_on(members: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the comparison rests on, and what so few networks can show at all."""
    sizes = ", ".join(f"{name} {counted(len(models), 'network')}" for name, models in members.items())
    told = [
        f"The unit is the network: {sizes}. p-values are over all ways to divide these networks into such groups, and "
        "say nothing of networks that were chosen otherwise; intervals over images play no part."
    ]
    few = [row for row in rows if row["p"] is None]
    if few:
        told.append(f"No verdict with fewer than {FEWEST} networks in a group.")
    tested = [row for row in rows if row["p"] is not None]
    if tested:
        smallest = min(row["smallest_p"] for row in tested)
        least = smallest * len(tested)
        told.append(
            f"The smallest p-value that so many networks can give is {smallest:.2g}, corrected for "
            f"{counted(len(tested), 'row')} {min(least, 1.0):.2g}"
            + (
                f": nothing could be significant at {100 * ALPHA:.0f} %, whatever the networks do; take more networks "
                "or fewer questions."
                if least >= ALPHA
                else "."
            )
        )
    return told
