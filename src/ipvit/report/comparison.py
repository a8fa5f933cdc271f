"""Our numbers beside the paper's: what differs, and whether it may be the same number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.paper_numbers import PaperNumber
from ipvit.analysis.sentences import ends
from ipvit.analysis.verdicts import OUTSIDE, UNCERTAIN, WITHIN, Verdict, judged
from ipvit.core.manifest import RunSummary
from ipvit.experiments.registry import paper_numbers
from ipvit.report.identification import PaperModel, identified, is_part, other_data, published_size, whole_sets
from ipvit.report.matching import Found, Tables, counterpart
from ipvit.report.tables.cells import text

FILE = "paper-comparison"
"""Name of the files with a comparison, without suffix."""

SCHEMA = {
    "where": pl.String,
    "network": pl.String,
    "model": pl.String,
    "what": pl.String,
    "ours": pl.Float64,
    "ours_low": pl.Float64,
    "ours_high": pl.Float64,
    "paper": pl.Float64,
    "paper_uncertainty": pl.Float64,
    "difference": pl.Float64,
    "margin": pl.Float64,
    "verdict": pl.String,
    "n_images": pl.Int64,
    "source": pl.String,
    "experiment": pl.String,
    "target": pl.String,
    "note": pl.String,
}
"""Columns of a comparison. ``margin``: see :func:`margins`. ``verdict``: see :func:`verdict`; null where there is
nothing of ours, or no interval. ``target``: the entry of ``paper_targets.json``. ``note``: why there is nothing of
ours, or what ours rests on."""

_PART = "on a part of the data"

_NOT_COMPARED = "not compared: "
"""How the note begins where a table has something that is not what the paper measured."""


def compare(
    tables: Tables, manifest: RunSummary, experiments: Mapping[str, Any], *, everything: bool = False
) -> pl.DataFrame:
    """Put our numbers beside the paper's.

    Args:
        tables: of a run, by experiment.
        manifest: of the run.
        experiments: of the run, by name, with the parameters of its last study.
        everything: also list the paper's numbers that the run has no counterpart of, with the reason.

    Returns:
        One row per number of the paper, with the columns of :data:`SCHEMA`.
    """
    models, strangers = _models(manifest)
    margin = margins()
    rows = []
    for number in paper_numbers():
        ours, reason, note = None, "", ""
        if number.network is not None:
            asked = [
                model for model in models if (model.network, model.untrained) == (number.network, number.untrained)
            ]
            fitting = [model for model in asked if model.size == size_of(number)]
            names = [model.name for model in fitting]
            ours, reason = counterpart(number, tables, names, experiments, other_data(manifest, number.data))
            if any(cell.experiment in tables for cell in number.cells):
                reason = reason or _why_no_model(number, asked, fitting, strangers)
            note = next((model.note for model in fitting if ours is not None and model.name == ours.model), "")
        if ours is not None or everything:
            part = ours is not None and is_part(manifest, ours.experiment, ours.n_images)
            rows.append(_row(number, ours, reason, note, margin[number.key, _name(number)], part=part))
    return pl.DataFrame(rows, schema=SCHEMA)


def margins() -> Mapping[tuple[str, str], float]:
    """Return by how much a number of ours may differ from the paper's and still be called the same.

    The margin of a number is the paper's uncertainty and a quarter of the range of the numbers that it is printed or
    drawn among, which are those of one entry with one measure on one set of data; at least one point, or 0.01 where it
    is no percentage.

    Returns:
        By entry and name of the number (``title: what``), in the number's own unit.
    """
    panels: dict[tuple[str, str, str], list[PaperNumber]] = {}
    for number in paper_numbers():
        measure = number.cells[0].measure if number.cells else number.what
        panels.setdefault((number.key, measure, number.data), []).append(number)
    found: dict[tuple[str, str], float] = {}
    for numbers in panels.values():
        values = [number.value for number in numbers]
        for number in numbers:
            margin = number.uncertainty + (max(values) - min(values)) / 4
            found[number.key, _name(number)] = max(margin, 1.0 if in_percent(number.what) else 0.01)
    return found


def verdict(low: float | None, high: float | None, number: PaperNumber, margin: float, *, part: bool) -> Verdict | None:
    """Return what our interval says of a number of the paper.

    Args:
        low: end of our 95 % interval.
        high: the other end.
        number: of the paper.
        margin: see :func:`margins`.
        part: ours rests on a part of the data.

    Returns:
        ``within``: the whole interval of our difference lies within the margin; ``outside``: it excludes zero by more
        than the paper's uncertainty; else, and always for a part of the data, ``too uncertain``. None without interval.
    """
    if low is None or high is None:
        return None
    found = judged(low - number.value, high - number.value, margin, number.uncertainty)
    return UNCERTAIN if found and part else found


def in_percent(what: str) -> bool:
    """Tell whether a quantity is a percentage."""
    return "%" in what.split(",")[0]


def joined(comparisons: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Join the comparisons of several runs, made with ``everything``: a number that one measured is not missing."""
    place = ["target", "network", "what"]
    whole = pl.concat(comparisons)
    whole = whole.with_columns(pl.col("ours").is_not_null().any().over(place).alias("somewhere"))
    kept = whole.filter(pl.col("ours").is_not_null() | ~pl.col("somewhere")).drop("somewhere")
    refused = pl.when(pl.col("note").str.starts_with(_NOT_COMPARED)).then("note").drop_nulls().first().over(place)
    missing = kept.filter(pl.col("ours").is_null()).with_columns(pl.coalesce(refused, "note").alias("note"))
    missing = missing.unique(place, keep="first", maintain_order=True)
    kept = pl.concat([kept.filter(pl.col("ours").is_not_null()), missing])
    order = {number.key: place for place, number in reversed(list(enumerate(paper_numbers())))}
    return kept.sort(pl.col("target").replace_strict(order, return_dtype=pl.Int32), maintain_order=True)


def without_counterpart(manifest: RunSummary) -> dict[str, str]:
    """Return the models that are not networks of the paper, and why, empty where nothing suggests that they are."""
    return {model.name: reason for model in manifest.models for known, reason in [identified(model)] if known is None}


def notes(manifest: RunSummary) -> list[str]:
    """Return what to bear in mind: the paper's numbers are for whole data sets."""
    used, data = manifest.images_used, manifest.data
    if used == data.published_images:
        return []
    return [
        f"This run used {used:,} images of {data.name}; the paper's numbers are for whole data sets ({whole_sets()}). "
        "Our intervals say how far a sample of this size may be off, not what other images would give."
    ]


def for_people(comparison: pl.DataFrame) -> pl.DataFrame:
    """Return a comparison as text."""
    rows = [
        {
            "where": row["where"],
            "network": title(row),
            "quantity": row["what"],
            "ours": "" if row["ours"] is None else _number(row["ours"], row) + ends(row, "ours", _digits(row)),
            "paper": _number(row["paper"], row) + (f" ± {row['paper_uncertainty']:g}" if row["source"] == "F" else ""),
            "difference": "" if row["difference"] is None else f"{row['difference']:+.{_digits(row)}f}",
            "verdict": row["verdict"] or "",
            "n": text(row["n_images"]),
            "source": row["source"],
        }
        for row in comparison.to_dicts()
    ]
    return pl.DataFrame(rows, schema=None if rows else ["where"], infer_schema_length=None)


def title(row: Mapping[str, Any]) -> str:
    """Return the network of a row, with what its weights are where they need not be the published ones."""
    rests_on = "" if row["ours"] is None else (row["note"] or "").removesuffix(_PART).removesuffix("; ")
    return f"{row['network']} ({rests_on})" if rests_on else row["network"]


def reasons(missing: pl.DataFrame, *, refused: bool) -> list[str]:
    """Return why there is nothing of ours, each reason once with the number of rows and where they are.

    Args:
        missing: rows of a comparison without a number of ours.
        refused: only where a run has something that is not what the paper measured.
    """
    if refused:
        missing = missing.filter(pl.col("note").str.starts_with(_NOT_COMPARED))
    return [
        f"{rows.height} of {', '.join(rows['where'].unique(maintain_order=True))}: {note}"
        for (note,), rows in missing.group_by(["note"], maintain_order=True)
    ]


def summary(comparison: pl.DataFrame) -> str:
    """Return how many of our numbers agree with the paper's, in one sentence.

    Only those count that could have disagreed: whose interval is narrow enough to be within or outside.
    """
    measured = comparison.filter(pl.col("ours").is_not_null())
    counts = {name: measured.filter(verdict=name).height for name in (WITHIN, OUTSIDE, UNCERTAIN)}
    told = counts[WITHIN] + counts[OUTSIDE]
    if not measured.height:
        return "None of our numbers has a counterpart in the paper."
    if not told:
        few = f"all {counts[UNCERTAIN]}" if counts[UNCERTAIN] else "all"
        return f"{measured.height} of our numbers have a counterpart in the paper; {few} are too uncertain to disagree."
    more = f"; {counts[UNCERTAIN]} more are too uncertain to tell" if counts[UNCERTAIN] else ""
    return f"{counts[WITHIN]} of the {told} numbers that could have disagreed agree with the paper's{more}."


def _models(manifest: RunSummary) -> tuple[list[PaperModel], list[str]]:
    """Return the run's models that are networks of the paper, and why others are none."""
    found = [identified(model) for model in manifest.models]
    return [known for known, _ in found if known is not None], [reason for _, reason in found if reason]


def size_of(number: PaperNumber) -> tuple[int, int]:
    """Return height and width of the input of the network that a number is about."""
    return (number.size, number.size) if number.size else published_size(str(number.network))


def _why_no_model(
    number: PaperNumber, asked: Sequence[PaperModel], fitting: Sequence[PaperModel], strangers: Sequence[str]
) -> str:
    """Say why a model that seems to be the number's network is not, empty where there is none."""
    if asked and not fitting:
        (height, width), (wanted, _) = asked[0].size, size_of(number)
        return f"{asked[0].name} takes {height}x{width} pixels, the paper's takes {wanted}x{wanted}"
    title = str(number.network).rpartition(":")[2]
    return next((reason for reason in strangers if not asked and title in reason), "")


def _name(number: PaperNumber) -> str:
    return f"{number.title}: {number.what}"


def _row(
    number: PaperNumber, ours: Found | None, reason: str, note: str, margin: float, *, part: bool
) -> dict[str, Any]:
    row = {
        "where": number.where,
        "network": number.title,
        "what": number.what,
        "paper": float(number.value),
        "paper_uncertainty": float(number.uncertainty),
        "margin": margin,
        "source": number.source,
        "target": number.key,
    }
    if ours is None:
        return row | {"experiment": number.cells[0].experiment if number.cells else None, "note": _why(number, reason)}
    return row | {
        "model": ours.model,
        "ours": float(ours.value),
        "ours_low": ours.low,
        "ours_high": ours.high,
        "difference": float(ours.value - number.value),
        "verdict": verdict(ours.low, ours.high, number, margin, part=part),
        "n_images": ours.n_images,
        "experiment": ours.experiment,
        "note": "; ".join(filter(None, (note, _PART if part else ""))) or None,
    }


def _why(number: PaperNumber, reason: str) -> str:
    """Say why there is nothing of ours."""
    if number.why_not or reason:
        return number.why_not or f"{_NOT_COMPARED}{reason}"
    names = " or ".join(dict.fromkeys(cell.experiment for cell in number.cells))
    return f"not measured here: {names} on {number.network}"


def _digits(row: Mapping[str, Any]) -> int:
    if not in_percent(row["what"]):
        return 3
    return 1 if row["paper_uncertainty"] >= 0.05 else 2


def _number(value: float, row: Mapping[str, Any]) -> str:
    return f"{value:.{_digits(row)}f}"
