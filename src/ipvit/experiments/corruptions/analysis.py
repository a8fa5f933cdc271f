"""What follows from answers on corrupted photos: accuracies, and the three error measures that go by similar names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from ipvit.analysis.aggregate import accuracy_table
from ipvit.analysis.answers import Fall, joined_names, told
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION_RECORDS, COMMON, Column
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends
from ipvit.data.corruption import DRAWN
from ipvit.data.formats.imagenet_c import CLEAN
from ipvit.experiments.corruptions.charts import draw
from ipvit.experiments.corruptions.errors import error_tables
from ipvit.experiments.corruptions.experiment import ALEXNET, COPY, FILES, KEYED_ANY, is_keyed
from ipvit.experiments.corruptions.variants import (
    FAMILY,
    FROST_PICTURES,
    OWN_FAMILY,
    Variant,
    corruption_place,
    variants_in,
)
from ipvit.perturb.corruptions import CORRUPTIONS, FAMILIES, REVISIONS, SEVERITIES

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

NOT_COMPARABLE = (
    "The corruptions were made here, not read from the published ImageNet-C (other random numbers, other frost "
    "pictures, another decoder): do not compare these numbers with published ones."
)

COLUMNS = {**COMMON, "severity": Column(level=True)}
UNPERTURBED = {"corruption": CLEAN, "severity": 0}
_CONDITION = ("made", "frost", "corruption", "severity")
_REVISION = "revision"


class CorruptionAnalysis(Analysis):
    """Accuracy by corruption and severity, corruption errors, and their means over all fifteen corruptions."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "family": ("family", "n_corruptions"),
        "ce": ("reference", "family", "severities", "mean_error", "ce"),
        "mce": ("reference", "mce", "relative_mce", "mean_error", "clean_error", "n_corruptions", "severities"),
    }
    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = _CONDITION
    clean: dict[str, Any] = UNPERTURBED
    curve_over: tuple[tuple[str, ...], ...] = (("severity",),)
    mean_over: tuple[str, ...] = ("corruption", "severity", "frost")
    record_columns: tuple[str, ...] | None = (
        *_CONDITION,
        _REVISION,
        "imagenet",
        "correct",
        "correct5",
        *CALIBRATION_RECORDS,
    )
    normaliser: str = "alexnet"
    """What corruption errors are divided by: ``alexnet`` (published errors on ImageNet) or one of the models."""

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per corruption and severity, and per family; what is right is kept for each photo."""
        rows = self.calibrated_records(records)
        parts = {
            "cells": accuracy_table(rows, ["model", *_CONDITION]),
            "families": _family_rows(rows.filter(pl.col("corruption") != CLEAN)),
            "answers": pl.DataFrame({"model": [rows["model"][0]], "imagenet": [bool(rows["imagenet"].all())]}),
            "outdated": pl.DataFrame({"corruption": _outdated(records)}, schema={"corruption": pl.String}),
        }
        return self.reduced(records, parts, compared=rows)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return accuracy per corruption and severity, per family, corruption errors, and the means over all fifteen.

        ``corruptions-mce`` has three measures of its own names each: ``mce`` (divided by the reference's errors),
        ``relative_mce`` (what corruption adds to the clean error, divided by the same of the reference) and
        ``mean_error`` (divided by nothing).
        """
        cells = joined(reductions, "cells")
        variants = variants_in(cells)
        shown = _in_variants(cells, variants)
        imagenet = dict(joined(reductions, "answers").iter_rows())
        by_corruption, overall = error_tables(reductions, variants, imagenet, self.normaliser)
        names = sorted(set(shown["corruption"]), key=corruption_place)
        return {
            self.name: shown.sort(*_models_and_variants(shown), _place("corruption", names), "severity"),
            f"{self.name}-family": _families(joined(reductions, "families"), shown, variants),
            f"{self.name}-ce": by_corruption,
            f"{self.name}-mce": overall,
        }

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return accuracy over severity, per family and per corruption, corruption errors, and mCE beside the paper."""
        return draw(tables)

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what is left on average over what was measured, by name where it is few corruptions."""
        table = tables[self.name]
        parts: list[str] = []
        for (made,), frame in table.group_by(["made"], maintain_order=True):
            corrupted = frame.filter(pl.col("corruption") != CLEAN)
            cells = [set(rows.select("corruption", "severity").iter_rows()) for _, rows in corrupted.group_by("model")]
            shared = sorted(set[tuple[str, int]].intersection(*cells)) if cells else []
            if not shared:
                continue
            falls: list[Fall] = []
            for (model,), rows in frame.group_by(["model"], maintain_order=True):
                own = rows.to_dicts()
                clean = next((row for row in own if row["corruption"] == CLEAN), None)
                here = [row for row in own if (row["corruption"], row["severity"]) in set(shared)]
                falls.append(Fall.over(str(model), clean, here))
            how = f" ({made})" if table["made"].n_unique() > 1 or is_keyed(str(made)) else ""
            parts.append(told(falls, f"under {_what(shared)}{how}"))
        return " ".join(parts)

    def conditions_in(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows with what the records call the way in which pictures were made."""
        if name != self.name:
            return None
        parts = pl.col("made").str.split(f"{FROST_PICTURES} ")
        found = table.with_columns(parts.list.first().alias("made"), parts.list.get(1, null_on_oob=True).alias("frost"))
        if found["frost"].null_count() == found.height:
            return found.drop("frost")
        drawn = pl.when(pl.col("corruption") == "frost").then(pl.col("frost").fill_null(DRAWN)).otherwise(pl.lit(""))
        return found.with_columns(drawn.alias("frost"))

    def calibrated_records(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return the records of the latest revisions with photos as images."""
        return _of_photos(_latest(records))

    def calibrated_conditions(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows as above; the clean pictures, which stand in every variant, were not made."""
        found = self.conditions_in(name, table)
        if found is None:
            return None
        unmade = (pl.col("corruption") == CLEAN) & ~pl.col("made").is_in([FILES, COPY])
        names = [name for name in ("made", "frost") if name in found.columns]
        return found.with_columns(pl.when(unmade).then(pl.lit("")).otherwise(column).alias(column) for column in names)

    def kind(self, reduction: Reduction) -> str:
        """Return the size at which pictures were corrupted, where that was done here: blurs and blocks have theirs.

        Corruptions that came out otherwise before they were put right are named, too.
        """
        made = set(reduction.parts["cells"].filter(pl.col("corruption") != CLEAN)["made"])
        if reduction.size is None or made <= {FILES, COPY}:
            return ""
        outdated = [name.replace("_", " ") for name in reduction.parts["outdated"]["corruption"]]
        before = f" with an earlier {joined_names(outdated)}" if outdated else ""
        return f"corrupted at {reduction.size[0]}x{reduction.size[1]} pixels{before}"

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say the same, and what the numbers may be compared with."""
        sentences = super().summary(tables)
        made_here = not (tables[f"{self.name}-mce"]["made"] == FILES).all()
        return [*sentences, NOT_COMPARABLE] if made_here else sentences

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say each model's mCE, or what it lacks, and which corruption is hardest."""
        for row in tables[f"{self.name}-mce"].iter_rows(named=True):
            mine = pl.col("model").eq(row["model"]) & pl.col("made").eq(row["made"])
            cells = tables[self.name].filter(mine)
            hardest = _hardest(tables[f"{self.name}-ce"].filter(mine))
            yield row["model"], _sentence(row, missing_cells(cells), self.normaliser) + hardest
            for sentence in _uneven(row, cells):
                yield row["model"], sentence


def _what(cells: Sequence[tuple[str, int]]) -> str:
    """Say which corruptions at which severities a mean is over.

    >>> _what([("fog", 1), ("fog", 3)]), _what([("fog", 1), ("fog", 2), ("fog", 3), ("snow", 1)])
    ('fog at severities 1 and 3 on average', 'fog and snow at severities 1 to 3 on average')
    """
    names = list(dict.fromkeys(name.replace("_", " ") for name, _ in cells))
    levels = sorted({severity for _, severity in cells})
    what = joined_names(names) if len(names) <= 3 else f"{len(names)} corruptions"
    if len(levels) == 1:
        return f"{what} at severity {levels[0]}" + (" on average" if len(names) > 1 else "")
    run = levels == list(range(levels[0], levels[-1] + 1)) and len(levels) > 2
    which = f"{levels[0]} to {levels[-1]}" if run else joined_names([str(level) for level in levels])
    return f"{what} at severities {which} on average"


def _outdated(records: pl.DataFrame) -> list[str]:
    """Return the corruptions made here of which there are results of earlier revisions only."""
    found: list[str] = []
    made = pl.col("made").cast(pl.String)
    here = records.filter(~made.is_in([FILES, COPY]) & ~made.str.starts_with(KEYED_ANY))
    for name, revision in REVISIONS.items():
        rows = here.filter(pl.col("corruption") == name)
        there = _REVISION in rows.columns and (rows[_REVISION].fill_null(1) >= revision).any()
        if not rows.is_empty() and not there:
            found.append(name)
    return found


def _latest(records: pl.DataFrame) -> pl.DataFrame:
    """Leave out what was made by an earlier revision of a corruption, where there is a later one's."""
    if _REVISION not in records.columns:
        return records
    latest = pl.col(_REVISION).max().over("corruption", "made")
    return records.filter(pl.col(_REVISION).fill_null(0) == latest.fill_null(0)).drop(_REVISION)


def _of_photos(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with photos as images, of which files hold many versions."""
    rows = records.with_columns(pl.col(pl.Categorical).cast(pl.String))
    photo = pl.col("image").str.replace(r"^[^/]*/[^/]*/", "")
    frost = pl.col("frost").fill_null("") if "frost" in rows.columns else pl.lit("")
    return rows.with_columns(
        pl.when(pl.col("made").is_in([FILES, COPY])).then(photo).otherwise("image").alias("image"),
        frost.alias("frost"),
    )


def _family_rows(corrupted: pl.DataFrame) -> pl.DataFrame:
    """Return the accuracy of one model over the corruptions of a family, per severity and way of making them.

    Rows with frost pictures are of the families that hold frost, and stand beside those without any frost.
    """
    rows = corrupted.with_columns(
        pl.col("corruption").replace_strict(FAMILY, default=OWN_FAMILY, return_dtype=pl.String).alias("family"),
        pl.col("corruption").alias("run"),  # several answers on one image, as several runs are
    )
    parts: list[pl.DataFrame] = []
    for frost in ["", *sorted(set(rows["frost"]) - {""})]:
        frosted = rows.filter(pl.col("frost") == frost)["family"].unique()
        part = rows.filter(pl.col("frost").is_in(["", frost]), pl.col("family").is_in(frosted.implode()))
        if not part.is_empty():
            table = accuracy_table(part, ["model", "made", "family", "severity"])
            parts.append(table.with_columns(pl.lit(frost).alias("frost")))
    return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame()


def _in_variants(cells: pl.DataFrame, variants: Sequence[Variant]) -> pl.DataFrame:
    """Return the accuracies of every variant with those on clean pictures, ``made`` being its label."""
    clean = pl.col("corruption") == CLEAN
    parts = [cells.filter(clean | variant.own).with_columns(made=pl.lit(variant.label)) for variant in variants]
    return pl.concat(parts).drop("frost")


def _families(rows: pl.DataFrame, cells: pl.DataFrame, variants: Sequence[Variant]) -> pl.DataFrame:
    """Return the accuracy over the corruptions of a family, per severity; the clean image begins every family.

    Args:
        rows: from :func:`_family_rows`, of all models.
        cells: accuracies by corruption, of all models and variants.
        variants: the ways in which pictures were made.
    """
    there: set[str] = set() if rows.is_empty() else set(rows["family"])
    names = [name for name in (*FAMILIES, OWN_FAMILY) if name in there] or [CLEAN]
    clean = cells.filter(pl.col("corruption") == CLEAN).join(pl.DataFrame({"family": names}), how="cross")
    parts = [clean.select("model", "made", "family", "severity", pl.col("n_images", "^n_runs$", "^top[15].*$"))]
    for variant in variants if there else ():
        # with frost where a model has these pictures, else without
        own = rows.filter(variant.own).sort("frost", maintain_order=True)
        own = own.unique(["model", "family", "severity"], keep="last", maintain_order=True)
        parts.append(own.with_columns(made=pl.lit(variant.label)).select(parts[0].columns))
    table = pl.concat(parts, how="vertical_relaxed").drop("top1_std", "top5_std").rename({"n_runs": "n_corruptions"})
    return table.sort(*_models_and_variants(cells), _place("family", names), "severity")


def _models_and_variants(table: pl.DataFrame) -> tuple[pl.Expr, pl.Expr]:
    """Return what tables are sorted by first: the models in their order, then how pictures were made."""
    return _place("model", table["model"].unique(maintain_order=True).to_list()), pl.col("made")


def _place(column: str, names: Sequence[str]) -> pl.Expr:
    """Return the position of a column's values in a list of names."""
    places = {name: number for number, name in enumerate(names)}
    return pl.col(column).replace_strict(places, return_dtype=pl.Int32)


def missing_cells(frame: pl.DataFrame) -> list[str]:
    """Return what a mean corruption error still needs, from the rows of the main table for one model.

    >>> rows = [(name, s) for name in CORRUPTIONS for s in SEVERITIES if (name, s) not in {("fog", 2), ("snow", 5)}]
    >>> missing_cells(pl.DataFrame(rows, schema=["corruption", "severity"], orient="row"))
    ['snow at 5', 'fog at 2']
    """
    there = set(frame.select("corruption", "severity").iter_rows())
    missing = {name: [s for s in SEVERITIES if (name, s) not in there] for name in CORRUPTIONS}
    whole = [name for name, severities in missing.items() if len(severities) == len(SEVERITIES)]
    parts = [f"{name} at {', '.join(map(str, s))}" for name, s in missing.items() if s and name not in whole]
    return whole + parts


def _without_reference(made: str, normaliser: str) -> str:
    if normaliser.lower() != ALEXNET.lower():
        return f"{normaliser} was not measured on these pictures."
    errors = "with the original random numbers" if is_keyed(made) else "of ImageNet's classes"
    return f"AlexNet's errors are for pictures {errors}, give one of the networks as normaliser."


def _sentence(row: dict[str, Any], missing: Sequence[str], normaliser: str) -> str:
    """Say one network's overall numbers, or why there is no mCE."""
    errors = {"mean error": row["mean_error"], "clean": row["clean_error"]}  # no mean of the four extra ones alone
    said = ", ".join(f"{name} {error:.1f} %" for name, error in errors.items() if error is not None)
    plain = f"{row['model']} ({row['made']}): {said or 'no mean error'}"
    if row["mce"] is not None:
        return f"{plain}, mCE {row['mce']:.1f} %{ends(row, 'mce', 1)} ({row['reference']} is 100)."
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        return f"{plain}; no mCE, which needs all fifteen at all severities: without {', '.join(missing[:3])}{more}."
    if row["reference"] is None:
        return f"{plain}; no mCE: {_without_reference(row['made'], normaliser)}"
    return f"{plain}; no mCE: {row['reference']} makes no error on some corruption, or was not measured on all."


def _uneven(row: dict[str, Any], cells: pl.DataFrame) -> list[str]:
    """Say that means mix different photos, as on a folder of which a part is missing."""
    counts = cells.filter(pl.col("severity") > 0).sort("n_images", maintain_order=True)
    if counts["n_images"].n_unique() < 2:
        return []
    least, most = counts.row(0, named=True), counts["n_images"][-1]
    return [
        f"{row['model']} ({row['made']}): not every corruption was measured on the same photos, "
        f"{least['corruption']} at {least['severity']} on {least['n_images']} of {most}; the means mix them."
    ]


def _hardest(rows: pl.DataFrame) -> str:
    worst = rows.sort("mean_error", descending=True, maintain_order=True)
    if worst.height < 2:
        return ""
    name, error = worst["corruption"][0].replace("_", " "), worst["mean_error"][0]
    return f" Hardest is {name} with {error:.1f} % errors."
