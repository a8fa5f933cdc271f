"""What follows from how far representations moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table
from ipvit.analysis.answers import each
from ipvit.analysis.base import Analysis, by_model
from ipvit.analysis.columns import COMMON, RUN, Column, measured
from ipvit.analysis.profile import Question, measured_question
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends
from ipvit.experiments.stability.experiment import CORRUPTION, OCCLUSION, POSITION, SHUFFLE
from ipvit.perturb.corruptions.names import CORRUPTIONS, EXTRA

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {
    **COMMON,
    "cosine": measured("cosine", range=(-1, 1)).model_copy(update={"digits": 2}),
    "rank": Column(digits=1, average="mean", range=(1, None)),
    "floor": Column(digits=2, average="mean", range=(-1, 1)),
    "among": Column(title="images ranked", unit="count", detail=True),
}
_BY = ("model", "feature", "perturbation", "setting", "among")
_ORDER = (OCCLUSION, SHUFFLE, POSITION, CORRUPTION)


class StabilityAnalysis(Analysis):
    """Cosine to the clean image, its rank among all, and the floor between different images."""

    better: ClassVar[Literal["higher", "lower", ""]] = "higher"
    columns: dict[str, Column] = COLUMNS
    metric: str = "cosine"
    compare_by: tuple[str, ...] | None = ("feature", "perturbation", "setting")
    record_columns: tuple[str, ...] | None = (*_BY[1:], RUN, "cosine", "rank", "floor")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per perturbation and setting."""
        table = mean_table(records, _BY, ["cosine", "rank", "floor"], self.columns)
        return self.reduced(records, {self.name: table})

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return one row per model, perturbation and setting, in the order of the perturbations."""
        table = joined(reductions, self.name)
        rows = table.to_dicts()
        models = list(dict.fromkeys(row["model"] for row in rows))
        places = [(models.index(row["model"]), *_place(row["perturbation"], row["setting"])) for row in rows]
        return {self.name: table[sorted(range(len(rows)), key=places.__getitem__)]}

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return the cosine with half of the patches dropped; models read at other features have no common rank."""
        rows = {row["model"]: row for row in _at_half(tables[self.name])}
        if not rows:
            return []
        setting = next(iter(rows.values()))["setting"]
        return [
            measured_question(
                self,
                reductions,
                rows,
                "cosine",
                what=f"cosine to the clean representation, {setting} of the patches dropped",
                unit="",
                digits=2,
                condition={"perturbation": OCCLUSION, "setting": setting},
                protocol={model: row["feature"] for model, row in rows.items()},
            )
        ]

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the models' cosines by perturbation and setting."""
        table = tables[self.name]
        drawn = table.with_columns(pl.Series("perturbed", [_name(row) for row in table.to_dicts()]))
        return {
            self.name: charts.dots(
                drawn,
                charts.Encoding(
                    x="cosine",
                    y="perturbed",
                    x_title="Cosine to the clean image",
                    x_format=".2f",
                ),
                title="How near perturbed images stay",
            )
        }

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say for each model what is left with half of the patches dropped, and where it moves most."""
        table = tables[self.name]
        lines: list[tuple[str, str]] = []
        for model in table["model"].unique(maintain_order=True):
            rows = table.filter(pl.col("model") == model).to_dicts()
            worst = min(rows, key=lambda row: row["cosine"])
            parts = [f"with {row['setting']} of the patches dropped {_near(row)}" for row in _at_half_of(rows)]
            parts.append(f"least with {_name(worst)}, {_near(worst)}")
            floor = sum(row["floor"] for row in rows) / len(rows)
            lines.append(
                (
                    model,
                    f"{model} ({rows[0]['feature']}): cosine to the clean image {'; '.join(parts)}; different images "
                    f"have {floor:z.2f}.",
                )
            )
        return by_model(lines)

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say the same of all models at half of the patches."""
        rows = _at_half(tables[self.name])
        if not rows:
            return ""
        values = [(row["model"], row["cosine"], f"{row['cosine']:z.2f}") for row in rows]
        floors = [(row["model"], row["floor"], f"{row['floor']:z.2f}") for row in rows]
        return (
            f"With {rows[0]['setting']} of the patches dropped, cosine to the clean image: {each(values)}; between "
            f"different images: {each(floors)}."
        )

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return the sentences, and what to bear in mind where models were read at different features."""
        said = list(self.answer(tables).values())
        if tables[self.name]["feature"].n_unique() > 1:
            said.append(
                "A cosine is read beside its floor: class tokens of different photos are nearer to each other than "
                "pooled features. Models that were read at different features are not compared; --feature mean_patch "
                "or pooled puts the same question to all."
            )
        return said


def _place(perturbation: str, setting: str) -> tuple[int, float, str, float]:
    """Return what sorts rows: perturbations in their order, levels and grids by number, corruptions as published."""
    kind = _ORDER.index(perturbation) if perturbation in _ORDER else len(_ORDER)
    if perturbation == CORRUPTION:
        name, _, severity = setting.rpartition(" ")
        known = (*CORRUPTIONS, *EXTRA)
        return kind, float(known.index(name) if name in known else len(known)), name, float(severity)
    number = setting.removesuffix(" %").partition("x")[0]
    return kind, float(number) if number.replace(".", "", 1).isdigit() else 0.0, setting, 0.0


def _at_half(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Return each model's row at the level of occlusion nearest to half."""
    found: list[dict[str, Any]] = []
    for model in table["model"].unique(maintain_order=True):
        found += _at_half_of(table.filter(pl.col("model") == model).to_dicts())
    return found


def _at_half_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dropped = [row for row in rows if row["perturbation"] == OCCLUSION]
    return [min(dropped, key=lambda row: abs(float(row["setting"].removesuffix(" %")) - 50))] if dropped else []


def _name(row: dict[str, Any]) -> str:
    setting = row["setting"].replace("_", " ")
    words = {OCCLUSION: "{} dropped", SHUFFLE: "{} shuffled cells", POSITION: "the image {}"}
    return words.get(str(row["perturbation"]), "{}").format(setting)


def _near(row: dict[str, Any]) -> str:
    return f"{row['cosine']:z.2f}{ends(row, 'cosine', 2)} (rank {row['rank']:z.1f} of {row['among']:,})"
