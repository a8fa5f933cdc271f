"""What follows from the correlations of clean and occluded representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, paired_differences, varying, with_paper
from ipvit.analysis.answers import capitalised, each, joined_names
from ipvit.analysis.base import Analysis, by_model, compared
from ipvit.analysis.columns import COMMON, RUN, Column, measured
from ipvit.analysis.profile import Question, measured_question
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.analysis.sentences import ends, is_missing
from ipvit.experiments.correlation.experiment import SETTINGS

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {
    **COMMON,
    "information_loss": Column(unit="share", level=True),
    "correlation": measured("correlation", range=(-1, 1)),
}
FLOORS = (
    "{} are not compared: class tokens of different photos correlate as well, pooled features hardly do. "
    "--feature mean_patch or pooled puts the same question to all."
)
"""What is said where models were read at different features."""
_BY = ("model", *SETTINGS, "block", "information_loss")


class CorrelationAnalysis(Analysis):
    """Correlation over the share of patches that is dropped, of all images and of each superclass."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {"superclass": ()}
    better: ClassVar[Literal["higher", "lower", ""]] = "higher"
    columns: dict[str, Column] = COLUMNS
    metric: str = "correlation"
    compare_by: tuple[str, ...] | None = (*SETTINGS, "information_loss")
    record_columns: tuple[str, ...] | None = (*_BY[1:], RUN, "correlation", "superclass")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per level and block, and per superclass.

        Two models are compared by what was read at each one's deepest block: blocks of different networks are not the
        same thing.
        """
        parts = {self.name: mean_table(records, _BY, ["correlation"], self.columns)}
        grouped = records.filter(pl.col("superclass") != "")
        if grouped.height:
            parts[f"{self.name}-superclass"] = mean_table(grouped, [*_BY, "superclass"], ["correlation"], self.columns)
        return self.reduced(records, parts, compared=_last_block(records))

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return mean and spread per model and level, and per superclass where the classes are ImageNet's."""
        main, groups = joined(reductions, self.name), joined(reductions, f"{self.name}-superclass")
        several = varying(main, [*SETTINGS, "block"])
        if "feature" not in several and main["feature"].n_unique() > 1:
            several.insert(0, "feature")
        by = ["model", *several, "information_loss"]
        hidden = [name for name in _BY if name not in by]
        tables = {self.name: in_study_order(main.drop(hidden), by)}
        if groups.height:
            tables[f"{self.name}-superclass"] = in_study_order(groups.drop(hidden), [*by, "superclass"])
        return tables

    def differences(self, reductions: Sequence[Reduction]) -> pl.DataFrame | None:
        """Compare the models at their deepest blocks, where the same was read: see :data:`FLOORS`."""
        return paired_differences(compared(reductions))

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return the correlation at the level nearest to half; models read at other features have no common rank."""
        parts = [_at_half(reduction.parts[self.name]) for reduction in reductions]
        rows = {part["model"][0]: part.row(0, named=True) for part in parts if part.height == 1}
        levels = {row["information_loss"] for row in rows.values()}
        if len(levels) != 1:
            return []
        half = levels.pop()
        protocol = {
            model: f"{_WORDS.get(row['feature'], row['feature'])}, grid {row['grid']}" for model, row in rows.items()
        }
        what = f"correlation with the clean representation, {100 * half:.0f} % of the patches dropped"
        return [
            measured_question(
                self,
                reductions,
                rows,
                "correlation",
                what=what,
                unit="",
                digits=2,
                condition={"information_loss": half},
                protocol=protocol,
            )
        ]

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve per model over the levels, and the superclasses at the level nearest to half, as figure 5."""
        figures = {
            self.name: charts.curve(
                with_paper(_last_block(tables[self.name]), tables, self.name),
                charts.Encoding(
                    x="information_loss",
                    y="correlation",
                    x_title="Information loss (share of patches dropped)",
                    y_title="Correlation with the clean image",
                    x_format=".0%",
                    y_format=".2f",
                ),
                title="Correlation of representations",
            )
        }
        if (groups := f"{self.name}-superclass") in tables:
            table = _at_half(tables[groups])
            figures[groups] = charts.bars(
                table,
                charts.Encoding(
                    x="superclass", y="correlation", y_title="Correlation with the clean image", y_format=".2f"
                ),
                title=f"By superclass, {100 * table['information_loss'][0]:.0f} % of the patches dropped",
            )
        return figures

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say how far each model's representations survive at the level nearest to half."""
        rows = _at_half(tables[self.name]).to_dicts()
        return by_model((row["model"], f"{row['model']}{_read(row)}: {_survives(row)}.") for row in rows)

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say the same of all models, those together of which the same was read."""
        rows = _at_half(tables[self.name]).to_dicts()
        if not rows:
            return ""
        parts: list[str] = []
        for feature in dict.fromkeys(row.get("feature") for row in rows):
            values = [
                (row["model"] + _read(row, "feature"), row["correlation"], f"{row['correlation']:z.2f}")
                for row in rows
                if row.get("feature") == feature and not is_missing(row["correlation"])
            ]
            what = "representations" if feature is None else _WORDS.get(feature, feature)
            if values:
                parts.append(f"{what} {each(values)}")
        missing = [row["model"] for row in rows if is_missing(row["correlation"])]
        if missing:
            parts.append(f"undefined for {joined_names(missing)}")
        half = rows[0]["information_loss"]
        return f"With {100 * half:.0f} % of the patches dropped, correlation with the clean image: {'; '.join(parts)}."

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return the sentences, and which models are not compared."""
        said = list(self.answer(tables).values())
        features = tables[self.name].to_dict(as_series=False).get("feature", [])
        kinds = [_WORDS.get(name, str(name)) for name in dict.fromkeys(features)]
        if len(kinds) > 1:
            said.append(capitalised(FLOORS.format(joined_names(kinds))))
        return said


_WORDS = {
    "class": "class tokens",
    "distillation": "distillation tokens",
    "mean_patch": "mean patch tokens",
    "pooled": "pooled features",
}


def _survives(row: dict[str, Any]) -> str:
    """Say what is left of one model's representation."""
    lost = f"with {100 * row['information_loss']:.0f} % of the patches dropped"
    if is_missing(row["correlation"]):
        return f"{lost}, no correlation with the clean representation is defined"
    value = f"{row['correlation']:z.2f}{ends(row, 'correlation', 2)}"
    return f"{lost}, representations correlate with the clean ones at {value}"


def _at_half(table: pl.DataFrame) -> pl.DataFrame:
    """Keep the level nearest to half, at each model's deepest block."""
    table = _last_block(table)
    half = min(table["information_loss"].unique().sort(), key=lambda level: abs(level - 0.5))
    return table.filter(pl.col("information_loss") == half)


def _read(row: dict[str, Any], besides: str = "") -> str:
    """Say how a representation was read, where there are several ways."""
    words = [f"{name} {row[name]}" for name in SETTINGS if name in row and name != besides]
    return f" ({', '.join(words)})" if words else ""


def _last_block(table: pl.DataFrame) -> pl.DataFrame:
    """Keep each model's deepest block, where there are several."""
    if "block" not in table.columns:
        return table
    return table.filter(pl.col("block") == pl.col("block").max().over("model"))
