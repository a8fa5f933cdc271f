"""Our numbers beside the paper's: what differs, and whether it may be the same number."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.core.manifest import RunSummary
from ipvit.report.numbers import Place, Quantity, quantities
from ipvit.report.numbers.tokens import DATA, FEW_SHOT_DATA
from ipvit.report.paper import network_of
from ipvit.report.tables import text

Tables = Mapping[str, Mapping[str, pl.DataFrame]]

SCHEMA = {
    "where": pl.String, "network": pl.String, "model": pl.String, "what": pl.String, "ours": pl.Float64,
    "ours_low": pl.Float64, "ours_high": pl.Float64, "paper": pl.Float64, "paper_uncertainty": pl.Float64,
    "difference": pl.Float64, "within": pl.Boolean, "n_images": pl.Int64, "source": pl.String, "experiment": pl.String,
    "target": pl.String, "note": pl.String,
}  # fmt: skip
"""Columns of a comparison. ``within``: our interval and the paper's number, give or take its uncertainty, overlap;
null where there is nothing of ours, or no interval. ``target``: the entry of ``paper_targets.json``."""

DATA_NAMES = {"voc": "voc2012"}
"""How our data names begin, where it is not as in the quantities."""

OTHER_DATA = {"voc2012", "cue-conflict", "imagenet-c", *DATA.values(), *FEW_SHOT_DATA.values()}
"""How the names of data begin that are not ImageNet."""

SIZES = {
    "imagenet": (50_000, "the 50,000 images of ImageNet's validation set"),
    "voc": (1_449, "the 1,449 images of PASCAL VOC 2012's validation set"),
    "cue-conflict": (1_280, "the 1,280 cue-conflict images of Geirhos et al."),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """A number of ours."""

    model: str
    value: float
    low: float | None
    high: float | None
    n_images: int | None
    experiment: str


def compare(
    tables: Tables, manifest: RunSummary, experiments: Mapping[str, Any], *, everything: bool = False
) -> pl.DataFrame:
    """Put our numbers beside the paper's.

    Args:
        tables: of a run, by experiment.
        manifest: of the run.
        experiments: of the run, by name, with the parameters of its last study.
        everything: also list the quantities that the run has no number for, with the reason.

    Returns:
        One row per quantity, with the columns of :data:`SCHEMA`.
    """
    models = _models(manifest)
    data = manifest.data.name
    rows = []
    for quantity in quantities():
        ours = _ours(quantity, tables, models, experiments) if _is_on(quantity, data) else None
        if ours is not None:
            rows.append(_row(quantity, ours))
        elif everything:
            rows.append(_row(quantity, None))
    return pl.DataFrame(rows, schema=SCHEMA)


def joined(comparisons: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Join the comparisons of several runs, made with ``everything``: a quantity that one measured is not missing."""
    place = ["target", "network", "what"]
    whole = pl.concat(comparisons)
    whole = whole.with_columns(pl.col("ours").is_not_null().any().over(place).alias("somewhere"))
    kept = whole.filter(pl.col("ours").is_not_null() | ~pl.col("somewhere")).drop("somewhere")
    missing = kept.filter(pl.col("ours").is_null()).unique(place, keep="first", maintain_order=True)
    kept = pl.concat([kept.filter(pl.col("ours").is_not_null()), missing])
    order = {quantity.key: number for number, quantity in reversed(list(enumerate(quantities())))}
    return kept.sort(pl.col("target").replace_strict(order, return_dtype=pl.Int32), maintain_order=True)


def without_counterpart(manifest: RunSummary) -> list[str]:
    """Return the names of the models that are not networks of the paper."""
    known = {name for names in _models(manifest).values() for name in names}
    return [model.name for model in manifest.models if model.name not in known]


def notes(manifest: RunSummary) -> list[str]:
    """Return what to bear in mind: the paper's numbers are for whole data sets."""
    used, name = manifest.images_used, manifest.data.name
    if any(used == size for size, _ in SIZES.values()):
        return []
    words = "; ".join(words for _, words in SIZES.values())
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


def _is_on(quantity: Quantity, data: str) -> bool:
    """Whether a data set may be what a number was measured on; ImageNet goes by many names."""
    kind = data.partition(":")[0] if ":" in data else ""
    if quantity.data == "imagenet":
        return kind not in OTHER_DATA
    return kind == DATA_NAMES.get(quantity.data, quantity.data)


def _ours(
    quantity: Quantity, tables: Tables, models: Mapping[tuple[str, bool], Sequence[str]], experiments: Mapping[str, Any]
) -> Found | None:
    if quantity.network is None:
        return None
    names = models.get((quantity.network, quantity.untrained), [])
    for place in quantity.places:
        table = tables.get(place.experiment, {}).get(place.table or place.experiment)
        if table is None or place.measure not in table.columns or not _as_asked(place, table, experiments):
            continue
        candidates = table["model"].unique(maintain_order=True).to_list() if place.any_network else names
        for name in candidates:
            found = _look_up(place, table.filter(pl.col("model") == name))
            if found is not None:
                return found
    return None


def _as_asked(place: Place, table: pl.DataFrame, experiments: Mapping[str, Any]) -> bool:
    """Whether an experiment was run with the paper's settings, as far as its table does not say."""
    experiment = experiments.get(place.experiment)
    return all(
        name in table.columns or _same(getattr(experiment, name, wanted), wanted)
        for name, wanted in place.settings.items()
    )


def _same(ours: Any, wanted: Any) -> bool:
    if isinstance(ours, float):
        return math.isclose(ours, wanted, abs_tol=1e-6)
    return ours.partition("@")[0] == wanted if isinstance(ours, str) else ours == wanted


def _look_up(place: Place, rows: pl.DataFrame) -> Found | None:
    """Return the number of a place among the rows of one model, where there is exactly one."""
    for name, wanted in place.conditions.items():
        if name not in rows.columns:
            continue
        column = pl.col(name)
        same = (column - wanted).abs() < 1e-6 if isinstance(wanted, float) else column == wanted
        rows = rows.filter(same)
    if place.along is not None:
        return _between(place, rows, *place.along)
    if rows.height != 1 or rows[place.measure][0] is None:
        return None
    return _found(place, rows.row(0, named=True))


def _between(place: Place, rows: pl.DataFrame, column: str, at: float) -> Found | None:
    """Interpolate between the two rows on either side; nothing outside them."""
    ordered = rows.sort(column).to_dicts()
    if any(a[column] == b[column] for a, b in itertools.pairwise(ordered)):
        return None  # several curves
    for left, right in itertools.pairwise(ordered):
        if left[column] - 1e-9 <= at <= right[column] + 1e-9:
            share = (at - left[column]) / (right[column] - left[column])
            mixed = dict(left)
            for name in (place.measure, f"{place.measure}_low", f"{place.measure}_high"):
                if left.get(name) is not None and right.get(name) is not None:
                    mixed[name] = (1 - share) * left[name] + share * right[name]
            return _found(place, mixed)
    return None


def _found(place: Place, row: Mapping[str, Any]) -> Found:
    return Found(
        row["model"], row[place.measure], row.get(f"{place.measure}_low"), row.get(f"{place.measure}_high"),
        row.get("n_images", row.get("n_episodes")), place.experiment,
    )  # fmt: skip


def _row(quantity: Quantity, ours: Found | None) -> dict[str, Any]:
    row = {
        "where": quantity.where, "network": quantity.title, "what": quantity.what, "paper": float(quantity.value),
        "paper_uncertainty": float(quantity.uncertainty), "source": quantity.source, "target": quantity.key,
    }  # fmt: skip
    if ours is None:
        names = " or ".join(dict.fromkeys(place.experiment for place in quantity.places))
        note = quantity.why_not or f"not measured here: {names} on {quantity.network}"
        return row | {"experiment": quantity.places[0].experiment if quantity.places else None, "note": note}
    within = None
    if ours.low is not None and ours.high is not None and math.isfinite(ours.low):
        within = (
            ours.low <= quantity.value + quantity.uncertainty and ours.high >= quantity.value - quantity.uncertainty
        )
    return row | {
        "model": ours.model, "ours": float(ours.value), "ours_low": ours.low, "ours_high": ours.high,
        "difference": float(ours.value - quantity.value), "within": within, "n_images": ours.n_images,
        "experiment": ours.experiment,
    }  # fmt: skip


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
