"""What follows from accuracies under occlusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.analysis.answers import Fall, areas_told, told, told_exactly
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION_RECORDS, COMMON, RUN, SHARED_MASK, Column
from ipvit.analysis.records.frames import differing
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.experiments.occlusion.experiment import FILLS, SETTINGS
from ipvit.experiments.shared_masks import with_shared_masks

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

_TITLES = {
    "random": "Random PatchDrop",
    "salient": "Salient PatchDrop",
    "non_salient": "Non-salient PatchDrop",
    "block": "One contiguous block",
    "object": "The object's bounding box",
}


OF = "of"
"""Column that says what the information loss is a share of, in tables with modes that drop by salience."""

COLUMNS = {
    **COMMON,
    OF: Column(title="loss of"),
    "information_loss": Column(unit="share", level=True),
}
CLEAN = {"information_loss": 0.0}
_BY = ("mode", *SETTINGS, "information_loss")


class OcclusionAnalysis(Analysis):
    """Accuracy over the share of the image that is dropped."""

    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = _BY
    clean: dict[str, Any] = CLEAN
    curve_over: tuple[tuple[str, ...], ...] = (("information_loss",),)
    profile_by: tuple[str, ...] = ("mode",)
    record_columns: tuple[str, ...] | None = (
        *_BY,
        RUN,
        "correct",
        "correct5",
        "dropped",
        SHARED_MASK,
        *CALIBRATION_RECORDS,
    )

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average accuracy, and the share of pixels really dropped, per mode, setting and information loss."""
        records = self.calibrated_records(records)
        by = ["model", "mode", *(name for name in SETTINGS if name in records.columns), "information_loss"]
        table = accuracy_table(records, by)
        telling = differing(records, by) or ["model"]
        dropped = records.group_by(telling).agg(pl.col("dropped").cast(pl.Float64).mean())
        table = table.join(dropped, on=telling, how="left", nulls_equal=True, maintain_order="left")
        return self.reduced(records, {self.name: table})

    def calibrated_records(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return the records with what says which images share a mask."""
        return with_shared_masks(records)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return accuracy per model, mode and information loss, with the share of pixels really dropped."""
        table = joined(reductions, self.name)
        settings = varying(table, SETTINGS, within=("mode",))
        if "fill" not in settings and _of_own(table):
            settings.append("fill")
        table = table.drop(name for name in SETTINGS if name in table.columns and name not in settings)
        if table["mode"].is_in(list(_OF_MASS)).any():
            of = (
                pl.when(pl.col("mode").is_in(list(_OF_MASS))).then(pl.lit("salience mass")).otherwise(pl.lit("patches"))
            )
            table = table.insert_column(table.columns.index("information_loss"), table.select(of.alias(OF)).to_series())
        return {self.name: in_study_order(table, ["mode", *settings, "model", "information_loss"])}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one curve per model for every mode, over the share really dropped, as in figure 3."""
        measured = set(tables[self.name]["mode"])
        table = with_paper(tables[self.name], tables, self.name)
        return {
            f"occlusion-{str(mode).replace('_', '-')}": charts.curve(
                _with_series(frame),
                charts.Encoding(
                    x="dropped",
                    y="top1",
                    series="series",
                    x_title="Share of the image dropped",
                    y_title="Top-1 accuracy (%)",
                    x_format=".0%",
                    y_domain=(0, 100),
                ),
                title=_TITLES[str(mode)],
            )
            for (mode,), frame in table.group_by(["mode"], maintain_order=True)
            if mode in measured
        }

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return what is left where half of the image is dropped, over several runs, such as one a grid (figure 22)."""
        half = tables[self.name].filter((pl.col("information_loss") - 0.5).abs() < 1e-6)
        if half.is_empty() or half["data_set"].n_unique() < 2:
            return {}
        modes = pl.col("mode").cast(pl.String).replace(_TITLES).alias("mode")
        return {
            f"{self.name}-half": charts.bars(
                _with_series(half).with_columns(modes),
                charts.Encoding(
                    x="data_set",
                    y="top1",
                    series="series",
                    facet="mode" if half["mode"].n_unique() > 1 else None,
                    x_title="Run",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                ),
                title="Half of the image dropped",
            )
        }

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what is left where about half is dropped, mode by mode, and over all levels."""
        by_mode = _at_half(_with_series(tables[self.name]))
        parts = [told([fall for _, fall in falls], where) for where, falls in by_mode.items()]
        areas = tables.get(f"{self.name}-area")
        named = dict(tables)
        if areas is not None and "mode" in areas.columns:
            named[f"{self.name}-area"] = areas.with_columns(pl.col("mode").cast(pl.String).replace(_SHORT))
        return " ".join(filter(None, (*parts, areas_told(named, self.name, "over information losses of", shares=True))))

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say what is left of each model's accuracy where about half is dropped, for every mode."""
        for where, falls in _at_half(_with_series(tables[self.name])).items():
            for model, fall in falls:
                yield model, told_exactly(fall, where)


_SHORT = {"non_salient": "non-salient", "block": "one block", "object": "the object's box"}


def _at_half(table: pl.DataFrame) -> dict[str, list[tuple[str, Fall]]]:
    """Return what about half leaves of each model, by how that is said.

    The level is the same for all models: the one nearest to half of those that all of them were measured at.
    """
    found: dict[str, list[tuple[str, Fall]]] = {}
    for (mode,), frame in table.group_by(["mode"], maintain_order=True):
        curves = list(frame.group_by(["model", "series"], maintain_order=True))
        levels = set[float].intersection(*(set(rows["information_loss"]) for _, rows in curves)) - {0.0}
        for (model, series), rows in curves:
            own = levels or set(rows["information_loss"]) - {0.0}
            if not own:
                continue
            half = min(sorted(own), key=lambda level: abs(level - 0.5))
            clean = next(iter(rows.filter(pl.col("information_loss") == 0).to_dicts()), None)
            row = next(iter(rows.filter(pl.col("information_loss") == half).to_dicts()))
            where = _dropped(str(mode), half, row["dropped"] if str(mode) not in _OF_MASS else None)
            note = f"{100 * row['dropped']:.0f} % of the image" if str(mode) in _OF_MASS else ""
            found.setdefault(where, []).append((str(model), Fall.of(str(series), clean, row, note)))
    return found


_OF_MASS = {"salient": "most salient patches", "non_salient": "least salient patches"}
"""Modes whose information loss is a share of the salience's mass, not of the patches."""


def _dropped(mode: str, level: float, share: float | None) -> str:
    """Say what is dropped at a level of a mode.

    Args:
        mode: of the experiment.
        level: information loss: of the patches, or of the salience's mass.
        share: of the image that is really dropped; not looked at where the level is of the mass.
    """
    if mode in _OF_MASS:
        return f"with the {_OF_MASS[mode]} dropped that hold {100 * level:.0f} % of the salience mass"
    if mode == "random":
        return f"with {100 * level:.0f} % of the patches dropped at random"
    what = {"block": "one contiguous block", "object": "the object's box"}.get(mode, mode)
    return f"with {what} hidden, {100 * (share or 0):.0f} % of the image"


def _of_own(table: pl.DataFrame) -> bool:
    """Whether pixels were filled by a function of the user's own, which no reader knows."""
    return "fill" in table.columns and not table["fill"].is_in([*FILLS, ""]).all()


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name a curve after its model and whatever else tells it from the others."""
    others = [name for name in SETTINGS if name in table.columns]
    words = [pl.col(name).cast(pl.String) for name in others]
    series = pl.concat_str([pl.col("model"), *words], separator=", ", ignore_nulls=True) if words else pl.col("model")
    return table.with_columns(series.alias("series"))
