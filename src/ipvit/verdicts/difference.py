"""``ipvit.diff``: two runs, or two models, image by image."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.analysis.aggregate import DROPS
from ipvit.analysis.base import Analysis
from ipvit.analysis.profile import Ranked, ranked
from ipvit.analysis.reduction import Reduction
from ipvit.core.text.words import counted
from ipvit.errors import ByName, InputError, error_line
from ipvit.metrics.paired import holm
from ipvit.report.tables.files import to_records
from ipvit.results import Run
from ipvit.verdicts.agreement import other_protocol, other_settings, other_subject, remarks, rows_of_other_protocol
from ipvit.verdicts.flips import FLIPS, flipped
from ipvit.verdicts.rows import conditions_of_rows, with_what_was_found
from ipvit.verdicts.sides import Matched, Side, matched, side

PROFILE = "profile"
"""Name of the table of the numbers of a profile."""


@dataclasses.dataclass(frozen=True)
class Diff:
    """Two runs side by side; every difference is B less A, so that a gain of B is positive.

    Attributes:
        a: the first run, or run and model, as it was given.
        b: the second.
        pairs: names of the models that were compared, A and B.
        tables: by experiment, one row a condition and pair: the means of both on the images that both were measured
            on (``value_a``, ``value_b``), their difference with its 95 % interval, the p-value and the same corrected
            by Holm for the rows of the pair, on how many images B is better and worse, what the tests could have found
            (``detectable``, and ``detectable_holm`` at the level of Holm's first step), and the differences of the
            drops.
        profile: one row a question of the profile and pair, likewise; corrected by Holm for the questions of a pair.
        flips: the images that only one of the two has right, most confident first.
        analyses: what is known of the columns, by experiment.
        refused: by experiment and pair: why it is not compared.
        notes: what a reader must know.
    """

    a: str
    b: str
    pairs: tuple[tuple[str, str], ...]
    tables: Mapping[str, pl.DataFrame]
    profile: pl.DataFrame
    flips: pl.DataFrame
    analyses: Mapping[str, Analysis]
    refused: Mapping[tuple[str, str], str]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "a": self.a,
            "b": self.b,
            "difference": "B less A",
            "pairs": [{"model_a": a, "model_b": b} for a, b in self.pairs],
            "tables": {name: to_records(table) for name, table in self.tables.items()},
            "profile": to_records(self.profile),
            "flips": to_records(self.flips),
            "refused": [
                {"experiment": name, "models": models, "reason": reason}
                for (name, models), reason in self.refused.items()
            ],
            "notes": list(self.notes),
        }


def diff(a: str | Path | Run, b: str | Path | Run, *, everything: bool = False) -> Diff:
    """Compare two runs, or two models, image by image; nothing is measured and no code of a run folder is run.

    Args:
        a: a run, its folder, or ``FOLDER:MODEL``: what B is compared with.
        b: likewise.
        everything: compare all that the folders hold on the same data, not only what their last studies asked for.

    Raises:
        InputError: there is no such run or model, or nothing that can be compared; says why by name.

    Example:
        >>> import ipvit
        >>> found = ipvit.diff("runs/v1", "runs/v2")  # doctest: +SKIP
        >>> found.tables["occlusion"], found.flips  # doctest: +SKIP
    """
    return compared_sides(side(a, everything=everything), side(b, everything=everything))


def compared_sides(a: Side, b: Side, only: Sequence[str] | None = None) -> Diff:
    """Compare two sides, in all experiments that both have or in some of them; see :func:`diff`."""
    pairs, alone = matched(a, b)
    names = [name for name in a.run.analyses if name in b.run.analyses and (only is None or name in only)]
    found = [_Pair(a.run, b.run, pair, names) for pair in pairs]
    refused = {
        (name, f"{one.pair.model_a} and {one.pair.model_b}"): why for one in found for name, why in one.refused.items()
    }
    if not any(one.tables or one.questions for one in found):
        _refuse(a, b, refused)
    tables = {name: _joined([one.tables[name] for one in found if name in one.tables]) for name in names}
    notes = [*remarks(a, b), *alone, *_one_sided(a, b), *(note for one in found for note in one.notes)]
    return Diff(
        a.text,
        b.text,
        tuple((pair.model_a, pair.model_b) for pair in pairs),
        ByName({name: table for name, table in tables.items() if table.height}, "comparison of", f"{a.text}, {b.text}"),
        _joined([one.profile() for one in found]),
        _joined([one.flips for one in found], FLIPS),
        {name: b.run.analyses[name] for name in names},
        refused,
        tuple(dict.fromkeys(notes)),
    )


def _refuse(a: Side, b: Side, refused: Mapping[tuple[str, str], str]) -> None:
    """Raise InputError: nothing can be compared."""
    if not refused:
        raise InputError(
            f"{a.text} has {', '.join(a.run.analyses) or 'nothing'} and {b.text} has "
            f"{', '.join(b.run.analyses) or 'nothing'}: no experiment in common"
        )
    reasons: dict[str, list[str]] = {}
    for (name, _), why in refused.items():
        reasons.setdefault(why, []).append(name)
    said = "; ".join(f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in reasons.items())
    raise InputError(f"{a.text} and {b.text} cannot be compared; {said}")


def _one_sided(a: Side, b: Side) -> Iterator[str]:
    for one, other in ((a, b), (b, a)):
        if left := [name for name in one.run.analyses if name not in other.run.analyses]:
            yield f"Only in {one.text}, so not compared: {', '.join(left)}."


def _joined(frames: Sequence[pl.DataFrame], schema: Mapping[str, Any] | None = None) -> pl.DataFrame:
    kept = [frame for frame in frames if frame.height]
    return pl.concat(kept, how="diagonal_relaxed") if kept else pl.DataFrame(schema=schema)


class _Pair:
    """Two models, experiment by experiment."""

    def __init__(self, a: Run, b: Run, pair: Matched, names: Sequence[str]) -> None:
        self.a, self.b, self.pair = a, b, pair
        self.tables: dict[str, pl.DataFrame] = {}
        self.questions: list[tuple[str, Ranked]] = []
        self.refused: dict[str, str] = {}
        self.notes: list[str] = []
        self.flips = pl.DataFrame(schema=FLIPS)
        for name in names:
            if why := self._compare(name):
                self.refused[name] = why

    def _compare(self, name: str) -> str:
        """Compare the models in one experiment; return why that cannot be, or an empty string."""
        for run, weights in ((self.a, self.pair.weights_a), (self.b, self.pair.weights_b)):
            there = run.models_of(name)
            if not there and run.tables_of(name):
                return f"{run.out} shows it as of its last run, whose values of single images are not read"
            if weights not in there:
                return f"not measured on {self._name(weights)}"
        if why := other_subject(self.a, self.b, self.pair, name):
            return why
        first = self.a.reductions(name, {self.pair.weights_a: self.pair.model_a})
        second = self.b.reductions(name, {self.pair.weights_b: self.pair.model_b})
        if not first or not second:
            return "no records"
        analysis = self.b.analyses[name]
        kinds = (analysis.kind(first[0]), analysis.kind(second[0]))
        if kinds[0] != kinds[1]:
            return f"measured otherwise: {kinds[0] or 'not said'} and {kinds[1] or 'not said'}"
        try:
            return self._differences(name, analysis, first[0], second[0])
        except Exception as error:
            if os.environ.get("IPVIT_TRACEBACK"):
                raise
            return f"it could not be compared: {error_line(error, 300, named=True)}"

    def _differences(self, name: str, analysis: Analysis, first: Reduction, second: Reduction) -> str:
        frame = analysis.differences([second, first])  # A less B of the analysis is ours B less A
        self._ask(name, analysis, first, second)
        if frame is None or first.values is None or second.values is None:
            asked = any(asked == name for asked, _ in self.questions)
            return "" if asked else other_protocol(first.values, second.values)
        kept = list(frame.columns[: frame.columns.index("model_a")])
        whole = frame.height
        rows = [at for _, at in conditions_of_rows(frame, kept, first.values, second.values)]
        other = rows_of_other_protocol(self.a, self.b, self.pair, name, second.values, rows)
        if other:
            frame = _corrected(frame.filter(pl.int_range(pl.len()).is_in(list(other)).not_()))
            reasons = ", ".join(dict.fromkeys(other.values()))
            if not frame.height:
                self.questions = [one for one in self.questions if one[0] != name]
                return f"other protocol: {reasons}"
            self.notes.append(f"{name}: {counted(len(other), 'row')} of {whole} left out, {reasons}.")
        if settings := other_settings(self.a, self.b, name):
            self.notes.append(f"{name}: other settings, {'; '.join(settings)}; rows measured alike are compared.")
        frame = with_what_was_found(frame, kept, first.values, second.values)
        names = (pl.lit(self.pair.model_a).alias("model_a"), pl.lit(self.pair.model_b).alias("model_b"))
        self.tables[name] = frame.with_columns(*names)
        if self.flips.is_empty():
            self.flips = flipped(self.a, self.b, self.pair, name, first.values, second.values)
        return ""

    def _ask(self, name: str, analysis: Analysis, first: Reduction, second: Reduction) -> None:
        """Compare the models by the numbers of the profile."""
        reductions = [second, first]
        tables = analysis.with_retained(analysis.tables(reductions), reductions)
        for question in analysis.questions(reductions, tables):
            found = ranked(question)
            if found.comparisons:
                self.questions.append((name, found))
            elif len({score.protocol for score in question.scores}) > 1:
                how = " and ".join(score.protocol for score in reversed(question.scores))
                self.notes.append(f"{question.title}: measured otherwise, so not compared: {how}.")

    def profile(self) -> pl.DataFrame:
        """Return the numbers of the profile, B less A."""
        rows: list[dict[str, Any]] = []
        for name, found in self.questions:
            question, tested = found.question, found.comparisons[0].tested
            scores = {score.model: score for score in question.scores}
            rows.append(
                {
                    "question": question.key,
                    "title": question.title,
                    "experiment": name,
                    "unit": question.unit,
                    "better": question.better,
                    "model_a": self.pair.model_a,
                    "model_b": self.pair.model_b,
                    "value_a": scores[self.pair.model_a].value,
                    "value_b": scores[self.pair.model_b].value,
                    "difference": tested.difference,
                    "difference_low": tested.low,
                    "difference_high": tested.high,
                    "p": tested.p,
                }
            )
        if not rows:
            return pl.DataFrame()
        corrected = holm([row["p"] for row in rows])
        return pl.DataFrame(rows).with_columns(pl.Series("p_holm", corrected))

    def _name(self, weights: str) -> str:
        return self.pair.model_a if weights == self.pair.weights_a else self.pair.model_b


def _corrected(frame: pl.DataFrame) -> pl.DataFrame:
    """Correct the p-values of the rows that are left for their number."""
    names = ["p", *(f"{kind}_p" for kind in DROPS)]
    return frame.with_columns(
        pl.Series(f"{name}_holm", holm(frame[name].cast(pl.Float64).fill_null(math.nan).to_numpy()))
        for name in names
        if name in frame.columns
    )
