"""What follows from accuracies under occlusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.record_columns import RUN, SHARED_MASK
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


COLUMNS = {**COMMON, "information_loss": Column(unit="share", level=True)}
CLEAN = {"information_loss": 0.0}
_BY = ("mode", *SETTINGS, "information_loss")


class OcclusionAnalysis(Analysis):
    """Accuracy over the share of the image that is dropped."""

    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = _BY
    clean: dict[str, Any] = CLEAN
    record_columns: tuple[str, ...] | None = (*_BY, RUN, "correct", "correct5", "dropped", SHARED_MASK)

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average accuracy, and the share of pixels really dropped, per mode, setting and information loss."""
        records = with_shared_masks(records)
        by = ["model", "mode", *(name for name in SETTINGS if name in records.columns), "information_loss"]
        table = accuracy_table(records, by)
        dropped = records.group_by(by).agg(pl.col("dropped").cast(pl.Float64).mean())
        table = table.join(dropped, on=by, how="left", nulls_equal=True, maintain_order="left")
        return self.reduced(records, {self.name: table})

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return accuracy per model, mode and information loss, with the share of pixels really dropped."""
        table = joined(reductions, self.name)
        settings = varying(table, SETTINGS, within=("mode",))
        if "fill" not in settings and _of_own(table):
            settings.append("fill")
        table = table.drop(name for name in SETTINGS if name in table.columns and name not in settings)
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
                    x_title="Information loss (share of the image dropped)",
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

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say what is left of each model's accuracy where about half of the patches are dropped, for every mode."""
        table = _with_series(tables[self.name])
        for (mode, model, series), frame in table.group_by(["mode", "model", "series"], maintain_order=True):
            rows = {row["information_loss"]: row for row in frame.to_dicts()}
            half = min(rows, key=lambda level: abs(level - 0.5))
            if 0.0 in rows and half > 0 and rows[0.0]["top1"] > 0:
                clean, left = rows[0.0]["top1"], rows[half]["top1"]
                yield (
                    str(model),
                    f"{_TITLES[str(mode)]}: with {rows[half]['dropped']:.0%} of the image dropped, {series} keeps "
                    f"{left:.1f} % top-1 of its {clean:.1f} % ({left / clean:.0%}).",
                )


def _of_own(table: pl.DataFrame) -> bool:
    """Whether pixels were filled by a function of the user's own, which no reader knows."""
    return "fill" in table.columns and not table["fill"].is_in([*FILLS, ""]).all()


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name a curve after its model and whatever else tells it from the others."""
    others = [name for name in SETTINGS if name in table.columns]
    words = [pl.col(name).cast(pl.String) for name in others]
    series = pl.concat_str([pl.col("model"), *words], separator=", ", ignore_nulls=True) if words else pl.col("model")
    return table.with_columns(series.alias("series"))
