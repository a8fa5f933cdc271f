"""Our numbers beside the paper's: what differs, and whether it may be the same number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.data_names import WHOLE_SETS, may_be
from ipvit.analysis.paper_numbers import PaperNumber
from ipvit.core.manifest import RunSummary
from ipvit.experiments.registry import paper_numbers
from ipvit.models.zoo.paper import network_of
from ipvit.report.matching import Found, Tables, counterpart
from ipvit.report.tables import text

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
    "within": pl.Boolean,
    "n_images": pl.Int64,
    "source": pl.String,
    "experiment": pl.String,
    "target": pl.String,
    "note": pl.String,
}
"""Columns of a comparison. ``within``: our interval and the paper's number, give or take its uncertainty, overlap;
null where there is nothing of ours, or no interval. ``target``: the entry of ``paper_targets.json``. ``note``: why
there is nothing of ours."""

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
    models = _models(manifest)
    data = manifest.data.name
    rows = []
    for number in paper_numbers():
        ours, reason = None, ""
        if number.network is not None and may_be(data, number.data):
            names = models.get((number.network, number.untrained), [])
            ours, reason = counterpart(number, tables, names, experiments)
        if ours is not None or everything:
            rows.append(_row(number, ours, reason))
    return pl.DataFrame(rows, schema=SCHEMA)


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


def without_counterpart(manifest: RunSummary) -> list[str]:
    """Return the names of the models that are not networks of the paper."""
    known = {name for names in _models(manifest).values() for name in names}
    return [model.name for model in manifest.models if model.name not in known]


def notes(manifest: RunSummary) -> list[str]:
    """Return what to bear in mind: the paper's numbers are for whole data sets."""
    used, name = manifest.images_used, manifest.data.name
    if any(used == size for size, _ in WHOLE_SETS.values()):
        return []
    words = "; ".join(words for _, words in WHOLE_SETS.values())
    return [
        f"This run used {used:,} images of {name}; the paper's numbers are for whole data sets ({words}). Our "
        "intervals say how far a sample of this size may be off, not what other images would give."
    ]


def for_people(comparison: pl.DataFrame) -> pl.DataFrame:
    """Return a comparison as text."""
    rows = [
        {
            "where": row["where"],
            "network": row["network"],
            "quantity": row["what"],
            "ours": "" if row["ours"] is None else _number(row["ours"], row) + _ends(row),
            "paper": _number(row["paper"], row) + (f" ± {row['paper_uncertainty']:g}" if row["source"] == "F" else ""),
            "difference": "" if row["difference"] is None else f"{row['difference']:+.{_digits(row)}f}",
            "within": {True: "yes", False: "no", None: ""}[row["within"]],
            "n": text(row["n_images"]),
            "source": row["source"],
        }
        for row in comparison.to_dicts()
    ]
    return pl.DataFrame(rows, schema=None if rows else ["where"], infer_schema_length=None)


def summary(comparison: pl.DataFrame) -> str:
    """Return how many of our numbers agree with the paper's, in one sentence."""
    measured = comparison.filter(pl.col("ours").is_not_null())
    judged = measured.filter(pl.col("within").is_not_null())
    if judged.is_empty():
        found = f"{measured.height} of our numbers have" if measured.height else "None of our numbers has"
        return f"{found} a counterpart in the paper."
    inside = int(judged["within"].sum())
    return f"{inside} of {judged.height} numbers agree with the paper's within both uncertainties."


def _models(manifest: RunSummary) -> dict[tuple[str, bool], list[str]]:
    """Return the run's names of the paper's networks, by the network and whether its weights are random."""
    found: dict[tuple[str, bool], list[str]] = {}
    for model in manifest.models:
        untrained, name = model.untrained, model.name
        known = network_of(re.sub(r"[-_ ,]+random$", "", name) if untrained else name)
        if known is None and name.startswith("torchvision:"):
            known = name
        if known is not None:
            found.setdefault((known, untrained), []).append(name)
    return found


def _row(number: PaperNumber, ours: Found | None, reason: str) -> dict[str, Any]:
    row = {
        "where": number.where,
        "network": number.title,
        "what": number.what,
        "paper": float(number.value),
        "paper_uncertainty": float(number.uncertainty),
        "source": number.source,
        "target": number.key,
    }
    if ours is None:
        return row | {"experiment": number.cells[0].experiment if number.cells else None, "note": _why(number, reason)}
    within = None
    if ours.low is not None and ours.high is not None and math.isfinite(ours.low):
        within = ours.low <= number.value + number.uncertainty and ours.high >= number.value - number.uncertainty
    return row | {
        "model": ours.model,
        "ours": float(ours.value),
        "ours_low": ours.low,
        "ours_high": ours.high,
        "difference": float(ours.value - number.value),
        "within": within,
        "n_images": ours.n_images,
        "experiment": ours.experiment,
    }


def _why(number: PaperNumber, reason: str) -> str:
    """Say why there is nothing of ours."""
    if number.why_not or reason:
        return number.why_not or f"{_NOT_COMPARED}{reason}"
    names = " or ".join(dict.fromkeys(cell.experiment for cell in number.cells))
    return f"not measured here: {names} on {number.network}"


def _digits(row: Mapping[str, Any]) -> int:
    if "%" not in row["what"].split(",")[0]:
        return 3
    return 1 if row["paper_uncertainty"] >= 0.05 else 2


def _number(value: float, row: Mapping[str, Any]) -> str:
    return f"{value:.{_digits(row)}f}"


def _ends(row: Mapping[str, Any]) -> str:
    if row["ours_low"] is None or not math.isfinite(row["ours_low"]):
        return ""
    return f" [{_number(row['ours_low'], row)}, {_number(row['ours_high'], row)}]"
